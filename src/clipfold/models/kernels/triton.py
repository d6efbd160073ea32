"""The reduction on NVIDIA GPUs: chooses memory layout and tile sizes, and starts the kernels of ``triton_dense``.

Same functions and numbers as :mod:`.reference`: for fp32 weights, sums that differ by 1e-6 (reduction) and 4e-6 (its
gradients) in norm at most, as fp32 itself does to within a factor of ten. float64 goes to the reference.

Nothing waits for the GPU and nothing is tuned at run time, so that CUDA graphs can capture it. Gradients are summed in
two stages, in the same order each time: two runs give the same bits.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType

import torch

from clipfold.models.kernels import reference

__all__ = ["reduce", "reduce_grad", "supports"]

_MOST_CLIPS = 65535  # of a launch in its second and third dimension


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What one program does at a time, and how."""

    maps: int
    positions: int
    rows: int
    more_rows: int = 0  # gradient: of a second accumulator
    split: int = 1408  # gradient: positions of one program
    num_warps: int = 4
    num_stages: int = 3


# By the number of maps, rounded up to a power of two: the fastest, or within 2 % of them, of some 200 on an H100,
# 100x3x16x701 (``tools/results/fold.jsonl``; ``tools/bench_fold.py --tiles`` measures them again).
_REDUCE_TILES = {
    8: Tile(maps=32, positions=256, rows=64),
    16: Tile(maps=32, positions=256, rows=64),
    32: Tile(maps=32, positions=256, rows=64),
    64: Tile(maps=64, positions=128, rows=32, num_stages=4),
}
_GRAD_TILES = {
    8: Tile(maps=8, positions=128, rows=128, num_warps=8),
    16: Tile(maps=16, positions=128, rows=128, num_warps=8, split=2816),
    32: Tile(maps=32, positions=64, rows=128, split=2816),
    64: Tile(maps=32, positions=64, rows=128, split=2816),  # twice 32: 2.5 us/clip each; 64 at once: 6.6
}
# Bytes that cannot be loaded four at a time (channels last, an odd number of positions): chosen so that no registers
# spill, not by time.
_SINGLE_REDUCE_TILES = {
    8: Tile(maps=8, positions=128, rows=64, num_stages=2),
    16: Tile(maps=16, positions=128, rows=64, num_warps=8, num_stages=2),
    32: Tile(maps=32, positions=128, rows=64, num_warps=8, num_stages=2),
    64: Tile(maps=64, positions=128, rows=32, num_warps=8, num_stages=2),
}
_SINGLE_GRAD_TILES = {
    maps: Tile(maps=min(maps, 32), positions=64, rows=64, num_warps=8, num_stages=2) for maps in (8, 16, 32, 64)
}
# Pixels of 2 and 4 bytes: likewise.
_WIDE_REDUCE_TILES = {maps: Tile(maps=maps, positions=128, rows=32) for maps in (8, 16, 32, 64)}
_WIDE_GRAD_TILES = {maps: Tile(maps=min(maps, 32), positions=32, rows=64) for maps in (8, 16, 32, 64)}

_OPTIONS = {"enable_fp_fusion": True}  # the default; Triton 3.9 warns where nobody says so


def supports(device: torch.device) -> bool:
    """Whether this device runs the kernels: CUDA from compute capability 8.0 (or CPU, under Triton's interpreter)."""
    if device.type == "cpu":
        return _interpreted() and importlib.util.find_spec("triton") is not None
    return device.type == "cuda" and _capable(device.index)


def reduce(pixels_BSCHW: torch.Tensor, weights_BKSC: torch.Tensor, bias_BK: torch.Tensor) -> torch.Tensor:
    """``maps[b,k] = bias[b,k] + sum over s,c of weights[b,k,s,c] pixels[b,s,c]``; shapes as in :mod:`..kernels`."""
    B, S, C, H, W = pixels_BSCHW.shape
    if not _fits(pixels_BSCHW, weights_BKSC):
        return reference.reduce(pixels_BSCHW, weights_BKSC, bias_BK)
    rows = _rows(pixels_BSCHW)
    K, R, P = weights_BKSC.shape[1], S * C, H * W
    maps_BKHW = bias_BK.new_empty(B, K, H, W)
    bias_BK = bias_BK.contiguous()
    weights_BKR = weights_BKSC.reshape(-1, K, R).contiguous()
    with _on(pixels_BSCHW.device):
        if pixels_BSCHW.dtype == torch.float32:
            num_limbs, limbs, row_stride, inverse_BK = 1, weights_BKR, R, torch.ones_like(weights_BKR[:1, :, 0])
        else:
            num_limbs, row_stride = 2, _up(R, 16)
            limbs, inverse_BK = _split(weights_BKR, row_stride)
        tile = _tiles(rows, _REDUCE_TILES, _SINGLE_REDUCE_TILES, _WIDE_REDUCE_TILES)[_power(K)]
        _dense().reduce_kernel[(_blocks(P, tile.positions), B, _blocks(K, tile.maps))](
            rows.pixels, limbs, inverse_BK, bias_BK, maps_BKHW,
            K, R, row_stride, C, P // rows.unit, *rows.strides,
            _clip_stride(limbs), _clip_stride(inverse_BK), _clip_stride(bias_BK),
            UNIT=rows.unit, EVEN=rows.even, LIMBS=num_limbs, KP=tile.maps, BP=tile.positions, BR=tile.rows,
            ASM=not _interpreted(), num_warps=tile.num_warps, num_stages=tile.num_stages, **_OPTIONS,
        )  # fmt: skip
    return maps_BKHW


