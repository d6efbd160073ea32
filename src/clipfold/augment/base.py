"""The contract of an augmentation, and the forms of those that are linear.

::

    make_params ── all the randomness ──> params ──┬─> transform     floats in, floats out: the definition
                                                   └─> linear_form   the same change as data, or None

A linear form is what ``models/folding.py`` needs to move the change through a reducer's weights.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from clipfold.clip import ClipSpec
from clipfold.rng import Draw

__all__ = [
    "Augmentation",
    "FrameChannel",
    "LinearForm",
    "Params",
    "Spatial",
    "check_number",
    "check_probability",
    "check_range",
    "check_values",
    "per_channel",
]

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


def check_number(name: str, value: Any, *, expected: str = "a finite number", least: float = -math.inf) -> Any:
    """``value`` as it is.

    Raises:
        TypeError: It is no number.
        ValueError: It is not finite, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: {value!r}, expected {expected}")
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{name}: {value}, expected {expected}")
    return value


def check_probability(p: float, name: str = "probability p") -> float:
    """``p`` as it is.

    Raises:
        TypeError: It is no number.
        ValueError: It is not in [0, 1].
    """
    expected = "a number from 0 to 1"
    if check_number(name, p, expected=expected, least=0) > 1:
        raise ValueError(f"{name}: {p}, expected {expected}")
    return p


def check_range(name: str, pair: Any, *, expected: str) -> tuple[float, float]:
    """``pair`` as it is: two numbers.

    Raises:
        TypeError: It is not a tuple or list, or holds something that is no number.
        ValueError: There are not two, one is not finite, or the second is below the first.
    """
    if not isinstance(pair, (tuple, list)):
        raise TypeError(f"{name}: {pair!r}, expected {expected}, such as {name}=(0.1, 0.3)")
    for value in pair:
        check_number(name, value, expected=expected)
    if len(pair) != 2 or pair[0] > pair[1]:
        raise ValueError(f"{name}: {pair}, expected {expected}")
    return pair[0], pair[1]


def check_values(name: str, values: Any) -> float | list[float]:
    """One number, or one per channel, as floats.

    Raises:
        TypeError: Something else than a number or a sequence of numbers.
        ValueError: A number that is not finite.
    """
    expected = "a finite number, or one per channel"
    if isinstance(values, str) or not hasattr(values, "__len__"):
        return float(check_number(name, values, expected=expected))
    found = [value.item() if hasattr(value, "item") else value for value in values]
    return [float(check_number(name, value, expected=expected)) for value in found]


def per_channel(values: float | Sequence[float], spec: ClipSpec, name: str) -> list[float]:
    """One value per channel, from one for all or one for each.

    Raises:
        ValueError: Another number of values than channels.
    """
    found = [float(values)] if isinstance(values, (int, float)) else [float(value) for value in values]
    if len(found) not in (1, spec.channels):
        raise ValueError(f"{name}: {len(found)} values, expected 1 or {spec.channels}, as many as clips have channels")
    return found * spec.channels if len(found) == 1 else found
