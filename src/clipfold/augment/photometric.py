"""Changes of values: normalise, brightness, contrast. Nothing clamps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clipfold.augment.base import (
    Augmentation,
    FrameChannel,
    Params,
    check_number,
    check_probability,
    check_values,
    per_channel,
)
from clipfold.clip import ClipSpec
from clipfold.rng import Draw

__all__ = ["Brightness", "Contrast", "Normalise"]


class Normalise(Augmentation):
    """``(x - mean) / std``, channel by channel. Nothing random.

    Args:
        mean: One value, or one per channel, in units of full scale (as in ``dataset.json``).
        std: The same; greater than 0.

    Raises:
        TypeError: Something that is no number.
        ValueError: A number that is not finite, or a ``std`` that is not greater than 0; when used, another number of
            values than channels.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean = check_values("mean", mean)
        self.std = check_values("std", std)
        for value in [self.std] if isinstance(self.std, float) else self.std:
            if not value > 0:
                raise ValueError(f"std: {value}, expected a number greater than 0")

    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """``mean`` and ``std``, float64 (B, C)."""
        rows = {"mean": per_channel(self.mean, spec, "mean"), "std": per_channel(self.std, spec, "std")}
        return {
            name: torch.tensor(row, dtype=torch.float64, device=draw.device).expand(len(draw), -1)
            for name, row in rows.items()
        }

    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """``(x - mean) / std``."""
        mean, std = (params[name].to(pixels_BSCHW.dtype)[:, None, :, None, None] for name in ("mean", "std"))
        return (pixels_BSCHW - mean) / std

    def linear_form(self, params: Params, spec: ClipSpec) -> FrameChannel:
        """Weights divided by ``std``; offset ``-mean / std``."""
        std_BC = params["std"]
        offset_BC = -params["mean"] / std_BC
        return FrameChannel(
            pull=lambda weights_BKSC: weights_BKSC / std_BC.to(weights_BKSC.dtype)[:, None, None, :],
            offset_BSC=offset_BC[:, None, :].expand(-1, spec.num_frames, -1),
        )


class Brightness(Augmentation):
    """Adds a constant to a clip, drawn from ``[-brightness, brightness]``.

    Args:
        brightness: In units of full scale: 0.1 is 25.5 grey levels of a uint8 clip. At least 0.
        p: Probability that a clip is changed.

    Raises:
        TypeError: Something that is no number.
        ValueError: ``brightness`` below 0 or not finite, or ``p`` outside [0, 1].
    """

    def __init__(self, brightness: float = 0.1, *, p: float = 1.0) -> None:
        self.brightness = check_number("brightness", brightness, least=0, expected="a finite number of at least 0")
        self.p = check_probability(p)

    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """``offset``, float64 (B,); 0 where it does not apply."""
        applies = draw.bernoulli(self.p)
        return {"offset": draw.uniform(low=-self.brightness, high=self.brightness) * applies}

    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """``x + offset``."""
        return pixels_BSCHW + params["offset"].to(pixels_BSCHW.dtype)[:, None, None, None, None]

    def linear_form(self, params: Params, spec: ClipSpec) -> FrameChannel:
        """Weights as they are; the offset for all frames and channels."""
        offset_BSC = params["offset"][:, None, None].expand(-1, spec.num_frames, spec.channels)
        return FrameChannel(pull=lambda weights_BKSC: weights_BKSC, offset_BSC=offset_BSC)


class Contrast(Augmentation):
    """Spreads values about a constant: ``factor * x + (1 - factor) * center``.

    The factor is drawn from ``[max(0, 1 - contrast), 1 + contrast]``. The constant is the same for all clips: about a
    clip's own mean, the change would not be linear in its pixels.

    Args:
        contrast: At least 0.
        center: What stays as it is, in units of full scale: one value, or one per channel.
        p: Probability that a clip is changed.

    Raises:
        TypeError: Something that is no number.
        ValueError: ``contrast`` below 0, a number that is not finite, or ``p`` outside [0, 1]; when used, another
            number of values than channels.
    """

    def __init__(self, contrast: float = 0.2, *, center: float | Sequence[float] = 0.5, p: float = 1.0) -> None:
        self.contrast = check_number("contrast", contrast, least=0, expected="a finite number of at least 0")
        self.center = check_values("center", center)
        self.p = check_probability(p)

    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """``factor``, float64 (B,), 1 where it does not apply; ``center``, float64 (B, C)."""
        applies = draw.bernoulli(self.p)
        factor = draw.uniform(low=max(0.0, 1 - self.contrast), high=1 + self.contrast)
        center = torch.tensor(per_channel(self.center, spec, "center"), dtype=torch.float64, device=draw.device)
        return {
            "factor": torch.where(applies, factor, torch.ones_like(factor)),
            "center": center.expand(len(draw), -1),
        }

    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """``factor * x + (1 - factor) * center``."""
        factor = params["factor"].to(pixels_BSCHW.dtype)[:, None, None, None, None]
        center = params["center"].to(pixels_BSCHW.dtype)[:, None, :, None, None]
        return factor * pixels_BSCHW + (1 - factor) * center

    def linear_form(self, params: Params, spec: ClipSpec) -> FrameChannel:
        """Weights times the factor; offset ``(1 - factor) * center``."""
        factor_B = params["factor"]
        offset_BC = (1 - factor_B)[:, None] * params["center"]
        return FrameChannel(
            pull=lambda weights_BKSC: weights_BKSC * factor_B.to(weights_BKSC.dtype)[:, None, None, None],
            offset_BSC=offset_BC[:, None, :].expand(-1, spec.num_frames, -1),
        )
