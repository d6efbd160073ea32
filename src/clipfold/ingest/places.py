"""Where the bytes of a file are (on a local disk, behind a URL, inside a tar of either) and what state it is in now.

A whole local file is read by whoever decodes it, through its path. Everything else is a file object: behind a URL the
blocks that are asked for are fetched by range requests and kept for a while, so that a second pass over a file that is
not large fetches nothing; of a server that knows no ranges the whole file is fetched once. Whatever goes wrong on the
way is a SourceError that names the URL.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, TypeVar, cast

import xxhash

from clipfold.errors import SourceError
from clipfold.files import is_url, join, read_bytes
from clipfold.ingest.listing import Source

__all__ = [
    "OpenPlace",
    "Place",
    "frame_places",
    "place_of",
    "places_of",
    "source_state",
    "state_of",
    "stated",
    "url_errors",
]

_BLOCK_BYTES = 1 << 22
_MAX_BLOCKS = 16
_WHOLE_BYTES = 1 << 23  # up to here one request for everything
_RETRY_SECONDS = (0.2, 1.0)
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Place:
    """A file, or a part of one.

    Args:
        location: Absolute path or URL.
        member: Name inside the tar that ``location`` is, for messages; ``""`` for a whole file.
        offset: Where it starts in ``location``.
        num_bytes: Its size; ``None`` for a whole file.
    """

    location: str
    member: str = ""
    offset: int = 0
    num_bytes: int | None = None

    def __str__(self) -> str:
        return f"{self.location} ({self.member})" if self.member else self.location

    @property
    def is_plain(self) -> bool:
        """Whether it is a whole local file."""
        return self.num_bytes is None and not is_url(self.location)

    def read(self) -> bytes:
        """All its bytes.

        Raises:
            SourceError: It has gone, or cannot be read.
        """
        with _errors(self.location):
            if is_url(self.location):
                return _tried(lambda: read_bytes(self.location, offset=self.offset, size=self.num_bytes))
            return read_bytes(self.location, offset=self.offset, size=self.num_bytes)


class OpenPlace:
    """A place held open while it is decoded; several readers may look into it in turn.

    Raises:
        SourceError: It has gone, or cannot be opened.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._base: BinaryIO | None = None
        with _errors(place.location):
            if is_url(place.location):
                self._base = _open_url(place.location)
                whole = self._base.seek(0, os.SEEK_END)
            else:
                whole = os.stat(place.location).st_size
                if not place.is_plain:
                    self._base = open(place.location, "rb", buffering=0)  # noqa: SIM115
        self.num_bytes = whole if place.num_bytes is None else place.num_bytes
        if place.offset + self.num_bytes > whole:
            self.close()
            raise SourceError(
                f"the tar has changed since it was listed: {whole:,} bytes, expected at least "
                f"{place.offset + self.num_bytes:,}",
                fix="list the sources again",
                file=place.location,
            )

    def open(self) -> BinaryIO:
        """A seekable file that holds this place alone; closing it leaves the others open."""
        if self._base is None:
            return open(self.place.location, "rb")
        return cast(BinaryIO, _Window(self._base, self.place.offset, self.num_bytes))

    def target(self) -> str | BinaryIO:
        """What FFmpeg can open: a URL of its own for a whole local file, else a file."""
        # file: so that a name with a colon is no URL
        return f"file:{self.place.location}" if self.place.is_plain else self.open()

    def close(self) -> None:
        """Safe to call twice."""
        if self._base is not None:
            self._base.close()


class _Window(io.RawIOBase):
    """A part of an open file, with a position of its own."""

    def __init__(self, base: BinaryIO, offset: int, num_bytes: int) -> None:
        self._base, self._offset, self._num_bytes, self._position = base, offset, num_bytes, 0

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._num_bytes - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        self._base.seek(self._offset + self._position)
        data = self._base.read(wanted) if wanted else b""
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._num_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _RemoteFile(io.RawIOBase):
    """A file behind a URL. The first failure is raised, then it is empty: FFmpeg reads on for a while after one."""

    def __init__(self, url: str, filesystem: Any, path: str) -> None:
        self._url, self._filesystem, self._path = url, filesystem, path
        self._has_failed = False
        self._file: Any = filesystem.open(
            path, "rb", block_size=_BLOCK_BYTES, cache_type="blockcache", cache_options={"maxblocks": _MAX_BLOCKS}
        )
        try:
            self._num_bytes = int(self._file.seek(0, os.SEEK_END))
        except (ValueError, OSError, NotImplementedError):
            self._fetch_whole()

    def read(self, size: int | None = -1) -> bytes:
        if self._has_failed:
            return b""
        try:
            with url_errors(self._url):
                return _tried(lambda: self._read(size))
        except SourceError:
            self._has_failed = True
            raise

    def _read(self, size: int | None) -> bytes:
        position = self._file.tell()
        try:
            return bytes(self._file.read(-1 if size is None else size))
        except ValueError:  # the server gave everything where a range was asked for
            self._fetch_whole()
        except Exception:
            with suppress(Exception):
                self._file.seek(position)
            raise
        self._file.seek(position)
        return bytes(self._file.read(-1 if size is None else size))

    def _fetch_whole(self) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115
        with self._filesystem.open(self._path, "rb", block_size=0) as stream:
            while piece := stream.read(1 << 20):
                file.write(piece)
        self._file.close()
        self._file, self._num_bytes = file, file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._num_bytes}[whence]
        return int(self._file.seek(min(start + offset, self._num_bytes)))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        super().close()


