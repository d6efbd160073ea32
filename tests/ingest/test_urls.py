from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import SourceError
from clipfold.ingest import places
from clipfold.ingest.places import Place, source_state, stated
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.sources import Found, find_sources

OPTIONS = ReadOptions(spec=ClipSpec(num_frames=5, height=32, width=96))


@pytest.fixture
def tree(server: SimpleNamespace, made: SimpleNamespace) -> SimpleNamespace:
    """walk/v.mp4, walk/seq/*.png, run/a.npy, run/s.tar and videos.csv, in the folder that is served."""
    for label in ("walk/seq", "run"):
        (server.folder / label).mkdir(parents=True)
    made.write_number_video(server.folder / "walk", "mp4-bframes", num_frames=20)
    for number in range(5):
        Image.fromarray(made.number_picture(number)).save(server.folder / "walk" / "seq" / f"{number}.png")
    np.save(server.folder / "run" / "a.npy", np.stack([made.number_picture(number) for number in range(5)]))
    import tarfile

    with tarfile.open(server.folder / "run" / "s.tar", "w") as archive:
        for number in range(2):
            archive.add(server.folder / "walk" / "v.mp4", f"{number}.mp4")
    (server.folder / "videos.csv").write_text("path,label,start,stop\nwalk/v.mp4,w,0.4,\nwalk/seq,s,,\ngone.mp4,x,,\n")
    return server


def numbers(found: Found, made: SimpleNamespace) -> dict[str, list[int]]:
    out = {}
    for source in found.sources:
        with read_clips(source, OPTIONS) as reader:
            out[source.name] = [made.read_number(frame) for clip in reader for frame in clip.pixels_SHWC]
    return out


EXPECTED = {
    "run/a.npy": [0, 1, 2, 3, 4],
    "run/s.tar/0": list(range(20)),
    "run/s.tar/1": list(range(20)),
    "walk/seq": [0, 1, 2, 3, 4],
    "walk/v.mp4": list(range(20)),
}


@pytest.fixture(params=["http", "memory", "local"])
def root(request: pytest.FixtureRequest, tree: SimpleNamespace) -> Iterator[str]:
    if request.param == "http":
        yield tree.url
    elif request.param == "local":
        yield str(tree.folder)
    else:
        memory = fsspec.filesystem("memory")
        memory.put(str(tree.folder), "/corpus", recursive=True)
        yield "memory://corpus"
        memory.rm("/corpus", recursive=True)


def test_a_tree_is_the_same_wherever_it_is(root: str, made: SimpleNamespace) -> None:
    found = find_sources(root)
    assert numbers(found, made) == EXPECTED
    assert {s.name: s.label for s in found.sources}["walk/seq"] == "walk"
    assert [(i.name, i.reason) for i in found.ignored] == [("videos.csv", "no video or image by its name")]
    for source in found.sources:
        assert source_state(source) == (source.num_bytes, source.mtime_ns)
        assert source.num_bytes
        assert source.mtime_ns


def test_a_table_wherever_it_is(root: str, made: SimpleNamespace) -> None:
    found = find_sources(f"{root}/videos.csv")
    assert numbers(found, made) == {"walk/seq": [0, 1, 2, 3, 4], "walk/v.mp4@0.4-": list(range(10, 20))}
    assert [ignored.name for ignored in found.ignored] == ["gone.mp4"]


def test_one_file_and_shards_by_pattern(root: str, made: SimpleNamespace) -> None:
    assert numbers(find_sources(f"{root}/walk/v.mp4"), made) == {"v.mp4": list(range(20))}
    assert list(numbers(find_sources(f"{root}/run/{{s,s}}.tar"[: len(root) + 5] + "s.tar"), made)) == [
        "s.tar/0",
        "s.tar/1",
    ]


def test_a_change_and_a_loss_are_seen(tree: SimpleNamespace) -> None:
    source = next(source for source in find_sources(tree.url).sources if source.name == "walk/v.mp4")
    path = tree.folder / "walk" / "v.mp4"
    os.utime(path, ns=(1, 1))
    state = source_state(source)
    assert state is not None
    assert state[0] == source.num_bytes
    assert state != (source.num_bytes, source.mtime_ns)
    path.unlink()
    assert source_state(source) is None
    with pytest.raises(SourceError, match="nothing is there") as caught:
        read_clips(source, OPTIONS)
    assert caught.value.file == f"{tree.url}/walk/v.mp4"


