"""The reduction in plain torch: the definition of what every other kernel computes, and the fast path on CPU.

Pixels become floats in tiles of some clips and frames that stay in the cache, and each tile goes through one batched
matrix product. Tiles are cut along frames, never transposed, so the bytes are read once in the order they lie in
memory, be it (S, C, H, W) or (S, H, W, C).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["reduce", "reduce_grad", "supports"]

_CLIPS_PER_TILE = 4  # products of several clips are shared out over threads; one product of K = 8 rows hardly is
_VALUES_PER_TILE = {"cpu": 1 << 21}  # 8 MB of fp32: of 1 to 64 MB, 4 and 8 were the fastest (32x96 and 16x701)
_VALUES_PER_TILE_ELSEWHERE = 1 << 26  # on a GPU launches count, not the cache


def supports(device: torch.device) -> bool:
    """True: plain torch runs everywhere."""
    return True


def reduce(pixels_BSCHW: torch.Tensor, weights_BKSC: torch.Tensor, bias_BK: torch.Tensor) -> torch.Tensor:
    """``maps[b,k] = bias[b,k] + sum over s,c of weights[b,k,s,c] pixels[b,s,c]``; shapes as in :mod:`..kernels`."""
    B, _, _, H, W = pixels_BSCHW.shape
    K = weights_BKSC.shape[1]
    weights_BKSC = weights_BKSC.expand(B, -1, -1, -1)
    maps_BKP = bias_BK.new_empty(B, K, H * W).copy_(bias_BK[:, :, None])  # never the bias's own memory
    for clips, frames, tile_NRP in _tiles(pixels_BSCHW, weights_BKSC.dtype):
        maps_BKP[clips].baddbmm_(weights_BKSC[clips, :, frames].flatten(2), tile_NRP)
    return maps_BKP.view(B, K, H, W)


def reduce_grad(pixels_BSCHW: torch.Tensor, grad_maps_BKHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of :func:`reduce` for weights, ``grad[b,k,s,c] = <grad_maps[b,k], pixels[b,s,c]>``, and bias.

    Args:
        pixels_BSCHW: As for :func:`reduce`.
        grad_maps_BKHW: (B, K, H, W) float32 or float64, in any memory order.

    Returns:
        grad_weights_BKSC: (B, K, S, C) of the maps' dtype; the caller sums it where weights are shared.
        grad_bias_BK: (B, K), the same way.
    """
    B, S, C = pixels_BSCHW.shape[:3]
    grad_BKP = grad_maps_BKHW.flatten(2)
    grad_BKSC = grad_BKP.new_empty((B, grad_BKP.shape[1], S, C))
    for clips, frames, tile_NRP in _tiles(pixels_BSCHW, grad_BKP.dtype):
        product_NKR = torch.bmm(grad_BKP[clips], tile_NRP.transpose(1, 2))
        grad_BKSC[clips, :, frames] = product_NKR.view(*product_NKR.shape[:2], -1, C)
    return grad_BKSC, grad_BKP.sum(2)


def _tiles(pixels_BSCHW: torch.Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Some clips, some frames, and their pixels as floats (N, frames * C, P); the floats are overwritten each time."""
    B, S, C, H, W = pixels_BSCHW.shape
    if not pixels_BSCHW.numel():
        return
    budget = _VALUES_PER_TILE.get(pixels_BSCHW.device.type, _VALUES_PER_TILE_ELSEWHERE)
    num_clips = min(B, max(_CLIPS_PER_TILE, budget // (S * C * H * W)))
    num_frames = min(S, max(1, budget // (num_clips * C * H * W)))
    floats = torch.empty(num_clips * num_frames * C * H * W, dtype=dtype, device=pixels_BSCHW.device)
    for clip in range(0, B, num_clips):
        for frame in range(0, S, num_frames):
            clips = slice(clip, min(B, clip + num_clips))
            frames = slice(frame, min(S, frame + num_frames))
            part = pixels_BSCHW[clips, frames]
            tile = floats[: part.numel()].view(part.shape).copy_(part)
            yield clips, frames, tile.view(len(part), -1, H * W)
