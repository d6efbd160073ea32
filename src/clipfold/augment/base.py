"""The contract of an augmentation, and the forms of those that are linear.

::

    make_params ── all the randomness ──> params ──┬─> transform     floats in, floats out: the definition
                                                   └─> linear_form   the same change as data, or None

A linear form is what ``models/folding.py`` needs to move the change through a reducer's weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from clipfold.clip import ClipSpec
from clipfold.rng import Draw

__all__ = ["Augmentation", "FrameChannel", "LinearForm", "Params", "Spatial", "check_probability", "per_channel"]

Params = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class FrameChannel:
    """A linear change of frames and channels, the same at every position: ``z -> M z + o``.

    Args:
        pull: Weights seen through the change, ``W -> W M``: (B, K, S', C') -> (B, K, S, C), where S', C' are the
            frames and channels after the change and S, C those before. B may be 1 in the input (weights that are
            still the same for all clips). Differentiable, in the weights' dtype.
        offset_BSC: ``o``, (B or 1, S', C'), any float dtype; ``None`` for zero.
    """

    pull: Callable[[torch.Tensor], torch.Tensor]
    offset_BSC: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """A linear change of positions, the same for all frames and channels: ``z -> G z + (1 - G 1) f``.

    Args:
        move: ``G``, on any number of maps: (B, N, H, W) -> (B, N, H', W'), differentiable.
        fill_BSC: ``f``, what is shown where ``G`` brings nothing: (B or 1, S, C), any float dtype; ``None`` where
            ``G 1 = 1`` (flips, rolls), so that nothing is ever missing.
    """

    move: Callable[[torch.Tensor], torch.Tensor]
    fill_BSC: torch.Tensor | None = None


LinearForm = FrameChannel | Spatial


class Augmentation(ABC):
    """A change of clips whose randomness is drawn first, as values.

    A clip to which it does not apply (probability ``p``) gets parameters that change nothing: there are no
    sub-batches. An object keeps its settings only; nothing about it changes while it is used.
    """

    @abstractmethod
    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """Draw what is random.

        Args:
            draw: Numbers for each of the B clips, on the device of the batch.
            spec: The clips before this change.

        Returns:
            Tensors (B, ...) by name.
        """

    @abstractmethod
    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """Apply the change: the definition of what it is. Pure, and nothing clamps.

        Args:
            pixels_BSCHW: (B, S, C, H, W) float32 or float64, divided by full scale; not written to.
            params: What :meth:`make_params` gave.

        Returns:
            Floats of the same dtype, of the shape that :meth:`output_spec` says.
        """

    def linear_form(self, params: Params, spec: ClipSpec) -> LinearForm | None:
        """The same change as data; ``None`` (the default) where it is not linear and has to see the pixels."""
        return None

    def output_spec(self, spec: ClipSpec) -> ClipSpec:
        """The clips after this change; the same as before unless overridden."""
        return spec

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


def check_probability(p: float) -> float:
    """``p`` as it is.

    Raises:
        ValueError: It is not in [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"probability p: {p}, expected a number from 0 to 1")
    return p


def per_channel(values: float | Sequence[float], spec: ClipSpec, name: str) -> list[float]:
    """One value per channel, from one for all or one for each.

    Raises:
        ValueError: Another number of values than channels.
    """
    found = [float(values)] if isinstance(values, (int, float)) else [float(value) for value in values]
    if len(found) not in (1, spec.channels):
        raise ValueError(f"{name}: {len(found)} values, expected 1 or {spec.channels}, as many as clips have channels")
    return found * spec.channels if len(found) == 1 else found
