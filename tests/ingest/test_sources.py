from __future__ import annotations

import io
import json
import os
import random
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipfold.errors import SourceError
from clipfold.ingest.sources import find_sources, natural_key


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("L", (4, 4)).save(path)
        else:
            path.write_bytes(b"x")


def names(root: Path, **options: object) -> list[str]:
    return [source.name for source in find_sources(root, **options).sources]  # type: ignore[arg-type]


def reasons(root: Path) -> dict[str, str]:
    return {ignored.name: ignored.reason for ignored in find_sources(root).ignored}


def test_both_kinds_mixed_in_one_tree(tmp_path: Path) -> None:
    touch(tmp_path, "walk/b.mp4", "walk/seq/f_10.png", "walk/seq/f_2.png", "run/deep/a.MKV", "top.avi", "loose/1.png")
    found = find_sources(tmp_path)
    assert [(s.name, s.kind, s.label, s.split) for s in found.sources] == [
        ("loose", "frames", None, None),
        ("run/deep/a.MKV", "video", "run", None),
        ("top.avi", "video", None, None),
        ("walk/b.mp4", "video", "walk", None),
        ("walk/seq", "frames", "walk", None),
    ]
    assert not found.ignored
    sequence = found.sources[-1]
    assert sequence.frames == ("f_2.png", "f_10.png")
    files = [tmp_path / "walk/seq" / name for name in sequence.frames]
    assert sequence.num_bytes == sum(file.stat().st_size for file in files)
    assert sequence.mtime_ns == max(file.stat().st_mtime_ns for file in files)
    assert sequence.group == sequence.name
    assert sequence.path == str(tmp_path / "walk/seq")


def test_root_as_a_sequence_and_as_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    assert names(tmp_path) == ["."]
    touch(tmp_path / "other", "v.mp4")
    assert names(tmp_path / "other" / "v.mp4") == ["v.mp4"]
    with pytest.raises(SourceError, match="a single image: give its folder"):
        find_sources(tmp_path / "1.png")


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/walk/a.mp4", "val/walk/b.mp4", "test/c.mp4", "train/walk/seq/1.png", "train/empty/x.txt")
    found = find_sources(tmp_path)
    assert [(s.name, s.label, s.split) for s in found.sources] == [
        ("test/c.mp4", None, "test"),
        ("train/walk/a.mp4", "walk", "train"),
        ("train/walk/seq", "walk", "train"),
        ("val/walk/b.mp4", "walk", "val"),
    ]
    assert reasons(tmp_path)["train/empty"] == "a folder without videos or images"


def test_split_names_beside_others_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.mp4", "bus/b.mp4")
    assert [(s.label, s.split) for s in find_sources(tmp_path).sources] == [("bus", None), ("train", None)]


def test_what_is_ignored_is_named_but_hidden_files_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "both/v.mp4", "both/1.png", "both/2.png", "seq/1.png", "seq/notes.txt", ".hidden/v.mp4", "seq/.DS")
    touch(tmp_path, "nothing/readme.md")
    assert names(tmp_path) == ["both/v.mp4", "seq"]
    assert reasons(tmp_path) == {
        "both/1.png": "an image in a folder of videos",
        "both/2.png": "an image in a folder of videos",
        "nothing": "a folder without videos or images",
        "nothing/readme.md": "no video or image by its name",
        "seq/notes.txt": "no video or image by its name",
    }


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_an_animated_image_is_a_video_and_a_still_one_a_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(3)]
    (tmp_path / "a").mkdir()
    frames[0].save(tmp_path / f"a/moving.{suffix}", save_all=True, append_images=frames[1:])
    (tmp_path / "b").mkdir()
    frames[0].save(tmp_path / f"b/still.{suffix}")
    assert [(s.name, s.kind) for s in find_sources(tmp_path).sources] == [
        (f"a/moving.{suffix}", "video"),
        ("b", "frames"),
    ]


def test_links_are_followed_once_never_in_a_circle_never_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "src", tmp_path / "outside"
    touch(root, "a/v.mp4", "a/seq/1.png")
    touch(outside, "w.mp4", "seq2/1.png")
    os.symlink(root / "a" / "v.mp4", root / "a" / "again.mp4")
    os.symlink(root, root / "a" / "circle")
    os.symlink(root / "a" / "seq", root / "0seq")
    os.symlink(outside, root / "out")
    os.symlink(outside / "w.mp4", root / "a" / "w.mp4")
    os.symlink(root / "gone", root / "a" / "broken.mp4")
    assert names(root) == ["a/seq", "a/v.mp4"]
    why = reasons(root)
    assert sorted(why) == ["0seq", "a/again.mp4", "a/broken.mp4", "a/circle", "a/w.mp4", "out"]
    assert all("listed already" in why[name] for name in ("a/again.mp4", "0seq", "a/circle"))
    assert "nowhere" in why["a/broken.mp4"]
    assert "out of" in why["out"]
    assert names(root, follow_outside=True) == ["a/seq", "a/v.mp4", "a/w.mp4", "out/seq2"]


