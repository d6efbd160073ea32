"""``lowrank``: one product of small matrices per tile of the picture, never decoded on the way to a linear reducer.

::

    tile (S*C, pixels)  =  128  +  D_SC^T  basis (S*C, R)  x  coefficients (R, pixels)  D_hw
                                   fixed   stored              stored                   fixed

D are orthonormal cosine transforms: over frames and channels on the basis' side, over rows and columns of the tile on
the coefficients'. Most numbers on both sides become 0 or small, and are kept in as many bits as their block of 32
needs (the ``lowrank_format`` module has the bytes, ``lowrank_fit`` the choice of bits). A linear reducer with weights W
(K, S*C) needs no pixel: it turns W once (``W D_SC^T``), multiplies it by each tile's basis, sums R rows of coefficients
into K maps of frequencies, and turns only those K maps back into pictures.

The pixels of a low-rank clip are *defined* as that sum, unrounded and unclamped (:meth:`Lowrank.decode_floats`); bytes
are for readers that want bytes.

Files of real video, 100 frames at 3 x 16 x 701 (raw: 3,365 kB), kB a clip at 38 dB beside a 4:4:4 JPEG strip of the
same PSNR. Decoding takes 4 to 15 ms on one core; two processes encode 20 clips/s::

                              lowrank   JPEG                                  lowrank   JPEG
    nasa_13013                    2.6    112      test.avi (UCF-101 style)       18.8    299
    fight_cctv_short, one of 80   4.6    278      flipping_a_pancake             22.1    339
    big_buck_bunny_0_30           4.9     96      bbb_800x640                    22.5    425
    otb_crossing                  5.4    254      fight_cctv_short, another      33.3    498
    bgslib video.avi              7.6    156      sam2 bedroom                   52.6    278
    carphone                     13.8    303      demo.mp4 (Kinetics)            72.2    419
    av1_video                    17.6    428      sar_2x1                        74.3    359
    radhar (sparse radar)        17.7     47

H.264 4:2:0 makes 22 kB of carphone at 35.6 dB and 61 kB of demo.mp4 at 31.5 dB. Sparse radar wants ``lossless``: 6 kB,
exact.

Tried and left out (2026-11; kB of demo.mp4 unless said otherwise):

- Coefficients left as pixels, 4 or 8 bits a row, int8 basis, in a prototype: 432 kB, nasa_13013 17 kB.
- An int8 basis without transform, beside transformed coefficients: 234 kB where the rounded one gave 186 (64 columns).
- A diagonal scan for every clip: 182 kB where ``best_scan`` gives 90 (176 columns).
- No stored basis at all, a four-dimensional DCT: 1.2 to 4.5 times the size; equal for nasa_13013 alone.
- One basis for all tiles (estimated): 13 % smaller, sam2 bedroom 28 % larger.
- Tiles of 3,760 pixels: 22 % smaller (big_buck_bunny) to 57 % larger (sar_2x1); of 1,024: 16 % smaller (av1_video) to
  37 % larger. The best size for each clip would save 12 % on average, for several encodings of each.
- Blocks of 16 numbers: 3 to 8 % larger. Widths of 0, 4, 8 and 16 bits alone: 10 to 25 % larger.
- A bitmap and signs for blocks of -1, 0 and 1: 5 to 7 % smaller, but where a block starts would hang on the numbers of
  all blocks before it.
- An ideal entropy code for the numbers, given their block's width: 21 to 37 % smaller; zstd 19 over the member: 6 to
  23 %. Neither can be read in place.
- Fitting the basis again to the rounded coefficients: 2 to 6 % smaller, three times over 3 to 9 %; each time is one
  more rounding of everything.
- A step of its own for the basis, 0.7, 1.4 or 2 times as large: up to 5 % larger. A bit worth 0.06 or 0.25 D^2: 2 to
  3 % larger.
- Shifting frames against each other for panning cameras: not measured, because a roll that differs by frame does not
  fold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs import Layout, check_clip
from clipfold.shards.codecs.lowrank_fit import (
    Quantised,
    Rows,
    best_scan,
    foretell,
    largest_step,
    live_coefficients,
    quantise,
    spectral_rows,
)
from clipfold.shards.codecs.lowrank_format import Factors, pack, parse, unpack
from clipfold.shards.codecs.lowrank_transform import (
    basis_frames,
    coefficient_order,
    coefficient_pixels,
    picture_frequencies,
    plane_frequencies,
    tile_grid,
    tile_sides,
)

__all__ = ["Factors", "Lowrank"]

_CENTRE = 128.0
_MAX_PLANES = 4096


class Lowrank:
    """Clips as low-rank products of whole numbers, at a chosen PSNR.

    Args:
        min_psnr: In dB, 20 to 60: ``10 log10(255^2 / mean squared error)`` of every clip is at least this, measured
            on the unrounded pixels that the stored bytes stand for.

    Raises:
        ValueError: ``min_psnr`` out of range.
    """

    extension = "lowrank"
    depends_on_cpu = True  # BLAS adds in another order on another type: the same quality, other bytes
    layout: Layout = "SCHW"
    exact = False

    def __init__(self, *, min_psnr: float = 38.0) -> None:
        if isinstance(min_psnr, bool) or not isinstance(min_psnr, int | float) or not 20 <= min_psnr <= 60:
            raise ValueError(f"min_psnr of codec 'lowrank': {min_psnr!r}, expected a number from 20 to 60 (dB)")
        self.min_psnr = float(min_psnr)

    def settings(self) -> dict[str, Any]:
        """``min_psnr``."""
        return {"min_psnr": self.min_psnr}

    def check(self, spec: ClipSpec) -> None:
        """uint8, and at most 4,096 planes (S * C).

        Raises:
            ValueError: One of these does not hold.
        """
        if spec.dtype != "uint8":
            raise ValueError(f"codec 'lowrank' holds uint8 clips, not {spec.dtype}; use codec 'lossless' or 'raw'")
        if spec.num_frames * spec.channels > _MAX_PLANES:
            raise ValueError(
                f"codec 'lowrank' holds at most {_MAX_PLANES:,} planes, but {spec.num_frames} frames of "
                f"{spec.channels} channels are {spec.num_frames * spec.channels:,}; use fewer frames or codec 'mp4'"
            )

    def header_bytes(self, spec: ClipSpec) -> int | None:
        """``None``: the bytes are factors, not pixels."""
        return None

    def encode(self, clip_SCHW: NDArray[Any], spec: ClipSpec) -> bytes:
        """The smallest product found that keeps ``min_psnr``.

        The bytes depend on the BLAS kernel that the CPU selects, and on its threads: encode with one
        (``OPENBLAS_NUM_THREADS=1``) for bytes that repeat.

        Raises:
            ValueError: Another shape or dtype than the spec's.
            ShardError: The target cannot be met.
        """
        check_clip(clip_SCHW, spec)
        target = (1 - 1e-5) * 255.0**2 / 10 ** (self.min_psnr / 10)  # less the rounding of its own measurement
        aimed = target
        for _ in range(8):
            data = _encode(clip_SCHW, aimed)
            found = _mean_squared_error(data, clip_SCHW)
            if found <= target:
                return data
            aimed *= 0.995 * target / found
        raise ShardError(f"low-rank clip: mean squared error {found:.4g}, expected at most {target:.4g}")

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], spec: ClipSpec) -> None:
        """Decode into the slot (S, C, H, W), rounded to the nearest whole number in [0, 255].

        Raises:
            ShardError: Not a low-rank clip of this spec.
        """
        for place, pixels_SCHW in _decoded_tiles(self.factors(data, spec)):
            np.rint(pixels_SCHW, out=pixels_SCHW)
            np.clip(pixels_SCHW, 0, 255, out=pixels_SCHW)
            np.copyto(out[place], pixels_SCHW, casting="unsafe")

    def decode_floats(self, data: bytes | memoryview, out: NDArray[np.float32], spec: ClipSpec) -> None:
        """The pixels as they are defined, neither rounded nor clamped: float32 (S, C, H, W), mostly in [0, 255].

        Raises:
            ShardError: Not a low-rank clip of this spec.
        """
        for place, pixels_SCHW in _decoded_tiles(self.factors(data, spec)):
            out[place] = pixels_SCHW

    def factors(self, data: bytes | memoryview, spec: ClipSpec) -> Factors:
        """Sizes, tables and words of a member as views of its bytes; nothing is decoded.

        Raises:
            ShardError: Not a low-rank clip of this spec.
        """
        factors = parse(data)
        if factors.shape_SCHW != spec.shape_SCHW:
            raise ShardError(
                f"low-rank clip of {factors.shape_SCHW} (S, C, H, W), expected {spec.shape_SCHW}",
                fix="the sample is damaged or of another corpus; convert again",
            )
        return factors


def _encode(clip_SCHW: NDArray[np.uint8], mse: float) -> bytes:
    sides = tile_sides(*clip_SCHW.shape[2:])
    pictures_TCSP = picture_frequencies(clip_SCHW, *sides, _CENTRE)
    scan = best_scan(pictures_TCSP, *sides, mse)
    live = live_coefficients(pictures_TCSP, coefficient_order(*sides, scan), mse)
    tiles = []
    for pictures_CSP in pictures_TCSP:
        frequencies_NP = plane_frequencies(pictures_CSP[:, :, live]).reshape(-1, len(live))
        total_energy = float(np.einsum("csp,csp->", pictures_CSP, pictures_CSP, dtype=np.float64))
        tiles.append(spectral_rows(frequencies_NP, total_energy, mse, pictures_CSP.shape[2]))
    quantised = _fit(tiles, mse, pictures_TCSP.shape)
    return pack(
        [tile.basis_RN for tile in quantised],
        [tile.coefficients_RP for tile in quantised],
        np.concatenate([tile.scales_R for tile in quantised]),
        shape_SCHW=clip_SCHW.shape,
        tile=sides,
        scan=scan,
        centre=_CENTRE,
    )


def _fit(tiles: list[Rows], mse: float, shape_TCSP: tuple[int, ...]) -> list[Quantised]:
    """All tiles at the largest common step that keeps the error: foretold first, then measured."""
    num_values, num_planes = math.prod(shape_TCSP), shape_TCSP[1] * shape_TCSP[2]
    guess = largest_step(
        lambda step: sum(foretell(tile, step) for tile in tiles) / num_values, 8 * mse**0.5, mse, tolerance=0.04
    )
    found: dict[float, list[Quantised]] = {}

    def measure(step: float) -> float:
        found[step] = [quantise(tile, step, num_planes) for tile in tiles]
        return sum(tile.error for tile in found[step]) / num_values

    # fitting again gives back 2 to 7 % of the error
    return found[largest_step(measure, 1.03 * guess, mse, tolerance=0.02)]


def _mean_squared_error(data: bytes, clip_SCHW: NDArray[np.uint8]) -> float:
    squares = 0.0
    for place, pixels_SCHW in _decoded_tiles(parse(data)):
        pixels_SCHW -= clip_SCHW[place]
        squares += float(np.einsum("schw,schw->sc", pixels_SCHW, pixels_SCHW).sum(dtype=np.float64))
    return squares / clip_SCHW.size


def _decoded_tiles(factors: Factors) -> Iterator[tuple[tuple[slice, ...], NDArray[np.float32]]]:
    """Where each tile lies in the clip, and its pixels: new memory each."""
    basis_RN, coefficients_RP = unpack(factors)
    s, c, h, w = factors.shape_SCHW
    th, tw = factors.tile_height, factors.tile_width
    weights = basis_frames(basis_RN * factors.scales[:, None], s, c).reshape(-1, s * c)
    pictures = coefficient_pixels(coefficients_RP, th, tw, factors.scan).reshape(-1, th * tw)
    columns = tile_grid(h, w, th, tw)[1]
    for tile, (start, stop) in enumerate(zip(factors.row_starts[:-1], factors.row_starts[1:], strict=True)):
        top, left = tile // columns * th, tile % columns * tw
        pixels = weights[start:stop].T @ pictures[start:stop]
        pixels += np.float32(factors.centre)
        place = np.s_[:, :, top : min(h, top + th), left : min(w, left + tw)]
        yield place, pixels.reshape(s, c, th, tw)[:, :, : h - top, : w - left]
