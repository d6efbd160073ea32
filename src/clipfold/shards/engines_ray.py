"""The engine ``ray``: the same work as Ray tasks on a cluster that is there already.

::

    this process                              a node
    jobs, in order --> Ray tasks (1 CPU) -->  Ray worker --> a process of clipfold.pool, with all its limits
    parts <-- the shared folder, or else the object store

Each Ray worker keeps a :class:`clipfold.pool.Pool` of one process, so a crash, a loop or a blow-up of a decoder costs
one file there as it does here; Ray itself runs tasks again that were lost with their node. Outcomes are taken in the
order of the jobs, hence the corpus is the same, byte for byte.

What the nodes need: the same version of clipfold and of its libraries, and the sources under the same paths or URLs.
Where they also see the staging folder (a shared file system), parts are written there directly; where they do not,
parts travel through Ray's object store, which spills to the nodes' disks when they are large.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clipfold.errors import ClipfoldError
from clipfold.files import write_whole
from clipfold.pool import Pool
from clipfold.worker import Limits, Outcome, cpu_type

__all__ = ["RayEngine"]

_AHEAD_PER_WORKER = 4
_MOST_LOSSES = 20  # of one task, with the nodes or workers that it ran on
_PROBE_SECONDS = 120.0
_CONNECT_SECONDS = 10.0


class RayEngine:
    """An ordered, bounded map over a Ray cluster.

    Args:
        num_workers: Tasks at a time; ``None`` is one per CPU of the cluster.
        address: Of the cluster (``"10.0.0.1:6379"``, ``"ray://..."``); ``None`` is ``RAY_ADDRESS``, or the cluster that
            runs on this machine.

    Raises:
        ClipfoldError: Ray is not installed, no cluster is there, or a node has no clipfold or another version.
        ValueError: ``num_workers`` below 1.
    """

    def __init__(self, num_workers: int | None = None, *, address: str | None = None) -> None:
        if num_workers is not None and num_workers < 1:
            raise ValueError(f"num_workers: {num_workers}, expected at least 1")
        self._ray = _import_ray()
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._connect(address)
        try:
            cpus, self.cpu_types = self._probe()
        except BaseException:
            self.close()
            raise
        self.num_workers = num_workers or max(sum(cpus), 1)
        self.num_workers_per_machine = max(-(-self.num_workers * max(cpus) // max(sum(cpus), 1)), 1)
        self._pending: deque[tuple[Any, Any]] = deque()

    def _connect(self, address: str | None) -> None:
        address = address or os.environ.get("RAY_ADDRESS") or "auto"
        try:
            _check_listens(address)
            self._ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise ClipfoldError(
                f"no Ray cluster at {address!r}: {error}",
                fix="start one (`ray start --head`), name it with --ray-address, or work without (--engine local)",
            ) from error

    def _probe(self) -> tuple[list[int], list[str]]:
        """CPUs of each node, and all types of CPU; every node has to answer with our version."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise ClipfoldError("the Ray cluster has no CPU", fix="start nodes with --num-cpus")
        probe = self._ray.remote(num_cpus=0, max_retries=2)(_describe_node)
        asked = {}
        for node in nodes:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            asked[node["NodeManagerAddress"], node["NodeID"]] = probe.options(scheduling_strategy=where).remote()
        types = set()
        for (name, _), ref in asked.items():
            try:
                found, cpu = self._ray.get(ref, timeout=_PROBE_SECONDS)
            except Exception as error:
                raise ClipfoldError(
                    f"node {name} of the Ray cluster cannot work: {type(error).__name__}: {str(error)[-300:]}",
                    fix=f"install clipfold {version('clipfold')} on every node",
                ) from error
            if found != version("clipfold"):
                raise ClipfoldError(
                    f"node {name} has clipfold {found}, expected {version('clipfold')}",
                    fix="install the same version on every node",
                )
            types.add(cpu)
        return [int(node["Resources"]["CPU"]) for node in nodes], sorted(types)

    def map(
        self, function: Callable[[Any], Any], arguments: Iterable[Any], *, limits: Callable[[Any], Limits] | None = None
    ) -> Iterator[Outcome]:
        """One outcome an argument, in order; see :meth:`clipfold.pool.Pool.map`.

        Raises:
            OSError: A part cannot be written here.
        """
        limits = limits or (lambda argument: Limits())
        call = self._ray.remote(num_cpus=1, max_retries=_MOST_LOSSES)(_call)
        mark = _Mark()
        todo = iter(arguments)
        try:
            while True:
                while len(self._pending) < self.num_workers * _AHEAD_PER_WORKER:
                    argument = next(todo, mark)
                    if argument is mark:
                        break
                    token = mark.beside(getattr(argument, "part", ""))
                    ref = call.remote(function, argument, limits(argument), token)
                    self._pending.append((ref, argument))
                if not self._pending:
                    return
                ref, argument = self._pending.popleft()
                outcome, part = self._take(ref)
                if part is not None:
                    write_whole(argument.part, part)
                del ref, part  # the object store may forget it
                yield outcome
        finally:
            mark.remove()
            self._cancel()

    def _take(self, ref: Any) -> tuple[Outcome, bytes | None]:
        errors = self._ray.exceptions
        try:
            found: tuple[Outcome, bytes | None] = self._ray.get(ref)
            return found
        except errors.OutOfMemoryError as error:
            what = ClipfoldError("ran out of memory", fix="fewer workers, or nodes with more memory")
            what.__cause__ = error
            return Outcome(kind="out_of_memory", error=what, error_name="OutOfMemory", num_tries=2), None
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError) as error:
            what = ClipfoldError(f"was lost {_MOST_LOSSES} times with the worker or node that it ran on")
            what.__cause__ = error
            return Outcome(kind="crashed", error=what, error_name="Crash", num_tries=2), None

    def _cancel(self) -> None:
        pending, self._pending = self._pending, deque()
        for ref, _ in pending:
            with suppress(Exception):  # it may just have ended, or the cluster has gone
                self._ray.cancel(ref, force=True)

    def close(self) -> None:
        """Stop what is running, and leave the cluster as it was."""
        if getattr(self, "_pending", None):
            self._cancel()
        if self._is_ours and self._ray.is_initialized():
            self._ray.shutdown()


