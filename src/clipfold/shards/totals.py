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

_PIECE = 1 << 16  # values at a time: stays in the cache
_WIDTH = 4096
_ROWS = 256  # whole numbers that are added up in a float: 256 * 255**2 < 2**24, and 256 * 65535**2 < 2**53
_WHOLE: dict[str, type[np.floating[Any]]] = {"uint8": np.float32, "uint16": np.float64}


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
        sums: tuple[float, ...]
        squares: tuple[float, ...]
        valid_SCHW = clip_SCHW[:num_valid_frames]
        if clip_SCHW.dtype.name in _WHOLE:
            values_NC = np.ascontiguousarray(valid_SCHW.transpose(0, 2, 3, 1)).reshape(-1, clip_SCHW.shape[1])
            sums, squares = _whole_sums(values_NC)
        else:
            pairs = [_sums(valid_SCHW[:, channel]) for channel in range(clip_SCHW.shape[1])]
            sums, squares = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
        return cls(num=valid_SCHW[:, 0].size, sums=sums, squares=squares)

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


def _whole_sums(values_NC: NDArray[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sums and sums of squares of each channel, exact, where the values are whole.

    The values lie in memory channel by channel in turn, so a row of some multiple of C of them adds up place by place,
    without taking the channels apart. A place's sum over ``_ROWS`` rows is a whole number that the float holds.
    """
    channels = values_NC.shape[1]
    width = channels * max(_WIDTH // channels, 1)
    flat = values_NC.reshape(-1)
    places = np.zeros((2, width), np.int64)
    scratch = np.empty((_ROWS, width), _WHOLE[flat.dtype.name])
    for start in range(0, flat.size, _ROWS * width):
        some = flat[start : start + _ROWS * width]
        whole = some.size // width * width
        for rows in (some[:whole].reshape(-1, width), some[whole:].reshape(1, -1)):
            piece = scratch[: rows.shape[0], : rows.shape[1]]
            piece[...] = rows
            places[0, : rows.shape[1]] += piece.sum(axis=0).astype(np.int64)
            np.multiply(piece, piece, out=piece)
            places[1, : rows.shape[1]] += piece.sum(axis=0).astype(np.int64)
    sums, squares = places.reshape(2, -1, channels).sum(axis=1).tolist()
    return tuple(sums), tuple(squares)


def _sums(values_SHW: NDArray[Any]) -> tuple[float, float]:
    """Sum and sum of squares of floats: numpy's own pairwise sum, not BLAS, which differs between CPU types."""
    total = square = 0.0
    for frame in values_SHW:
        flat = frame.reshape(-1)
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE].astype(np.float64)
            total += float(piece.sum())
            square += float(np.square(piece).sum())
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
