"""Mean and standard deviation per channel, from sums that are exact for integers: the same for any order of work."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.clip import ClipSpec

__all__ = ["ChannelSums", "mean_and_std"]

_PIECE = 1 << 16  # values at a time: stays in the cache, and 65536 * 65535**2 is far below 2**53


@dataclass(frozen=True, kw_only=True)
class ChannelSums:
    """Sums over the valid frames of some clips.

    Args:
        num: Values per channel.
        sums: Sum of the values of each channel; whole numbers for uint8 and uint16.
        squares: Sum of their squares.
    """

    num: int
    sums: tuple[float, ...]
    squares: tuple[float, ...]

    @classmethod
    def of(cls, clip_SCHW: NDArray[Any], num_valid_frames: int) -> ChannelSums:
        """The sums of one clip; its padding does not count."""
        valid_SCHW = clip_SCHW[:num_valid_frames]
        pairs = [_sums(valid_SCHW[:, channel]) for channel in range(clip_SCHW.shape[1])]
        return cls(
            num=valid_SCHW[:, 0].size, sums=tuple(pair[0] for pair in pairs), squares=tuple(pair[1] for pair in pairs)
        )

    def __add__(self, other: ChannelSums) -> ChannelSums:
        return ChannelSums(
            num=self.num + other.num,
            sums=tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            squares=tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def to_json(self) -> list[Any]:
        """Plain values that :meth:`from_json` gives back exactly."""
        return [self.num, list(self.sums), list(self.squares)]

    @classmethod
    def from_json(cls, value: list[Any]) -> ChannelSums:
        """The sums that :meth:`to_json` wrote."""
        return cls(num=value[0], sums=tuple(value[1]), squares=tuple(value[2]))


def _sums(values_SHW: NDArray[Any]) -> tuple[float, float]:
    """Sum and sum of squares; as whole numbers, exact, where the values are whole.

    float64 products and partial sums of a piece are whole numbers below 2**53, so BLAS may add them in any order.
    """
    whole = values_SHW.dtype.kind == "u"
    total: float = 0 if whole else 0.0
    square: float = 0 if whole else 0.0
    for frame in values_SHW:
        flat = frame.reshape(-1)
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE].astype(np.float64)
            # numpy's own pairwise sum, not BLAS, for floats: the same on every CPU type
            pair = (float(piece.sum()), float(piece @ piece if whole else np.square(piece).sum()))
            total += int(pair[0]) if whole else pair[0]
            square += int(pair[1]) if whole else pair[1]
    return total, square


def mean_and_std(parts: Iterable[ChannelSums], spec: ClipSpec) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in the units in which a model sees pixels.

    Args:
        parts: Sums, in the order of the sources (which matters for float32 alone).
        spec: Gives the number of channels and the full scale.

    Returns:
        (mean, std), C numbers each; 0 and 1 where there is no value at all.
    """
    zero = ChannelSums(num=0, sums=(0,) * spec.channels, squares=(0,) * spec.channels)
    total = sum(parts, start=zero)
    if not total.num:
        return [0.0] * spec.channels, [1.0] * spec.channels
    mean, std = [], []
    for first, second in zip(total.sums, total.squares, strict=True):
        average = Fraction(first) / total.num
        variance = max(Fraction(second) / total.num - average**2, Fraction(0))
        mean.append(float(average / Fraction(spec.full_scale)))
        std.append(math.sqrt(variance / Fraction(spec.full_scale) ** 2))
    return mean, std
