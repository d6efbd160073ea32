"""The bytes of a low-rank clip: a fixed header, four tables and one run of 32-bit words.

::

    header          64 bytes, see `_HEADER`
    row_starts      uint32 (tiles + 1)            rows of tile i are [row_starts[i], row_starts[i + 1])
    scales          float32 (rows)                what a row's product of whole numbers is multiplied by
    column_starts   uint32 (tiles * columns + 1)  first word of each column of blocks
    column_rows     uint16 (tiles * columns)      how many rows of the tile the column holds: the first so many
    words           uint32 (column_starts[-1])

Little endian; every section starts at a multiple of 16 bytes, the gaps are zero. A *block* is 32 neighbouring whole
numbers of one row; a *column* is the same block of all rows of a tile. The first ``basis_columns`` columns of a tile
hold the rows' basis (S*C numbers, padded with zeros), the others their coefficients (tile_height * tile_width numbers);
columns past the last are zero. A column is

::

    ceil(rows / 8) words    a 4-bit code per row, lowest bits first: 0 to 13 are widths in bits (1 is not used),
                            14 is 16 bits, 15 is 20 bits
    width words per row     bit plane p of a block is one word: bit i of it is bit p of number i (two's complement)

so a GPU finds any column by one table look-up, its blocks by a running sum of widths, and needs a shift and a mask per
bit to unpack them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.errors import ShardError
from clipfold.shards.codecs.lowrank_transform import NUM_SCANS, tile_grid

__all__ = ["BLOCK", "MAX_VALUE", "WIDTHS", "Factors", "block_widths", "pack", "parse", "unpack"]

BLOCK = 32
WIDTHS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 20], np.uint8)  # code -> bits
MAX_VALUE = (1 << 19) - 1

_MAGIC = b"CFLOWRNK"
_VERSION = 1
#                      magic version scan S C H W tile_height tile_width tiles rows basis_columns columns words centre
_HEADER = struct.Struct("<8sHH10IIf4x")
_ALIGNMENT = 16
_MAX_TILE_PIXELS = 4096
_MAX_SCALE = 2.0**20  # products of three such numbers are far from overflowing
_DAMAGED = "the sample is damaged; convert again"
_CODE_OF_WIDTH = np.searchsorted(WIDTHS, np.arange(21)).astype(np.uint8)
_CODE_OF_WIDTH[1] = 2  # a block of -1 and 0 alone: too rare to be worth a code


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A low-rank clip as it lies in memory: sizes, and views of the member's bytes (nothing is copied or decoded).

    With ``basis_R`` and ``coefficients_R`` the whole numbers of row R of a tile (:func:`unpack`), and ``D_n`` the
    orthonormal DCT-II matrix of n points::

        pixels_SCHW[tile] = centre + sum over R of  scales[R] * (D_S^T basis_R^T D_C) x (D_h^T coefficients_R D_w)

    where basis_R is (C, S) and coefficients_R (tile_height, tile_width) after ``coefficient_order`` is undone, and
    ``x`` is the outer product. What lies over the picture's right or lower border is cut off.

    Args:
        num_frames, channels, height, width: S, C, H, W.
        tile_height, tile_width: All tiles are equal; they are numbered row by row from the top left.
        scan: Which :func:`coefficient_order` the coefficients are in.
        centre: What is added to every pixel.
        basis_columns: Leading columns of each tile that hold basis.
        num_columns: Columns of each tile.
        row_starts: uint32 (tiles + 1).
        scales: float32 (rows).
        column_starts: uint32 (tiles * columns + 1), in words.
        column_rows: uint16 (tiles * columns).
        words: uint32.
    """

    num_frames: int
    channels: int
    height: int
    width: int
    tile_height: int
    tile_width: int
    scan: int
    centre: float
    basis_columns: int
    num_columns: int
    row_starts: NDArray[np.uint32]
    scales: NDArray[np.float32]
    column_starts: NDArray[np.uint32]
    column_rows: NDArray[np.uint16]
    words: NDArray[np.uint32]

    @property
    def num_tiles(self) -> int:
        """Tiles of the picture."""
        return len(self.row_starts) - 1

    @property
    def shape_SCHW(self) -> tuple[int, int, int, int]:
        """(S, C, H, W)."""
        return self.num_frames, self.channels, self.height, self.width


