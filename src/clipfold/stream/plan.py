"""The order of reading, as a formula: one infinite sequence of samples that knows neither batch size nor world size.

With M samples and L lanes, position q of the sequence belongs to epoch ``q // M`` and to lane ``q % L``::

    the epoch's shards, permuted, laid end to end, turned round by an offset:
      |--- shard 7 ---|- shard 2 -|---- shard 9 ----|-- shard 0 --|        M places
      |------ lane 0 ------|------ lane 1 ------|------ lane 2 ----|        L consecutive pieces, lengths within one
      | block | block | bl | block | block | bl | block | block |..        permuted inside each block
    X[q]: the place that the (q // L)-th draw from lane q % L falls on

Lane l of epoch e is drawn from by every q of ``[eM, (e+1)M)`` with ``q % L == l``: those are as many as the lane is
long, so each epoch has every sample exactly once. Neighbours in the sequence come from different lanes, hence from
shards far apart, while each lane walks through few shards at a time: a shuffle that reads in long stretches.

Memory grows with the number of shards, never of samples: the permuted shards of two epochs, and one open block a lane.

Mixing several corpora will be a table in front of this (position -> corpus and position within it), each corpus
keeping its own :class:`Plan`; a class-balanced order replaces the counts by those of each class. Both add fields to
:class:`PlanState`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipfold import rng
from clipfold.errors import ResumeError

__all__ = ["ORDER_VERSION", "Places", "Plan", "PlanState", "default_order", "fingerprint"]

ORDER_VERSION = 1  # raise it whenever the same seed and shards give another sequence: saved states must not go on

MAX_POSITION = 1 << 62
_MAX_OPEN = 1 << 26  # int32 of open blocks: 256 MB
_SHARDS, _OFFSET, _BLOCK, _SUBSTITUTE = 1, 2, 3, 4  # what a hash is for, so that no two draws share words

Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Where the samples of some positions lie: three int64 arrays of the same length."""

    epoch: Int64s
    shard: Int64s  # row of the split's shard table
    index: Int64s  # row of that shard's index


