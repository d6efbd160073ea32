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
from clipfold.shards.codecs.lowrank_transform import NUM_SCANS, coefficient_order

__all__ = ["Quantised", "Rows", "best_scan", "foretell", "largest_step", "quantise", "spectral_rows"]

_LAMBDA = 0.12  # squared error in D^2 that a bit is worth; 0.06 to 0.25 give the same size within 3 %
_CODE_BITS = 4
_ROW_BITS = 32  # the scale
_MAX_EIGENVECTORS = 512
_SCAN_PLANES = 24
_USUAL_STEP = 8.0  # in root mean squared errors: from 3.5 (noise) to 17 (a still picture)
_SMALLEST_ROW_BITS = 100  # no kept row is smaller than this


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One tile, turned: ``basis_RN.T @ coefficients_RP`` is the tile without what is too faint to be kept.

    Args:
        frequencies_NP: float32, all frequencies of the tile in the order of the scan.
        basis_RN: float32, orthonormal rows.
        coefficients_RP: float32, rows of falling energy.
        energy_R: float64, sum of squares of each row of coefficients.
        total_energy: Sum of squares of all frequencies.
    """

    frequencies_NP: NDArray[np.float32]
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


def best_scan(frequencies_TNP: NDArray[np.float32], tile_height: int, tile_width: int, mse: float) -> int:
    """The scan whose blocks hold the most alike numbers: by the widths of the strongest planes' blocks."""
    energy_TN = np.einsum("tnp,tnp->tn", frequencies_TNP, frequencies_TNP)
    strongest = np.argsort(-energy_TN, axis=1, kind="stable")[:, :_SCAN_PLANES]
    values_QP = np.take_along_axis(frequencies_TNP, strongest[..., None], axis=1).reshape(-1, tile_height * tile_width)
    np.abs(values_QP, out=values_QP)
    bits = []
    for scan in range(NUM_SCANS):
        largest = _blocks_RNB(values_QP[:, coefficient_order(tile_height, tile_width, scan)]).max(axis=-1)
        bits.append(float(np.log2(1 + largest / (_USUAL_STEP * np.sqrt(mse))).sum()))
    return int(np.argmin(bits))


def spectral_rows(frequencies_NP: NDArray[np.float32], mse: float) -> Rows:
    """The eigenvectors of a tile and what they make of it; rows too faint for the target error are left out.

    A step D keeps the mean squared error at D^2 / 3 or less, so the step is never below 1.4 sqrt(mse), and a row with
    less energy than its bits are worth at that step is never kept.
    """
    faint = _LAMBDA * _SMALLEST_ROW_BITS * 2.0 * mse
    energy_N = np.einsum("np,np->n", frequencies_NP, frequencies_NP)
    order = np.argsort(-energy_N, kind="stable")
    tail = np.cumsum(energy_N[order][::-1], dtype=np.float64)[::-1]
    # frequencies that together hold under 1 % of the allowed error only make the eigenvectors slower to find
    live = order[: np.count_nonzero(tail > 0.01 * mse * frequencies_NP.size)]
    spun, rest = live[:_MAX_EIGENVECTORS], live[_MAX_EIGENVECTORS:]
    spun_EP = frequencies_NP[spun]
    energy, vectors = np.linalg.eigh((spun_EP @ spun_EP.T).astype(np.float64))
    kept = np.flatnonzero(energy[::-1] > faint)[: frequencies_NP.shape[1]]
    turned = np.ascontiguousarray(vectors[:, ::-1][:, kept].T.astype(np.float32))
    basis_RN = np.zeros((len(kept) + len(rest), len(frequencies_NP)), np.float32)
    basis_RN[: len(kept), spun] = turned
    basis_RN[len(kept) + np.arange(len(rest)), rest] = 1
    coefficients_RP = np.concatenate([turned @ spun_EP, frequencies_NP[rest]])
    energy_R = np.einsum("rp,rp->r", coefficients_RP, coefficients_RP).astype(np.float64)
    falling = np.argsort(-energy_R, kind="stable")[: min(frequencies_NP.shape)]
    return Rows(
        frequencies_NP=frequencies_NP,
        basis_RN=basis_RN[falling],
        coefficients_RP=coefficients_RP[falling],
        energy_R=energy_R[falling],
        total_energy=float(energy_N.sum(dtype=np.float64)),
    )


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
    unit_RN = basis / norms[:, None]
    seen_RP = unit_RN @ tile.frequencies_NP
    gram_RR = unit_RN @ unit_RN.T
    fitted_RP = np.linalg.solve(gram_RR, seen_RP)
    whole = _round_blocks(_blocks_RNB(fitted_RP / np.float32(step)))[0].reshape(len(basis), -1)
    whole = whole[:, : fitted_RP.shape[1]]
    missed_RP = fitted_RP - whole * np.float32(step)
    error = (
        tile.total_energy
        - np.einsum("rp,rp->", seen_RP, fitted_RP, dtype=np.float64)
        + np.einsum("rp,rp->", gram_RR @ missed_RP, missed_RP, dtype=np.float64)
    )
    used = whole.any(axis=1)
    return Quantised(
        basis_RN=basis[used].astype(np.int32),
        coefficients_RP=whole[used].astype(np.int32),
        scales_R=(step / norms[used]).astype(np.float32),
        error=float(error),
    )


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
    basis_RN = basis_RNB.reshape(count, -1)[:, : tile.basis_RN.shape[1]]
    kept = (error_R + _LAMBDA * bits_R < energy_R) & basis_RN.any(axis=1)
    return _Choice(basis_RN=basis_RN, error_R=error_R, bits_R=bits_R, kept=kept)


def _blocks_RNB(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    padding = -matrix.shape[1] % BLOCK
    if padding:
        matrix = np.pad(matrix, ((0, 0), (0, padding)))
    return matrix.reshape(len(matrix), matrix.shape[1] // BLOCK, BLOCK)


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
