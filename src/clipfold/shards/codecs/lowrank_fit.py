"""Choosing what a low-rank clip keeps: one Lagrangian over all tiles, rows and blocks, for a target error.

Per tile the eigenvectors of ``F F^T`` (F: the clip's frequencies, (C*S, pixels)) turn F into rows of falling energy.
Coefficients are rounded to multiples of one step D for the whole clip, basis vectors to multiples of D over the root of
their row's energy (so that an error in either costs the same). Each block of 32 numbers is then stored at the width
its largest number needs, at one width less (the largest are clamped), or not at all, whichever has the smallest
``squared error + 0.12 D^2 bits``; a row is kept where that is less than leaving it out. D alone is searched for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipfold.errors import ShardError
from clipfold.shards.codecs.lowrank_format import BLOCK, MAX_VALUE, WIDTHS, block_widths
from clipfold.shards.codecs.lowrank_transform import NUM_SCANS, coefficient_order, plane_frequencies

__all__ = [
    "Quantised",
    "Rows",
    "best_scan",
    "foretell",
    "largest_step",
    "live_coefficients",
    "quantise",
    "spectral_rows",
]

_LAMBDA = 0.12  # squared error in D^2 that a bit is worth; 0.06 to 0.25 give the same size within 3 %
_CODE_BITS = 4
_ROW_BITS = 32  # the scale
_MAX_EIGENVECTORS = 512
_UNSEEN = 0.01  # of the allowed error: what is left out unseen, to save time
_SCAN_PLANES = 16
_USUAL_STEP = 8.0  # in root mean squared errors: from 3.5 (noise) to 17 (a still picture)
_SMALLEST_ROW_BITS = 100  # no kept row is smaller than this


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One tile, turned: ``basis_RN.T @ coefficients_RP`` is the tile without what is too faint to be kept.

    Args:
        live: int64 (E), the planes (of C*S) that are not too faint.
        frequencies_EP: float32, the live frequencies of the tile, in the order of the scan.
        basis_RN: float32, orthonormal rows.
        coefficients_RP: float32, rows of falling energy.
        energy_R: float64, sum of squares of each row of coefficients.
        total_energy: Sum of squares of all frequencies.
    """

    live: NDArray[np.int64]
    frequencies_EP: NDArray[np.float32]
    basis_RN: NDArray[np.float32]
    coefficients_RP: NDArray[np.float32]
    energy_R: NDArray[np.float64]
    total_energy: float


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """One tile in whole numbers: ``(scales_R[:, None] * basis_RN).T @ coefficients_RP``.

    Args:
        basis_RN: int32.
        coefficients_RP: int32.
        scales_R: float32.
        error: Sum of squared differences to the tile's frequencies.
    """

    basis_RN: NDArray[np.int32]
    coefficients_RP: NDArray[np.int32]
    scales_R: NDArray[np.float32]
    error: float


def best_scan(pictures_TCSP: NDArray[np.float32], tile_height: int, tile_width: int, mse: float) -> int:
    """The scan whose blocks hold the most alike numbers: by their widths in the slowest of the frame frequencies."""
    slow_TCNP = plane_frequencies(pictures_TCSP, min(_SCAN_PLANES, pictures_TCSP.shape[2]))
    slow_QP = np.abs(slow_TCNP).reshape(-1, tile_height * tile_width)
    bits = []
    for scan in range(NUM_SCANS):
        largest = _blocks_RNB(slow_QP[:, coefficient_order(tile_height, tile_width, scan)]).max(axis=-1)
        bits.append(float(np.log2(1 + largest / (_USUAL_STEP * np.sqrt(mse))).sum()))
    return int(np.argmin(bits))


def live_coefficients(pictures_TCSP: NDArray[np.float32], order: NDArray[np.int64], mse: float) -> NDArray[np.int64]:
    """The start of a scan that holds all but 1 % of the allowed error: what follows only costs time."""
    energy_P = np.einsum("tcsp,tcsp->p", pictures_TCSP, pictures_TCSP)[order]
    return order[: _num_live(energy_P, _UNSEEN * mse * pictures_TCSP.size)]


