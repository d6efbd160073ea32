"""Work on processes that may crash, loop for ever or eat all memory: each costs one task, never the run.

::

    arguments --> [ at most num_ahead under way ] --> outcomes, in the order of the arguments
                     |        |        |
                  worker   worker   worker        a process each, started anew after a death
                  1 runs   1 runs   1 runs        (and one task waits in its pipe, so that it never idles)
                  1 waits  1 waits  1 waits

Media are decoded by native code that nobody here controls, so a task runs under limits which the kernel itself keeps,
whatever the native code does: CPU seconds (SIGXCPU), wall seconds (SIGALRM) and memory (RLIMIT_DATA). A task that
makes progress says so with :func:`clipfold.worker.renew_deadline`. What killed a worker may have been a neighbour (all
memory taken, a signal from outside), so a task that crashed, timed out or ran out of memory is **tried once more,
alone**, before that becomes its outcome.

Workers are fresh interpreters, not forks (native libraries and threads do not survive one), and do not import the
caller's ``__main__``: a script needs no ``if __name__ == "__main__"``, and a notebook or a script read from the
standard input works as well. They die with the thread that started them (PR_SET_PDEATHSIG), even when it is killed.
There is no way to run tasks in the calling process: it could not give any of these guarantees.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import spawn
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any

from clipfold.errors import ClipfoldError
from clipfold.worker import Limits, Outcome, cpu_type

__all__ = ["Limits", "Outcome", "Pool", "Statistics", "num_cpus"]

_MAX_FAILED_STARTS = 3
_AHEAD_PER_WORKER = 16
_MAX_WAITING_BYTES = 1 << 16  # a task that may wait in a busy worker's pipe: surely less than the pipe holds


def num_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass
class Statistics:
    """Counts of a pool since it was opened: tasks by kind of outcome, second tries, and time inside the tasks."""

    num_done: int = 0
    num_failed: int = 0
    num_crashed: int = 0
    num_timed_out: int = 0
    num_out_of_memory: int = 0
    num_retried: int = 0
    busy_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def count(self, outcome: Outcome) -> None:
        """Add one outcome."""
        name = f"num_{outcome.kind}"
        setattr(self, name, getattr(self, name) + 1)


@dataclass(eq=False)
class _Task:
    index: int
    argument: Any
    num_tries: int = 1


@dataclass
class _Progress:
    """The state of one :meth:`Pool.map`: every task is in exactly one of these places, or was handed out."""

    arguments: Iterator[tuple[int, Any]]
    waiting: deque[_Task] = field(default_factory=deque)  # taken from a worker that died under another task
    again: deque[_Task] = field(default_factory=deque)  # for their second try
    finished: dict[int, Outcome] = field(default_factory=dict)
    num_taken: int = 0
    num_yielded: int = 0
    at_end: bool = False


class Pool:
    """An ordered, bounded map over worker processes.

    Args:
        num_workers: Processes, at least 1; ``None`` is one per CPU core that this process may use.
        num_ahead: How many tasks may be under way or finished but not yet handed out: what a slow task can hold up.
            ``None`` is 16 a worker.

    Raises:
        ValueError: A number below 1.

    Example:
        >>> with Pool(2) as pool:
        ...     [outcome.value for outcome in pool.map(abs, [-1, -2, -3])]
        [1, 2, 3]
    """

    def __init__(self, num_workers: int | None = None, *, num_ahead: int | None = None) -> None:
        self.num_workers = num_cpus() if num_workers is None else num_workers
        if self.num_workers < 1:
            raise ValueError(f"num_workers: {num_workers}, expected at least 1 (work is always done in processes)")
        self.num_workers_per_machine = self.num_workers
        self.cpu_types = [cpu_type()]
        self.num_ahead = _AHEAD_PER_WORKER * self.num_workers if num_ahead is None else num_ahead
        if self.num_ahead < 1:
            raise ValueError(f"num_ahead: {num_ahead}, expected at least 1")
        self.statistics = Statistics()
        self._workers: list[_Worker] = []
        self._num_failed_starts = 0

    def map(
        self,
        function: Callable[[Any], Any],
        arguments: Iterable[Any],
        *,
        limits: Callable[[Any], Limits] | None = None,
    ) -> Iterator[Outcome]:
        """Call a function for each argument; an outcome for each, in order.

        Args:
            function: A function of a module that can be imported (not of ``__main__``, no lambda).
            arguments: Anything that pickles. Taken as needed.
            limits: The limits of an argument's task; none where ``None``.

        Yields:
            One :class:`Outcome` an argument, as soon as those before it are out.

        Raises:
            ClipfoldError: Worker processes cannot start.
            TypeError: The function, an argument or a result does not pickle.
        """
        state = _Progress(arguments=enumerate(arguments))
        limits = limits or (lambda argument: Limits())
        try:
            while True:
                self._hand_out(state, function, limits)
                while state.num_yielded in state.finished:
                    outcome = state.finished.pop(state.num_yielded)
                    state.num_yielded += 1
                    self.statistics.count(outcome)
                    yield outcome
                    self._hand_out(state, function, limits)
                if state.at_end and state.num_yielded == state.num_taken:
                    return
                self._collect(state)
        except BaseException:
            self.close()  # abandoned or broken half-way: what is still running must not go on
            raise

    def _hand_out(self, state: _Progress, function: Callable[[Any], Any], limits: Callable[[Any], Limits]) -> None:
        """Give the workers something to do, as far as the bounds allow."""
        if any(task.num_tries > 1 for worker in self._workers for task in worker.tasks):
            return  # a second try has the machine for itself
        alone = bool(state.again) and (state.at_end or state.again[0].index == state.num_yielded)
        if alone and not state.waiting and not any(worker.tasks for worker in self._workers):
            state.waiting.append(state.again.popleft())
        while task := self._next_task(state, only_waiting=alone):
            task_limits = limits(task.argument)
            if task.num_tries > 1 and task_limits.memory_alone_bytes is not None:
                task_limits = replace(task_limits, memory_bytes=task_limits.memory_alone_bytes)
            data = bytes(ForkingPickler.dumps((function, task.argument, task_limits)))
            worker = self._free_worker(max_tasks=1 if len(data) > _MAX_WAITING_BYTES else 2)
            if worker is None:
                state.waiting.appendleft(task)
                return
            worker.tasks.append(task)
            with suppress(OSError):  # it died just now: _collect finds out, and the task is given to another
                worker.connection.send_bytes(data)

    def _next_task(self, state: _Progress, *, only_waiting: bool) -> _Task | None:
        if state.waiting:
            return state.waiting.popleft()
        if only_waiting or state.at_end or state.num_taken - state.num_yielded >= self.num_ahead:
            return None
        for index, argument in state.arguments:
            state.num_taken += 1
            return _Task(index, argument)
        state.at_end = True
        return None

    def _free_worker(self, *, max_tasks: int) -> _Worker | None:
        """The worker with the fewest tasks, a new one while there may be more; ``None`` where all have enough."""
        freest = min(self._workers, key=lambda worker: len(worker.tasks), default=None)
        if (freest is None or freest.tasks) and len(self._workers) < self.num_workers:
            freest = _Worker()
            self._workers.append(freest)
        return freest if freest is not None and len(freest.tasks) < max_tasks else None

    def _collect(self, state: _Progress) -> None:
        """Wait until a worker says something or dies, and take note."""
        assert any(worker.tasks for worker in self._workers), "waiting for workers that have nothing to do"
        by_connection: dict[Any, _Worker] = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker, state)
                continue
            if message is None:
                worker.ready, self._num_failed_starts = True, 0
                continue
            outcome, busy_seconds, cpu_seconds = message
            self.statistics.busy_seconds += busy_seconds
            self.statistics.cpu_seconds += cpu_seconds
            self._finish(worker.tasks.popleft(), outcome, state)
            if outcome.kind == "out_of_memory":  # who knows what it still holds: a fresh one is safer
                self._workers.remove(worker)
                worker.stop()
                state.waiting.extend(worker.tasks)

    def _bury(self, worker: _Worker, state: _Progress) -> None:
        """A worker died: blame the task that it was running, give back the one that only waited in its pipe."""
        self._workers.remove(worker)
        code = worker.stop()
        if worker.ready and worker.tasks:
            self._finish(worker.tasks.popleft(), _death(code), state)
        state.waiting.extend(worker.tasks)
        self._num_failed_starts += not worker.ready
        if self._num_failed_starts >= _MAX_FAILED_STARTS:
            raise ClipfoldError(
                f"worker processes do not start: {_MAX_FAILED_STARTS} in a row ended with exit code {code}",
                fix="what they printed above says why; too little memory, or no leave to start processes?",
            )

    def _finish(self, task: _Task, outcome: Outcome, state: _Progress) -> None:
        if task.num_tries == 1 and outcome.kind in ("crashed", "timed_out", "out_of_memory"):
            self.statistics.num_retried += 1
            again = [*state.again, replace(task, num_tries=2)]
            state.again = deque(sorted(again, key=lambda each: each.index))
            return
        state.finished[task.index] = replace(outcome, num_tries=task.num_tries)

    def close(self) -> None:
        """Kill the workers; what they were doing is lost. A later :meth:`map` starts new ones."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.stop()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """The calling process's end of a worker: a child, a socket to it, and the tasks that it was given."""

    def __init__(self) -> None:
        self.tasks: deque[_Task] = deque()  # it runs them in this order
        self.ready = False
        ours, theirs = socket.socketpair()
        paths = [path or os.getcwd() for path in sys.path]
        code = f"import sys; sys.path[:] = {paths!r}; from clipfold.worker import serve; "
        with theirs:
            self.process = subprocess.Popen(
                [os.fsdecode(spawn.get_executable()), "-c", f"{code}serve({theirs.fileno()}, {os.getpid()})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # the standard output is for results
                process_group=0,  # Ctrl-C is for the parent, which then stops us
                # one thread each: the processes are the parallelism, and some encoders' bytes depend on the number
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        self.connection = Connection(ours.detach())

    def stop(self) -> int:
        """Make sure that it is dead and leave nothing of it behind; the exit code, negative for a signal."""
        self.connection.close()  # it sees the end of its input
        try:
            code = self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return code


def _death(code: int) -> Outcome:
    """The outcome of a task whose process ended with an exit code (negative: a signal)."""
    if code == -signal.SIGXCPU:
        error = ClipfoldError("took too much CPU time", fix="a longer deadline, if the file is as large as that")
        return Outcome(kind="timed_out", error=error, error_name="CpuDeadline")
    if code == -signal.SIGALRM:
        error = ClipfoldError("took too long by the clock", fix="a longer deadline, or a less busy machine or disk")
        return Outcome(kind="timed_out", error=error, error_name="WallDeadline")
    if code == -signal.SIGKILL:
        error = ClipfoldError("the process was killed (SIGKILL), which the kernel does when memory runs out")
        return Outcome(kind="crashed", error=error, error_name="Crash")
    try:
        what = signal.Signals(-code).name
    except ValueError:
        what = f"exit code {code}"
    return Outcome(kind="crashed", error=ClipfoldError(f"the process crashed ({what})"), error_name="Crash")