def pack(
    basis: list[NDArray[np.int32]],
    coefficients: list[NDArray[np.int32]],
    scales: NDArray[np.float32],
    *,
    shape_SCHW: tuple[int, int, int, int],
    tile: tuple[int, int],
    scan: int,
    centre: float,
) -> bytes:
    """The member's bytes.

    Args:
        basis: Per tile int32 (R, S*C), each value in [-MAX_VALUE - 1, MAX_VALUE].
        coefficients: Per tile int32 (R, tile_height * tile_width), in the order of ``scan``.
        scales: float32 (rows of all tiles).
        shape_SCHW: Sizes of the clip.
        tile: tile_height and tile_width.
        scan: Order of the coefficients.
        centre: What decoding adds to every pixel.
    """
    basis_columns = _used_columns(basis)
    blocks = [
        np.concatenate([_blocks(b, basis_columns), _blocks(c, used)], axis=1)
        for used in [_used_columns(coefficients)]
        for b, c in zip(basis, coefficients, strict=True)
    ]
    num_columns = blocks[0].shape[1]
    column_rows, column_starts, words = _pack_columns(blocks)
    row_starts = np.cumsum([0, *(len(b) for b in basis)]).astype("<u4")
    header = _HEADER.pack(
        _MAGIC, _VERSION, scan, *shape_SCHW, *tile, len(basis), len(scales), basis_columns, num_columns,
        len(words), centre,
    )  # fmt: skip
    sections: list[Any] = [header, row_starts, scales.astype("<f4"), column_starts, column_rows, words]
    return b"".join(part + bytes(-len(part) % _ALIGNMENT) for part in map(bytes, sections))


