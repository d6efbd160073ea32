"""Batches under way: a bounded number, in order, filled by threads, copied to the device.

::

    ask 7   ask 6   ask 5   ask 4             ask 3            ask 2
    planned  filled by several threads        copied           handed out
    [ host batches: at most num_ahead + 1 ]   [ device ring ]

No thread ever waits for another: a task does its part and leaves, the one that finishes a batch starts what has
become possible. So nothing hangs when a consumer walks away; what it left is at most a full set of buffers.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clipfold.clip import ClipBatch
from clipfold.stream.batch import HostBatch, Meta
from clipfold.stream.faults import Fault
from clipfold.stream.filling import Filler, Piece, StageTimes
from clipfold.stream.transfer import DeviceRing

__all__ = ["Ask", "Pipeline", "Ready"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One batch that is wanted.

    Args:
        start: First position of the global batch that it is a share of.
        stop: Where that global batch ends.
        micro: Which micro-batch of the step.
        is_last: Whether it is the step's last.
    """

    start: int
    stop: int
    micro: int
    is_last: bool


@dataclass(frozen=True, kw_only=True)
class Ready:
    """One batch that is handed out, and what could not be read for it."""

    ask: Ask
    batch: ClipBatch
    faults: list[Fault]


@dataclass(eq=False)
class _Ticket:
    number: int
    ask: Ask
    host: HostBatch
    epoch: int = 0
    keys: list[str] = field(default_factory=list)
    meta: Meta = None
    num_tasks: int = 1
    failure: tuple[int, BaseException] | None = None  # the earliest piece's, so that it does not depend on luck
    faults: list[Fault] = field(default_factory=list)
    is_copied: bool = False