def spectral_rows(frequencies_NP: NDArray[np.float32], total_energy: float, mse: float, num_pixels: int) -> Rows:
    """The eigenvectors of a tile and what they make of it; what is too faint for the target error is left out.

    A step D keeps the mean squared error at D^2 / 3 or less, so the step is hardly ever below 1.4 sqrt(mse), and a row
    with less energy than its bits are worth at that step is not kept; nor one that nobody could see.

    Args:
        frequencies_NP: float32 (C*S, live coefficients).
        total_energy: Sum of squares of the whole tile, with the coefficients that do not live.
        mse: The target error.
        num_pixels: Coefficients of the tile, with those that do not live.
    """
    unseen = _UNSEEN * mse * len(frequencies_NP) * num_pixels
    faint = min(_LAMBDA * _SMALLEST_ROW_BITS * 2.0 * mse, unseen / min(len(frequencies_NP), num_pixels))
    energy_N = np.einsum("np,np->n", frequencies_NP, frequencies_NP)
    order = np.argsort(-energy_N, kind="stable")
    live = order[: _num_live(energy_N[order], unseen)]
    live_EP = frequencies_NP[live]
    turned_RE = _eigenvectors(live_EP[:_MAX_EIGENVECTORS], faint, len(live))
    coefficients_RP = turned_RE @ live_EP
    energy_R = np.einsum("rp,rp->r", coefficients_RP, coefficients_RP).astype(np.float64)
    falling = np.argsort(-energy_R, kind="stable")[: min(len(frequencies_NP), num_pixels)]
    basis_RN = np.zeros((len(falling), len(frequencies_NP)), np.float32)
    basis_RN[:, live] = turned_RE[falling]
    return Rows(
        live=live,
        frequencies_EP=live_EP,
        basis_RN=basis_RN,
        coefficients_RP=coefficients_RP[falling],
        energy_R=energy_R[falling],
        total_energy=total_energy,
    )


def _num_live(falling: NDArray[np.float32], unseen: float) -> int:
    """How many leading values (one at least) leave a tail whose sum is at most ``unseen``."""
    tail = np.cumsum(falling[::-1], dtype=np.float64)[::-1]
    return int(np.flatnonzero(tail > unseen).max(initial=0)) + 1


def _eigenvectors(spun_MP: NDArray[np.float32], faint: float, num_live: int) -> NDArray[np.float32]:
    """Eigenvectors of at least ``faint`` energy, strongest first; frequencies past the M first stay as they are."""
    energy, vectors = np.linalg.eigh((spun_MP @ spun_MP.T).astype(np.float64))
    kept = np.flatnonzero(energy[::-1] > faint)[: spun_MP.shape[1]]
    rest = num_live - len(spun_MP)
    turned_RE = np.zeros((len(kept) + rest, num_live), np.float32)
    turned_RE[: len(kept), : len(spun_MP)] = vectors[:, ::-1][:, kept].T
    turned_RE[len(kept) + np.arange(rest), len(spun_MP) + np.arange(rest)] = 1
    return turned_RE


def foretell(tile: Rows, step: float) -> tuple[float, float]:
    """Bits and squared error of a tile at a step, foretold: basis and coefficients rounded, but not fitted again."""
    choice = _choose_rows(tile, step)
    kept = choice.kept
    error = choice.error_R[kept].sum() * step**2 + tile.total_energy - tile.energy_R[: len(kept)][kept].sum()
    return float(choice.bits_R[kept].sum()), float(error)


def quantise(tile: Rows, step: float) -> Quantised:
    """The tile in whole numbers. The coefficients are fitted anew to the rounded basis before they are rounded."""
    choice = _choose_rows(tile, step)
    basis = choice.basis_RN[choice.kept]
    norms = np.sqrt(np.einsum("rn,rn->r", basis, basis))
    unit_RE = basis[:, tile.live] / norms[:, None]
    gram_RR = unit_RE @ unit_RE.T
    fitted_RP = np.linalg.solve(gram_RR, unit_RE) @ tile.frequencies_EP
    whole = _rows_RN(_round_blocks(_blocks_RNB(fitted_RP / np.float32(step)))[0], fitted_RP.shape[1])
    missed_RP = fitted_RP - whole * np.float32(step)
    error = tile.total_energy - _energy(fitted_RP, gram_RR) + _energy(missed_RP, gram_RR)
    used = whole.any(axis=1)
    return Quantised(
        basis_RN=basis[used].astype(np.int32),
        coefficients_RP=whole[used].astype(np.int32),
        scales_R=(step / norms[used]).astype(np.float32),
        error=error,
    )


def _energy(rows_RP: NDArray[np.float32], gram_RR: NDArray[np.float32]) -> float:
    """Sum of squares of ``basis.T @ rows`` where the basis has this Gram matrix."""
    return float(np.einsum("rp,rp->", gram_RR @ rows_RP, rows_RP, dtype=np.float64))