def _used_columns(matrices: list[NDArray[np.int32]]) -> int:
    used = [int(np.flatnonzero(matrix.any(axis=0)).max(initial=-1)) + 1 for matrix in matrices]
    return -(-max(used) // BLOCK)


def _blocks(matrix: NDArray[np.int32], num_columns: int) -> NDArray[np.int32]:
    """(R, N) as (R, num_columns, 32), cut or padded with zeros."""
    values = matrix[:, : num_columns * BLOCK]
    values = np.pad(values, ((0, 0), (0, num_columns * BLOCK - values.shape[1])))
    return values.reshape(len(values), num_columns, BLOCK)


def block_widths(low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.int32]:
    """Bits that hold all whole numbers from ``low`` to ``high``, among those that have a code; 0 where both are 0.

    Numbers over MAX_VALUE are given its width: the caller clamps them.
    """
    bits = np.minimum(np.frexp(np.maximum(high, -1 - low).astype(np.float32))[1] + 1, WIDTHS[-1])
    bits = np.where((low == 0) & (high == 0), 0, bits)
    return WIDTHS[_CODE_OF_WIDTH[bits]].astype(np.int32)


def _pack_columns(blocks: list[NDArray[np.int32]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Rows and first word of every column, and the words."""
    num_tiles, num_columns = len(blocks), blocks[0].shape[1]
    column_rows = np.zeros((num_tiles, num_columns), "<u2")
    widths = [np.zeros(0, np.int32)]
    for number, block in enumerate(blocks):
        tile_widths = block_widths(block.min(-1), block.max(-1)).T  # (columns, R)
        for place in range(num_columns):
            column_rows[number, place] = np.flatnonzero(tile_widths[place]).max(initial=-1) + 1
        widths += [row[:count] for row, count in zip(tile_widths, column_rows[number], strict=True)]
    rows = column_rows.ravel()
    column, row = _ragged(rows)
    width = np.concatenate(widths)
    size = -(-rows.astype(np.int64) // 8) + np.bincount(column, width, len(rows)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(size)])
    words = np.zeros(starts[-1], "<u4")
    np.bitwise_or.at(words, starts[column] + row // 8, _CODE_OF_WIDTH[width].astype(np.uint32) << (row % 8 * 4))
    block_starts = _block_starts(starts, rows, column, width)
    values = np.concatenate([b.transpose(1, 0, 2).reshape(-1, BLOCK) for b in blocks])
    heights = np.repeat([len(b) for b in blocks], num_columns)
    values = values[(np.cumsum(heights) - heights)[column] + row]
    for bits in np.unique(width[width > 0]):
        chosen = np.flatnonzero(width == bits)
        planes = (values[chosen, None, :] >> np.arange(bits, dtype=np.int32)[:, None]) & 1
        packed = np.packbits(planes.astype(np.uint8), axis=-1, bitorder="little").view("<u4")[..., 0]
        words[block_starts[chosen, None] + np.arange(bits)] = packed
    return rows, starts.astype("<u4"), words


def _ragged(counts: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For counts [2, 0, 1]: [0, 0, 2] and [0, 1, 0]."""
    counts = counts.astype(np.int64)
    outer = np.repeat(np.arange(len(counts)), counts)
    return outer, np.arange(len(outer)) - (np.cumsum(counts) - counts)[outer]


def _block_starts(starts: NDArray[Any], rows: NDArray[Any], column: NDArray[Any], width: NDArray[Any]) -> NDArray[Any]:
    """First word of every block: behind the codes of its column and the blocks before it."""
    before = np.cumsum(width) - width
    first = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])[:-1]
    base = np.append(before, 0)[first]  # of an empty column past the end: not used
    found: NDArray[np.int64] = starts[column] + -(-rows[column].astype(np.int64) // 8) + before - base[column]
    return found


def parse(data: bytes | memoryview) -> Factors:
    """Views of a member's bytes, after checking that no view and no table entry leads outside of them.

    Raises:
        ShardError: Not a low-rank clip, or its sizes, ranks and tables do not agree with each other and the length.
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEADER.size:
        raise _damaged(f"{len(view)} bytes", f"at least {_HEADER.size}")
    magic, version, scan, *sizes, words, centre = _HEADER.unpack_from(view)
    if magic != _MAGIC:
        raise _damaged(f"first bytes {magic!r}", repr(_MAGIC))
    if version != _VERSION:
        raise ShardError(
            f"low-rank clip of version {version}, expected {_VERSION}", fix="read it with the clipfold that wrote it"
        )
    s, c, h, w, tile_height, tile_width, tiles, rows, basis_columns, columns = sizes
    if not (s and c and h and w and 0 < tile_height <= h and 0 < tile_width <= w) or scan >= NUM_SCANS:
        raise _damaged(f"sizes {sizes}, scan {scan}", "a clip of at least one pixel and tiles within it")
    if tile_height * tile_width > _MAX_TILE_PIXELS:
        raise _damaged(f"tiles of {tile_height} x {tile_width}", f"at most {_MAX_TILE_PIXELS:,} pixels")
    grid = tile_grid(h, w, tile_height, tile_width)
    limit = min(s * c, tile_height * tile_width)
    widest = -(-s * c // BLOCK) + -(-tile_height * tile_width // BLOCK)
    if tiles != grid[0] * grid[1] or rows > tiles * limit or not basis_columns <= columns <= widest:
        raise _damaged(f"{tiles} tiles, {rows} rows, {columns} columns", f"{grid[0] * grid[1]} tiles of this clip")
    if basis_columns > -(-s * c // BLOCK) or columns - basis_columns > -(-tile_height * tile_width // BLOCK):
        raise _damaged(f"{basis_columns} of {columns} columns of basis", "no more than the clip has")
    counts = ((tiles + 1, "<u4"), (rows, "<f4"), (tiles * columns + 1, "<u4"), (tiles * columns, "<u2"), (words, "<u4"))
    ends = [_HEADER.size]
    for count, dtype in counts:
        ends.append(_aligned(ends[-1] + count * np.dtype(dtype).itemsize))
    if ends[-1] != len(view):
        raise _damaged(f"{len(view)} bytes", f"{ends[-1]} by its header")
    tables: list[Any] = [
        np.frombuffer(view, dtype, count, start) for (count, dtype), start in zip(counts, ends[:-1], strict=True)
    ]
    factors = Factors(
        num_frames=s, channels=c, height=h, width=w, tile_height=tile_height, tile_width=tile_width, scan=scan,
        centre=centre, basis_columns=basis_columns, num_columns=columns, row_starts=tables[0], scales=tables[1],
        column_starts=tables[2], column_rows=tables[3], words=tables[4],
    )  # fmt: skip
    _check_tables(factors, limit)
    return factors


def _check_tables(factors: Factors, limit: int) -> None:
    ranks = np.diff(factors.row_starts.astype(np.int64))
    if factors.row_starts[0] or ranks.min() < 0 or ranks.max() > limit or factors.row_starts[-1] != len(factors.scales):
        raise _damaged(f"first rows of tiles {factors.row_starts[:4]}...", f"0 to {len(factors.scales)}, rising")
    sizes = np.diff(factors.column_starts.astype(np.int64))
    if factors.column_starts[0] or sizes.min(initial=0) < 0 or factors.column_starts[-1] != len(factors.words):
        raise _damaged(f"first words of columns {factors.column_starts[:4]}...", f"0 to {len(factors.words)}, rising")
    rows = factors.column_rows.reshape(factors.num_tiles, factors.num_columns)
    if (rows > ranks[:, None]).any() or (sizes < -(-factors.column_rows.astype(np.int64) // 8)).any():
        raise _damaged("a column with more rows than its tile", "at most the tile's rank")
    if not ((np.abs(factors.scales) <= _MAX_SCALE).all() and abs(factors.centre) <= _MAX_SCALE):  # also where NaN
        raise _damaged("scales that no clip has", f"numbers up to {_MAX_SCALE:,.0f}")


def unpack(factors: Factors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The whole numbers of all rows, as floats.

    Returns:
        float32 (rows, S*C) and float32 (rows, tile_height * tile_width), rows of all tiles one after another.

    Raises:
        ShardError: A column whose blocks do not fill exactly its words.
    """
    rows = factors.column_rows
    starts = factors.column_starts.astype(np.int64)
    column, row = _ragged(rows)
    code = (factors.words[starts[column] + row // 8] >> (row % 8 * 4).astype(np.uint32)) & 15
    width = WIDTHS[code].astype(np.int64)
    size = -(-rows.astype(np.int64) // 8) + np.bincount(column, width, len(rows)).astype(np.int64)
    if (code == 1).any() or not np.array_equal(size, np.diff(starts)):
        raise _damaged("blocks that do not fill their column", "widths that add up")
    block_starts = _block_starts(starts, rows, column, width)
    tile, place = np.divmod(column, max(1, factors.num_columns))
    target = (factors.row_starts[tile].astype(np.int64) + row) * factors.num_columns + place
    values = np.zeros((len(factors.scales) * factors.num_columns, BLOCK), np.float32)
    octets = factors.words.view(np.uint8).reshape(-1, 4)
    for bits in np.unique(width[width > 0]):
        chosen = np.flatnonzero(width == bits)
        planes = np.unpackbits(octets[block_starts[chosen, None] + np.arange(bits)], axis=-1, bitorder="little")
        weights = np.ldexp(1.0, np.arange(bits)).astype(np.float32)
        weights[-1] = -weights[-1]
        values[target[chosen]] = np.einsum("nbi,b->ni", planes, weights, dtype=np.float32, casting="unsafe")
    rows_N = values.reshape(len(factors.scales), factors.num_columns * BLOCK)
    border = factors.basis_columns * BLOCK
    return (
        _fitted(rows_N[:, :border], factors.num_frames * factors.channels),
        _fitted(rows_N[:, border:], factors.tile_height * factors.tile_width),
    )


def _fitted(rows_N: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return np.pad(rows_N[:, :size], ((0, 0), (0, max(0, size - rows_N.shape[1]))))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _damaged(found: str, expected: str) -> ShardError:
    return ShardError(f"low-rank clip: {found}, expected {expected}", fix=_DAMAGED)
