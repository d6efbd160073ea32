"""Point files: the formats as they are written down, whole and damaged."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from clipfold import DecodeError, SourceError

RECIPES = Path(__file__).resolve().parents[2] / "tools" / "recipes"
# x y z, padding of 4 bytes, intensity, ring of 2 bytes
FIELDS = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("_", "<u1", 4), ("intensity", "<f4"), ("ring", "<u2")])
HEADER = (
    "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z _ intensity ring\nSIZE 4 4 4 1 4 2\n"
    "TYPE F F F U F U\nCOUNT 1 1 1 4 1 1\nWIDTH 5\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 5\nDATA {}\n"
)


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RECIPES))
    import sweeps

    return sweeps


@pytest.fixture
def table() -> np.ndarray:
    table = np.zeros(5, FIELDS)
    for place, name in enumerate(["x", "y", "z", "intensity"]):
        table[name] = np.arange(5) * 1.5 - place
    table["ring"] = [0, 3, 15, 1, 2]
    table["x"][2] = np.nan
    return table


def lzf(data: bytes) -> bytes:
    """A plain compressor: the longest of the last matches of three bytes, literals else."""
    out, literals, place = bytearray(), bytearray(), 0
    seen: dict[bytes, int] = {}

    def flush() -> None:
        for start in range(0, len(literals), 32):
            piece = literals[start : start + 32]
            out.extend([len(piece) - 1, *piece])
        literals.clear()

    while place < len(data):
        start = seen.get(data[place : place + 3])
        seen[data[place : place + 3]] = place
        length = 0
        if start is not None and place - start <= 8192:
            while length < 264 and place + length < len(data) and data[start + length] == data[place + length]:
                length += 1
        if length < 3:
            literals.append(data[place])
            place += 1
            continue
        flush()
        back, code = place - start - 1, length - 2
        out.extend([min(code, 7) << 5 | back >> 8, *([code - 7] if code >= 7 else []), back & 255])
        place += length
    flush()
    return bytes(out)


def pcd(table: np.ndarray, encoding: str) -> bytes:
    header = HEADER.format(encoding).encode()
    if encoding == "ascii":
        rows = [
            f"{row['x']} {row['y']} {row['z']} 0 0 0 0 {row['intensity']} {row['ring']}\n".encode() for row in table
        ]
        return header + b"".join(rows)
    if encoding == "binary":
        return header + table.tobytes()
    columns = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in FIELDS.names or ())
    packed = lzf(columns)
    return header + struct.pack("<II", len(packed), len(columns)) + packed


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd(sweeps, table, tmp_path, encoding):
    (tmp_path / "a.pcd").write_bytes(pcd(table, encoding))
    sweep = sweeps.read_sweep(tmp_path / "a.pcd")
    expected = np.stack([table["x"], table["y"], table["z"]], axis=1).astype(np.float64)
    np.testing.assert_array_equal(sweep.points_N3, expected)
    np.testing.assert_array_equal(sweep.intensity_N, table["intensity"])
    assert sweep.ring_N.tolist() == [0, 3, 15, 1, 2]


def test_lzf_by_hand_and_random(sweeps):
    assert sweeps.decompress_lzf(b"\x00a\xe0\x00\x00", 10) == b"a" * 10  # one literal, then 9 bytes from 1 byte back
    assert sweeps.decompress_lzf(b"\x02abc\x20\x02", 6) == b"abcabc"
    draw = np.random.default_rng(0)
    for high in (2, 4, 256):
        data = np.repeat(draw.integers(0, high, 3000, dtype=np.uint8), 3).tobytes() + bytes(1000)
        assert sweeps.decompress_lzf(lzf(data), len(data)) == data


def test_bin(sweeps, tmp_path):
    values = np.arange(20, dtype="<f4")
    (tmp_path / "kitti.bin").write_bytes(values.tobytes())
    (tmp_path / "nuscenes.pcd.bin").write_bytes(values.tobytes())
    kitti, nuscenes = (sweeps.read_sweep(tmp_path / name) for name in ("kitti.bin", "nuscenes.pcd.bin"))
    assert kitti.points_N3[1].tolist() == [4, 5, 6]
    assert (kitti.intensity_N[1], kitti.ring_N) == (7, None)
    assert nuscenes.points_N3[1].tolist() == [5, 6, 7]
    assert (nuscenes.intensity_N[1], nuscenes.ring_N.tolist()) == (8, [4, 9, 14, 19])
    assert sweeps.read_sweep(tmp_path / "kitti.bin", point_values=5).ring_N.tolist() == [4, 9, 14, 19]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data.replace(b"DATA", b"DATUM"), "no line DATA"),
        (lambda data: data.replace(b"DATA binary", b"DATA zipped"), "DATA 'zipped'"),
        (lambda data: data.replace(b"FIELDS x", b"FIELDS a"), "no field 'x'"),
        (lambda data: data.replace(b"SIZE 4", b"SIZE 3"), "TYPE F and SIZE 3"),
        (lambda data: data.replace(b"SIZE 4", b"SIZE"), "expected as many of each"),
        (lambda data: data.replace(b"POINTS 5", b"POINTS 99999999999"), "cut short"),
        (lambda data: data.replace(b"POINTS 5", b"POINTS 0"), "0 points"),
        (lambda data: data.replace(b"POINTS 5", b"POINTS five"), "invalid literal"),
        (lambda data: b"", "no line DATA"),
    ],
)
def test_damaged_pcd(sweeps, table, tmp_path, change, message):
    (tmp_path / "a.pcd").write_bytes(change(pcd(table, "binary")))
    with pytest.raises(DecodeError, match=message) as raised:
        sweeps.read_sweep(tmp_path / "a.pcd")
    assert raised.value.file.endswith("a.pcd")


def test_damaged_otherwise(sweeps, table, tmp_path):
    path = tmp_path / "a.pcd"
    whole = pcd(table, "binary_compressed")
    start = whole.index(b"compressed\n") + 11
    for place in range(start, len(whole)):  # each byte of sizes and data: another sweep, or one clear error
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(DecodeError):
            sweeps.read_sweep(path)
        path.write_bytes(whole[:place])
        with pytest.raises(DecodeError):
            sweeps.read_sweep(path)
    path.write_bytes(pcd(table, "ascii")[:-20])
    with pytest.raises(DecodeError, match="values, expected 5 points of 9"):
        sweeps.read_sweep(path)
    (tmp_path / "a.bin").write_bytes(bytes(30))
    with pytest.raises(DecodeError, match="no whole number of points of 4 float32"):
        sweeps.read_sweep(tmp_path / "a.bin")
    with pytest.raises(SourceError, match="No such file"):
        sweeps.read_sweep(tmp_path / "gone.bin")
