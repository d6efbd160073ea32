"""Samples, in order, into the shards of one split.

::

    append ... append -> [train-000000.tar | .idx | .index.npy] -> ShardRow
    append ... append -> [train-000001.tar | .idx | .index.npy] -> ShardRow
    close             -> [train-00000n.tar | .idx | .index.npy] -> ShardRow      then: write_shard_table, Manifest.save

The same samples give the same bytes: no time, no user, no machine is written. The tar is hashed while it is written;
its three files appear whole, the index last: **a shard is finished when all three are there**.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Any

import xxhash

from clipfold.files import Location, write_whole, writing_whole
from clipfold.shards.index import (
    ShardRow,
    dali_path,
    index_path,
    load_index,
    sample_key,
    tar_path,
    write_index,
)
from clipfold.shards.meta import MAX_META_BYTES, meta_kinds, sample_meta
from clipfold.shards.tar import BLOCK_BYTES, TarMember, padded, tar_size

__all__ = ["ShardWriter", "dali_line", "finished_shard", "sample_meta"]

_BUFFER_BYTES = 1 << 20


class ShardWriter:
    """Writes the shards of one split.

    Args:
        root: The corpus folder; the shards go into ``<root>/<split>``, which is made where it is missing.
        split: ``"train"``, ``"val"`` or ``"test"``.
        extension: The codec's.
        labelled: True writes a ``.cls`` member into every sample, False into none (readers want one or the other). A
            label that is given is in the index in both cases.
        shard_bytes: A shard closes before the sample that would make its tar larger than this; one sample that alone
            is larger gets its own shard.
        shard_clips: A shard closes before the sample that would be one too many.
        first_number: Number of the first shard: how many are already finished.
        on_finished: Called with the row of each shard once all its files are there.

    Raises:
        ValueError: A size below 1, or a negative number.

    Example:
        >>> with ShardWriter(root, "train", "npy", labelled=True) as writer:        # doctest: +SKIP
        ...     writer.append(source=0, clip=0, data=data, num_valid_frames=100, label=2, meta=meta)
        >>> write_shard_table(shard_table_path(root, "train"), writer.rows)         # doctest: +SKIP
    """

    def __init__(
        self,
        root: Location,
        split: str,
        extension: str,
        *,
        labelled: bool,
        shard_bytes: int = 1 << 30,
        shard_clips: int = 10_000,
        first_number: int = 0,
        on_finished: Callable[[ShardRow], None] | None = None,
    ) -> None:
        if shard_bytes < 1 or shard_clips < 1 or first_number < 0:
            raise ValueError(
                f"shard_bytes {shard_bytes}, shard_clips {shard_clips}, first_number {first_number}: expected the "
                "first two to be at least 1 and the last at least 0"
            )
        self.root, self.split, self.extension, self.labelled = Path(root), split, extension, labelled
        self.shard_bytes, self.shard_clips = shard_bytes, shard_clips
        self.rows: list[ShardRow] = []
        self._number = first_number
        self._on_finished = on_finished
        self._kinds: dict[str, str] | None = None
        self._open: _OpenShard | None = None
        (self.root / split).mkdir(parents=True, exist_ok=True)

    def append(
        self,
        *,
        source: int,
        clip: int,
        data: bytes,
        num_valid_frames: int,
        label: int | None,
        meta: Mapping[str, Any],
    ) -> None:
        """Write one sample behind those already written.

        Args:
            source: Number of the source, at least 0.
            clip: Number of the clip within its source, at least 0.
            data: What the codec made of the clip.
            num_valid_frames: Leading frames that are not padding.
            label: Class number; ``None`` without a label.
            meta: What goes into ``.json``, see :func:`clipfold.shards.meta.sample_meta`.

        Raises:
            ValueError: ``meta`` has a null or other names and types than in the samples before; a label is missing
                although the split is labelled; a number is negative.
            OSError: The disk is full.
        """
        if source < 0 or clip < 0 or num_valid_frames < 0 or (label is not None and label < 0):
            raise ValueError(f"sample {source}-{clip}, {num_valid_frames} valid frames, label {label}: negative number")
        if self.labelled and label is None:
            raise ValueError(f"sample {sample_key(source, clip)} has no label, but the others of the split have")
        members = {self.extension: data, "json": self._meta_bytes(sample_key(source, clip), meta)}
        if self.labelled:
            members["cls"] = str(label).encode()
        if self._open is not None and not self._fits(members):
            self._finish()
        if self._open is None:
            self._open = _OpenShard(self.root, self.split, self._number, self.extension)
        self._open.write(source, clip, members, num_valid_frames, -1 if label is None else label)

    def close(self) -> list[ShardRow]:
        """Finish the last shard.

        Returns:
            The rows of all shards that this writer finished.

        Raises:
            OSError: The disk is full.
        """
        if self._open is not None:
            self._finish()
        return self.rows

    def abandon(self) -> None:
        """Drop the shard that is not finished yet; nothing of it stays on the disk."""
        if self._open is not None:
            self._open.abandon()
            self._open = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def _fits(self, members: Mapping[str, bytes]) -> bool:
        assert self._open is not None
        more = sum(BLOCK_BYTES + padded(len(data)) for data in members.values())
        too_many = len(self._open.index) >= self.shard_clips
        return not too_many and tar_size(self._open.end + more) <= self.shard_bytes

    def _finish(self) -> None:
        assert self._open is not None
        row = self._open.finish()
        self._open = None
        self._number += 1
        self.rows.append(row)
        if self._on_finished is not None:
            self._on_finished(row)

    def _meta_bytes(self, key: str, meta: Mapping[str, Any]) -> bytes:
        kinds = meta_kinds(meta)
        self._kinds = kinds if self._kinds is None else self._kinds
        if kinds != self._kinds:
            raise ValueError(
                f"meta of sample {key}: {kinds}, expected the names and types of the others: {self._kinds}"
            )
        data = json.dumps(meta, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        if len(data) > MAX_META_BYTES:
            raise ValueError(f"meta of sample {key} has {len(data):,} bytes, expected at most {MAX_META_BYTES:,}")
        return data


class _OpenShard:
    """The shard that is being written: under a hidden name until :meth:`finish`."""

    def __init__(self, root: Path, split: str, number: int, extension: str) -> None:
        self.root, self.split, self.number, self.extension = root, split, number, extension
        self.end = 0  # of the last member, with its padding
        self.index: list[tuple[int, ...]] = []
        self._dali: list[str] = []
        self._stack = ExitStack()
        self._file = _HashedFile(self._stack.enter_context(writing_whole(tar_path(root, split, number))))
        self._tar = _tar_writer()(self._file, user="clipfold", group="clipfold", mode=0o644, mtime=0, encoder=False)

    def write(self, source: int, clip: int, members: Mapping[str, bytes], num_valid_frames: int, label: int) -> None:
        key = sample_key(source, clip)
        places = {}
        for extension in sorted(members):  # the order in which TarWriter writes
            size = len(members[extension])
            places[extension] = TarMember(f"{key}.{extension}", self.end + BLOCK_BYTES, size)
            self.end += BLOCK_BYTES + padded(size)
        self._tar.write({"__key__": key, **members})
        assert self._tar.tarstream.offset == self.end, "offsets differ from what TarWriter wrote"
        data = places[self.extension]
        checksum = xxhash.xxh3_64_intdigest(members[self.extension])
        self.index.append((source, clip, label, num_valid_frames, 0, data.offset, data.size, checksum))
        self._dali.append(dali_line(places))

    def finish(self) -> ShardRow:
        try:
            self._tar.close()
            self._file.flush()
            self._stack.close()
        except BaseException:
            self.abandon()
            raise
        write_whole(dali_path(self.root, self.split, self.number), dali_text(self._dali))
        index_sha256 = write_index(index_path(self.root, self.split, self.number), self.index)
        return ShardRow(
            number=self.number,
            num_samples=len(self.index),
            num_bytes=self._file.num_bytes,
            sha256=self._file.sha256.digest(),
            index_sha256=index_sha256,
        )

    def abandon(self) -> None:
        class Abandoned(Exception):
            pass

        with suppress(Abandoned):
            self._stack.__exit__(Abandoned, Abandoned(), None)


@cache
def _tar_writer() -> Any:
    """``webdataset.TarWriter``, out of its own file: the package's ``__init__`` imports torch, which takes seconds."""
    found = importlib.util.find_spec("webdataset")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'webdataset'")
    package = ModuleType("clipfold_webdataset")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules.setdefault(package.__name__, package)
    return importlib.import_module(f"{package.__name__}.writer").TarWriter


