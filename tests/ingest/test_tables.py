from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import SourceError
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.sources import Found, find_sources


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for name in ("a.mp4", "sub/b.avi", "c.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    (tmp_path / "frames").mkdir()
    for number in (10, 2):
        Image.new("L", (4, 4)).save(tmp_path / "frames" / f"{number}.png")
    return tmp_path


def table(folder: Path, text: str, name: str = "t.csv", **options: Any) -> Found:
    (folder / name).write_text(text)
    return find_sources(folder / name, **options)


def test_every_kind_of_row(media: Path) -> None:
    found = table(
        media,
        "path,label,split,group,score,note\n"
        "a.mp4,walk,train,g1,1,x\n"
        "sub/b.avi,run,validation,g2,2.5,\n"
        "c.npy,,,,,\n"
        f"{media}/frames,walk,TEST,,3,y\n",
    )
    assert [(s.name, s.kind, s.label, s.split, s.group) for s in found.sources] == [
        ("a.mp4", "video", "walk", "train", "g1"),
        ("c.npy", "array", None, None, "c.npy"),
        ("frames", "frames", "walk", "test", "frames"),
        ("sub/b.avi", "video", "run", "val", "g2"),
    ]
    assert [dict(s.columns) for s in found.sources] == [
        {"note": "x", "score": 1.0},
        {"note": "", "score": 0.0},
        {"note": "y", "score": 3.0},
        {"note": "", "score": 2.5},
    ]
    assert found.sources[2].frames == ("2.png", "10.png")
    video = found.sources[0]
    assert (video.num_bytes, video.mtime_ns) == (5, (media / "a.mp4").stat().st_mtime_ns)


ROWS = [
    {"video": "a.mp4", "label": "walk", "time_start": 1, "time_end": 2.5, "split": "validate", "n": 7},
    {"video": "a.mp4", "label": "walk", "time_start": 3, "time_end": None, "split": "validate", "n": 8},
]


def write_rows(path: Path) -> None:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        sign = "\t" if path.suffix == ".tsv" else ";"
        lines = [list(ROWS[0]), *[["" if value is None else str(value) for value in row.values()] for row in ROWS]]
        path.write_bytes(("\ufeff" + "\r\n".join(sign.join(line) for line in lines)).encode())


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "parquet"])
def test_all_formats_say_the_same(media: Path, extension: str, skip_without: Any) -> None:
    if extension == "parquet":
        pytest.importorskip("pyarrow")
    write_rows(media / f"t.{extension}")
    found = find_sources(media / f"t.{extension}").sources
    assert [(s.name, s.start_seconds, s.stop_seconds, s.label, s.split, s.group) for s in found] == [
        ("a.mp4@1-2.5", 1.0, 2.5, "walk", "val", "a.mp4"),
        ("a.mp4@3-", 3.0, None, "walk", "val", "a.mp4"),
    ]
    assert [dict(s.columns) for s in found] == [{"n": 7}, {"n": 8}]


def test_another_root_and_other_names(media: Path) -> None:
    (media / "lists").mkdir()
    found = table(
        media / "lists", "clip id,kind\na.mp4,walk\n", media_root=media, columns={"path": "clip id", "label": "kind"}
    )
    assert [(s.name, s.path, s.label) for s in found.sources] == [("a.mp4", str(media / "a.mp4"), "walk")]
    with pytest.raises(ValueError, match="are for tables"):
        find_sources(media, media_root=media)


def test_what_is_missing_or_listed_twice_is_named(media: Path) -> None:
    found = table(media, "path,label\na.mp4,x\ngone.mp4,x\na.mp4,y\nframes/2.png,x\nsub,x\n,x\n")
    assert [s.name for s in found.sources] == ["a.mp4"]
    assert {i.name: i.reason for i in found.ignored} == {
        "gone.mp4": "row 3: no such file or folder",
        "a.mp4": "row 4: listed already in row 2",
        "frames/2.png": "row 5: a single image: give its folder",
        "sub": "row 6: a folder without images",
        "(nothing)": "row 7: no path in this row",
    }
    with pytest.raises(SourceError, match=r"gone\.mp4: row 2: no such file"):
        table(media, "path\ngone.mp4\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,who\nx,y\n", "no column of paths: found 'label', 'who', expected one of path, file"),
        ("path\n", "no rows"),
        ("", "no rows"),
        ("path,start\na.mp4,soon\n", "row 2: start is 'soon', expected seconds"),
        ("path,start,stop\na.mp4,5,5\n", "row 2: a part from 5.0 to 5.0 seconds"),
        ("path,start\na.mp4,-1\n", "row 2: a part from -1.0"),
        ("path,split\na.mp4,evening\n", "row 2: split 'evening', expected one of train"),
        ("path,path\na.mp4,b\n", "two columns of one name"),
        ("path\na.mp4,b\n", "line 2 has 2 fields, the header 1"),
        ('path\n"a.mp4\n', "cannot be read as a table"),
        ("path\npipe:ls\n", "a pipe is refused"),
        ("path,group,split\na.mp4,g,train\nsub/b.avi,g,val\n", "group 'g' lies in train and in val"),
    ],
)
def test_what_is_wrong_with_a_table(media: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        table(media, text)
    assert caught.value.file == str(media / "t.csv")


@pytest.mark.parametrize(("name", "text"), [("t.jsonl", "[1]\n"), ("t.jsonl", "{"), ("t.parquet", "PAR1 no")])
def test_broken_tables(media: Path, name: str, text: str) -> None:
    if name == "t.parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(SourceError, match="cannot be read as a table"):
        table(media, text, name)


def test_parts_of_a_video_by_true_time(tmp_path: Path, made: SimpleNamespace) -> None:
    """25 frames a second: the part from 0.4 to 0.8 is frames 10 to 19, whatever the clip before it was."""
    made.write_number_video(tmp_path, "mp4-bframes", num_frames=40)
    found = table(tmp_path, "path,start,stop\nv.mp4,0.4,0.8\nv.mp4,0.8,\nv.mp4,,0.4\nv.mp4,9,10\n").sources
    options = ReadOptions(spec=ClipSpec(num_frames=5, height=32, width=96))
    got = {}
    for source in found[:-1]:
        with read_clips(source, options) as reader:
            got[source.name] = [made.read_number(frame) for clip in reader for frame in clip.pixels_SHWC]
    assert got == {
        "v.mp4@0-0.4": list(range(10)),
        "v.mp4@0.4-0.8": list(range(10, 20)),
        "v.mp4@0.8-": list(range(20, 40)),
    }
    with pytest.raises(SourceError, match=r"no frame from 9 to 10 seconds: it lasts 1\.600 seconds"):
        read_clips(found[-1], options)
