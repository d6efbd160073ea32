"""The inside of a worker process of :mod:`clipfold.pool`: what limits a task, and what became of it."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import resource
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal

from clipfold.errors import ClipfoldError

__all__ = ["Limits", "Outcome", "cpu_type", "renew_deadline", "serve"]

Kind = Literal["done", "failed", "crashed", "timed_out", "out_of_memory"]

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one task may use until it ends or calls :func:`renew_deadline`; ``None`` is no limit.

    Args:
        cpu_seconds: CPU time of the worker, all its threads together. Rounded up to whole seconds.
        wall_seconds: Time on the clock. To be generous: a busy machine must not make a good file fail.
        memory_bytes: Memory that the worker can write to (RLIMIT_DATA), what it had before included.
        memory_alone_bytes: The same for the second try, when nothing else is running.
    """

    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    memory_bytes: int | None = None
    memory_alone_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one task.

    Args:
        kind: ``"done"``, or what went wrong: ``"failed"`` raised an exception, ``"crashed"`` took its process with
            it, ``"timed_out"``, ``"out_of_memory"``.
        value: What the function returned; ``None`` unless done.
        error: What went wrong, as an exception ready to be raised; ``None`` when done. Its text holds no times and
            no process ids.
        error_name: Name of the exception's class as it was raised in the worker, or one of ``"Crash"``,
            ``"CpuDeadline"``, ``"WallDeadline"``, ``"OutOfMemory"``; ``""`` when done.
        num_tries: 1, or 2 after a second try.
    """

    kind: Kind
    value: Any = None
    error: ClipfoldError | None = None
    error_name: str = ""
    num_tries: int = 1


@cache
def cpu_type() -> str:
    """What kind of CPU this is: codecs that use BLAS give other bytes on another kind."""
    fields: dict[str, str] = {}
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    found = fields.get("model name") or " ".join(
        fields[name] for name in ("CPU implementer", "CPU part") if name in fields
    )
    return f"{platform.machine()} {found}".strip()


_limits = Limits()


def renew_deadline() -> None:
    """Called inside a task that just made progress: its CPU and wall deadlines start again from now.

    Does nothing outside a worker. Costs two system calls.
    """
    if _limits.cpu_seconds is not None:
        soft, hard = math.ceil(time.process_time() + _limits.cpu_seconds), resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (_lower(soft, hard), hard))
    if _limits.wall_seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, _limits.wall_seconds)


def _set_limits(limits: Limits) -> None:
    global _limits
    _limits = limits
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = resource.RLIM_INFINITY if limits.memory_bytes is None else limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (_lower(soft, hard), hard))
    renew_deadline()


def _lift_limits() -> None:
    global _limits
    _limits = Limits()
    signal.setitimer(signal.ITIMER_REAL, 0)
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_DATA):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (hard, hard))


def _lower(soft: int, hard: int) -> int:
    if hard == resource.RLIM_INFINITY:
        return soft
    return hard if soft == resource.RLIM_INFINITY else min(soft, hard)


def serve(descriptor: int, parent: int) -> None:
    """The whole life of a worker.

    Args:
        descriptor: Our end of a socket to the parent.
        parent: Process id of the parent; we die with it.
    """
    for number in (signal.SIGXCPU, signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it died before the line above
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.set_inheritable(descriptor, False)
    with Connection(descriptor) as connection, suppress(EOFError, OSError):
        connection.send(None)
        while True:
            connection.send_bytes(_run(connection.recv_bytes()))


def _run(data: bytes) -> bytes:
    """One task: (function, argument, limits), pickled by our parent -> (outcome, busy seconds, CPU seconds)."""
    start, cpu = time.monotonic(), time.process_time()
    try:
        function, argument, limits = ForkingPickler.loads(data)
        _set_limits(limits)
        outcome = Outcome(kind="done", value=function(argument))
        ForkingPickler.dumps(outcome)
    except BaseException as error:  # SystemExit as well: a task does not end its worker
        _lift_limits()
        outcome = _failure(error)
    _lift_limits()
    return bytes(ForkingPickler.dumps((outcome, time.monotonic() - start, time.process_time() - cpu)))


def _failure(error: BaseException) -> Outcome:
    cause: BaseException | None = error
    while cause is not None:  # a decoder may have wrapped it
        if isinstance(cause, MemoryError):
            return Outcome(
                kind="out_of_memory",
                error=ClipfoldError("ran out of memory", fix="fewer workers, or a higher memory limit"),
                error_name="OutOfMemory",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, ClipfoldError):
        where = {name: value if isinstance(value, int | float) else str(value) for name, value in error.where.items()}
        kind = type(error) if type(error).__module__ == "clipfold.errors" else ClipfoldError
        plain = kind(error.what, fix=error.fix, **where)
    else:
        plain = ClipfoldError(f"{type(error).__name__}: {error}")
    return Outcome(kind="failed", error=plain, error_name=type(error).__name__)
