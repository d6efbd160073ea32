"""A corpus behind a URL: finished files go there one by one, are checked there, and the manifest goes last."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from clipfold.errors import ClipfoldError
from clipfold.files import delete, etag_of, join, names_in, read_bytes, size_of, upload
from clipfold.shards.index import ShardRow, dali_path, index_path, tar_path
from clipfold.shards.manifest import MANIFEST_NAME

__all__ = ["Store", "default_staging"]

_PROBE = "clipfold-write-test"
_MOST_ATTEMPTS = 3
_SMALL_BYTES = 1 << 26


def default_staging(url: str) -> Path:
    """The local folder in which shards for a URL are made: in the user's cache, one for each URL."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "clipfold" / "convert" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


class Store:
    """The place behind a URL.

    Args:
        url: Of the corpus, any that fsspec can write.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def check(self, *, goes_on: bool) -> None:
        """Find out, before any work, whether a corpus can be written there.

        Args:
            goes_on: Whether this machine holds the unfinished conversion that wrote what is there.

        Raises:
            ClipfoldError: It cannot be written, read back or deleted there, or something else is there.
        """
        probe = join(self.url, _PROBE)
        try:
            names = names_in(self.url)
            upload(b"clipfold", probe)
            found = read_bytes(probe), size_of(probe)
            delete(probe)
        except Exception as error:  # whatever the file system's package raises
            raise ClipfoldError(
                f"a corpus cannot be written to this URL: {type(error).__name__}: {error}",
                fix="name a local folder, or a URL of a store that can be written (s3://, gs://, az://, file://)",
                file=self.url,
            ) from error
        if found != (b"clipfold", 8):
            raise ClipfoldError("what is written to this URL is not what is read from it", file=self.url)
        names = [name for name in names if name != _PROBE]
        if names and MANIFEST_NAME not in names and not goes_on:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise ClipfoldError(
                f"something else is behind this URL, or a conversion that another machine began: {shown}",
                fix="name another URL, or go on with the --staging folder with which it was begun",
                file=self.url,
            )

    def put_shard(self, folder: Path, split: str, row: ShardRow) -> None:
        """Upload the files of a shard, then delete them here.

        Raises:
            ClipfoldError: What arrived is not what was sent, or nothing did.
        """
        paths = [path(folder, split, row.number) for path in (tar_path, dali_path, index_path)]
        there = [path for path in paths if os.path.exists(path)]  # killed between uploading and noting it
        self.put_files(folder, [os.path.relpath(path, folder) for path in there])
        for path in there:
            os.unlink(path)

    def put_files(self, folder: Path, names: Iterable[str]) -> None:
        """Upload files, and check each there.

        Raises:
            ClipfoldError: What arrived is not what was sent, or nothing did.
        """
        for name in names:
            for attempt in range(_MOST_ATTEMPTS):
                try:
                    upload(folder / name, join(self.url, name))
                    self._verify(folder / name, join(self.url, name))
                    break
                except Exception as error:
                    if attempt == _MOST_ATTEMPTS - 1:
                        raise ClipfoldError(
                            f"{_MOST_ATTEMPTS} attempts to upload a file failed: {type(error).__name__}: {error}",
                            fix="check the network and the permissions; the same command then goes on",
                            file=join(self.url, name),
                        ) from error

    def _verify(self, path: Path, location: str) -> None:
        """Size, and what the store says about the content: an ETag that is an MD5 (S3, of one part), else all bytes of
        files that are small.
        """
        size = path.stat().st_size
        if (found := size_of(location)) != size:
            raise OSError(f"{found} bytes arrived, expected {size}")
        etag = etag_of(location)
        if etag is not None:
            with open(path, "rb") as file:
                if etag == hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest():
                    return
        if size <= _SMALL_BYTES and read_bytes(location) != path.read_bytes():  # some ETags are no MD5
            raise OSError("other bytes arrived than were sent")
