"""``ClipStream``: shards on disk or behind a URL become batches on a device, exactly, on any number of ranks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from clipfold.clip import ClipBatch
from clipfold.errors import ResumeError, ShardError
from clipfold.shards.reader import Corpus
from clipfold.stream.batch import HostBatch
from clipfold.stream.faults import Fault, Ledger
from clipfold.stream.filling import Filler, StageTimes
from clipfold.stream.pipeline import Ask, Pipeline
from clipfold.stream.plan import ORDER_VERSION, Plan, PlanState, fingerprint
from clipfold.stream.samples import SampleIndex
from clipfold.stream.storage import Storage
from clipfold.stream.transfer import DeviceRing
from clipfold.world import World

__all__ = ["ClipStream"]

Tail = Literal["pad", "cross"]
OnError = Literal["raise", "substitute"]

_CLIPS_PER_TASK = 8  # fewer cost more Python than they gain


class ClipStream:
    """Batches of clips in an order that is a formula: the loader itself, not something to be wrapped in one.

    One infinite sequence of samples, fixed by (seed, shards), is cut into global batches of
    ``batch_size * world.world_size * accumulate`` slots, and each global batch into equal shares::

        ... [ rank 0, micro 0 | rank 0, micro 1 | rank 1, micro 0 | rank 1, micro 1 ] [ next step ...

    Every sample comes exactly once an epoch. All ranks make the same number of batches. The same global batch size
    gives the same global batches on any number of ranks.

    **Iterating** gives the rest of one epoch, from where the state stands: after a whole epoch the next one. Leaving a
    loop early loses nothing: the next loop goes on behind the last batch that was handed out (with ``accumulate``: at
    the beginning of the step that was left). There is one iteration at a time; starting another ends the first.

    **The state** (:meth:`state_dict`) counts the batches that were handed out, not those prepared ahead, and moves
    before a batch is handed out. With ``accumulate`` it moves with the step's last micro-batch, so a state that was
    taken inside a step repeats the whole step.

    **A batch is valid until the next one is asked for**; its memory is used again. ``batch.clone()`` keeps one. With a
    CUDA device that holds for work on the CUDA stream that is current when the next batch is asked for.

    **Threads.** ``next()`` may be called on one iterator from several threads: each batch is handed out once, and the
    state counts each once. But the memory of a batch is used again as soon as any thread asks for the next, so a
    thread that shares an iterator has to be done with its batch, or have cloned it, before another one asks; which
    thread gets which batch is open. Everything else (starting an iteration, loading a state, closing) belongs to one
    thread, while no other is inside ``next()``.

    Args:
        data: A corpus folder or URL, or an opened :class:`~clipfold.shards.reader.Corpus`.
        split: Name of the split.
        batch_size: Clips of a batch on this rank, at least 1.
        seed: Whole number in [0, 2**64); the order of reading is drawn from it.
        world: Which of how many ranks this is.
        accumulate: Micro-batches of one step, at least 1: so many batches are handed out for each global batch.
        shuffle: False reads front to back; ``None`` shuffles the split "train" and no other.
        tail: What happens at the end of an epoch. ``"pad"``: its last global batch is filled up with slots that are
            not valid (pixels 0, label 0, position -1, key ""). ``"cross"``: every batch is full and may reach into
            the next epoch; an iteration ends once it has passed the border, so its length varies by one.
        num_lanes: How many places of the epoch are read at once; ``None`` for what follows from its size.
        block_size: Samples that are permuted together within a lane; ``None`` likewise.
        run_length: Neighbours that stay together: larger is coarser, and makes remote reads larger.
        num_threads: Threads that read and decode; ``None`` for the CPU cores, at most 12.
        prefetch: Batches that are prepared ahead, at least 1. Memory for ``prefetch + 1`` batches is taken.
        device: Where batches are handed out; ``None`` is the CPU. CUDA gets page-locked host memory, three batches of
            device memory and a CUDA stream of its own.
        on_error: ``"raise"`` stops at a sample that cannot be read. ``"substitute"`` goes on: a shuffled stream takes
            another sample in its place, drawn from (seed, position), the same on any number of ranks; one that is not
            shuffled (evaluation) marks the clip not valid.
        max_failures: Raise once this rank has met more failures; ``None`` for no limit.
        ledger: Folder for ``faults.<rank>.jsonl``, which names every failure; those of an interrupted run are read.
        verify_checksums: Compare every sample with its checksum on every read.
        meta: Read each sample's ``.json`` as well and hand it out as ``batch.meta``, the user's own columns included.
            The slow path: one more read and one more JSON text a sample, which the index files otherwise spare.

    Raises:
        TypeError: ``data``, ``world`` or a flag of another type.
        ValueError: An argument out of range; a split that is not there or empty; ``tail="cross"`` with a global batch
            larger than the split.
        ShardError: The corpus is missing or damaged.

    Example:
        >>> with ClipStream("corpus", batch_size=8) as stream:      # doctest: +SKIP
        ...     for batch in stream:
        ...         train(batch.pixels_BSCHW, batch.labels)
    """

    def __init__(
        self,
        data: str | Path | Corpus,
        *,
        split: str = "train",
        batch_size: int,
        seed: int = 0,
        world: World | None = None,
        accumulate: int = 1,
        shuffle: bool | None = None,
        tail: Tail = "pad",
        num_lanes: int | None = None,
        block_size: int | None = None,
        run_length: int | None = None,
        num_threads: int | None = None,
        prefetch: int = 2,
        device: torch.device | str | None = None,
        on_error: OnError = "raise",
        max_failures: int | None = None,
        ledger: str | Path | None = None,
        verify_checksums: bool = True,
        meta: bool = False,
    ) -> None:
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.accumulate = _at_least("accumulate", accumulate, 1)
        self.num_threads = _at_least("num_threads", _default_threads() if num_threads is None else num_threads, 1)
        self.prefetch = _at_least("prefetch", prefetch, 1)
        self.max_failures = None if max_failures is None else _at_least("max_failures", max_failures, 0)
        self.tail: Tail = _one_of("tail", tail, get_args(Tail))
        self.device = _device(device)
        self.world = World() if world is None else _instance("world", world, World, "World(rank, world_size)")
        for name, flag in (("verify_checksums", verify_checksums), ("meta", meta)):
            _instance(name, flag, bool, "True or False")
        if shuffle is not None:
            _instance("shuffle", shuffle, bool, "True, False, or None for the split's own")
        on_error = _one_of("on_error", on_error, get_args(OnError))

        _instance("data", data, (str, Path, Corpus), "a folder or URL of a corpus, or an opened Corpus")
        self.corpus = data if isinstance(data, Corpus) else Corpus(data)
        self.split, self.spec = split, self.corpus.spec
        self.classes = list(self.corpus.classes)
        self.mean, self.std = list(self.corpus.manifest.mean), list(self.corpus.manifest.std)
        if split not in self.corpus.splits:
            raise ValueError(f"split: {split!r}, expected one of {', '.join(self.corpus.splits)} ({self.corpus.root})")
        table = self.corpus.shard_table(split)
        if not table["num_samples"].sum():
            raise ValueError(f"split {split!r} of {self.corpus.root} is empty: 0 samples, expected at least 1")

        self._chosen_order = {"num_lanes": num_lanes, "block_size": block_size, "run_length": run_length}
        shuffled = split == "train" if shuffle is None else shuffle
        self._plan = Plan(table["num_samples"], seed=seed, shuffle=shuffled, **self._chosen_order)
        self._fingerprint = fingerprint(table)
        self._position = self._micro = 0  # where the next step starts, and which micro-batch of it comes next
        if self.tail == "cross" and self.global_batch_size > self.num_samples:
            raise ValueError(
                f"global batch of {self.global_batch_size} clips (batch_size {self.batch_size} x "
                f"{self.world.world_size} ranks x accumulate {self.accumulate}), but split {split!r} has "
                f"{self.num_samples}: batches that are all full (tail 'cross') would hold samples twice; use a smaller "
                "batch size, fewer ranks or more data, or ClipStream(tail='pad') where batches may be filled up"
            )

        order = f"{split} {self._fingerprint} {self._plan.seed}"
        self._ledger = Ledger(ledger, rank=self.world.rank, order=order)
        self._storage = Storage()
        self._filler = Filler(
            corpus=self.corpus,
            plan=self._plan,
            samples=SampleIndex(self.corpus, split, table),
            storage=self._storage,
            verify_checksums=verify_checksums,
            on_error="raise" if on_error == "raise" else "substitute" if shuffled else "invalid",
            ledger=self._ledger,
            reads_meta=meta,
        )
        self._executor: ThreadPoolExecutor | None = None
        self._hosts: list[HostBatch] = []
        self._ring: DeviceRing | None = None
        self._pipeline: Pipeline | None = None
        self._iteration = 0
        self._next_lock = threading.Lock()
        self._is_closed = False
        self._past = StageTimes()
        self._past_wait_seconds = 0.0
        self._num_batches = self._num_failures = 0

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""
        return self._plan.num_samples

    @property
    def global_batch_size(self) -> int:
        """Slots of one step over all ranks: ``batch_size * world_size * accumulate``."""
        return self.batch_size * self.world.world_size * self.accumulate

    @property
    def position(self) -> int:
        """Place in the infinite order of reading at which the next step starts."""
        return self._position

    @property
    def epoch(self) -> int:
        """Epoch in which the next step starts."""
        return self._plan.epoch_of(self._position)

    def __len__(self) -> int:
        """Batches that an iteration started now would give: of a whole epoch at its start, of what is left within."""
        border = (self.epoch + 1) * self.num_samples
        return -(-(border - self._position) // self.global_batch_size) * self.accumulate

    def __iter__(self) -> Iterator[ClipBatch]:
        """The rest of the epoch.

        Raises:
            ValueError: The stream was closed.
            RuntimeError: (while iterating) another iteration was started, or a state was loaded.
            ShardError: (while iterating) a sample cannot be read, or too many could not.
        """
        if self._is_closed:
            raise ValueError("the stream is closed: make a new one")
        self._iteration += 1
        self._micro = 0
        return _Iteration(self, self._iteration, (self.epoch + 1) * self.num_samples)

    def state_dict(self) -> dict[str, int | str]:
        """Where the stream stands, in whole numbers and strings: what was handed out, whatever was prepared ahead.

        It does not depend on rank, world size, batch size or threads: any rank's will do for all.
        """
        return self._state().to_json()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state, at the very next sample.

        World size, batch size, ``accumulate`` and threads may be others than those of the saving stream. The same
        global batch size continues with the same global batches; another one with others, nothing missed or repeated.

        Raises:
            ResumeError: The state is damaged, or belongs to another corpus, split, seed or order.
        """
        state = PlanState.from_json(state_dict)
        adopted = {name: getattr(state, name) for name, chosen in self._chosen_order.items() if chosen is None}
        try:  # what the user left open was derived from the data by the version that saved the state
            plan = Plan(
                self._plan.counts, seed=self._plan.seed, shuffle=self._plan.shuffle, **(self._chosen_order | adopted)
            )
        except ValueError as error:
            raise ResumeError(f"the saved state cannot be used: {error}", fix="start a new run") from error
        state.check_fits(self._state(plan))
        self._discard()
        self._iteration += 1
        self._micro = 0
        self._plan = self._filler.plan = plan
        self._position = state.position

    @property
    def wait_seconds(self) -> float:
        """Seconds that whoever iterates has waited for data so far."""
        return self._past_wait_seconds + (self._pipeline.wait_seconds if self._pipeline else 0.0)

    def stats(self) -> dict[str, float]:
        """Counts and seconds since the stream was made.

        ``plan``, ``read``, ``check`` (checksums) and ``decode`` are seconds of work added up over the threads, so they
        may exceed the time that passed; ``copy`` is the device's time for copies that have ended; ``wait`` is the
        consumer's.
        """
        times = StageTimes()
        times.add(self._past)
        if self._pipeline is not None:
            times.add(self._pipeline.times)
        return {
            "num_batches": self._num_batches,
            "num_failures": self._num_failures,
            "wait_seconds": self.wait_seconds,
            "copy_seconds": self._ring.copy_seconds if self._ring else 0.0,
            **vars(times),
        }

    def close(self) -> None:
        """End the threads, close the files and give the memory back. May be called twice; the state stays readable."""
        self._is_closed = True
        self._iteration += 1
        self._discard()
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        self._storage.close()
        self._executor, self._hosts, self._ring = None, [], None

    def __enter__(self) -> ClipStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"ClipStream({self.corpus.root!r}, split={self.split!r}, batch_size={self.batch_size}, "
            f"num_samples={self.num_samples}, position={self._position})"
        )

    def _state(self, plan: Plan | None = None) -> PlanState:
        plan = plan or self._plan
        return PlanState(
            order_version=ORDER_VERSION,
            split=self.split,
            fingerprint=self._fingerprint,
            num_samples=plan.num_samples,
            seed=plan.seed,
            shuffle=int(plan.shuffle),
            num_lanes=plan.num_lanes,
            block_size=plan.block_size,
            run_length=plan.run_length,
            position=self._position,
        )

    def _next(self, iteration: int, border: int) -> ClipBatch:
        """The next batch. The lock is held by whoever calls."""
        if iteration != self._iteration:
            raise RuntimeError("this iteration has ended: another was started, a state was loaded or the stream closed")
        if self._position >= border:
            raise StopIteration
        try:
            pipeline = self._running_pipeline()
            ready = pipeline.take()
            assert ready is not None, "a step was left and the pipeline has ended"
            self._account(ready.faults)
        except BaseException:  # KeyboardInterrupt too: what is half done is done again, from the state
            self._iteration += 1
            self._discard()
            raise
        self._num_batches += 1
        self._micro = 0 if ready.ask.is_last else ready.ask.micro + 1
        if ready.ask.is_last:
            self._position = ready.ask.stop
        return ready.batch

    def _account(self, faults: list[Fault]) -> None:
        """Write down what could not be read, once, when its batch is handed out."""
        if not faults:
            return
        self._ledger.record(faults)
        self._num_failures += len(faults)
        if self.max_failures is not None and self._num_failures > self.max_failures:
            last = faults[-1]
            raise ShardError(
                f"{self._num_failures} failures on rank {self.world.rank}, expected at most {self.max_failures} "
                f"(max_failures); the last: {last.reason}",
                fix="check the disk, `clipfold verify` the corpus, or raise max_failures",
                shard=last.shard,
                key=last.key,
            )

    def _running_pipeline(self) -> Pipeline:
        """The pipeline whose next batch is the one that comes next; what was prepared for something else is dropped."""
        if self._pipeline is not None:
            ahead = self._pipeline.peek()
            if ahead is None or (ahead.start, ahead.micro) != (self._position, self._micro):
                self._discard()
                self._micro = 0
        if self._pipeline is None:
            self._pipeline = self._start()
        return self._pipeline

    def _start(self) -> Pipeline:
        """Threads, memory and a pipeline from the state on. Nothing here may refer to the stream: it could not end."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.num_threads, thread_name_prefix="clipfold-stream")
        layout = self.corpus.codec.layout
        is_cuda = self.device.type == "cuda"
        with torch.inference_mode(False):  # memory made inside inference mode could never be written outside of it
            while len(self._hosts) < self.prefetch + 1:
                has_meta = self._filler.reads_meta
                self._hosts.append(HostBatch(self.batch_size, self.spec, layout, pinned=is_cuda, has_meta=has_meta))
            if is_cuda and self._ring is None:
                self._ring = DeviceRing(self.device, self.batch_size, self.spec, layout)

        plan, origin, step = self._plan, self._position, self.global_batch_size
        accumulate, batch_size, rank = self.accumulate, self.batch_size, self.world.rank
        end = (self.epoch + 1) * self.num_samples if self.tail == "pad" else None

        def ask(number: int) -> Ask | None:
            start = origin + number // accumulate * step
            if end is not None and start >= end:
                return None
            micro = number % accumulate
            stop = start + step if end is None else min(start + step, end)
            return Ask(start=start, stop=stop, micro=micro, is_last=micro == accumulate - 1)

        def positions(wanted: Ask) -> NDArray[np.int64]:
            share = rank * accumulate + wanted.micro
            return plan.step(wanted.start, wanted.stop, step)[share * batch_size : (share + 1) * batch_size]

        return Pipeline(
            executor=self._executor,
            filler=self._filler,
            hosts=self._hosts,
            ring=self._ring,
            ask=ask,
            positions=positions,
            num_pieces=min(self.num_threads, -(-batch_size // _CLIPS_PER_TASK)),
        )

    def _discard(self) -> None:
        """Drop what was prepared ahead, once no thread touches it."""
        if self._pipeline is None:
            return
        self._pipeline.stop()
        self._past.add(self._pipeline.times)
        self._past_wait_seconds += self._pipeline.wait_seconds
        self._pipeline = None


class _Iteration:
    """One pass over what is left of an epoch."""

    def __init__(self, stream: ClipStream, number: int, border: int) -> None:
        self._stream: ClipStream | None = stream
        self._number, self._border = number, border

    def __iter__(self) -> _Iteration:
        return self

    def __next__(self) -> ClipBatch:
        stream = self._stream  # another thread may end the pass meanwhile
        if stream is None:
            raise StopIteration
        with stream._next_lock:
            if self._stream is None:
                raise StopIteration
            try:
                return stream._next(self._number, self._border)
            except BaseException as error:
                if not isinstance(error, RuntimeError):
                    self._stream = None
                raise


def _default_threads() -> int:
    return min(12, len(os.sched_getaffinity(0)))


def _at_least(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: {value!r}, expected a whole number of at least {least}")
    return int(value)


def _instance(name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: {value!r}, expected {expected}")
    return value


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise ValueError(f"{name}: {value!r}, expected one of {', '.join(known)}")
    return value


def _device(device: torch.device | str | None) -> torch.device:
    try:
        made = torch.device("cpu" if device is None else device)
    except RuntimeError as error:  # torch lists a dozen kinds of device, of which two are possible here
        raise ValueError(f"device: {device!r}, expected 'cpu', 'cuda' or 'cuda:<number>'") from error
    except TypeError as error:
        raise TypeError(f"device: {device!r}, expected 'cpu', 'cuda', 'cuda:<number>' or a torch.device") from error
    if made.type not in ("cpu", "cuda"):
        raise ValueError(f"device: {str(made)!r}, expected 'cpu' or 'cuda'")
    if made.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {str(made)!r}, but torch finds no CUDA device; use 'cpu'")
    return torch.device("cuda", torch.cuda.current_device()) if made.type == "cuda" and made.index is None else made
