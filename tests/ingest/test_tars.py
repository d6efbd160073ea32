from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import SourceError
from clipfold.ingest.places import source_state
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.sources import Found, find_sources


def write_tar(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def video_bytes(folder: Path, made: SimpleNamespace, num_frames: int = 20) -> bytes:
    return Path(made.write_number_video(folder, "mp4-bframes", num_frames=num_frames)).read_bytes()


def png(made: SimpleNamespace, number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(made.number_picture(number)).save(file, "png")
    return file.getvalue()


def numbers(found: Found, made: SimpleNamespace) -> dict[str, list[int]]:
    options = ReadOptions(spec=ClipSpec(num_frames=5, height=32, width=96))
    out = {}
    for source in found.sources:
        with read_clips(source, options) as reader:
            out[source.name] = [made.read_number(frame) for clip in reader for frame in clip.pixels_SHWC]
    return out


def test_what_video2dataset_writes(tmp_path: Path, made: SimpleNamespace) -> None:
    """<key>.mp4, <key>.json with fields of its own, <key>.txt with the caption."""
    data = video_bytes(tmp_path, made)
    meta = {"key": "000000001", "url": "u", "width": 96, "clips": [[0, 1]], "error_message": None, "caption": "a b"}
    members = {}
    for number in range(2):
        key = f"00000000{number}"
        members |= {f"{key}.mp4": data, f"{key}.json": json.dumps(meta).encode(), f"{key}.txt": b"a b\n"}
    path = write_tar(tmp_path / "00000.tar", members)
    found = find_sources(path)
    assert [(s.name, s.kind, s.content, s.label) for s in found.sources] == [
        ("00000.tar/000000000", "sample", "video", None),
        ("00000.tar/000000001", "sample", "video", None),
    ]
    assert dict(found.sources[0].columns) == {
        "caption": "a b",
        "clips": "[[0, 1]]",
        "error_message": "",
        "key": "000000001",
        "txt": "a b",
        "url": "u",
        "user_width": 96,
    }
    assert numbers(found, made) == {source.name: list(range(20)) for source in found.sources}
    source = found.sources[1]
    assert source_state(source) == (source.num_bytes, source.mtime_ns) == (len(data), path.stat().st_mtime_ns)


def test_frames_arrays_and_labels(tmp_path: Path, made: SimpleNamespace) -> None:
    array = io.BytesIO()
    np.save(array, np.stack([made.number_picture(number).transpose(2, 0, 1) for number in range(5)]))
    members = {f"walk/a.{number}.png": png(made, number) for number in (10, 2, 1, 33, 4)}
    members |= {"walk/a.cls": b"3\n", "b.npy": array.getvalue(), "b.json": b'{"label": "run", "split": "valid"}'}
    members |= {"c.jpg": png(made, 7), "c.cls": b"x", "c.json": b'{"class": 5, "group": "g"}'}
    (tmp_path / "folder").mkdir()
    write_tar(tmp_path / "folder" / "s.tar", members, format=tarfile.GNU_FORMAT)
    found = find_sources(tmp_path)
    assert [(s.name, s.content, s.label, s.split, s.group) for s in found.sources] == [
        ("folder/s.tar/b", "array", "run", "val", "folder/s.tar/b"),
        ("folder/s.tar/c", "frames", "5", None, "g"),
        ("folder/s.tar/walk/a", "frames", "3", None, "folder/s.tar/walk/a"),
    ]
    assert numbers(found, made) == {
        "folder/s.tar/b": [0, 1, 2, 3, 4],
        "folder/s.tar/c": [7, 7, 7, 7, 7],
        "folder/s.tar/walk/a": [1, 2, 4, 10, 33],
    }


def test_the_stock_writer_and_a_pattern(tmp_path: Path, made: SimpleNamespace) -> None:
    import webdataset

    data = video_bytes(tmp_path, made, num_frames=5)
    for number in range(8, 11):
        with webdataset.TarWriter(str(tmp_path / f"t-{number:03d}.tar")) as writer:
            writer.write({"__key__": "k" * 150, "mp4": data, "cls": number, "json": {"label": ""}})
    found = find_sources(str(tmp_path / "t-{008..010}.tar"))
    assert [(s.name, s.label) for s in found.sources] == [(f"t-{n:03d}.tar/{'k' * 150}", str(n)) for n in range(8, 11)]
    assert set(map(tuple, numbers(found, made).values())) == {(0, 1, 2, 3, 4)}
    with pytest.raises(SourceError, match="the tar is not there"):
        find_sources(str(tmp_path / "t-{010..011}.tar"))


def hostile(path: Path, data: bytes) -> None:
    with tarfile.open(path, "w") as archive:
        for name, kind in [
            ("good.mp4", tarfile.REGTYPE),
            ("../../out.mp4", tarfile.REGTYPE),
            ("/etc/out.mp4", tarfile.REGTYPE),
            ("a/../../b.mp4", tarfile.REGTYPE),
            ("link.mp4", tarfile.SYMTYPE),
            ("hard.mp4", tarfile.LNKTYPE),
            ("device.mp4", tarfile.CHRTYPE),
            ("pipe.mp4", tarfile.FIFOTYPE),
            ("folder.mp4", tarfile.DIRTYPE),
            ("good.mp4", tarfile.REGTYPE),
            ("noextension", tarfile.REGTYPE),
            (".mp4", tarfile.REGTYPE),
        ]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            entry.size = len(data) if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(data))


def test_hostile_members_are_ignored_by_name(tmp_path: Path, made: SimpleNamespace) -> None:
    data = video_bytes(tmp_path, made, num_frames=5)
    hostile(tmp_path / "h.tar", data)
    before = sorted(path for path in tmp_path.parent.rglob("*"))
    found = find_sources(tmp_path / "h.tar")
    assert [source.name for source in found.sources] == ["h.tar/good"]
    assert sorted(ignored.name for ignored in found.ignored) == [
        "h.tar/../../out.mp4",
        "h.tar/.mp4",
        "h.tar/a/../../b.mp4",
        "h.tar/device.mp4",
        "h.tar/etc/out.mp4",
        "h.tar/good.mp4",
        "h.tar/hard.mp4",
        "h.tar/link.mp4",
        "h.tar/noextension",
        "h.tar/pipe.mp4",
    ]
    assert numbers(found, made) == {"h.tar/good": [0, 1, 2, 3, 4]}
    assert sorted(path for path in tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda data: data[:-10240].rstrip(b"\0"), "cut short|unexpected end"),
        (lambda data: data[:1536] + b"\xff" * 512 + data[2048:], "cannot be read as a tar"),
        (lambda data: b"", "empty"),
        (lambda data: b"no tar at all" * 100, "cannot be read as a tar"),
        (lambda data: data[:124] + b"77777777777\0" + data[136:], "cannot be read as a tar"),
    ],
)
def test_damaged_tars(tmp_path: Path, damage: Any, message: str) -> None:
    path = write_tar(tmp_path / "d.tar", {f"{n}.mp4": bytes([n]) * 700 for n in range(20)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=message) as caught:
        find_sources(path)
    assert caught.value.file == str(path)


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "z.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.mp4"))
    with pytest.raises(SourceError, match="cannot be read as a tar"):
        find_sources(tmp_path / "z.tar")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.mp4": b"x", "a.json": b"{"}, "sample 'a'"),
        ({"a.mp4": b"x", "a.json": b"[" * 100_000}, "sample 'a'"),
        ({"a.mp4": b"x", "a.json": b'{"split": "noon"}'}, "split 'noon'"),
        ({"a.mp4": b"x", "a.cls": b"\xff\xfe"}, "sample 'a'"),
        ({"a.txt": b"x"}, "nothing to read"),
        ({"a.exe": b"x"}, "no video, image or array among: exe"),
    ],
)
def test_samples_that_say_nonsense(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        find_sources(write_tar(tmp_path / "a.tar", members))


def test_a_tar_that_changed_is_seen(tmp_path: Path, made: SimpleNamespace) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.mp4": video_bytes(tmp_path, made)})
    source = find_sources(path).sources[0]
    path.write_bytes(b"short")
    state = source_state(source)
    assert state is not None
    assert state != (source.num_bytes, source.mtime_ns)
    with pytest.raises(SourceError, match="the tar has changed"):
        read_clips(source, ReadOptions())
    path.unlink()
    assert source_state(source) is None
