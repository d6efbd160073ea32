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
_UNSEEN = 0.04  # of the allowed error: what is left out unseen, to save time
_SCAN_FREQUENCIES = (0, 1, 2, 4, 8, 16, 32, 64)
_USUAL_STEP = 8.0  # in root mean squared errors: from 3.5 (noise) to 17 (a still picture)
_SMALLEST_ROW_BITS = 100  # no kept row is smaller than this


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One tile as orthonormal basis vectors and their coefficients, without what is too faint to be kept.

    Args:
        live: int64 (E), the planes (of C*S) that are not too faint.
        frequencies_EP: float32, the live frequencies of the tile, in the order of the scan.
        blocks_LRN: float32 (32, R, blocks), the rows as they are rounded, number by number of a block: first each basis
            vector times the root of its row's energy, then the coefficients.
        basis_blocks: How many of the blocks are basis.
        energy_R: float64, falling: sum of squares of each row of coefficients.
        total_energy: Sum of squares of all frequencies.
    """

    live: NDArray[np.int64]
    frequencies_EP: NDArray[np.float32]
    blocks_LRN: NDArray[np.float32]
    basis_blocks: int
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
    """The scan whose blocks hold the most alike numbers: by their widths in some of the frame frequencies."""
    chosen = [frequency for frequency in _SCAN_FREQUENCIES if frequency < pictures_TCSP.shape[2]]
    values_QP = np.abs(plane_frequencies(pictures_TCSP, chosen)).reshape(-1, tile_height * tile_width)
    bits = []
    for scan in range(NUM_SCANS):
        largest = _lanes(values_QP[:, coefficient_order(tile_height, tile_width, scan)]).max(axis=0)
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
    turned_RE = _eigenvectors(live_EP, faint)
    coefficients_RP = turned_RE @ live_EP
    energy_R = np.einsum("rp,rp->r", coefficients_RP, coefficients_RP).astype(np.float64)
    falling = np.argsort(-energy_R, kind="stable")
    basis_RN = np.zeros((len(falling), len(frequencies_NP)), np.float32)
    basis_RN[:, live] = turned_RE[falling] * np.sqrt(energy_R[falling]).astype(np.float32)[:, None]
    basis_LRN = _lanes(basis_RN)
    return Rows(
        live=live,
        frequencies_EP=live_EP,
        blocks_LRN=np.concatenate([basis_LRN, _lanes(coefficients_RP[falling])], axis=2),
        basis_blocks=basis_LRN.shape[2],
        energy_R=energy_R[falling],
        total_energy=total_energy,
    )


def _num_live(falling: NDArray[np.float32], unseen: float) -> int:
    """How many leading values (one at least) leave a tail whose sum is at most ``unseen``."""
    tail = np.cumsum(falling[::-1], dtype=np.float64)[::-1]
    return int(np.flatnonzero(tail > unseen).max(initial=0)) + 1


def _eigenvectors(live_EP: NDArray[np.float32], faint: float) -> NDArray[np.float32]:
    """float32 (R, E), R at most min(E, P): orthonormal planes of at least ``faint`` energy, strongest first.

    From whichever of ``F F^T`` and ``F^T F`` is smaller; of more than 512 planes the weaker ones stay as they are.
    """
    num_planes, num_pixels = live_EP.shape
    if num_planes > num_pixels:
        energy, vectors = np.linalg.eigh((live_EP.T @ live_EP).astype(np.float64))
        kept = np.flatnonzero(energy > faint)[::-1]
        seen_ER = live_EP @ vectors[:, kept].astype(np.float32)
        unit_RE: NDArray[np.float32] = (seen_ER / np.sqrt(energy[kept]).astype(np.float32)).T
        return unit_RE
    spun_MP = live_EP[:_MAX_EIGENVECTORS]
    energy, vectors = np.linalg.eigh((spun_MP @ spun_MP.T).astype(np.float64))
    kept = np.flatnonzero(energy > faint)[::-1]
    rest = num_planes - len(spun_MP)
    turned_RE = np.zeros((len(kept) + rest, num_planes), np.float32)
    turned_RE[: len(kept), : len(spun_MP)] = vectors[:, kept].T
    turned_RE[len(kept) + np.arange(rest), len(spun_MP) + np.arange(rest)] = 1
    return turned_RE


def foretell(tile: Rows, step: float) -> float:
    """Squared error of a tile at a step: basis and coefficients rounded, but not fitted to each other again."""
    _, error_R, kept = _choose_rows(tile, step)
    return float(tile.total_energy + error_R[kept].sum() * step**2 - tile.energy_R[: len(kept)][kept].sum())


def quantise(tile: Rows, step: float, num_planes: int) -> Quantised:
    """The tile in whole numbers. The coefficients are fitted anew to the rounded basis before they are rounded."""
    basis_RN, _, kept = _choose_rows(tile, step)
    basis_RN = basis_RN[kept][:, :num_planes]
    norms = np.sqrt(np.einsum("rn,rn->r", basis_RN, basis_RN))
    unit_RE = basis_RN[:, tile.live] / norms[:, None]
    gram_RR = unit_RE @ unit_RE.T
    fitted_RP = np.linalg.solve(gram_RR, unit_RE) @ tile.frequencies_EP
    whole_LRN, _, _ = _round_blocks(_lanes(fitted_RP / np.float32(step)))
    whole = _flat(whole_LRN)[:, : fitted_RP.shape[1]]
    missed_RP = fitted_RP - whole * np.float32(step)
    error = tile.total_energy - _energy(fitted_RP, gram_RR) + _energy(missed_RP, gram_RR)
    used = whole.any(axis=1)
    return Quantised(
        basis_RN=basis_RN[used].astype(np.int32),
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


def _choose_rows(tile: Rows, step: float) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
    """Rounded basis, error in steps^2, and who is kept, of the rows that are strong enough at this step."""
    energy_R = tile.energy_R / step**2
    count = np.count_nonzero(energy_R > _LAMBDA * _SMALLEST_ROW_BITS)
    whole_LRN, error_R, bits_R = _round_blocks(tile.blocks_LRN[:, :count] * np.float32(1 / step))
    basis_RN = _flat(whole_LRN[:, :, : tile.basis_blocks])
    kept = (error_R + _LAMBDA * (bits_R + _ROW_BITS) < energy_R[:count]) & basis_RN.any(axis=1)
    return basis_RN, error_R, kept


def _lanes(matrix_RN: NDArray[np.float32]) -> NDArray[np.float32]:
    """(R, N) as (32, R, blocks), padded with zeros: sums over a block's 32 numbers then run over whole arrays."""
    rows, size = matrix_RN.shape
    padded = np.zeros((rows, -(-size // BLOCK) * BLOCK), np.float32)
    padded[:, :size] = matrix_RN
    return np.ascontiguousarray(padded.reshape(rows, -(-size // BLOCK), BLOCK).transpose(2, 0, 1))


def _flat(blocks_LRN: NDArray[np.float32]) -> NDArray[np.float32]:
    lanes, rows, blocks = blocks_LRN.shape
    return blocks_LRN.transpose(1, 2, 0).reshape(rows, blocks * lanes)


def _round_blocks(
    values_LRN: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """The whole numbers that each block is stored as, and per row the squared error and the bits."""
    lanes, rows, blocks = values_LRN.shape
    values_LQ = values_LRN.reshape(lanes, rows * blocks)
    whole_LQ = np.rint(values_LQ)
    low, high = whole_LQ.min(axis=0), whole_LQ.max(axis=0)
    error_Q = np.einsum("lq,lq->q", values_LQ, values_LQ).astype(np.float64)  # of leaving it out
    bits_Q = np.full(error_Q.shape, float(_CODE_BITS))
    filled = np.flatnonzero((low < 0) | (high > 0))
    values, whole = values_LQ[:, filled], whole_LQ[:, filled]
    width = block_widths(low[filled], high[filled])
    narrow = WIDTHS[np.searchsorted(WIDTHS, width) - 1].astype(np.int32)
    limit = np.ldexp(np.float32(1), narrow - 1)
    clamped = np.clip(whole, -limit, limit - 1)
    np.clip(whole, -MAX_VALUE - 1, MAX_VALUE, out=whole)
    errors = np.stack([error_Q[filled], *(np.einsum("lq,lq->q", d, d) for d in (values - clamped, values - whole))])
    sizes = np.stack([np.zeros_like(width), np.where(narrow > 1, narrow, 32), width]) * BLOCK
    best = np.argmin(errors + _LAMBDA * sizes, axis=0)
    np.copyto(whole, clamped, where=best == 1)
    whole[:, best == 0] = 0
    whole_LQ[:, filled] = whole
    pick = best, np.arange(len(best))
    error_Q[filled] = errors[pick]
    bits_Q[filled] += sizes[pick]
    return (
        whole_LQ.reshape(lanes, rows, blocks),
        error_Q.reshape(rows, blocks).sum(axis=1),
        bits_Q.reshape(rows, blocks).sum(axis=1),
    )