class Pipeline:
    """Batches in the order in which they are asked for.

    Args:
        executor: Threads.
        filler: Fills slots.
        hosts: Memory, one per batch under way; all of it is this pipeline's while it runs.
        ring: Where batches are copied to; ``None`` hands out the host's memory itself.
        ask: The n-th batch that is wanted, or ``None`` after the last.
        positions: The slots of an ask: int64 (B,).
        num_pieces: How many tasks fill one batch.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        filler: Filler,
        hosts: list[HostBatch],
        ring: DeviceRing | None,
        ask: Callable[[int], Ask | None],
        positions: Callable[[Ask], NDArray[np.int64]],
        num_pieces: int,
    ) -> None:
        self.times = StageTimes()
        self.wait_seconds = 0.0
        self._executor, self._filler, self._ring = executor, filler, ring
        self._ask, self._positions, self._num_pieces = ask, positions, num_pieces
        self._changed = threading.Condition()
        self._free = list(hosts)
        self._tickets: deque[_Ticket] = deque()  # asked for and not yet handed out
        self._held: _Ticket | None = None  # handed out, in use by the consumer
        self._num_asked = 0
        self._num_under_way = 0  # tasks
        self._stopped = False

    def peek(self) -> Ask | None:
        """What :meth:`take` gives next; ``None`` after the last, or where it was stopped."""
        with self._changed:
            if self._stopped:
                return None
            return self._tickets[0].ask if self._tickets else self._ask(self._num_asked)

    def take(self) -> Ready | None:
        """The next batch, ``None`` after the last. What was taken before is no longer valid.

        Raises:
            BaseException: Whatever went wrong in the threads that made this batch.
        """
        with self._changed:
            self._let_go()
            self._advance()
            began = time.perf_counter()
            while self._tickets and not self._is_ready(self._tickets[0]):
                self._changed.wait()
            self.wait_seconds += time.perf_counter() - began
            if not self._tickets:
                return None
            ticket = self._tickets[0]
            if ticket.failure is not None:
                raise ticket.failure[1]
            self._tickets.popleft()
            self._held = ticket
        if self._ring is None:
            batch = ticket.host.batch(ticket.epoch)
        else:
            batch = self._ring.hand_out(ticket.number % self._ring.num_slots, ticket.keys, ticket.epoch, ticket.meta)
        return Ready(ask=ticket.ask, batch=batch, faults=sorted(ticket.faults, key=lambda f: (f.position, f.attempt)))

    def stop(self) -> None:
        """Ask for no more and wait until no task touches the memory. May be called twice."""
        with self._changed:
            self._stopped = True
            while self._num_under_way:
                self._changed.wait()
            if self._ring is not None:
                self._ring.let_go_of_all()

    def _let_go(self) -> None:
        ticket, self._held = self._held, None
        if ticket is None:
            return
        if self._ring is None:
            self._free.append(ticket.host)
        else:
            self._ring.let_go(ticket.number % self._ring.num_slots)

    def _is_ready(self, ticket: _Ticket) -> bool:
        if ticket.num_tasks:
            return False
        return ticket.failure is not None or self._ring is None or ticket.is_copied

    def _advance(self) -> None:
        """Start what has become possible. The lock is held."""
        if self._stopped:
            return
        if self._ring is not None:
            self._start_copies(self._ring)
        while self._free and not any(ticket.failure for ticket in self._tickets):
            ask = self._ask(self._num_asked)
            if ask is None:
                return
            ticket = _Ticket(self._num_asked, ask, self._free.pop(0))
            self._num_asked += 1
            self._tickets.append(ticket)
            self._submit(ticket, partial(self._prepare, ticket))

    def _start_copies(self, ring: DeviceRing) -> None:
        oldest = self._held or (self._tickets[0] if self._tickets else None)
        for ticket in self._tickets:
            assert oldest is not None
            if ticket.is_copied:
                continue
            if ticket.num_tasks or ticket.failure or ticket.number - oldest.number >= ring.num_slots:
                return
            ring.copy(ticket.host, ticket.number % ring.num_slots)
            ticket.is_copied = True
            ticket.keys, ticket.meta = ticket.host.keys, ticket.host.meta
            self._free.append(ticket.host)  # whoever fills it next waits for the copy

    def _submit(self, ticket: _Ticket, task: Callable[[], None], piece: int = 0) -> None:
        """Run a task whose end is counted, whatever happens. The lock is held."""

        def run() -> None:
            failure: BaseException | None = None
            try:
                if not self._stopped:
                    task()
            except BaseException as error:  # it belongs to the consumer, not to this thread
                failure = error
            self._settle(ticket, piece, failure)

        self._num_under_way += 1
        try:
            self._executor.submit(run)
        except RuntimeError as error:  # the executor or the interpreter is shutting down
            self._settle(ticket, piece, error)

    def _settle(self, ticket: _Ticket, piece: int, failure: BaseException | None) -> None:
        with self._changed:
            if failure is not None and (ticket.failure is None or piece < ticket.failure[0]):
                ticket.failure = piece, failure
            ticket.num_tasks -= 1
            self._num_under_way -= 1
            if not ticket.num_tasks:
                try:
                    self._advance()
                except BaseException as error:  # the device refuses
                    ticket.failure = ticket.failure or (0, error)
            self._changed.notify_all()

    def _prepare(self, ticket: _Ticket) -> None:
        """First task of a batch: where its samples are. It makes the others."""
        began = time.perf_counter()
        positions = self._positions(ticket.ask)
        first = int(positions[0]) if positions[0] >= 0 else ticket.ask.start
        ticket.epoch = self._filler.plan.epoch_of(first)
        pieces = list(self._filler.pieces(positions, self._num_pieces))
        planned = time.perf_counter() - began
        ticket.host.start(positions)
        with self._changed:
            self.times.plan_seconds += planned
            ticket.num_tasks += len(pieces)
            for number, piece in enumerate(pieces):
                self._submit(ticket, partial(self._fill, ticket, piece), number)

    def _fill(self, ticket: _Ticket, piece: Piece) -> None:
        faults, times = self._filler.fill(ticket.host, piece, is_stopped=lambda: self._stopped)
        with self._changed:
            ticket.faults += faults
            self.times.add(times)
