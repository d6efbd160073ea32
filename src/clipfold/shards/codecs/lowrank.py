"""``lowrank``: one product of small matrices per tile of the picture, never decoded on the way to a linear reducer."""

from __future__ import annotations

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
        target = 255.0**2 / 10 ** (self.min_psnr / 10)
        aimed = target
        for _ in range(8):
            data = _encode(clip_SCHW, aimed)
            found = _mean_squared_error(data, clip_SCHW, spec)
            if found <= target:
                return data
            aimed *= 0.995 * target / found
        raise ShardError(f"low-rank clip: mean squared error {found:.4g}, expected at most {target:.4g}")

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], spec: ClipSpec) -> None:
        """Decode into the slot (S, C, H, W), rounded to the nearest whole number in [0, 255].

        Raises:
            ShardError: Not a low-rank clip of this spec.
        """
        _decode(self.factors(data, spec), out)

    def decode_floats(self, data: bytes | memoryview, out: NDArray[np.float32], spec: ClipSpec) -> None:
        """The pixels as they are defined, neither rounded nor clamped: float32 (S, C, H, W), mostly in [0, 255].

        Raises:
            ShardError: Not a low-rank clip of this spec.
        """
        _decode(self.factors(data, spec), out)

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
        frequencies_NP = plane_frequencies(pictures_CSP[:, :, live], len(clip_SCHW)).reshape(-1, len(live))
        total_energy = float(np.einsum("csp,csp->", pictures_CSP, pictures_CSP, dtype=np.float64))
        tiles.append(spectral_rows(frequencies_NP, total_energy, mse, pictures_CSP.shape[2]))
    quantised = _fit(tiles, mse, pictures_TCSP.size)
    return pack(
        [tile.basis_RN for tile in quantised],
        [tile.coefficients_RP for tile in quantised],
        np.concatenate([tile.scales_R for tile in quantised]),
        shape_SCHW=clip_SCHW.shape,
        tile=sides,
        scan=scan,
        centre=_CENTRE,
    )


def _fit(tiles: list[Rows], mse: float, num_values: int) -> list[Quantised]:
    """All tiles at the largest common step that keeps the error: foretold first, then measured."""
    guess = largest_step(
        lambda step: sum(foretell(tile, step)[1] for tile in tiles) / num_values, 8 * mse**0.5, mse, tolerance=0.04
    )
    found: dict[float, list[Quantised]] = {}

    def measure(step: float) -> float:
        found[step] = [quantise(tile, step) for tile in tiles]
        return sum(tile.error for tile in found[step]) / num_values

    return found[largest_step(measure, guess, mse, tolerance=0.02)]


def _mean_squared_error(data: bytes, clip_SCHW: NDArray[np.uint8], spec: ClipSpec) -> float:
    pixels_SCHW = np.empty(spec.shape_SCHW, np.float32)
    _decode(parse(data), pixels_SCHW)
    pixels_SCHW -= clip_SCHW
    return float(np.einsum("schw,schw->", pixels_SCHW, pixels_SCHW, dtype=np.float64)) / spec.num_values


def _decode(factors: Factors, out_SCHW: NDArray[Any]) -> None:
    basis_RN, coefficients_RP = unpack(factors)
    s, c, h, w = factors.shape_SCHW
    th, tw = factors.tile_height, factors.tile_width
    weights = basis_frames(basis_RN * factors.scales[:, None], s, c).reshape(-1, s * c)
    pictures = coefficient_pixels(coefficients_RP, th, tw, factors.scan).reshape(-1, th * tw)
    columns = tile_grid(h, w, th, tw)[1]
    for tile, (start, stop) in enumerate(zip(factors.row_starts[:-1], factors.row_starts[1:], strict=True)):
        top, left = tile // columns * th, tile % columns * tw
        place = out_SCHW[:, :, top : top + th, left : left + tw]
        pixels = weights[start:stop].T @ pictures[start:stop]
        pixels += np.float32(factors.centre)
        if out_SCHW.dtype == np.uint8:
            np.clip(np.rint(pixels, out=pixels), 0, 255, out=pixels)
        np.copyto(place, pixels.reshape(s, c, th, tw)[:, :, : place.shape[2], : place.shape[3]], casting="unsafe")
