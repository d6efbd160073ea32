"""The two tables of a split: one row a sample (beside each tar), one row a shard (``shards.npy``).

Both are ``.npy`` files of plain numbers. The stream reads these and never the tars' small members: ``offset`` and
``size`` say where a sample's data lies inside its tar, ``xxh3`` what it must hash to.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.errors import ShardError
from clipfold.files import Location, join, name_of, read_bytes, write_whole

__all__ = [
    "INDEX_DTYPE",
    "SHARD_DTYPE",
    "ShardRow",
    "dali_path",
    "index_path",
    "load_index",
    "load_shard_table",
    "parse_key",
    "sample_key",
    "shard_name",
    "shard_rows",
    "shard_table_path",
    "tar_path",
    "write_index",
    "write_shard_table",
]

INDEX_DTYPE = np.dtype(
    [
        ("source", "<i8"),  # the source's number in sources.jsonl
        ("clip", "<i4"),  # the clip's number within its source
        ("label", "<i4"),  # class number, -1 without a label
        ("num_valid_frames", "<i4"),  # leading frames that are not padding
        ("reserved", "<i4"),  # 0; keeps what follows aligned
        ("offset", "<i8"),  # of the sample's data (not of its tar header) in the tar
        ("size", "<i8"),  # of the sample's data, in bytes
        ("xxh3", "<u8"),  # xxh3-64 of the sample's data
    ]
)

SHARD_DTYPE = np.dtype(
    [
        ("number", "<i8"),
        ("num_samples", "<i8"),
        ("num_bytes", "<i8"),  # size of the tar
        ("sha256", "V32"),  # of the tar
        ("index_sha256", "V32"),  # of the .index.npy file
    ]
)

_FIX = "run the same `clipfold convert` command again, or copy the corpus again"


@dataclass(frozen=True, kw_only=True)
class ShardRow:
    """One row of ``shards.npy``.

    Args:
        number: The shard's number, from 0.
        num_samples: Samples in it, at least 1.
        num_bytes: Size of the tar.
        sha256: Of the tar, 32 bytes.
        index_sha256: Of the index file, 32 bytes.
    """

    number: int
    num_samples: int
    num_bytes: int
    sha256: bytes
    index_sha256: bytes

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values; the hashes in hexadecimal."""
        return {
            "number": self.number,
            "num_samples": self.num_samples,
            "num_bytes": self.num_bytes,
            "sha256": self.sha256.hex(),
            "index_sha256": self.index_sha256.hex(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ShardRow:
        """The row that :meth:`to_json` wrote.

        Raises:
            ValueError: A hash is not hexadecimal.
            KeyError: A name is missing.
        """
        return cls(
            number=int(value["number"]),
            num_samples=int(value["num_samples"]),
            num_bytes=int(value["num_bytes"]),
            sha256=bytes.fromhex(value["sha256"]),
            index_sha256=bytes.fromhex(value["index_sha256"]),
        )


def shard_rows(table: NDArray[Any]) -> list[ShardRow]:
    """The rows of a table of shards (SHARD_DTYPE), one by one."""
    return [
        ShardRow(
            number=int(row["number"]),
            num_samples=int(row["num_samples"]),
            num_bytes=int(row["num_bytes"]),
            sha256=row["sha256"].tobytes(),
            index_sha256=row["index_sha256"].tobytes(),
        )
        for row in table
    ]


def sample_key(source: int, clip: int) -> str:
    """The sample's name in a tar: source 123, clip 4 is ``00000123-0004``. No dots, no spaces."""
    return f"{source:08d}-{clip:04d}"


def parse_key(key: str) -> tuple[int, int]:
    """Source and clip of a sample key.

    Raises:
        ValueError: :func:`sample_key` does not write such a key.
    """
    source, _, clip = key.partition("-")
    if source.isdecimal() and clip.isdecimal() and sample_key(int(source), int(clip)) == key:
        return int(source), int(clip)
    raise ValueError(f"sample key: {key!r}, expected one like '00000123-0004'")


def shard_name(split: str, number: int) -> str:
    """``train-000017``: what the three files of a shard are called before their extensions."""
    return f"{split}-{number:06d}"


def tar_path(root: Location, split: str, number: int) -> str:
    """Where a shard's tar is."""
    return join(root, split, f"{shard_name(split, number)}.tar")


def index_path(root: Location, split: str, number: int) -> str:
    """Where a shard's index is."""
    return join(root, split, f"{shard_name(split, number)}.index.npy")


def dali_path(root: Location, split: str, number: int) -> str:
    """Where a shard's offsets in DALI's text format are."""
    return join(root, split, f"{shard_name(split, number)}.idx")


def shard_table_path(root: Location, split: str) -> str:
    """Where a split's table of shards is."""
    return join(root, split, "shards.npy")


def write_index(path: Location, rows: Sequence[tuple[int, ...]] | NDArray[Any]) -> bytes:
    """Write one shard's index, whole or not at all.

    Args:
        path: Local path.
        rows: INDEX_DTYPE (num_samples,), or as many tuples of its fields.

    Returns:
        The sha256 of the file, 32 bytes.

    Raises:
        OSError: The disk is full, or the folder is missing or read-only.
    """
    return _write(path, np.array(rows, INDEX_DTYPE))


def load_index(location: Location, *, sha256: bytes | None) -> NDArray[Any]:
    """One shard's index.

    Args:
        location: Path or URL.
        sha256: What the file must hash to, 32 bytes; ``None`` takes it as it is.

    Returns:
        INDEX_DTYPE (num_samples,).

    Raises:
        ShardError: Missing, unreadable, another hash, or not such a table.
    """
    return _load(location, INDEX_DTYPE, sha256)


def write_shard_table(path: Location, rows: Iterable[ShardRow]) -> bytes:
    """Write a split's ``shards.npy``, whole or not at all.

    Returns:
        The sha256 of the file, 32 bytes.

    Raises:
        OSError: The disk is full, or the folder is missing or read-only.
    """
    fields = [(row.number, row.num_samples, row.num_bytes, row.sha256, row.index_sha256) for row in rows]
    return _write(path, np.array(fields, SHARD_DTYPE))


def load_shard_table(location: Location, *, sha256: bytes | None) -> NDArray[Any]:
    """A split's ``shards.npy``.

    Args:
        location: Path or URL.
        sha256: What the file must hash to, 32 bytes; ``None`` takes it as it is.

    Returns:
        SHARD_DTYPE (num_shards,). ``row["sha256"].tobytes()`` is the hash of a shard's tar.

    Raises:
        ShardError: Missing, unreadable, another hash, or not such a table.
    """
    return _load(location, SHARD_DTYPE, sha256)


def _write(path: Location, table: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, table, allow_pickle=False)
    write_whole(path, file.getvalue())
    return hashlib.sha256(file.getvalue()).digest()


def _load(location: Location, dtype: np.dtype[Any], sha256: bytes | None) -> NDArray[Any]:
    try:
        data = read_bytes(location)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = f"{name_of(location)} is missing" if missing else f"{name_of(location)} cannot be read: {error}"
        raise ShardError(what, fix=_FIX, file=str(location)) from error
    if sha256 is not None and (found := hashlib.sha256(data).digest()) != sha256:
        raise ShardError(
            f"{name_of(location)} has sha256 {found.hex()[:16]}..., expected {sha256.hex()[:16]}...",
            fix=f"the file is damaged, or belongs to another corpus; {_FIX}",
            file=str(location),
        )
    return _parse(data, dtype, location)


def _parse(data: bytes, dtype: np.dtype[Any], location: Location) -> NDArray[Any]:
    """The table in the bytes of a ``.npy`` file; a shape that promises more than is there allocates nothing.

    The header is matched, not evaluated: numpy reads it with :func:`ast.literal_eval`, which in Python 3.11 fails now
    and then with a ``SystemError`` when another thread parses too, and the stream loads indexes from many threads.
    https://github.com/python/cpython/issues/106905
    """
    start = 10 + int.from_bytes(data[8:10], "little")
    shape = rf"{{'descr': {re.escape(repr(dtype.descr))}, 'fortran_order': False, 'shape': \((\d+),\), }} *\n"
    found = re.fullmatch(shape, data[10:start].decode("latin-1"))
    try:
        if data[:8] != b"\x93NUMPY\x01\x00":
            raise ValueError("not a .npy file of format 1.0")
        if found is None:
            raise ValueError(f"header {data[10:start][:200]!r}, expected one row each of {dtype.descr}")
        if int(found[1]) * dtype.itemsize != len(data) - start:
            raise ValueError(f"{int(found[1]):,} rows, but {len(data) - start:,} bytes of rows")
    except ValueError as error:
        raise ShardError(
            f"{name_of(location)} is not a table of this format: {error}", fix=_FIX, file=str(location)
        ) from error
    return np.frombuffer(data, dtype, offset=start).copy()