def default_order(num_samples: int) -> tuple[int, int]:
    """Lanes and block size that follow from the number of samples alone.

    Up to 65,536 samples one lane and one block: a true permutation. Above, 64 lanes and blocks of 1,024 to 4,096.

    Returns:
        (num_lanes, block_size).
    """
    if num_samples <= 1 << 16:
        return 1, max(num_samples, 1)
    return 64, min(4096, -(-num_samples // 64))


@dataclass(frozen=True)
class _Epoch:
    """One epoch's permuted shards, and the lanes cut from them."""

    order: NDArray[np.int32]  # shard rows in the order in which they are laid
    ends: Int64s  # where each of them stops
    offset: int  # how far the whole is turned round
    before: Int64s  # (L,) draws that each lane gave in all earlier epochs
    start: Int64s  # (L,) place at which each lane starts
    length: Int64s  # (L,)


class Plan:
    """The infinite sequence of samples over the shards of one split. A pure function: safe to share between threads.

    Args:
        counts: Samples of each shard, in the order of the shard table; zeros are allowed.
        seed: Whole number in [0, 2**64).
        shuffle: False reads the shards front to back, the same in every epoch.
        num_lanes: L; ``None`` for what follows from the number of samples (:func:`default_order`).
        block_size: Samples that are permuted together, at least 1; ``None`` likewise.
        run_length: Neighbours of a block that stay together, ``None`` for 1. More makes ranges of remote reads longer
            and the shuffle coarser.

    Raises:
        ValueError: No samples, or a value out of range.
    """

    def __init__(
        self,
        counts: ArrayLike,
        *,
        seed: int = 0,
        shuffle: bool = True,
        num_lanes: int | None = None,
        block_size: int | None = None,
        run_length: int | None = None,
    ) -> None:
        self.counts: Int64s = np.ascontiguousarray(counts, dtype=np.int64)
        if self.counts.ndim != 1 or (self.counts < 0).any() or not self.counts.any():
            raise ValueError("samples of the shards: expected a list of counts, none negative and not all zero")
        self.num_samples = int(self.counts.sum())
        lanes, block = default_order(self.num_samples) if shuffle else (1, 1)
        self.seed = _whole("seed", seed, 0, (1 << 64) - 1)
        self.shuffle = bool(shuffle)
        self.num_lanes = _whole("num_lanes", lanes if num_lanes is None or not shuffle else num_lanes, 1, 1 << 20)
        self.block_size = _whole("block_size", block if block_size is None or not shuffle else block_size, 1, 1 << 40)
        self.run_length = _whole("run_length", 1 if run_length is None or not shuffle else run_length, 1, 1 << 40)
        width = min(self.block_size, -(-self.num_samples // self.num_lanes))
        if self.num_lanes * width > _MAX_OPEN:
            raise ValueError(
                f"open blocks of {self.num_lanes} lanes: {self.num_lanes * width:,} samples, expected at most "
                f"{_MAX_OPEN:,}; choose a smaller block_size"
            )
        self._lock = threading.Lock()
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._ends = np.cumsum(self.counts)  # of the shards as they come, for what is not shuffled
        # One open block a lane: positions rise, so a lane returns to an older block only when somebody jumps back.
        self._open_block = np.full((2, self.num_lanes if shuffle else 0), -1, np.int64)  # (epoch, block) of each lane
        self._open_order = np.empty((self.num_lanes, width) if shuffle else (0, 0), np.int32)

    def locate(self, positions: ArrayLike) -> Places:
        """Which sample each position of the sequence is.

        Args:
            positions: Whole numbers in [0, 2**62), in any order, over any number of epochs.

        Returns:
            The epoch, shard and index of each.
        """
        q: Int64s = np.asarray(positions, dtype=np.int64)
        epoch = q // self.num_samples
        if not self.shuffle:
            return Places(epoch, *self._split(q - epoch * self.num_samples, self._ends, None))
        shard, index = np.empty_like(q), np.empty_like(q)
        with self._lock:
            for number in np.unique(epoch).tolist():
                chosen = np.flatnonzero(epoch == number)
                shard[chosen], index[chosen] = self._locate_in(number, q[chosen])
        return Places(epoch, shard, index)

    def step(self, start: int, stop: int, num_slots: int) -> Int64s:
        """The slots of one global batch, ``[start, stop)`` of the sequence.

        They are ordered by pair of lanes, alternating within the pair: equal shares of consecutive slots then read
        mostly from their own shards, and two neighbours never come from the same lane (where there are two).

        Returns:
            int64 (num_slots,), positions, and -1 at the end where there are fewer than slots.
        """
        q = np.arange(start, stop, dtype=np.int64)
        if self.num_lanes > 1:
            pair = np.minimum((q % self.num_lanes) // 2, self.num_lanes // 2 - 1)  # an odd last lane joins a pair
            q = q[np.argsort(pair, kind="stable")]
        return np.concatenate([q, np.full(num_slots - len(q), -1, np.int64)])

    def substitute(self, position: int, attempt: int) -> tuple[int, int]:
        """The sample that stands in for one that cannot be read: a hash of (seed, position, attempt).

        Args:
            position: Of the slot that needs it.
            attempt: 1 for the first substitute, 2 where that one cannot be read either, and so on.

        Returns:
            (shard, index), as :meth:`locate` gives them.
        """
        place = rng.hash_key(self.seed, _SUBSTITUTE, position, attempt) % self.num_samples
        shard, index = self._split(np.array([place], np.int64), self._ends, None)
        return int(shard[0]), int(index[0])

    def epoch_of(self, position: int) -> int:
        """The epoch that a position belongs to."""
        return position // self.num_samples

    def _locate_in(self, epoch: int, q: Int64s) -> tuple[Int64s, Int64s]:
        laid = self._lay(epoch)
        lane = q % self.num_lanes
        drawn = self._permuted(epoch, lane, q // self.num_lanes - laid.before[lane], laid.length)
        place = (laid.start[lane] + drawn + laid.offset) % self.num_samples
        return self._split(place, laid.ends, laid.order)

    def _split(self, place: Int64s, ends: Int64s, order: NDArray[np.int32] | None) -> tuple[Int64s, Int64s]:
        """Places on the laid shards as (shard, index); empty shards are passed over."""
        at = np.searchsorted(ends, place, side="right")
        shard = at if order is None else order[at].astype(np.int64)
        return shard, place - (ends[at] - self.counts[shard])

    def _lay(self, epoch: int) -> _Epoch:
        if epoch in self._epochs:
            self._epochs.move_to_end(epoch)
            return self._epochs[epoch]
        while len(self._epochs) >= 2:  # a batch may lie on both sides of a border
            self._epochs.popitem(last=False)
        order = rng.permutation(len(self.counts), self.seed, _SHARDS, epoch).astype(np.int32)
        lane = np.arange(self.num_lanes, dtype=np.int64)
        before, after = (
            (border + self.num_lanes - 1 - lane) // self.num_lanes
            for border in (epoch * self.num_samples, (epoch + 1) * self.num_samples)
        )
        length = after - before
        self._epochs[epoch] = _Epoch(
            order=order,
            ends=np.cumsum(self.counts[order]),
            offset=rng.hash_key(self.seed, _OFFSET, epoch) % self.num_samples,
            before=before,
            start=np.cumsum(length) - length,
            length=length,
        )
        return self._epochs[epoch]

    def _permuted(self, epoch: int, lane: Int64s, draw: Int64s, length: Int64s) -> Int64s:
        """Where in its lane the given draw of each lane falls."""
        block, inner = draw // self.block_size, draw % self.block_size
        out = np.empty_like(draw)
        left = np.arange(len(draw))
        while True:
            opened = self._open_block[:, lane[left]]
            ready = (opened[0] == epoch) & (opened[1] == block[left])
            now = left[ready]
            out[now] = block[now] * self.block_size + self._open_order[lane[now], inner[now]]
            left = left[~ready]
            if not len(left):
                return out
            by_lane = left[np.lexsort((block[left], lane[left]))]
            first = np.flatnonzero(np.diff(lane[by_lane], prepend=-1))  # the earliest block wanted of each lane
            for at in by_lane[first]:
                self._open(epoch, int(lane[at]), int(block[at]), length)

    def _open(self, epoch: int, lane: int, block: int, length: Int64s) -> None:
        num = min(self.block_size, int(length[lane]) - block * self.block_size)
        runs = rng.permutation(-(-num // self.run_length), self.seed, _BLOCK, epoch, lane, block)
        if self.run_length > 1:
            runs = (runs[:, None] * self.run_length + np.arange(self.run_length)).ravel()
            runs = runs[runs < num]  # the last run may be short, wherever it has come to lie
        self._open_order[lane, :num] = runs
        self._open_block[:, lane] = epoch, block


@dataclass(frozen=True, kw_only=True)
class PlanState:
    """Where a stream stands: what fixes the sequence, and the position that comes next. Whole numbers and strings.

    Args:
        order_version: Version of the formula.
        split: Name of the split.
        fingerprint: Of the split's shard table (:func:`fingerprint`).
        num_samples: M.
        seed: As the plan's.
        shuffle: 1 or 0.
        num_lanes: As the plan's.
        block_size: As the plan's.
        run_length: As the plan's.
        position: q of the first slot of the next global batch.
    """

    order_version: int
    split: str
    fingerprint: str
    num_samples: int
    seed: int
    shuffle: int
    num_lanes: int
    block_size: int
    run_length: int
    position: int

    def to_json(self) -> dict[str, int | str]:
        """A dict of whole numbers and strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PlanState:
        """The state that :meth:`to_json` wrote.

        Raises:
            ResumeError: A name is missing or unknown, or a value is of the wrong type or out of range.
        """
        fix = "give the value that `state_dict` returned, unchanged"
        if not isinstance(value, Mapping):
            raise ResumeError(f"state of a stream: {type(value).__name__}, expected a dict", fix=fix)
        names = {field.name for field in fields(cls)}
        if set(value) != names:
            missing, unknown = sorted(names - set(value)), sorted(map(str, set(value) - names))
            raise ResumeError(f"state of a stream: missing {missing}, unknown {unknown}", fix=fix)
        for field in fields(cls):
            found = value[field.name]
            kind = str if field.type == "str" else int
            if not isinstance(found, kind) or isinstance(found, bool):
                raise ResumeError(f"{field.name} of a stream's state: {found!r}, expected {kind.__name__}", fix=fix)
        if not 0 <= value["position"] < MAX_POSITION:
            raise ResumeError(f"position of a stream's state: {value['position']}, expected 0 to 2**62", fix=fix)
        return cls(**value)

    def check_fits(self, expected: PlanState) -> None:
        """Make sure that going on from this state continues the sequence of ``expected``, whatever its position.

        Raises:
            ResumeError: Anything but the position differs; the message names all of it.
        """
        if self.order_version != expected.order_version:  # nothing else can be compared across formulas
            raise ResumeError(
                f"order version of the saved state: {self.order_version}, expected {expected.order_version}",
                fix="resume with the clipfold version that wrote the checkpoint, or start a new run",
            )
        differ = [
            f"{field.name} {getattr(self, field.name)!r}, expected {getattr(expected, field.name)!r}"
            for field in fields(self)
            if field.name != "position" and getattr(self, field.name) != getattr(expected, field.name)
        ]
        if differ:
            raise ResumeError(
                f"the saved state belongs to another order of reading: {'; '.join(differ)}",
                fix=_how_to_fit({text.partition(" ")[0] for text in differ}),
            )


def fingerprint(shard_table: NDArray[Any]) -> str:
    """A short name of a shard table: equal for equal shards in equal order.

    Args:
        shard_table: Structured array with at least ``num_samples`` and ``sha256``, one row a shard.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in ("num_samples", "sha256"):
        digest.update(np.ascontiguousarray(shard_table[name]).view(np.uint8).data)
    return digest.hexdigest()[:32]


def _how_to_fit(names: set[str]) -> str:
    if names & {"fingerprint", "num_samples", "split"}:
        return "resume with the corpus and split that the run was started with, or start a new run"
    return f"give the stream the saved {', '.join(sorted(names))}, or start a new run"


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name}: {value!r}, expected a whole number from {low} to {high}")
    return int(value)
