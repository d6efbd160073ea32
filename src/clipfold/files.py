"""Files that appear whole or not at all, and bytes behind a path or a URL.

Whatever clipfold writes goes through :func:`writing_whole`: written beside its place under a hidden name, flushed to
the disk, then renamed. A reader sees the old file or the new one, never a half.

A *location* is a local path or an fsspec URL (``https://...``, ``s3://...``, ``memory://...``). Reading works for
both; what is made is made in local files, which :func:`upload` takes behind a URL.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = [
    "Location",
    "delete",
    "etag_of",
    "exists",
    "is_url",
    "join",
    "name_of",
    "names_in",
    "open_bytes",
    "read_bytes",
    "read_json",
    "size_of",
    "sync_folder",
    "upload",
    "write_json",
    "write_whole",
    "writing_whole",
]

Location = str | Path

_WITHOUT_FOLDERS = frozenset(["s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "http", "https"])


def is_url(location: Location) -> bool:
    """True where fsspec has to read, False for local paths (``file://`` counts as a URL)."""
    return "://" in str(location)


def join(base: Location, *parts: str) -> str:
    """``base`` followed by ``parts``, with single slashes between."""
    return "/".join([str(base).rstrip("/"), *(part.strip("/") for part in parts)])


def name_of(location: Location) -> str:
    """The last part of a path or URL."""
    return str(location).rstrip("/").rsplit("/", 1)[-1]


def exists(location: Location) -> bool:
    """Whether something is there.

    Raises:
        OSError: The place cannot be asked (no permission, no such host).
    """
    if not is_url(location):
        return Path(location).exists()
    filesystem, path = _filesystem(location)
    return bool(filesystem.exists(path))


def read_bytes(location: Location, *, offset: int = 0, size: int | None = None) -> bytes:
    """The bytes of a file, or ``size`` of them from ``offset``.

    Raises:
        FileNotFoundError: Nothing is there.
        OSError: It cannot be read.
    """
    if not is_url(location):
        with open(location, "rb") as file:
            file.seek(offset)
            return file.read() if size is None else file.read(size)
    filesystem, path = _filesystem(location)
    end = None if size is None else offset + size
    return bytes(filesystem.cat_file(path, start=offset or None, end=end))


def open_bytes(location: Location) -> IO[bytes]:
    """A file to be read from front to back; the caller closes it.

    Raises:
        FileNotFoundError: Nothing is there.
        OSError: It cannot be opened.
    """
    if not is_url(location):
        return open(location, "rb")
    from fsspec.spec import AbstractBufferedFile

    filesystem, path = _filesystem(location)
    file: Any = filesystem.open(path, "rb")
    # fsspec's own class has a readline() that takes no size
    opened: IO[bytes] = io.BufferedReader(file) if isinstance(file, AbstractBufferedFile) else file
    return opened


def read_json(location: Location) -> Any:
    """The value of a JSON file.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: It is not JSON.
    """
    return json.loads(read_bytes(location))


@contextmanager
def writing_whole(path: Location) -> Iterator[IO[bytes]]:
    """A binary file that appears at ``path`` when the block ends well, and leaves nothing behind when it does not.

    Raises:
        OSError: The disk is full, or the folder is missing or read-only.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise
    sync_folder(target.parent)


def write_whole(path: Location, data: bytes | str) -> None:
    """Write a file whole or not at all; text is encoded as UTF-8.

    Raises:
        OSError: The disk is full, or the folder is missing or read-only.
    """
    with writing_whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Location, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all. The same value gives the same bytes.

    Raises:
        OSError: As for :func:`write_whole`.
        ValueError: A number is not finite.
    """
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Location) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def upload(source: Path | bytes, url: str) -> None:
    """Put a local file, or some bytes, behind a URL; what is there is replaced.

    Raises:
        Exception: Whatever the file system's package raises where it cannot be done.
    """
    filesystem, path = _filesystem(url)
    protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else set(filesystem.protocol)
    if protocols.isdisjoint(_WITHOUT_FOLDERS):
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    if isinstance(source, bytes):
        filesystem.pipe_file(path, source)
    else:
        filesystem.put_file(str(source), path)
    filesystem.invalidate_cache()


def names_in(url: str) -> list[str]:
    """Names of what lies directly behind a URL, sorted; none where nothing is there.

    Raises:
        Exception: Whatever the file system's package raises where it cannot be listed.
    """
    filesystem, path = _filesystem(url)
    filesystem.invalidate_cache()
    try:
        found = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(name_of(name) for name in found if str(name).rstrip("/") != path.rstrip("/"))


def size_of(url: str) -> int:
    """Bytes of the file behind a URL.

    Raises:
        Exception: Whatever the file system's package raises where it cannot be asked.
    """
    filesystem, path = _filesystem(url)
    return int(filesystem.info(path)["size"])


def etag_of(url: str) -> str | None:
    """The ETag of the file behind a URL where that looks like an MD5, in hexadecimal; else ``None``."""
    filesystem, path = _filesystem(url)
    found = str(filesystem.info(path).get("ETag", "")).strip('"')
    return found if re.fullmatch("[0-9a-f]{32}", found) else None


def delete(url: str) -> None:
    """Delete the file behind a URL.

    Raises:
        Exception: Whatever the file system's package raises where it cannot be done.
    """
    filesystem, path = _filesystem(url)
    filesystem.rm_file(path)
    filesystem.invalidate_cache()


def _filesystem(location: Location) -> tuple[Any, str]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(str(location))
    return filesystem, str(path)
