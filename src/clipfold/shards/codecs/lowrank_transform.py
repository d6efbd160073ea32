"""The fixed half of a low-rank clip: its tiles, and the orthonormal DCT over frames, channels, rows and columns.

Everything here is linear and the same for every clip of a shape, so that a reader may apply it to K reduced maps (the
last two axes) and to a reducer's weights (the first two) in place of S * C planes of pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NUM_SCANS",
    "basis_frames",
    "coefficient_order",
    "coefficient_pixels",
    "dct_matrix",
    "picture_frequencies",
    "plane_frequencies",
    "tile_grid",
    "tile_sides",
]

_SLOPES = ((0, 1), (1, 4), (1, 1), (4, 1))  # how much a vertical frequency counts beside a horizontal one
NUM_SCANS = len(_SLOPES)
_TILE_PIXELS = 2048
_TILE_HEIGHT = 32


def tile_sides(height: int, width: int) -> tuple[int, int]:
    """Height and width of the tiles: about 2,048 pixels, at most 32 rows, as even a cover as can be.

    16 x 701 makes 6 tiles of 16 x 117. Half or twice that helps some clips by a fifth and costs others a half.
    """
    tile_height = -(-height // -(-height // _TILE_HEIGHT))
    return tile_height, -(-width // -(-width * tile_height // _TILE_PIXELS))


def tile_grid(height: int, width: int, tile_height: int, tile_width: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover a picture."""
    return -(-height // tile_height), -(-width // tile_width)


@lru_cache(maxsize=64)
def dct_matrix(num_points: int) -> NDArray[np.float32]:
    """Orthonormal DCT-II: float32 (frequencies, points); its transpose is its inverse."""
    frequency, point = np.ogrid[:num_points, :num_points]
    matrix: NDArray[np.float64] = np.cos(np.pi / num_points * (point + 0.5) * frequency) * np.sqrt(2.0 / num_points)
    matrix[0] = np.sqrt(1.0 / num_points)
    rounded: NDArray[np.float32] = matrix.astype(np.float32)
    rounded.flags.writeable = False
    return rounded


@lru_cache(maxsize=64)
def coefficient_order(tile_height: int, tile_width: int, scan: int) -> NDArray[np.int64]:
    """Which (row frequency * tile_width + column frequency) each coefficient is: int64 (tile_height * tile_width).

    Low frequencies come first. ``scan`` 0 goes through all row frequencies of a column frequency before the next one
    (pictures much wider than high, where most vertical detail survived and most horizontal detail never was); 1, 2
    and 3 go diagonally, a row frequency counting a quarter, once or four times as much as a column frequency.
    """
    row, column = np.ogrid[:tile_height, :tile_width]
    slope = _SLOPES[scan]
    key = slope[0] * row * tile_width + slope[1] * column * tile_height
    order = np.argsort(np.broadcast_to(key, (tile_height, tile_width)).ravel(), kind="stable")
    order.flags.writeable = False
    return order


def picture_frequencies(
    clip_SCHW: NDArray[np.uint8], tile_height: int, tile_width: int, centre: float
) -> NDArray[np.float32]:
    """Every plane's tiles as frequencies, channels still as they are.

    Returns:
        float32 (tiles, C, S, tile_height * tile_width), the last axis row frequency * tile_width + column frequency.
        Tiles over the border repeat the last row and column.
    """
    s, c, h, w = clip_SCHW.shape
    rows, columns = tile_grid(h, w, tile_height, tile_width)
    x = np.empty((c, s, rows * tile_height, columns * tile_width), np.float32)
    np.subtract(clip_SCHW.transpose(1, 0, 2, 3), np.float32(centre), out=x[:, :, :h, :w])
    x[:, :, :h, w:] = x[:, :, :h, w - 1 : w]
    x[:, :, h:] = x[:, :, h - 1 : h]
    x = (x.reshape(-1, tile_width) @ dct_matrix(tile_width).T).reshape(c * s, rows, tile_height, columns * tile_width)
    x = (dct_matrix(tile_height) @ x).reshape(c * s, rows, tile_height, columns, tile_width)
    return np.ascontiguousarray(x.transpose(1, 3, 0, 2, 4)).reshape(rows * columns, c, s, tile_height * tile_width)


def plane_frequencies(pictures_CSP: NDArray[np.float32], chosen: list[int] | None = None) -> NDArray[np.float32]:
    """The DCT over frames, then over channels: float32 (..., C, S, P) -> the same shape, or only chosen frequencies."""
    c, s, p = pictures_CSP.shape[-3:]
    matrix = dct_matrix(s) if chosen is None else dct_matrix(s)[chosen]
    x = matrix @ pictures_CSP
    return (dct_matrix(c) @ x.reshape(*x.shape[:-3], c, -1)).reshape(*x.shape[:-3], c, len(matrix), p)


def basis_frames(basis_RN: NDArray[np.float32], num_frames: int, channels: int) -> NDArray[np.float32]:
    """Rows of basis as they weigh frames and channels: float32 (R, C*S) -> (R, S, C)."""
    basis_RCS = basis_RN.reshape(-1, channels, num_frames) @ dct_matrix(num_frames)
    weights_RSC: NDArray[np.float32] = np.einsum("rcs,cd->rsd", basis_RCS, dct_matrix(channels))
    return weights_RSC


def coefficient_pixels(
    coefficients_RP: NDArray[Any], tile_height: int, tile_width: int, scan: int
) -> NDArray[np.float32]:
    """Rows of coefficients as pictures: float32 (R, tile_height * tile_width) -> (R, tile_height, tile_width)."""
    ordered = np.empty_like(coefficients_RP, dtype=np.float32)
    ordered[:, coefficient_order(tile_height, tile_width, scan)] = coefficients_RP
    x = (ordered.reshape(-1, tile_width) @ dct_matrix(tile_width)).reshape(-1, tile_height, tile_width)
    pictures: NDArray[np.float32] = dct_matrix(tile_height).T @ x
    return pictures
