"""The contract of a temporal reducer."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import nn

from clipfold.clip import ClipSpec
from clipfold.models.kernels import reduce

__all__ = ["TemporalReducer", "check_option"]


def check_option(reducer: str, name: str, value: Any, *, most: int | None = None, most_is: str = "") -> int:
    """A reducer's option that counts something, 1 to ``most``.

    Raises:
        ValueError: It is no whole number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} of {reducer}: {value!r}, expected a whole number of at least 1")
    if int(value) < 1 or (most is not None and int(value) > most):
        expected = "at least 1" if most is None else f"1 to {most_is}"
        raise ValueError(f"{name} of {reducer}: {value}, expected {expected}")
    return int(value)


class TemporalReducer(nn.Module):
    """Removes the time axis of a clip: S frames become one image.

    A reducer whose first step is linear in the pixels gives :meth:`weights` (and :meth:`finish` for what follows):
    then normalisation and augmentations are folded into its weights and the clip is read once, as bytes. Any other
    reducer overrides :meth:`forward` and gets normalised floats.

    Args:
        spec: The clips that the reducer is given: its S, C, H and W.
        out_channels: C_out of the image.

    Example:
        >>> class LastMinusFirst(TemporalReducer):
        ...     def __init__(self, spec):
        ...         super().__init__(spec, out_channels=spec.channels)
        ...     def forward(self, pixels_BSCHW):
        ...         return pixels_BSCHW[:, -1] - pixels_BSCHW[:, 0]
    """

    def __init__(self, spec: ClipSpec, *, out_channels: int) -> None:
        super().__init__()
        self.spec = spec
        self.out_channels = out_channels

    def weights(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The linear part: weights (K, S, C) and bias (K,), float, differentiable; ``None`` where there is none."""
        return None

    def finish(self, maps_BKHW: torch.Tensor) -> torch.Tensor:
        """What follows the linear part: (B, K, H, W) -> (B, C_out, H, W). Default: nothing."""
        return maps_BKHW

    def forward(self, pixels_BSCHW: torch.Tensor) -> torch.Tensor:
        """Reduce clips to images; equals ``finish`` after ``weights``, pixels being taken in the units they come in.

        Args:
            pixels_BSCHW: (B, S, C, H, W) float32 (or float64), normalised; where there are weights, any dtype.

        Returns:
            (B, C_out, H, W) floats.
        """
        linear = self.weights()
        if linear is None:
            raise NotImplementedError(f"{type(self).__name__} gives neither weights() nor its own forward()")
        weights_KSC, bias_K = linear
        return self.finish(reduce(pixels_BSCHW, weights_KSC[None], bias_K[None]))
