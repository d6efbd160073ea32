"""Where a conversion's work is done: the processes of this machine, or a Ray cluster.

An engine maps a function over arguments, outcomes in order; :mod:`clipfold.shards.convert` knows no more than that.
Another engine is a class with these members and a line in the table (or an entry point in ``clipfold.engines``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, cast

from clipfold import plugins
from clipfold.worker import Limits, Outcome

__all__ = ["ENGINES", "Engine", "open_engine"]

ENGINES: dict[str, str] = {"local": "clipfold.pool:Pool", "ray": "clipfold.shards.engines_ray:RayEngine"}


class Engine(Protocol):
    """Calls functions elsewhere; whatever a call does to its process costs that call alone."""

    num_workers: int
    num_workers_per_machine: int  # of those, how many share the memory of one machine
    cpu_types: list[str]  # of all its machines

    def map(
        self, function: Callable[[Any], Any], arguments: Iterable[Any], *, limits: Callable[[Any], Limits] | None = None
    ) -> Iterator[Outcome]:
        """One outcome an argument, in order; arguments are taken as needed. See :meth:`clipfold.pool.Pool.map`."""
        ...

    def close(self) -> None:
        """Stop what is running and give everything back. May be called twice."""
        ...


def open_engine(name: str, *, num_workers: int | None, **options: Any) -> Engine:
    """An engine by name.

    Args:
        name: ``"local"``, ``"ray"``, an entry point, or ``"my_package.module:MyEngine"``.
        num_workers: ``None`` leaves the number to the engine.
        **options: What else this engine takes.

    Raises:
        PluginError: Nothing has this name.
        ValueError: ``num_workers`` below 1.
    """
    return cast(Engine, plugins.load("engines", name, ENGINES)(num_workers, **options))