def largest_step(measure: Callable[[float], float], start: float, target: float, *, tolerance: float) -> float:
    """The largest step found whose ``measure`` is at most the target, and at least ``1 - tolerance`` of it.

    Raises:
        ShardError: No step gets there.
    """
    step, under, over = start, None, None
    for _ in range(24):
        value = max(measure(step), 1e-9 * target)
        if value <= target:
            under = (step, value)
            if value >= target * (1 - tolerance) or step > 1e6 * start:
                return step
        else:
            over = (step, value)
        slope = 1.3
        if under and over:
            slope = max(0.2, np.log(over[1] / under[1]) / np.log(over[0] / under[0]))
        aimed = step * float(np.clip((target * (1 - tolerance / 2) / value) ** (1 / slope), 0.3, 4.0))
        if under and over:  # stay inside, off the ends
            low, high = np.log(under[0]), np.log(over[0])
            aimed = float(np.exp(np.clip(np.log(aimed), low + 0.05 * (high - low), high - 0.05 * (high - low))))
            if over[0] < under[0] * 1.002:
                break
        step = aimed
    if under is None:
        raise ShardError(f"low-rank clip: mean squared error {value:.3g} at the finest step, expected {target:.3g}")
    return under[0]


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """In units of the step: rounded basis, and per row error and bits of basis and coefficients, and who is kept."""

    basis_RN: NDArray[np.float32]
    error_R: NDArray[np.float64]
    bits_R: NDArray[np.float64]
    kept: NDArray[np.bool_]


def _choose_rows(tile: Rows, step: float) -> _Choice:
    energy_R = tile.energy_R / step**2
    count = np.count_nonzero(energy_R > _LAMBDA * _SMALLEST_ROW_BITS)
    energy_R = energy_R[:count]
    scaled_RN = tile.basis_RN[:count] * np.sqrt(energy_R).astype(np.float32)[:, None]
    basis_RNB, error_b, bits_b = _round_blocks(_blocks_RNB(scaled_RN))
    _, error_c, bits_c = _round_blocks(_blocks_RNB(tile.coefficients_RP[:count] / np.float32(step)))
    error_R, bits_R = error_b + error_c, bits_b + bits_c + _ROW_BITS
    basis_RN = _rows_RN(basis_RNB, tile.basis_RN.shape[1])
    kept = (error_R + _LAMBDA * bits_R < energy_R) & basis_RN.any(axis=1)
    return _Choice(basis_RN=basis_RN, error_R=error_R, bits_R=bits_R, kept=kept)


def _blocks_RNB(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    padding = -matrix.shape[1] % BLOCK
    if padding:
        matrix = np.pad(matrix, ((0, 0), (0, padding)))
    return matrix.reshape(len(matrix), matrix.shape[1] // BLOCK, BLOCK)


def _rows_RN(blocks_RNB: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return blocks_RNB.reshape(len(blocks_RNB), blocks_RNB.shape[1] * BLOCK)[:, :size]


def _round_blocks(
    values_RNB: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """The whole numbers that each block is stored as, and per row the squared error and the bits."""
    whole = np.rint(values_RNB)
    low, high = whole.min(axis=-1), whole.max(axis=-1)
    error_RN = np.einsum("rnb,rnb->rn", values_RNB, values_RNB).astype(np.float64)  # of leaving it out
    bits_RN = np.full(error_RN.shape, float(_CODE_BITS))
    filled = np.nonzero((low < 0) | (high > 0))
    values, chosen = values_RNB[filled], whole[filled]
    width = block_widths(low[filled], high[filled])
    narrow = WIDTHS[np.searchsorted(WIDTHS, width) - 1].astype(np.int32)
    limit = np.ldexp(np.float32(1), narrow - 1)[:, None]
    clamped = np.clip(chosen, -limit, limit - 1)
    full = np.clip(chosen, -MAX_VALUE - 1, MAX_VALUE)
    errors = np.stack(
        [error_RN[filled], *(np.square(values - w).sum(axis=-1, dtype=np.float64) for w in (clamped, full))]
    )
    sizes = np.stack([np.zeros_like(width), np.where(narrow > 1, narrow, 32), width]) * BLOCK
    best = np.argmin(errors + _LAMBDA * sizes, axis=0)
    whole[filled] = np.where((best == 2)[:, None], full, np.where((best == 1)[:, None], clamped, 0))
    pick = best, np.arange(len(best))
    error_RN[filled] = errors[pick]
    bits_RN[filled] += sizes[pick]
    return whole, error_RN.sum(axis=1), bits_RN.sum(axis=1)
