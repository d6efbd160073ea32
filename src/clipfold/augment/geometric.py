"""Changes of positions, the same in all frames: flips, column roll, erasing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch

from clipfold.augment.base import (
    Augmentation,
    Params,
    Spatial,
    check_number,
    check_probability,
    check_range,
    check_values,
    per_channel,
)
from clipfold.clip import ClipSpec
from clipfold.rng import Draw

__all__ = ["ColumnRoll", "Erasing", "HorizontalFlip", "VerticalFlip"]

_Move = Callable[[torch.Tensor], torch.Tensor]


class HorizontalFlip(Augmentation):
    """Mirrors left and right. What drifted left drifts right: use it only where no label depends on direction.

    Args:
        p: Probability that a clip is mirrored.

    Raises:
        ValueError: ``p`` outside [0, 1].
    """

    _axis = -1

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability(p)

    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """``flipped``, bool (B,)."""
        return {"flipped": draw.bernoulli(self.p)}

    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """Mirrored where it applies."""
        return _on_maps(self._move(params), pixels_BSCHW)

    def linear_form(self, params: Params, spec: ClipSpec) -> Spatial:
        """The same mirror; nothing is ever missing."""
        return Spatial(move=self._move(params))

    def _move(self, params: Params) -> _Move:
        flipped = params["flipped"][:, None, None, None]
        return lambda maps_BNHW: torch.where(flipped, maps_BNHW.flip(self._axis), maps_BNHW)


class VerticalFlip(HorizontalFlip):
    """Mirrors up and down. What rose sinks: use it only where no label depends on direction.

    Args:
        p: Probability that a clip is mirrored.

    Raises:
        ValueError: ``p`` outside [0, 1].
    """

    _axis = -2


class ColumnRoll(Augmentation):
    """Turns a sensor that looks all round: columns that leave on one side come back on the other.

    Args:
        max_shift: Most columns to turn, either way, at least 0; any number of them where ``None``.
        p: Probability that a clip is turned.

    Raises:
        ValueError: ``max_shift`` below 0, or ``p`` outside [0, 1].
    """

    def __init__(self, max_shift: int | None = None, *, p: float = 1.0) -> None:
        if max_shift is not None:
            expected = "a whole number of at least 0, or None for any"
            if not isinstance(check_number("max_shift", max_shift, expected=expected, least=0), Integral):
                raise TypeError(f"max_shift: {max_shift!r}, expected {expected}")
        self.max_shift = max_shift
        self.p = check_probability(p)

    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """``shift``, int64 (B,), columns to the right; 0 where it does not apply."""
        applies = draw.bernoulli(self.p)
        low, high = (0, spec.width) if self.max_shift is None else (-self.max_shift, self.max_shift + 1)
        return {"shift": draw.integers(low=low, high=high) * applies}

    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """Column ``w`` shows what was at ``w - shift``, modulo the width."""
        return _on_maps(lambda maps_BNHW: _RollColumns.apply(maps_BNHW, params["shift"]), pixels_BSCHW)

    def linear_form(self, params: Params, spec: ClipSpec) -> Spatial:
        """The same turn; nothing is ever missing."""
        return Spatial(move=lambda maps_BNHW: _RollColumns.apply(maps_BNHW, params["shift"]))


class Erasing(Augmentation):
    """Paints a rectangle with a constant, in all frames.

    Its area is drawn as a share of the picture, its shape relative to the picture's own: ``ratio`` 1 is a rectangle
    with the picture's proportions, so that clips of 16x701 are treated as squares are. It lies wholly inside.

    Args:
        scale: Least and most share of the picture's area, 0 <= low <= high <= 1.
        ratio: Least and most height over width, relative to the picture's, 0 < low <= high; drawn evenly on a log
            scale.
        value: What is painted, in units of full scale: one value, or one per channel.
        p: Probability that a clip is painted on.

    Raises:
        TypeError: A range that is not two numbers, or a value that is no number.
        ValueError: A range that is empty or out of bounds, a number that is not finite, or ``p`` outside [0, 1]; when
            used, another number of values than channels.
    """

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | Sequence[float] = 0.0,
        p: float = 0.5,
    ) -> None:
        shares = "two shares of the area, 0 <= low <= high <= 1"
        self.scale = check_range("scale", scale, expected=shares)
        if not 0 <= self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: {scale}, expected {shares}")
        ratios = "two ratios, 0 < low <= high"
        self.ratio = check_range("ratio", ratio, expected=ratios)
        if not self.ratio[0] > 0:
            raise ValueError(f"ratio: {ratio}, expected {ratios}")
        self.value = check_values("value", value)
        self.p = check_probability(p)

    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """``box``, int64 (B, 4): top, left, height, width (0 where it does not apply); ``value``, float64 (B, C)."""
        applies = draw.bernoulli(self.p)
        area = draw.uniform(low=self.scale[0], high=self.scale[1])
        stretch = (draw.uniform(low=math.log(self.ratio[0]), high=math.log(self.ratio[1])) / 2).exp()
        sides = []
        for size, share in ((spec.height, area.sqrt() * stretch), (spec.width, area.sqrt() / stretch)):
            sides.append((size * share).round().long().clamp(1, size) * applies)
        corners = [
            ((size - side + 1) * draw.uniform()).long()
            for size, side in zip((spec.height, spec.width), sides, strict=True)
        ]
        value = torch.tensor(per_channel(self.value, spec, "value"), dtype=torch.float64, device=draw.device)
        return {"box": torch.stack([*corners, *sides], dim=1), "value": value.expand(len(draw), -1)}

    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """``value`` inside the box."""
        inside = _inside(params["box"], *pixels_BSCHW.shape[-2:])[:, None]
        return torch.where(inside, params["value"].to(pixels_BSCHW.dtype)[:, None, :, None, None], pixels_BSCHW)

    def linear_form(self, params: Params, spec: ClipSpec) -> Spatial:
        """Zero inside the box, to be filled with ``value``."""

        def move(maps_BNHW: torch.Tensor) -> torch.Tensor:
            return maps_BNHW.masked_fill(_inside(params["box"], *maps_BNHW.shape[-2:]), 0)

        return Spatial(move=move, fill_BSC=params["value"][:, None, :].expand(-1, spec.num_frames, -1))


def _inside(box_B4: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """bool (B, 1, H, W), True inside each clip's box."""
    top, left, num_rows, num_columns = (side[:, None] for side in box_B4.unbind(1))
    rows = torch.arange(height, device=box_B4.device)
    columns = torch.arange(width, device=box_B4.device)
    in_rows = (rows >= top) & (rows < top + num_rows)
    in_columns = (columns >= left) & (columns < left + num_columns)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def _on_maps(move: _Move, pixels_BSCHW: torch.Tensor) -> torch.Tensor:
    moved = move(pixels_BSCHW.flatten(1, 2))
    return moved.view(*pixels_BSCHW.shape[:3], *moved.shape[2:])


class _RollColumns(torch.autograd.Function):
    """A roll by a different number of columns per clip; its gradient is the roll back, without atomic additions."""

    @staticmethod
    def forward(ctx: Any, maps_BNHW: torch.Tensor, shift_B: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(shift_B)
        return _roll_columns(maps_BNHW, shift_B)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (shift_B,) = ctx.saved_tensors
        return _roll_columns(grads[0], -shift_B), None


def _roll_columns(maps_BNHW: torch.Tensor, shift_B: torch.Tensor) -> torch.Tensor:
    columns = torch.arange(maps_BNHW.shape[-1], device=maps_BNHW.device)
    source_BW = (columns - shift_B[:, None]) % len(columns)
    return maps_BNHW.gather(3, source_BW[:, None, None, :].expand_as(maps_BNHW))
