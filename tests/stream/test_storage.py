"""Bytes into place: exact, or a clear error."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfold.errors import ShardError
from clipfold.stream import storage as module
from clipfold.stream.storage import Storage, merge_ranges, read_exactly


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(bytes(range(100)))
    preadv = os.preadv

    def a_few(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return preadv(descriptor, [buffers[0][:7]], offset)

    monkeypatch.setattr(module.os, "preadv", a_few)
    one, two = bytearray(10), bytearray(25)
    storage = Storage()
    with storage.opened(str(tmp_path / "f")) as descriptor:
        read_exactly(descriptor, [memoryview(one), memoryview(two)], 30, "f")
        assert bytes(one + two) == bytes(range(30, 65))
        with pytest.raises(ShardError, match="20 bytes, expected 35"):
            read_exactly(descriptor, [memoryview(one), memoryview(two)], 80, "f")
    storage.close()


def test_open_files_are_bounded_and_never_closed_while_read(tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        paths.append(str(tmp_path / f"{number}"))
        Path(paths[-1]).write_bytes(bytes([number]) * 50)
    storage = Storage(max_open_files=3)
    wrong: list[int] = []

    def read(start: int) -> None:
        for turn in range(300):
            number = (start + turn * 5) % 12
            buffer = bytearray(50)
            with storage.opened(paths[number]) as descriptor:
                read_exactly(descriptor, [memoryview(buffer)], 0, paths[number])
            if set(buffer) != {number}:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(storage._open) <= 3 + 4
    before = len(os.listdir("/proc/self/fd"))
    storage.close()
    assert len(os.listdir("/proc/self/fd")) < before
    with storage.opened(paths[0]):  # opens again
        pass
    storage.close()


def test_files_are_closed_with_their_storage(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    storage = Storage()
    with storage.opened(str(tmp_path / "f")) as descriptor:
        pass
    del storage
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@given(
    ranges=st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 500)), max_size=20).map(
        lambda pairs: [(sum(gap for gap, _ in pairs[: i + 1]), size) for i, (_, size) in enumerate(pairs)]
    )
)
def test_merged_ranges_hold_what_they_replace(ranges: list[tuple[int, int]]) -> None:
    starts, stops, range_of = merge_ranges([offset for offset, _ in ranges], [size for _, size in ranges])
    assert len(range_of) == len(ranges)
    for (offset, size), number in zip(ranges, range_of, strict=True):
        assert starts[number] <= offset
        assert offset + size <= stops[number]
    assert all(start - stop > module.MAX_GAP_BYTES for start, stop in zip(starts[1:], stops, strict=False))


def test_ranges_of_a_url() -> None:
    data = bytes(range(256)) * 1000
    fsspec.filesystem("memory").pipe_file("/clipfold-storage/f", data)
    storage = Storage()
    found = storage.read_ranges("memory://clipfold-storage/f", [5, 300, 200_000, 255_990], [10, 20, 30, 40])
    assert [bytes(piece) for piece in found[:3] if not isinstance(piece, ShardError)] == [
        data[5:15],
        data[300:320],
        data[200_000:200_030],
    ]
    assert isinstance(found[3], ShardError)
    assert "10 bytes, expected 40" in str(found[3])
    missing = storage.read_ranges("memory://clipfold-storage/none", [0, 10**6], [1, 1])
    assert all(isinstance(error, ShardError) and "not there" in error.what for error in missing)