def test_large_files_are_read_by_ranges(
    tree: SimpleNamespace, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_WHOLE_BYTES", 0)
    monkeypatch.setattr(places, "_BLOCK_BYTES", 1 << 12)
    found = find_sources(f"{tree.url}/walk/v.mp4")
    tree.requests.clear()
    assert numbers(found, made) == {"v.mp4": list(range(20))}
    spans = [span for path, span in tree.requests if path.endswith("v.mp4")]
    assert spans
    assert all(spans)  # never the whole file
    assert len(spans) == len(set(spans))  # nothing twice


@pytest.mark.parametrize("name", ["no_ranges.mp4", "no_size_no_ranges.mp4"])
def test_a_server_without_ranges(
    tree: SimpleNamespace, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(places, "_WHOLE_BYTES", 0)
    shutil.copy(tree.folder / "walk" / "v.mp4", tree.folder / name)
    assert numbers(find_sources(f"{tree.url}/{name}"), made) == {name: list(range(20))}


def test_what_a_server_refuses_is_named(
    tree: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, made: SimpleNamespace
) -> None:
    monkeypatch.setattr(places, "_WHOLE_BYTES", 0)
    monkeypatch.setattr(places, "_BLOCK_BYTES", 1 << 12)
    shutil.copy(tree.folder / "walk" / "v.mp4", tree.folder / "broken.mp4")
    with pytest.raises(SourceError, match="the server answers 403") as caught:
        read_clips(find_sources(f"{tree.url}/broken.mp4").sources[0], OPTIONS)
    assert caught.value.file == f"{tree.url}/broken.mp4"
    for missing in ("gone.mp4", "gone/", "gone.csv", "gone.tar"):
        with pytest.raises(SourceError) as caught:
            find_sources(f"{tree.url}/{missing}")
        assert missing.rstrip("/") in str(caught.value.file)


def test_no_server_and_no_answer_in_time(tree: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_RETRY_SECONDS", ())
    url = f"{tree.url}/walk/v.mp4"
    source = find_sources(url).sources[0]
    closed = replace(source, path="http://127.0.0.1:9/v.mp4")
    for ask in (source_state, lambda source: read_clips(source, OPTIONS), lambda source: find_sources(source.path)):
        with pytest.raises(SourceError, match="cannot be read"):  # which is not: nothing is there
            ask(closed)
    with pytest.raises(SourceError, match=r"cannot be read|package is missing"):
        find_sources("nosuchprotocol://a/b.mp4")

    def times_out(*args: Any, **options: Any) -> bytes:
        raise TimeoutError

    monkeypatch.setattr("clipfold.ingest.places.read_bytes", times_out)
    with pytest.raises(SourceError, match="TimeoutError: no answer in time") as caught:
        Place(f"{tree.url}/videos.csv").read()
    assert caught.value.file == f"{tree.url}/videos.csv"


def test_a_passing_failure_is_tried_again(tree: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_RETRY_SECONDS", (0.0, 0.0))
    num_calls = 0

    def fails_twice(*args: Any, **options: Any) -> bytes:
        nonlocal num_calls
        num_calls += 1
        if num_calls < 3:
            raise ConnectionResetError("reset")
        return b"here"

    monkeypatch.setattr("clipfold.ingest.places.read_bytes", fails_twice)
    assert Place(f"{tree.url}/videos.csv").read() == b"here"


def test_arrays_behind_a_url_are_read_frame_by_frame(tree: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_WHOLE_BYTES", 0)
    monkeypatch.setattr(places, "_BLOCK_BYTES", 1 << 10)
    pixels = np.random.default_rng(0).integers(0, 65536, (50, 8, 32), dtype=np.uint16)
    np.save(tree.folder / "big.npy", pixels)
    spec = ClipSpec(num_frames=50, channels=1, height=8, width=32, dtype="uint16")
    source = find_sources(f"{tree.url}/big.npy").sources[0]
    with read_clips(source, ReadOptions(spec=spec)) as reader:
        np.testing.assert_array_equal(next(reader).pixels_SHWC[..., 0], pixels)


def test_what_file_systems_say() -> None:
    assert stated({"size": 3, "mtime": 1.5}) == (3, 1_500_000_000)
    assert stated({"size": 3, "ETag": '"a"'}) == stated({"Size": 3, "etag": '"a"', "mtime": 7})
    assert stated({"size": 3, "ETag": '"a"'}) != stated({"size": 3, "ETag": '"b"'})
    assert 0 < stated({"ETag": "x"})[1] < 1 << 63
    assert stated({}) == (0, 0)