def test_globs_and_limit(tmp_path: Path) -> None:
    touch(tmp_path, *[f"{label}/v{i}.{end}" for label in ("x", "y") for i in range(3) for end in ("mp4", "avi")])
    assert len(names(tmp_path)) == 12
    assert names(tmp_path, include=["*.avi"], exclude=["y/*"]) == ["x/v0.avi", "x/v1.avi", "x/v2.avi"]
    assert names(tmp_path, limit=3) == ["x/v0.avi", "x/v0.mp4", "y/v0.avi"]
    with pytest.raises(SourceError, match="none of the 12 sources passes"):
        find_sources(tmp_path, include=["*.webm"])
    with pytest.raises(ValueError, match="limit"):
        find_sources(tmp_path, limit=0)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the folder is empty"):
        find_sources(tmp_path)
    with pytest.raises(SourceError, match="no such file or folder"):
        find_sources(tmp_path / "missing")
    touch(tmp_path, "class/readme.txt")
    with pytest.raises(SourceError, match=r"class/readme\.txt: no video or image"):
        find_sources(tmp_path)


def test_a_name_that_is_not_utf8_is_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    try:
        (Path(os.fsencode(tmp_path).decode()) / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    assert names(tmp_path) == ["a.mp4"]
    assert "a name that is not UTF-8" in reasons(tmp_path).values()


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2))
def test_numbers_sort_as_numbers(numbers: list[int]) -> None:
    ordered = sorted((f"frame_{number}.png" for number in numbers), key=natural_key)
    assert ordered == [f"frame_{number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(alphabet="a1_.0", max_size=6), unique=True), st.randoms())
def test_natural_order_is_total(texts: list[str], shuffling: random.Random) -> None:
    shuffled = list(texts)
    shuffling.shuffle(shuffled)
    assert sorted(texts, key=natural_key) == sorted(shuffled, key=natural_key)


@pytest.mark.parametrize("given", ["corpus", "corpus/train", "corpus/train/train-000000.tar", "moved", "above"])
def test_a_corpus_of_clips_is_refused(tmp_path: Path, given: str) -> None:
    touch(tmp_path, "corpus/dataset.json", "corpus/train/shards.npy", "corpus/train/train-000000.index.npy")
    shard = tmp_path / "corpus/train/train-000000.tar"
    meta = {"source": "a.mp4", "start": 0, "step": 1, "count": 2, "indices": [0, 1], "num_valid_frames": 2}
    with tarfile.open(shard, "w") as tar:
        for name, data in (("0-0.json", json.dumps(meta).encode()), ("0-0.mp4", b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    (tmp_path / "moved").mkdir()
    shutil.copy(shard, tmp_path / "moved")
    touch(tmp_path, "above/videos/a.mp4")
    shutil.copytree(tmp_path / "corpus", tmp_path / "above" / "corpus")
    with pytest.raises(SourceError, match="this is a clipfold corpus") as caught:
        find_sources(tmp_path / given)
    assert caught.value.fix == "clipfold repack IN --out OUT changes it"
    if given == "corpus":
        with pytest.raises(SourceError, match="this is a clipfold corpus"):
            find_sources((tmp_path / given).as_uri().replace("file://", "local://"))


def test_folders_without_sources_do_not_make_splits_into_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/x/v.mp4", "val/y/v.mp4", ".cache/v.mp4", "notes/readme.md")
    (tmp_path / "dev").mkdir()
    assert [(s.label, s.split) for s in find_sources(tmp_path).sources] == [("x", "train"), ("y", "val")]
    assert reasons(tmp_path)["dev"] == "a folder without videos or images"


def test_splits_beside_other_folders_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "train/x/v.mp4", "val/y/v.mp4", "dev/x/v.mp4")
    for location in (tmp_path, f"local://{tmp_path}"):
        with pytest.raises(SourceError, match="train/, val/ look like splits, but beside them lie dev/") as caught:
            find_sources(location)
        assert "--exclude" in caught.value.fix
    found = find_sources(tmp_path, exclude=["dev/*"])
    assert [(s.label, s.split) for s in found.sources] == [("x", "train"), ("y", "val")]
    assert [(s.label, s.split) for s in find_sources(tmp_path, include=["dev/*"]).sources] == [("dev", None)]


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "x/v.mp4")
    (tmp_path / "y").mkdir()
    assert reasons(tmp_path) == {"y": "a folder without videos or images"}