class _HashedFile:
    """What TarWriter writes to: hashes and passes on in large pieces (TarWriter itself writes 10 kB at a time)."""

    def __init__(self, file: IO[bytes]) -> None:
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self._file = file
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        self.sha256.update(self._buffer)
        self._file.write(self._buffer)
        self.num_bytes += len(self._buffer)
        self._buffer.clear()


def dali_line(places: Mapping[str, TarMember]) -> str:
    """One sample in the text that DALI's ``wds2idx`` writes: extension, offset, size and name of every member."""
    return " ".join(f"{extension} {place.offset} {place.size} {place.name}" for extension, place in places.items())


def dali_text(lines: list[str]) -> str:
    """The whole ``.idx`` file: the format's version, the number of samples, then one line a sample."""
    return "\n".join([f"v1.2 {len(lines)}", *lines]) + "\n"


def finished_shard(root: Location, split: str, number: int) -> ShardRow | None:
    """The row of a shard that is already on the disk, by reading its tar once.

    Returns:
        ``None`` where one of its three files is missing: the shard has to be written again.

    Raises:
        ShardError: Its index is not a table of this format.
        OSError: A file cannot be read.
    """
    paths = [Path(path(root, split, number)) for path in (tar_path, index_path, dali_path)]
    if not all(path.is_file() for path in paths):
        return None
    with open(paths[0], "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
    index_sha256 = hashlib.sha256(paths[1].read_bytes()).digest()
    return ShardRow(
        number=number,
        num_samples=len(load_index(paths[1], sha256=index_sha256)),
        num_bytes=paths[0].stat().st_size,
        sha256=sha256,
        index_sha256=index_sha256,
    )
