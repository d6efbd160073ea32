"""The points of one turn of a rotating LiDAR, from ``.bin`` and ``.pcd`` files.

``.bin``: float32, little-endian: x, y, z, intensity (KITTI), with a ring behind them in ``.pcd.bin`` (nuScenes).
``.pcd``: the Point Cloud Data format 0.7, https://pointclouds.org/documentation/tutorials/pcd_file_format.html, ascii,
binary, and binary_compressed (all values of a field together, then LZF as liblzf has it). Of its fields x, y, z are
needed; intensity (or i, reflectivity) and ring (or channel, laser_id) are read where they are there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold import DecodeError, SourceError

__all__ = ["Sweep", "decompress_lzf", "is_sweep", "read_sweep"]

_INTENSITY = ("intensity", "i", "reflectivity", "reflectance")
_RING = ("ring", "channel", "laser_id", "ring_id")
_TYPES = {f"{kind}{size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)} | {
    "F4": "<f4",
    "F8": "<f8",
}
_MOST_HEADER_LINES = 100


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One turn.

    Args:
        points_N3: float64 (N, 3): x, y, z in metres, x forward, y left, z up.
        intensity_N: float64 (N,), in the sensor's own unit; ``None`` where the file has none.
        ring_N: int64 (N,), number of the beam, 0 the lowest; ``None`` where the file has none.
    """

    points_N3: NDArray[np.float64]
    intensity_N: NDArray[np.float64] | None
    ring_N: NDArray[np.int64] | None


def is_sweep(name: str) -> bool:
    """Whether a file is one, by its name."""
    return name.lower().endswith((".bin", ".pcd")) and not name.startswith(".")


def read_sweep(path: Path, *, point_values: int | None = None) -> Sweep:
    """Read one file.

    Args:
        path: A ``.bin`` or ``.pcd`` file.
        point_values: Of ``.bin``: values a point; ``None`` is 5 for ``.pcd.bin``, else 4.

    Raises:
        DecodeError: It is cut short, or not in its format.
        SourceError: It has gone or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", file=str(path)) from error
    try:
        if path.name.lower().endswith(".pcd"):
            return _parse_pcd(data)
        return _parse_bin(data, point_values or (5 if path.name.lower().endswith(".pcd.bin") else 4))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise DecodeError(
            f"cannot be read as a sweep: {error}", fix="copy it again, or leave it out", file=str(path)
        ) from error


def _parse_bin(data: bytes, num_values: int) -> Sweep:
    if not data or len(data) % (4 * num_values):
        raise ValueError(
            f"{len(data):,} bytes are no whole number of points of {num_values} float32 (--point-values says how many)"
        )
    values = np.frombuffer(data, "<f4").reshape(-1, num_values)
    by_name = {name: values[:, place] for place, name in enumerate(["x", "y", "z", "intensity", "ring"][:num_values])}
    return _sweep(by_name)


def _sweep(by_name: dict[str, NDArray[Any]]) -> Sweep:
    if missing := [name for name in "xyz" if name not in by_name]:
        raise ValueError(f"no field {missing[0]!r}, found {', '.join(by_name)}")
    intensity = next((by_name[name] for name in _INTENSITY if name in by_name), None)
    ring = next((by_name[name] for name in _RING if name in by_name), None)
    if ring is not None and not np.isfinite(ring).all():
        raise ValueError("a ring that is no number")
    return Sweep(
        points_N3=np.stack([by_name[name] for name in "xyz"], axis=1).astype(np.float64),
        intensity_N=None if intensity is None else intensity.astype(np.float64),
        ring_N=None if ring is None else ring.astype(np.int64),
    )


# ---- .pcd ----


def _parse_pcd(data: bytes) -> Sweep:
    header, encoding, start = _read_header(data)
    fields = _dtype(header)
    num_points = int(header["POINTS"][0]) if "POINTS" in header else int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    if num_points < 1:
        raise ValueError(f"{num_points} points")
    body = memoryview(data)[start:]
    if encoding == "ascii":
        return _sweep(_ascii_columns(bytes(body), fields, num_points))
    if encoding == "binary":
        _check_size(len(body), num_points * fields.itemsize)
        table = np.frombuffer(body, fields, count=num_points)
        return _sweep({name: table[name][:, 0] for name in _scalars(fields)})
    if encoding == "binary_compressed":
        num_packed, num_bytes = struct.unpack_from("<II", body)
        if num_bytes != num_points * fields.itemsize:
            raise ValueError(f"{num_bytes:,} bytes unpacked, expected {num_points * fields.itemsize:,}")
        _check_size(len(body), 8 + num_packed)
        return _sweep(_packed_columns(decompress_lzf(bytes(body[8 : 8 + num_packed]), num_bytes), fields, num_points))
    raise ValueError(f"DATA {encoding!r}, expected ascii, binary or binary_compressed")


def _read_header(data: bytes) -> tuple[dict[str, list[str]], str, int]:
    """Words by the first word of a line, the last line's encoding, and where the points start."""
    header: dict[str, list[str]] = {}
    start = 0
    for _ in range(_MOST_HEADER_LINES):
        end = data.find(b"\n", start)
        if end < 0:
            break
        words = data[start:end].decode("ascii", "replace").split()
        start = end + 1
        if words and words[0] == "DATA":
            return header, words[1], start
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
    raise ValueError("no line DATA, which ends the header of a .pcd file")


