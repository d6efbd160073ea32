"""Ranges of files and URLs as bytes, straight into the memory they are for.

Local files are read with ``preadv`` through descriptors that stay open; URLs through fsspec, where ranges that lie
close together become one request and several requests are under way at once.
"""

from __future__ import annotations

import os
import resource
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clipfold.errors import ShardError

__all__ = ["Storage", "merge_ranges", "read_exactly"]

MAX_GAP_BYTES = 1 << 16  # what lies between two samples of a tar (headers, .cls, .json) costs less than a request
MAX_RANGE_BYTES = 1 << 26

_CUT_SHORT = "the shard was cut short; copy it again, or run the same `clipfold convert` command again"


class Storage:
    """Open files and file systems, shared by all threads of a stream.

    Args:
        max_open_files: Descriptors that stay open; ``None`` for a quarter of what the process may have, at most 512.
            Threads that all read other files at one moment may open a few more.
    """

    def __init__(self, *, max_open_files: int | None = None) -> None:
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.max_open_files = max_open_files or max(4, min(512, allowed // 4))
        self._lock = threading.Lock()
        self._open: OrderedDict[str, list[int]] = OrderedDict()  # location -> [descriptor, readers]; least used first
        self._finalizer = weakref.finalize(self, _close_all, self._open)

    @contextmanager
    def opened(self, location: str) -> Iterator[int]:
        """The descriptor of a local file, which stays open at least until the block ends.

        Raises:
            ShardError: The file is not there or cannot be opened.
        """
        entry = self._acquire(location)
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1

    def _acquire(self, location: str) -> list[int]:
        with self._lock:
            entry = self._open.get(location)
            if entry is not None:
                entry[1] += 1
                self._open.move_to_end(location)
                return entry
        try:
            descriptor = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(error, location) from error
        with self._lock:
            entry = self._open.setdefault(location, [descriptor, 0])
            entry[1] += 1
            if entry[0] != descriptor:
                os.close(descriptor)  # another thread was faster
            self._close_idle()
            return entry

    def _close_idle(self) -> None:
        for location in list(self._open):
            if len(self._open) <= self.max_open_files:
                return
            if not self._open[location][1]:
                os.close(self._open.pop(location)[0])

    def read_ranges(self, location: str, offsets: Sequence[int], sizes: Sequence[int]) -> list[memoryview | ShardError]:
        """Ranges of a URL, neighbours in one request.

        Args:
            location: The URL.
            offsets: Rising.
            sizes: As many, in bytes.

        Returns:
            For each range its bytes, or the error that kept them away.
        """
        import fsspec

        starts, stops, range_of = merge_ranges(offsets, sizes)
        try:
            filesystem, path = fsspec.core.url_to_fs(location)  # fsspec keeps the file systems themselves
            found = filesystem.cat_ranges([path] * len(starts), starts, stops, on_error="return")
        except Exception as error:
            found = [error] * len(starts)
        out: list[memoryview | ShardError] = []
        for offset, size, number in zip(offsets, sizes, range_of, strict=True):
            data = found[number]
            if isinstance(data, BaseException):
                out.append(_unreadable(data, location, offset=offset))
                continue
            piece = memoryview(data)[offset - starts[number] :][:size]
            out.append(piece if len(piece) == size else _short(len(piece), size, location, offset))
        return out

    def close(self) -> None:
        """Close what is open. Reading opens it again."""
        with self._lock:
            _close_all(self._open)


def read_exactly(descriptor: int, buffers: list[memoryview], offset: int, location: str) -> None:
    """Fill ``buffers``, one after the other, from ``offset`` on.

    Raises:
        ShardError: The file ends before, or the system cannot read it.
    """
    size = sum(map(len, buffers))
    done = 0
    while done < size:
        try:
            got = os.preadv(descriptor, buffers, offset + done)
        except OSError as error:
            raise _unreadable(error, location, offset=offset + done) from error
        done += got
        if done == size:
            return
        if got == 0:
            raise _short(done, size, location, offset)
        buffers = _rest(buffers, got)


def merge_ranges(offsets: Sequence[int], sizes: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Put ranges that lie close together into one.

    Args:
        offsets: Rising.
        sizes: As many.

    Returns:
        Starts and stops of the merged ranges, and for each range given the number of the one that holds it.
    """
    starts: list[int] = []
    stops: list[int] = []
    range_of: list[int] = []
    for offset, size in zip(offsets, sizes, strict=True):
        stop = offset + size
        near = starts and offset <= stops[-1] + MAX_GAP_BYTES and stop - starts[-1] <= MAX_RANGE_BYTES
        if near:
            stops[-1] = max(stops[-1], stop)
        else:
            starts.append(offset)
            stops.append(stop)
        range_of.append(len(starts) - 1)
    return starts, stops, range_of


def _rest(buffers: list[memoryview], done: int) -> list[memoryview]:
    out = []
    for buffer in buffers:
        skipped = min(done, len(buffer))
        done -= skipped
        if skipped < len(buffer):
            out.append(buffer[skipped:])
    return out


def _unreadable(error: BaseException, location: str, *, offset: int | None = None) -> ShardError:
    if isinstance(error, FileNotFoundError):
        what, fix = "shard is not there", "copy the corpus whole, or run the same `clipfold convert` command again"
    else:
        detail = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        what = f"shard cannot be read: {type(error).__name__}: {detail}"
        fix = "check the disk, the network and the permissions"
    made = ShardError(what, fix=fix, shard=location, offset=offset)
    made.__cause__ = error
    return made


def _short(found: int, size: int, location: str, offset: int) -> ShardError:
    return ShardError(
        f"shard ends inside a sample: {found:,} bytes, expected {size:,}", fix=_CUT_SHORT, shard=location, offset=offset
    )


def _close_all(files: OrderedDict[str, list[int]]) -> None:
    while files:
        os.close(files.popitem()[1][0])