def reduce_grad(pixels_BSCHW: torch.Tensor, grad_maps_BKHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of :func:`reduce` for weights and bias of each clip; as :func:`.reference.reduce_grad`."""
    B, S, C, H, W = pixels_BSCHW.shape
    if not _fits(pixels_BSCHW, grad_maps_BKHW):
        return reference.reduce_grad(pixels_BSCHW, grad_maps_BKHW)
    rows = _rows(pixels_BSCHW)
    grad_maps_BKHW = grad_maps_BKHW.contiguous()
    K, R, P = grad_maps_BKHW.shape[1], S * C, H * W
    tile = _tiles(rows, _GRAD_TILES, _SINGLE_GRAD_TILES, _WIDE_GRAD_TILES)[_power(K)]
    floats = pixels_BSCHW.dtype == torch.float32
    num_blocks = _blocks(R, tile.rows + tile.more_rows)
    split = _up(tile.split, tile.positions)
    num_splits = _blocks(P, split)
    row_stride = _up(R, 16) + 16
    parts = grad_maps_BKHW.new_empty(B, num_splits, K, row_stride)
    grad_weights_BKSC, grad_bias_BK = parts.new_empty(B, K, S, C), parts.new_empty(B, K)
    with _on(pixels_BSCHW.device):
        _dense().weight_grad_kernel[(num_blocks * _blocks(K, tile.maps), num_splits, B)](
            rows.pixels, grad_maps_BKHW, parts,
            K, R, row_stride, C, P // rows.unit, split, num_blocks, *rows.strides,
            UNIT=rows.unit, EVEN=rows.even, LIMBS=1 if floats else 2, KP=tile.maps,
            BRA=tile.rows, BRB=tile.more_rows, BP=tile.positions,
            LIMB=_limb(floats), ASM=not _interpreted(),
            num_warps=tile.num_warps, num_stages=tile.num_stages, **_OPTIONS,
        )  # fmt: skip
        _dense().sum_splits_kernel[(_blocks(R + 1, 512), K, B)](
            parts, grad_weights_BKSC, grad_bias_BK, K, R, row_stride, num_splits, BLOCK=512, **_OPTIONS
        )
    return grad_weights_BKSC, grad_bias_BK


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A batch as rows of positions: row (s, c) of a clip begins ``s * frame + c * channel`` units after the clip."""

    pixels: torch.Tensor
    strides: tuple[int, int, int, int]  # clip, frame, channel (in units), position (in values)
    even: bool  # all rows of a clip are channel strides apart
    unit: int  # values, a power of two up to 16 that divides P and all strides


def _rows(pixels_BSCHW: torch.Tensor) -> _Rows:
    B, S, C, H, W = pixels_BSCHW.shape
    clip, frame, channel, row, column = pixels_BSCHW.stride()
    position = row if W == 1 else column
    if W > 1 and H > 1 and row != W * column:  # positions are no single step apart
        pixels_BSCHW = pixels_BSCHW.contiguous()
        clip, frame, channel, _, position = pixels_BSCHW.stride()
    clip = 0 if B == 1 else clip
    if C == 1:
        channel = frame
    elif S == 1:
        frame = C * channel
    unit = 1
    if position == 1 and pixels_BSCHW.data_ptr() % 16 == 0:
        while unit < 16 and all(size % (2 * unit) == 0 for size in (H * W, clip, frame, channel)):
            unit *= 2
    strides = (clip // unit, frame // unit, channel // unit, position)
    return _Rows(pixels=pixels_BSCHW, strides=strides, even=C == 1 or frame == C * channel, unit=unit)


def _tiles(rows: _Rows, words: dict[int, Tile], single: dict[int, Tile], wide: dict[int, Tile]) -> dict[int, Tile]:
    if rows.pixels.element_size() > 1:
        return wide
    return words if rows.unit >= 4 else single


def _split(weights_BKR: torch.Tensor, row_stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two fp16 limbs of scaled weights, (clips, 2, K, row_stride), and the inverse scales (clips, K)."""
    num, K, R = weights_BKR.shape
    limbs = weights_BKR.new_empty((num, 2, K, row_stride), dtype=torch.float16)
    inverse_BK = weights_BKR.new_empty(num, K)
    _dense().split_weights_kernel[(K, num)](weights_BKR, limbs, inverse_BK, K, R, row_stride, BLOCK=512, **_OPTIONS)
    return limbs, inverse_BK


def _fits(pixels_BSCHW: torch.Tensor, floats: torch.Tensor) -> bool:
    """Whether the kernels know these dtypes, and there is anything to do."""
    known = floats.dtype == torch.float32 and pixels_BSCHW.dtype in (torch.uint8, torch.uint16, torch.float32)
    return known and pixels_BSCHW.numel() > 0 and floats.numel() > 0 and len(pixels_BSCHW) <= _MOST_CLIPS


def _clip_stride(tensor: torch.Tensor) -> int:
    """0 where all clips share one value."""
    return 0 if tensor.shape[0] == 1 else tensor.stride(0)


def _power(num_maps: int) -> int:
    """8, 16, 32 or 64: the maps of one program."""
    return min(64, max(8, 1 << (num_maps - 1).bit_length()))


def _blocks(size: int, per_block: int) -> int:
    return -(-size // per_block)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton starts kernels on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _limb(floats: bool) -> object:
    import triton.language as tl

    return tl.float32 if floats else tl.float16 if _interpreted() else tl.bfloat16


@functools.cache
def _dense() -> ModuleType:
    return importlib.import_module("clipfold.models.kernels.triton_dense")


@functools.cache
def _capable(index: int | None) -> bool:
    if torch.version.cuda is None or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(index) >= (8, 0)