def _open_url(url: str) -> BinaryIO:
    filesystem, path = _filesystem(url)
    size = _tried(lambda: filesystem.info(path)).get("size")
    if size is not None and size <= _WHOLE_BYTES:
        return io.BytesIO(_tried(lambda: filesystem.cat_file(path)))
    return cast(BinaryIO, _tried(lambda: _RemoteFile(url, filesystem, path)))


def place_of(source: Source) -> Place:
    """Where the one file of a video or an array is."""
    if source.kind != "sample":
        return Place(source.path)
    member = source.members[0]
    return Place(source.path, member.name, member.offset, member.num_bytes)


def frame_places(source: Source) -> list[Place]:
    """Where the pictures of a sequence are."""
    if source.kind == "sample":
        return [Place(source.path, member.name, member.offset, member.num_bytes) for member in source.members]
    if is_url(source.path):
        return [Place(join(source.path, name)) for name in source.frames]
    return [Place(os.path.join(source.path, name)) for name in source.frames]


def places_of(source: Source) -> list[Place]:
    """Where all that is read of a source is, in order."""
    return frame_places(source) if source.content == "frames" else [place_of(source)]


def source_state(source: Source) -> tuple[int, int] | None:
    """``num_bytes`` and ``mtime_ns`` of a source as they are now; ``None`` where it has gone.

    Raises:
        SourceError: The server cannot be asked.
        OSError: The file cannot be looked at.
    """
    if source.kind == "sample":
        state = state_of(source.path)
        end = max(member.offset + member.num_bytes for member in source.members)
        return None if state is None else (source.num_bytes if 0 < end <= state[0] else state[0], state[1])
    states = [state_of(place.location) for place in frame_places(source)] or [state_of(source.path)]
    there = [state for state in states if state is not None]
    if len(there) < len(states):
        return None
    return sum(size for size, _ in there), max(stamp for _, stamp in there)


def state_of(location: str) -> tuple[int, int] | None:
    """Size of a file, and what changes when it does; ``None`` where nothing is there."""
    if not is_url(location):
        try:
            status = os.stat(location)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size, status.st_mtime_ns
    filesystem, path = _filesystem(location)
    filesystem.invalidate_cache()
    try:
        with url_errors(location):
            return stated(_tried(lambda: filesystem.info(path)))
    except SourceError as error:
        if isinstance(error.__cause__, FileNotFoundError) and _is_gone(error.__cause__):
            return None
        raise


def stated(entry: dict[str, Any]) -> tuple[int, int]:
    """The same from what a file system says of a file: its ETag where there is one, else a time."""
    named = {name.lower().replace("-", ""): value for name, value in entry.items()}
    size = int(named.get("size") or 0)
    if etag := named.get("etag"):
        return size, xxhash.xxh3_64_intdigest(str(etag).encode()) >> 1
    when = named.get("mtime") or named.get("lastmodified") or named.get("updated") or named.get("created")
    if isinstance(when, datetime):
        when = when.timestamp()
    if isinstance(when, (int, float)):
        return size, round(when * 1e6) * 1000
    return size, xxhash.xxh3_64_intdigest(str(when).encode()) >> 1 if when else 0


@contextmanager
def url_errors(url: str) -> Iterator[None]:
    """Turns whatever a file system raises into a SourceError that names the URL."""
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        raise SourceError(f"a package is missing for such URLs: {error}", file=url) from error
    except Exception as error:
        if isinstance(error, FileNotFoundError) and _is_gone(error):
            raise SourceError("nothing is there (any more)", fix="check the address", file=url) from error
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        status = getattr(cause, "status", None)
        text = f"the server answers {status}" if status else str(cause) or "no answer in time"
        raise SourceError(
            f"cannot be read: {type(cause).__name__}: {text}",
            fix="check the address, the network and the permissions; then run the same command again",
            file=url,
        ) from error


@contextmanager
def _errors(location: str) -> Iterator[None]:
    if is_url(location):
        with url_errors(location):
            yield
        return
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(
            "the file has gone since it was listed", fix="list the sources again", file=location
        ) from error
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", file=location) from error


def _is_gone(error: FileNotFoundError) -> bool:
    """Whether the server said so: fsspec takes a server that cannot be reached for a missing file, too."""
    cause = error.__cause__
    if cause is None or isinstance(cause, FileNotFoundError):
        return True
    status = getattr(cause, "status", None)
    if status is not None:
        return status in (404, 410)
    return not isinstance(cause, OSError) and not type(cause).__module__.startswith("aiohttp")


def _tried(ask: Callable[[], _Value]) -> _Value:
    """What ``ask`` gives; asked again where a server fails that may do better in a moment."""
    for seconds in _RETRY_SECONDS:
        try:
            return ask()
        except (PermissionError, ImportError, SourceError):
            raise
        except Exception as error:
            is_missing = isinstance(error, FileNotFoundError)
            status = getattr(error.__cause__ if is_missing else error, "status", None) or 0
            if 400 <= status < 500 or (is_missing and _is_gone(error)):  # type: ignore[arg-type]
                raise
            time.sleep(seconds)
    return ask()


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    with url_errors(url):
        filesystem, path = fsspec.core.url_to_fs(url)
    return filesystem, str(path)
