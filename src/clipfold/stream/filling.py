"""Samples into the slots of a batch: read, checked, decoded; and what happens to a slot whose sample cannot be.

A piece of work is some slots of one batch, sorted by shard. Rows of the index are picked, and labels and keys set, for
a shard's slots at once; what is left for each clip is one read, one hash and, where the codec needs it, one decode,
all of which let other threads run.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipfold.errors import ClipfoldError, DecodeError, ShardError
from clipfold.files import is_url
from clipfold.shards.index import INDEX_DTYPE
from clipfold.shards.tar import find_member
from clipfold.stream.batch import HostBatch
from clipfold.stream.faults import Fault, Ledger, with_place
from clipfold.stream.plan import Plan
from clipfold.stream.samples import SampleIndex
from clipfold.stream.storage import Storage, read_exactly

if TYPE_CHECKING:
    from clipfold.shards.reader import Corpus

__all__ = ["Filler", "Piece", "StageTimes"]

_MAX_AROUND_BYTES = 1 << 22  # a .json, a .cls, their headers: a writer keeps a .json below 1 MiB
_MAX_ATTEMPTS = 100  # substitutes of one slot; that all fail means that hardly any of the corpus is readable
_FAILED_BEFORE = "this attempt failed before the run was resumed, so it is not made again"
_DAMAGED = "the shard is damaged; copy it again, or run the same `clipfold convert` command again"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some slots of one batch, sorted by shard; four int64 arrays of the same length."""

    slots: NDArray[np.int64]
    positions: NDArray[np.int64]
    shards: NDArray[np.int64]
    index: NDArray[np.int64]


