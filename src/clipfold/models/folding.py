"""The fold: linear changes of a clip moved through the reducer's weights, before a single pixel is read.

::

    x ──M1──G1──M2──G2──> W x + bias              what is asked for: changes M of frames and channels, G of positions
    x ──> (W M2 M1) x + constants ──G1──G2──>     what is done: the same, on K maps in place of S * C

The fold walks the chain backwards from the reducer with ``(W, c)``, at first its weights and bias:

- a change of frames and channels ``z -> M z + o``: ``c <- c + W o``, then ``W <- W M``;
- a change of positions ``z -> G z + (1 - G 1) f``: note ``(G, v = W f + c)``. Each has its own fill ``v``.

Then ``y = W x + c`` is computed from the bytes, and the noted steps are replayed forwards: ``y <- G y + (1 - G 1) v``.
Clamping would not fold, so no augmentation clamps. This is the only module that knows both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from clipfold.augment.base import FrameChannel, LinearForm, Spatial
from clipfold.models.kernels import reduce

__all__ = ["Folded", "MapStep", "fold", "num_eager"]


@dataclass(frozen=True, kw_only=True)
class MapStep:
    """A change of positions that is replayed on the maps: ``y -> G y + (1 - G 1) v``.

    Args:
        move: ``G``, (B, K, H, W) -> (B, K, H', W').
        fill_BK: ``v``, (B or 1, K); ``None`` where ``G 1 = 1``.
    """

    move: Callable[[torch.Tensor], torch.Tensor]
    fill_BK: torch.Tensor | None

    def __call__(self, maps_BKHW: torch.Tensor) -> torch.Tensor:
        moved = self.move(maps_BKHW)
        if self.fill_BK is None:
            return moved
        covered = self.move(torch.ones_like(maps_BKHW[:, :1]))
        return moved + (1 - covered) * self.fill_BK[:, :, None, None]


@dataclass(frozen=True, kw_only=True)
class Folded:
    """A chain and a reducer's linear part in one: called with stored pixels, it gives the maps.

    Args:
        weights_BKSC: (B or 1, K, S, C), for the pixels as they are stored.
        bias_BK: (B or 1, K).
        steps: What is left to do on the maps, in order.
    """

    weights_BKSC: torch.Tensor
    bias_BK: torch.Tensor
    steps: tuple[MapStep, ...]

    def __call__(self, pixels_BSCHW: torch.Tensor) -> torch.Tensor:
        maps_BKHW = reduce(pixels_BSCHW, self.weights_BKSC, self.bias_BK)
        for step in self.steps:
            maps_BKHW = step(maps_BKHW)
        return maps_BKHW


def num_eager(forms: Sequence[LinearForm | None]) -> int:
    """How many leading steps of a chain have to run on pixels: all up to and including the last without a form."""
    return max((place + 1 for place, form in enumerate(forms) if form is None), default=0)


def fold(
    forms: Sequence[LinearForm | None], weights_KSC: torch.Tensor, bias_K: torch.Tensor, *, full_scale: float = 1.0
) -> Folded:
    """Move a chain of linear changes through the linear part of a reducer.

    Args:
        forms: The chain, in the order in which its steps apply to a clip; all of them linear.
        weights_KSC: (K, S, C) float32 or float64, for clips after the chain.
        bias_K: (K,) of the same dtype.
        full_scale: What stored pixels are divided by before the chain; 1 where they are floats already.

    Returns:
        The fold, differentiable in weights and bias.

    Raises:
        ValueError: A step without a linear form: run the first :func:`num_eager` steps on pixels.
    """
    weights_BKSC, bias_BK = weights_KSC[None], bias_K[None]
    steps: list[MapStep] = []
    for form in reversed(forms):
        if isinstance(form, FrameChannel):
            if form.offset_BSC is not None:
                bias_BK = bias_BK + _weigh(weights_BKSC, form.offset_BSC)
            weights_BKSC = form.pull(weights_BKSC)
        elif isinstance(form, Spatial):
            fill_BK = None if form.fill_BSC is None else bias_BK + _weigh(weights_BKSC, form.fill_BSC)
            steps.append(MapStep(move=form.move, fill_BK=fill_BK))
        else:
            raise ValueError(f"a step of the chain has no linear form but {form!r}; run it on pixels first")
    return Folded(weights_BKSC=weights_BKSC / full_scale, bias_BK=bias_BK, steps=tuple(reversed(steps)))


def _weigh(weights_BKSC: torch.Tensor, values_BSC: torch.Tensor) -> torch.Tensor:
    """``W f``, (B, K): products and sums, not a matrix product, which a GPU may round (tf32)."""
    return (weights_BKSC * values_BSC[:, None].to(weights_BKSC.dtype)).sum((2, 3))
