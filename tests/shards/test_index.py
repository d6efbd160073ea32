from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest

from clipfold.errors import ShardError
from clipfold.shards.index import (
    INDEX_DTYPE,
    SHARD_DTYPE,
    ShardRow,
    load_index,
    load_shard_table,
    parse_key,
    sample_key,
    shard_rows,
    write_index,
    write_shard_table,
)

ROWS = [(3, 0, 1, 100, 0, 512, 2000, 2**64 - 1), (3, 1, -1, 40, 0, 4096, 2000, 7)]


def test_keys() -> None:
    assert sample_key(123, 4) == "00000123-0004"
    assert parse_key("00000123-0004") == (123, 4)
    assert parse_key(sample_key(10**12, 10**6)) == (10**12, 10**6)
    for bad in ("123-4", "00000123", "00000123-0004.npy", "../00000123-0004", "00000123-000\uff14", ""):
        with pytest.raises(ValueError, match="sample key"):
            parse_key(bad)


def test_fields_are_aligned() -> None:
    for dtype in (INDEX_DTYPE, SHARD_DTYPE):
        assert all(offset % np.dtype(kind).alignment == 0 for kind, offset in dtype.fields.values())
        assert dtype.itemsize % 8 == 0


def test_index_round_trip(tmp_path: Path) -> None:
    sha256 = write_index(tmp_path / "i.npy", ROWS)
    assert hashlib.sha256((tmp_path / "i.npy").read_bytes()).digest() == sha256
    assert load_index(tmp_path / "i.npy", sha256=sha256).tolist() == ROWS
    assert np.load(tmp_path / "i.npy", allow_pickle=False).dtype == INDEX_DTYPE
    assert write_index(tmp_path / "j.npy", np.array(ROWS, INDEX_DTYPE)) == sha256


def test_shard_table_round_trip(tmp_path: Path) -> None:
    rows = [ShardRow(number=i, num_samples=3, num_bytes=10, sha256=bytes(32), index_sha256=b"x" * 32) for i in range(3)]
    sha256 = write_shard_table(tmp_path / "s.npy", rows)
    assert shard_rows(load_shard_table(tmp_path / "s.npy", sha256=sha256)) == rows
    assert [ShardRow.from_json(row.to_json()) for row in rows] == rows
    assert len(load_shard_table(tmp_path / "s.npy", sha256=None)) == 3
    write_shard_table(tmp_path / "empty.npy", [])
    assert load_shard_table(tmp_path / "empty.npy", sha256=None).shape == (0,)


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "i.npy"
    sha256 = write_index(path, ROWS)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(ShardError, match=r"i\.npy has sha256"):
            load_index(path, sha256=sha256)


def as_npy(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_other_files_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "i.npy"
    good = as_npy(np.array(ROWS, INDEX_DTYPE))
    promising = good.replace(b"(2,)", b"(9" + b"9" * 15 + b",)").replace(b" " * 15 + b"\n", b"\n")
    cases = {
        "not a .npy file": b"nothing of the kind",
        "empty": b"",
        "pickled": as_npy(np.array([print], dtype=object), allow_pickle=True),
        "other dtype": as_npy(np.zeros(3)),
        "other names": as_npy(np.zeros(2, [("a", "<i8")])),
        "other order of bytes": as_npy(np.array(ROWS, INDEX_DTYPE).astype(INDEX_DTYPE.newbyteorder(">"))),
        "two axes": as_npy(np.array([ROWS], INDEX_DTYPE)),
        "cut short": good[:-1],
        "left over": good + b"\0",
        "promises 10^16 rows": promising,
    }
    for name, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(ShardError, match="not a table"):
            load_index(path, sha256=None)
            pytest.fail(name)
    with pytest.raises(ShardError, match=r"gone\.npy is missing"):
        load_index(tmp_path / "gone.npy", sha256=None)
