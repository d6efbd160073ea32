"""Who we are among the ranks of a run: the only reader of RANK, WORLD_SIZE and LOCAL_RANK."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

__all__ = ["World"]


@dataclass(frozen=True)
class World:
    """One process among those that train together.

    Args:
        rank: This process, in [0, world_size).
        world_size: Number of processes, at least 1.
        local_rank: This process among those of its node: which GPU it uses.

    Raises:
        TypeError: Something that is no whole number.
        ValueError: rank outside [0, world_size), or a negative local_rank.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name} of a world: {value!r}, expected a whole number, such as int({name})")
        if self.world_size < 1 or not 0 <= self.rank < self.world_size or self.local_rank < 0:
            raise ValueError(f"{self}: expected world_size >= 1, 0 <= rank < world_size and local_rank >= 0")

    @property
    def is_main(self) -> bool:
        """True on rank 0, which writes what is written once."""
        return self.rank == 0

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> World:
        """The world that ``torchrun`` describes; a world of one where it did not start us.

        Raises:
            ValueError: The variables are not whole numbers, or do not fit each other.
        """
        env = os.environ if env is None else env
        values = []
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
            text = env.get(name, default)
            if not text.isdecimal():
                raise ValueError(f"environment variable {name}: {text!r}, expected a whole number (torchrun sets it)")
            values.append(int(text))
        return cls(*values)
