from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from clipfold import files


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    files.write_whole(target, b"old")
    with pytest.raises(RuntimeError), files.writing_whole(target) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]
    with files.writing_whole(target) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_json_is_the_same_bytes_for_the_same_value(tmp_path: Path) -> None:
    value = {"b": 1.5, "a": ["ä", None]}
    files.write_json(tmp_path / "1.json", value)
    files.write_json(tmp_path / "2.json", value)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert files.read_json(tmp_path / "1.json") == value
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "3.json", float("nan"))
    assert not (tmp_path / "3.json").exists()


@pytest.mark.parametrize("kind", ["path", "url"])
def test_bytes_of_a_path_or_a_url(tmp_path: Path, kind: str) -> None:
    data = bytes(range(100))
    location: files.Location = tmp_path / "a.bin"
    if kind == "url":
        location = "memory://test_files/a.bin"
        with fsspec.open(location, "wb") as file:
            file.write(data)
    else:
        files.write_whole(location, data)
    assert files.is_url(location) == (kind == "url")
    assert files.exists(location)
    assert not files.exists(f"{location}.not")
    assert files.read_bytes(location) == data
    assert files.read_bytes(location, offset=10, size=5) == data[10:15]
    assert files.read_bytes(location, offset=0, size=5) == data[:5]
    assert files.read_bytes(location, offset=90) == data[90:]
    with pytest.raises(FileNotFoundError):
        files.read_bytes(f"{location}.not")


def test_join_and_name() -> None:
    assert files.join("s3://bucket/corpus/", "train", "/a.tar") == "s3://bucket/corpus/train/a.tar"
    assert files.name_of("s3://bucket/corpus/") == "corpus"


def test_open_bytes_reads_paths_and_urls(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123")
    fsspec.filesystem("memory").pipe_file("/open-bytes/a", b"0123")
    for location in (tmp_path / "a", "memory://open-bytes/a", f"file://{tmp_path}/a"):
        with files.open_bytes(location) as file:
            assert (file.read(3), file.read(3), file.read(3)) == (b"012", b"3", b"")
    for missing in (tmp_path / "b", "memory://open-bytes/b"):
        with pytest.raises(FileNotFoundError):
            files.open_bytes(missing)