class _Mark:
    """A file in the folder of the parts: who finds it there sees the folder."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def beside(self, part: str) -> str:
        """Where it is; ``""`` where there is no part."""
        if part and self._path is None:
            self._path = Path(part).parent / f".{secrets.token_hex(8)}.tmp"
            self._path.touch()
        return str(self._path or "")

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


_pool: Pool | None = None


def _call(function: Callable[[Any], Any], argument: Any, limits: Limits, mark: str) -> tuple[Outcome, bytes | None]:
    """One task, on a node: what became of it, and its part where the folder of the parts is not seen from here."""
    global _pool
    _pool = _pool or Pool(1)
    if not mark or os.path.exists(mark):
        [outcome] = _pool.map(function, [argument], limits=lambda _: limits)
        return outcome, None
    with tempfile.TemporaryDirectory(prefix="clipfold-") as folder:
        part = Path(folder) / Path(argument.part).name
        [outcome] = _pool.map(function, [replace(argument, part=str(part))], limits=lambda _: limits)
        return outcome, part.read_bytes() if part.exists() else None


def _describe_node() -> tuple[str, str]:
    """Version of clipfold, type of the CPU."""
    return version("clipfold"), cpu_type()


def _check_listens(address: str) -> None:
    """Raise ``OSError`` where nobody answers at ``host:port``: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ClipfoldError(
            f"the engine 'ray' needs the package ray: {error}", fix="pip install 'clipfold[ray]'"
        ) from error
    return ray
