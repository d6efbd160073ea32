"""The one pass over the bytes: ``maps = weights @ pixels + bias``, for pixels of any dtype and weights per clip.

:func:`reduce` is the front: it checks shapes and hands over to a custom operator, so that autograd, ``torch.compile``
and ``torch.export`` see one opaque step that keeps the bytes and no floats. The arithmetic is done by one of the
modules in ``KERNELS``; each has the same two functions::

    reduce(pixels_BSCHW, weights_BKSC, bias_BK) -> maps_BKHW
    reduce_grad(pixels_BSCHW, grad_maps_BKHW) -> grad_weights_BKSC, grad_bias_BK

``reference`` (plain torch) is the definition, and runs everywhere; ``triton`` runs on NVIDIA GPUs. ``CLIPFOLD_KERNEL``
forces one by name; otherwise the first of ``KERNELS`` whose ``supports(device)`` holds is taken. That is ``reference``
on GPUs too: only an earlier revision of ``triton`` has been checked on one, so for now it is there for who asks for it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

__all__ = ["KERNELS", "choose", "reduce"]

KERNELS: dict[str, str] = {
    "reference": "clipfold.models.kernels.reference",
    "triton": "clipfold.models.kernels.triton",
}

_PIXEL_DTYPES = (torch.uint8, torch.uint16, torch.float32, torch.float64)
_WEIGHT_DTYPES = (torch.float32, torch.float64)


def choose(device: torch.device, env: Mapping[str, str] | None = None) -> str:
    """The name of the kernel that runs on a device.

    Args:
        device: Where the pixels are.
        env: The environment; that of the process where ``None``. ``CLIPFOLD_KERNEL`` forces a kernel.

    Raises:
        ValueError: ``CLIPFOLD_KERNEL`` names no kernel, or one that does not run on this device.
    """
    forced = (os.environ if env is None else env).get("CLIPFOLD_KERNEL", "")
    if forced and forced not in KERNELS:
        raise ValueError(f"environment variable CLIPFOLD_KERNEL: {forced!r}, expected one of {', '.join(KERNELS)}")
    for name in [forced] if forced else KERNELS:
        if _module(name).supports(device):
            return name
    raise ValueError(f"environment variable CLIPFOLD_KERNEL: {forced!r} does not run on {device}; unset it")


def reduce(pixels_BSCHW: torch.Tensor, weights_BKSC: torch.Tensor, bias_BK: torch.Tensor) -> torch.Tensor:
    """Weigh all frames and channels of each clip: ``maps[b,k] = sum over s,c of weights[b,k,s,c] pixels[b,s,c]``.

    The pixels are read as they are, in any memory order, and never copied to floats as a whole. Gradients flow to the
    weights and the bias, once (no double backward, no ``torch.func``); autocast does not touch the arithmetic.

    Args:
        pixels_BSCHW: (B, S, C, H, W) uint8, uint16, float32 or float64, in whatever units the weights expect.
        weights_BKSC: (B, K, S, C), or (1, K, S, C) for the same weights in all clips; float32 or float64, which is
            also what the sums are made in.
        bias_BK: (B, K) or (1, K), of the weights' dtype.

    Returns:
        maps_BKHW: (B, K, H, W) of the weights' dtype, contiguous.

    Raises:
        ValueError: Shapes that do not fit each other, or a clip that requires a gradient (there is none to be had:
            the bytes are not differentiable).
        TypeError: Another dtype.
    """
    _check(pixels_BSCHW, weights_BKSC, bias_BK)
    maps: torch.Tensor = _reduce_op(pixels_BSCHW, weights_BKSC, bias_BK)
    return maps


def _check(pixels_BSCHW: torch.Tensor, weights_BKSC: torch.Tensor, bias_BK: torch.Tensor) -> None:
    if pixels_BSCHW.requires_grad:
        raise ValueError(
            "reduce gives no gradient to its pixels, and these require one; detach() them, or weigh the frames "
            "with torch.einsum"
        )
    if pixels_BSCHW.dtype not in _PIXEL_DTYPES or weights_BKSC.dtype not in _WEIGHT_DTYPES:
        raise TypeError(
            f"reduce of {pixels_BSCHW.dtype} pixels with {weights_BKSC.dtype} weights, expected pixels of "
            f"{', '.join(map(str, _PIXEL_DTYPES))} and weights of {', '.join(map(str, _WEIGHT_DTYPES))}"
        )
    if bias_BK.dtype != weights_BKSC.dtype:
        raise TypeError(f"dtype of the bias: {bias_BK.dtype}, expected that of the weights, {weights_BKSC.dtype}")
    shapes = tuple(pixels_BSCHW.shape), tuple(weights_BKSC.shape), tuple(bias_BK.shape)
    fits = [len(shape) for shape in shapes] == [5, 4, 2] and (
        weights_BKSC.shape[2:] == pixels_BSCHW.shape[1:3]
        and bias_BK.shape[1] == weights_BKSC.shape[1]
        and weights_BKSC.shape[0] in (1, pixels_BSCHW.shape[0])
        and bias_BK.shape[0] in (1, pixels_BSCHW.shape[0])
    )
    if not fits:
        raise ValueError(
            f"shapes of pixels, weights and bias: {shapes[0]}, {shapes[1]}, {shapes[2]}, "
            "expected (B, S, C, H, W), (B or 1, K, S, C) and (B or 1, K)"
        )


@functools.cache
def _module(name: str) -> ModuleType:
    return import_module(KERNELS[name])


@torch.library.custom_op("clipfold::reduce", mutates_args=())
def _reduce_op(pixels_BSCHW: torch.Tensor, weights_BKSC: torch.Tensor, bias_BK: torch.Tensor) -> torch.Tensor:
    with torch.autocast(pixels_BSCHW.device.type, enabled=False):
        maps: torch.Tensor = _module(choose(pixels_BSCHW.device)).reduce(pixels_BSCHW, weights_BKSC, bias_BK)
        return maps


@torch.library.custom_op("clipfold::reduce_grad", mutates_args=())
def _reduce_grad_op(pixels_BSCHW: torch.Tensor, grad_maps_BKHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.autocast(pixels_BSCHW.device.type, enabled=False):
        grad_weights, grad_bias = _module(choose(pixels_BSCHW.device)).reduce_grad(pixels_BSCHW, grad_maps_BKHW)
        return grad_weights, grad_bias


@_reduce_op.register_fake
def _(pixels_BSCHW: torch.Tensor, weights_BKSC: torch.Tensor, bias_BK: torch.Tensor) -> torch.Tensor:
    B, _, _, H, W = pixels_BSCHW.shape
    return weights_BKSC.new_empty((B, weights_BKSC.shape[1], H, W))


@_reduce_grad_op.register_fake
def _(pixels_BSCHW: torch.Tensor, grad_maps_BKHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    B, S, C = pixels_BSCHW.shape[:3]
    K = grad_maps_BKHW.shape[1]
    return grad_maps_BKHW.new_empty((B, K, S, C)), grad_maps_BKHW.new_empty((B, K))


def _keep(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    pixels_BSCHW, weights_BKSC, bias_BK = inputs
    ctx.save_for_backward(pixels_BSCHW)
    ctx.num_weights, ctx.num_biases = weights_BKSC.shape[0], bias_BK.shape[0]


def _backward(ctx: Any, grad_maps_BKHW: torch.Tensor) -> tuple[None, torch.Tensor | None, torch.Tensor | None]:
    if ctx.needs_input_grad[0]:
        raise ValueError("reduce gives no gradient to its pixels, and these require one")
    (pixels_BSCHW,) = ctx.saved_tensors
    grad_weights = grad_bias = None
    if ctx.needs_input_grad[1]:
        grad_weights, grad_bias = _reduce_grad_op(pixels_BSCHW, grad_maps_BKHW)
        if ctx.num_weights == 1:
            grad_weights = grad_weights.sum(0, keepdim=True)
    elif ctx.needs_input_grad[2]:
        grad_bias = grad_maps_BKHW.sum((2, 3))
    if grad_bias is not None and ctx.num_biases == 1:
        grad_bias = grad_bias.sum(0, keepdim=True)
    return None, grad_weights, grad_bias


_reduce_op.register_autograd(_backward, setup_context=_keep)
