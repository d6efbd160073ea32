"""The only place that draws random numbers: a formula of (seed, key), never a state that is carried along.

Two families, because two things are wanted:

- :func:`permutation` and :func:`words` make long sequences from raw Philox words, which numpy promises to keep
  stable between versions (``Generator.permutation`` is not promised). The order of reading is made of them.
- :class:`Draw` hashes ``(seed, position, place, counter)`` for a whole batch at once, on the batch's device, with
  the same integers on every device. Augmentations draw from it, so what happens to a sample depends neither on the
  batch it is in nor on the number of ranks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Draw", "hash_key", "permutation", "words"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)
_MIX_A = 0xBF58476D1CE4E5B9
_MIX_B = 0x94D049BB133111EB


def hash_key(*key: int) -> int:
    """One 64-bit number from whole numbers; the order matters, and (1, 2) differs from (12,).

    Args:
        *key: Whole numbers of any size, taken modulo 2**64.

    Returns:
        A whole number in [0, 2**64).
    """
    state = 0
    for value in key:
        state = (state + _GOLDEN + value) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_A) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_B) & _MASK
        state ^= state >> 31
    return state


def words(num: int, *key: int) -> NDArray[np.uint64]:
    """Raw 64-bit words of Philox 4x64-10 (Salmon et al., SC 2011) under a key made of whole numbers.

    Args:
        num: How many words.
        *key: The seed first, then whatever tells this sequence from the others.

    Returns:
        uint64 (num,), the same on every machine and numpy version.
    """
    both = np.array([hash_key(0, *key), hash_key(1, *key)], dtype=np.uint64)
    return np.random.Philox(key=both).random_raw(num)


def permutation(num: int, *key: int) -> NDArray[np.int64]:
    """A random order of ``range(num)``: the stable argsort of :func:`words`.

    Args:
        num: How many numbers to permute.
        *key: As for :func:`words`.

    Returns:
        int64 (num,).
    """
    return np.argsort(words(num, *key), kind="stable")


class Draw:
    """Random numbers for each clip of a batch, a pure function of (seed, position, place, counter).

    The counter is the number of calls made so far, so the n-th call of an augmentation's ``make_params`` draws the
    same numbers for the same clip wherever, whenever and with whomever it is in a batch.

    Args:
        seed: The run's seed.
        positions: int64 (B,), each clip's place in the infinite order of reading. Its device is where numbers appear.
        place: The augmentation's place in its chain, so that two equal members draw different numbers.

    Example:
        >>> import torch
        >>> draw = Draw(seed=0, positions=torch.tensor([7, 8]), place=0)
        >>> draw.uniform().shape, draw.uniform(3).shape
        (torch.Size([2]), torch.Size([2, 3]))
    """

    def __init__(self, *, seed: int, positions: torch.Tensor, place: int = 0) -> None:
        self.positions = positions
        self.device = positions.device
        self._base = _mix(_mix(positions + _signed(hash_key(seed) + _GOLDEN)) + _signed(_GOLDEN + place))
        self._counter = 0

    def __len__(self) -> int:
        return len(self.positions)

    def words(self, *shape: int) -> torch.Tensor:
        """int64 (B, *shape): 64 random bits each."""
        import torch

        self._counter += 1
        start = _mix(self._base + _signed(_GOLDEN + self._counter))
        steps = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64, device=self.device) * _signed(_GOLDEN)
        return _mix(start[:, None] + steps).view(len(self), *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """float64 (B, *shape), uniform in [low, high), with 53 random bits."""
        unit = _shift_right(self.words(*shape), 11).double() * 2.0**-53
        return low + (high - low) * unit

    def bernoulli(self, p: float, *shape: int) -> torch.Tensor:
        """bool (B, *shape), True with probability ``p`` in [0, 1]."""
        return self.uniform(*shape) < p

    def integers(self, *shape: int, low: int, high: int) -> torch.Tensor:
        """int64 (B, *shape), uniform in [low, high); ``high - low`` is at most 2**31.

        Raises:
            ValueError: The range is empty or too wide.
        """
        if not 0 < high - low <= 1 << 31:
            raise ValueError(f"range of random integers: [{low}, {high}), expected 1 to 2**31 numbers")
        return low + _shift_right(_shift_right(self.words(*shape), 32) * (high - low), 32)

    def normal(self, *shape: int) -> torch.Tensor:
        """float64 (B, *shape), standard normal, after Box and Muller (1958); the last digits depend on the device."""
        import torch

        radius = (-2.0 * torch.log1p(-self.uniform(*shape))).sqrt()
        return radius * torch.cos(2.0 * math.pi * self.uniform(*shape))

    def permutation(self, num: int) -> torch.Tensor:
        """int64 (B, num), a random order of ``range(num)`` for each clip."""
        import torch

        return torch.argsort(self.words(num), dim=1, stable=True)


def _signed(value: int) -> int:
    """The int64 that has the same bits as ``value`` modulo 2**64."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift_right(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Logical shift of int64, which torch only shifts arithmetically."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _mix(bits: torch.Tensor) -> torch.Tensor:
    """splitmix64's finaliser on int64, whose products wrap as those of uint64 do."""
    bits = (bits ^ _shift_right(bits, 30)) * _signed(_MIX_A)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(_MIX_B)
    return bits ^ _shift_right(bits, 31)