@dataclass(kw_only=True)
class StageTimes:
    """Seconds of work, added up over threads, and bytes."""

    plan_seconds: float = 0.0
    read_seconds: float = 0.0
    check_seconds: float = 0.0
    decode_seconds: float = 0.0
    read_bytes: int = 0
    num_clips: int = 0

    def add(self, other: StageTimes) -> None:
        """Add the other's numbers to these."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(slots=True)
class _Sample:
    """One sample on its way into one slot."""

    host: HostBatch
    slot: int
    position: int
    location: str
    offset: int
    size: int
    xxh3: int
    around: tuple[int, int] = (0, 0)  # where its small members are, where they are wanted

    @property
    def place(self) -> dict[str, Any]:
        return {"shard": self.location, "offset": self.offset, "key": self.host.keys[self.slot]}


@dataclass
class Filler:
    """How slots are filled; shared by all threads of a stream.

    Args:
        corpus: Whose codec and spec count.
        plan: Draws substitutes.
        samples: Rows of the index.
        storage: Reads bytes.
        verify_checksums: Whether every sample's hash is compared with the index.
        on_error: ``"raise"``, ``"substitute"`` another sample, or mark the clip ``"invalid"``.
        ledger: Faults known from before.
        reads_meta: Whether each sample's ``.json`` is read as well.
    """

    corpus: Corpus
    plan: Plan
    samples: SampleIndex
    storage: Storage
    verify_checksums: bool
    on_error: Literal["raise", "substitute", "invalid"]
    ledger: Ledger
    reads_meta: bool = False
    _scratch: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self._codec, self._spec = self.corpus.codec, self.corpus.spec
        self._header_bytes = self._codec.header_bytes(self._spec)
        make_header = getattr(self._codec, "header", None)
        self._header: bytes | None = make_header(self._spec) if make_header and self._header_bytes else None

    def pieces(self, positions: NDArray[np.int64], num_pieces: int) -> Iterator[Piece]:
        """Cut the slots of a batch into pieces of about equal length, each of few shards.

        Args:
            positions: int64 (B,), -1 where a slot is padding.
            num_pieces: At most as many are made.
        """
        slots = np.flatnonzero(positions >= 0)
        places = self.plan.locate(positions[slots])
        order = np.lexsort((places.index, places.shard))
        for part in np.array_split(order, min(num_pieces, max(len(order), 1))):
            if len(part):
                yield Piece(
                    slots=slots[part],
                    positions=positions[slots[part]],
                    shards=places.shard[part],
                    index=places.index[part],
                )

    def fill(self, host: HostBatch, piece: Piece, *, is_stopped: Callable[[], bool]) -> tuple[list[Fault], StageTimes]:
        """Fill the slots of a piece; leaves early when nobody wants them any more.

        Returns:
            What could not be read, and what it took.

        Raises:
            ClipfoldError: A sample cannot be read and ``on_error`` is "raise".
        """
        times = StageTimes(num_clips=len(piece.slots))
        failed: dict[int, ClipfoldError] = {}
        parts = _parts(piece.shards)
        rows = self._rows(piece, parts, failed)
        host.describe(piece.slots, rows)
        for at in failed:
            host.keys[int(piece.slots[at])] = ""
        for shard, start, stop in parts:
            if is_stopped():
                return [], times
            location = self.samples.location(shard)
            wanted = [at for at in range(start, stop) if at not in failed and not self._is_known(piece, at, failed)]
            columns = (
                piece.slots[wanted].tolist(),
                piece.positions[wanted].tolist(),
                *(rows[name][wanted].tolist() for name in ("offset", "size", "xxh3")),
            )
            around = self._around(shard, piece.index[wanted])
            samples = [
                _Sample(host, slot, position, location, offset, size, xxh3, place)
                for slot, position, offset, size, xxh3, place in zip(*columns, around, strict=True)
            ]
            for at, error in self._read_shard(location, samples, times):
                failed[wanted[at]] = error
        faults: list[Fault] = []
        for at in sorted(failed):
            self._give_up(host, int(piece.slots[at]), int(piece.positions[at]), failed[at], faults, times)
        return faults, times

    def _rows(self, piece: Piece, parts: list[tuple[int, int, int]], failed: dict[int, ClipfoldError]) -> NDArray[Any]:
        """Rows of the index; zeros, and an entry in ``failed``, where a shard's index cannot be read."""
        rows = np.zeros(len(piece.slots), INDEX_DTYPE)
        for shard, start, stop in parts:
            try:
                rows[start:stop] = self.samples.rows(shard, piece.index[start:stop])
            except ClipfoldError as error:
                placed = with_place(error, shard=self.samples.location(shard))
                failed.update(dict.fromkeys(range(start, stop), placed))
        return rows

    def _is_known(self, piece: Piece, at: int, failed: dict[int, ClipfoldError]) -> bool:
        """Whether the sample failed before the run was resumed; then it fails again, so that the run repeats itself."""
        if self.on_error != "substitute" or not self.ledger.knows(int(piece.positions[at]), 0):
            return False
        failed[at] = ShardError(_FAILED_BEFORE, shard=self.samples.location(int(piece.shards[at])))
        return True

    def _read_shard(
        self, location: str, samples: list[_Sample], times: StageTimes
    ) -> Iterator[tuple[int, ClipfoldError]]:
        """Read samples of one shard; yields those that failed, by their place in ``samples``."""
        if not samples:
            return
        read = (
            self._read_url(location, samples, times) if is_url(location) else self._read_file(location, samples, times)
        )
        failed = set()
        for at, error in read:
            failed.add(at)
            yield at, with_place(error, **samples[at].place)
        if self.reads_meta:
            for at, sample in enumerate(samples):
                if at not in failed and (trouble := self._read_meta(sample)) is not None:
                    yield at, with_place(trouble, **sample.place)

    def _around(self, shard: int, index: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Where the small members of some samples are; nothing where nobody wants them."""
        if not self.reads_meta or not len(index):
            return [(0, 0)] * len(index)
        before = self._codec.extension > "json"  # members of a sample lie in the order of their extensions
        starts, stops = self.samples.around(shard, index, before=before)
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def _read_meta(self, sample: _Sample) -> ClipfoldError | None:
        """Read a sample's ``.json``; the error where that cannot be done."""
        start, stop = sample.around
        try:
            if not 0 < stop - start <= _MAX_AROUND_BYTES:
                raise ShardError(f"{stop - start:,} bytes between two samples, expected a .json", fix=_DAMAGED)
            if is_url(sample.location):
                [found] = self.storage.read_ranges(sample.location, [start], [stop - start])
                if isinstance(found, ShardError):
                    raise found
                piece = bytes(found)
            else:
                buffer = bytearray(stop - start)
                with self.storage.opened(sample.location) as descriptor:
                    read_exactly(descriptor, [memoryview(buffer)], start, sample.location)
                piece = bytes(buffer)
            meta = json.loads(find_member(piece, f"{sample.host.keys[sample.slot]}.json"))
            if not isinstance(meta, dict):
                raise ShardError("a sample's .json holds no table", fix=_DAMAGED)
        except ValueError as error:
            made = ShardError(f"a sample's .json cannot be read: {error}", fix=_DAMAGED)
            made.__cause__ = error
            return made
        except ClipfoldError as error:
            return error
        assert sample.host.meta is not None
        sample.host.meta[sample.slot] = meta
        return None

    def _read_url(
        self, location: str, samples: list[_Sample], times: StageTimes
    ) -> Iterator[tuple[int, ClipfoldError]]:
        began = time.perf_counter()
        found = self.storage.read_ranges(location, [s.offset for s in samples], [s.size for s in samples])
        times.read_seconds += time.perf_counter() - began
        for at, (sample, data) in enumerate(zip(samples, found, strict=True)):
            try:
                if isinstance(data, ShardError):
                    raise data
                self._take(sample, data, times)
            except ClipfoldError as error:
                yield at, error

    def _read_file(
        self, location: str, samples: list[_Sample], times: StageTimes
    ) -> Iterator[tuple[int, ClipfoldError]]:
        try:
            with self.storage.opened(location) as descriptor:
                for at, sample in enumerate(samples):
                    try:
                        self._read(sample, descriptor, times)
                    except ClipfoldError as error:
                        yield at, error
        except ShardError as error:  # it cannot be opened: all that was wanted from it is lost
            yield from ((at, error) for at in range(len(samples)))

    def _read(self, sample: _Sample, descriptor: int, times: StageTimes) -> None:
        """One sample of a local file: straight into its slot where the codec allows it."""
        offset, size = sample.offset, sample.size
        began = time.perf_counter()
        if self._header_bytes is None:
            data = memoryview(self._scratch_bytes(size))[:size]
            read_exactly(descriptor, [data], offset, sample.location)
            times.read_seconds += time.perf_counter() - began
            self._take(sample, data, times)
            return
        self._check_size(size)
        head = memoryview(self._scratch_bytes(self._header_bytes))[: self._header_bytes]
        pixels = sample.host.slot_bytes[sample.slot]
        read_exactly(descriptor, [head, pixels], offset, sample.location)
        times.read_seconds += time.perf_counter() - began
        times.read_bytes += size
        self._check(sample, times, head, pixels)
        self._check_header(head)

    def _take(self, sample: _Sample, data: memoryview, times: StageTimes) -> None:
        """One sample whose bytes are in memory."""
        times.read_bytes += len(data)
        if self._header_bytes is not None:
            self._check_size(len(data))
        self._check(sample, times, data)
        began = time.perf_counter()
        try:
            self._codec.decode_into(data, sample.host.slots[sample.slot], self._spec)
        except ValueError as error:  # a codec of the user's own may not know our errors
            raise DecodeError(f"sample cannot be decoded: {error}", fix=_DAMAGED) from error
        times.decode_seconds += time.perf_counter() - began

    def _check(self, sample: _Sample, times: StageTimes, *parts: memoryview) -> None:
        if not self.verify_checksums:
            return
        began = time.perf_counter()
        digest = xxhash.xxh3_64()
        for part in parts:
            digest.update(part)
        if digest.intdigest() != sample.xxh3:
            raise ShardError(
                f"checksum of a sample: {digest.intdigest():016x}, expected {sample.xxh3:016x}", fix=_DAMAGED
            )
        times.check_seconds += time.perf_counter() - began

    def _check_size(self, size: int) -> None:
        expected = (self._header_bytes or 0) + self._spec.num_bytes
        if size != expected:
            raise ShardError(f"sample has {size:,} bytes, expected {expected:,} ({self._spec})", fix=_DAMAGED)

    def _check_header(self, head: memoryview) -> None:
        if self._header is not None and head != self._header:
            raise ShardError(
                f"sample starts with {bytes(head[:80])!r}, expected the header of {self._spec}", fix=_DAMAGED
            )

    def _scratch_bytes(self, size: int) -> bytearray:
        kept: bytearray | None = getattr(self._scratch, "bytes", None)
        if kept is None or len(kept) < size:
            kept = self._scratch.bytes = bytearray(max(size, 1 << 12))
        return kept

    def _give_up(
        self,
        host: HostBatch,
        slot: int,
        position: int,
        error: ClipfoldError,
        faults: list[Fault],
        times: StageTimes,
    ) -> None:
        """Put something else into a slot whose sample cannot be read, or raise."""
        if self.on_error == "raise":
            raise error
        if self.on_error == "invalid":
            faults.append(_fault(position, 0, "invalid", error))
            host.mark_unreadable(slot)
            return
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            faults.append(_fault(position, attempt - 1, "substituted", error))
            failure = self._substitute(host, slot, position, attempt, times)
            if failure is None:
                return
            error = failure
        raise ShardError(
            f"{_MAX_ATTEMPTS} substitutes of one slot could not be read either; the last: {error.what}",
            fix="hardly anything of the corpus is readable: check the disk, and `clipfold verify` the corpus",
            **error.where,
        ) from error

    def _substitute(
        self, host: HostBatch, slot: int, position: int, attempt: int, times: StageTimes
    ) -> ClipfoldError | None:
        """Fill a slot with its n-th substitute; the error where that one cannot be read either."""
        shard, index = self.plan.substitute(position, attempt)
        location = self.samples.location(shard)
        if self.ledger.knows(position, attempt):
            return ShardError(_FAILED_BEFORE, shard=location)
        try:
            rows = self.samples.rows(shard, np.array([index]))
        except ClipfoldError as error:
            return with_place(error, shard=location)
        host.describe(np.array([slot]), rows)
        offset, size, xxh3 = (int(rows[name][0]) for name in ("offset", "size", "xxh3"))
        [around] = self._around(shard, np.array([index]))
        sample = _Sample(host, slot, position, location, offset, size, xxh3, around)
        return next((error for _, error in self._read_shard(location, [sample], times)), None)


def _parts(shards: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(shard, start, stop) of each stretch of equal values."""
    starts = np.flatnonzero(np.diff(shards, prepend=-1)).tolist()
    return list(zip(shards[starts].tolist(), starts, [*starts[1:], len(shards)], strict=True))


def _fault(position: int, attempt: int, action: Literal["substituted", "invalid"], error: ClipfoldError) -> Fault:
    return Fault(
        position=position,
        attempt=attempt,
        action=action,
        key=str(error.where.get("key", "")),
        shard=str(error.where.get("shard", "")),
        offset=int(error.where.get("offset", -1)),
        reason=error.what,
    )