def _dtype(header: dict[str, list[str]]) -> np.dtype[Any]:
    names = header.get("FIELDS") or header.get("COLUMNS") or []
    sizes, kinds = header.get("SIZE", []), header.get("TYPE", [])
    counts = header.get("COUNT", ["1"] * len(names))
    if not names or not len(names) == len(sizes) == len(kinds) == len(counts):
        raise ValueError(f"FIELDS {names}, SIZE {sizes}, TYPE {kinds}, COUNT {counts}: expected as many of each")
    entries = []
    for place, (name, size, kind, count) in enumerate(zip(names, sizes, kinds, counts, strict=True)):
        if kind + size not in _TYPES:
            raise ValueError(f"a field of TYPE {kind} and SIZE {size}, expected I, U or F of 1, 2, 4 or 8 bytes")
        unique = f"_{place}" if name == "_" or name in names[:place] else name  # fields called _ are padding
        entries.append((unique, _TYPES[kind + size], (int(count),)))
    return np.dtype(entries)


def _scalars(fields: np.dtype[Any]) -> dict[str, Any]:
    """Type by name of the fields that have one value a point."""
    return {name: fields[name].base for name in fields.names or () if fields[name].shape == (1,)}


def _ascii_columns(body: bytes, fields: np.dtype[Any], num_points: int) -> dict[str, NDArray[Any]]:
    counts = [fields[name].shape[0] for name in fields.names or ()]
    values = np.array(body.split(), np.float64)
    if len(values) != num_points * sum(counts):
        raise ValueError(f"{len(values):,} values, expected {num_points:,} points of {sum(counts)}")
    table = values.reshape(num_points, sum(counts))
    starts = dict(zip(fields.names or (), np.cumsum([0, *counts]), strict=False))
    return {name: table[:, starts[name]] for name in _scalars(fields)}


def _packed_columns(data: bytes, fields: np.dtype[Any], num_points: int) -> dict[str, NDArray[Any]]:
    columns, start = {}, 0
    scalars = _scalars(fields)
    for name in fields.names or ():
        if name in scalars:
            columns[name] = np.frombuffer(data, scalars[name], count=num_points, offset=start)
        start += num_points * fields[name].itemsize
    return columns


def _check_size(found: int, expected: int) -> None:
    if found < expected:
        raise ValueError(f"{found:,} bytes behind the header, expected {expected:,}: it was cut short")


def decompress_lzf(data: bytes, num_bytes: int) -> bytes:
    """Undo LZF.

    ::

        000lllll              l + 1 bytes follow as they are
        lllooooo oooooooo     l + 2 bytes from o + 1 bytes back; l = 7 takes the next byte on top

    Raises:
        ValueError, IndexError: It does not give ``num_bytes`` bytes.
    """
    out = bytearray()
    place = 0
    while place < len(data) and len(out) <= num_bytes:
        control = data[place]
        place += 1
        if control < 32:
            out += data[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[place]
            place += 1
        start = len(out) - ((control & 31) << 8) - data[place] - 1
        place += 1
        if start < 0:
            raise ValueError("damaged LZF data: it refers to what is before its start")
        length += 2
        piece = out[start : start + length]  # shorter where it runs into what it writes: then it repeats
        out += (piece * -(-length // len(piece)))[:length]
    if len(out) != num_bytes or place != len(data):
        raise ValueError(f"damaged LZF data: it gives {len(out):,} bytes, expected {num_bytes:,}")
    return bytes(out)
