"""Where the bytes of a sample are and what is known about it: rows of the shards' index files, kept within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipfold.errors import ShardError
from clipfold.shards.tar import BLOCK_BYTES

if TYPE_CHECKING:
    from clipfold.shards.reader import Corpus

__all__ = ["SampleIndex"]

_MAX_ROWS = 1 << 20  # some 50 MB; more than the shards that a stream reads at one time


class SampleIndex:
    """The index rows of one split, read when first wanted and forgotten when others are wanted more.

    Args:
        corpus: The opened corpus.
        split: Name of the split.
        table: Its shard table.
        max_rows: How many rows are kept; at least one shard's always are.
    """

    def __init__(self, corpus: Corpus, split: str, table: NDArray[Any], *, max_rows: int = _MAX_ROWS) -> None:
        self.corpus, self.split, self.max_rows = corpus, split, max_rows
        self._numbers = table["number"].copy()
        self._counts = table["num_samples"].copy()
        self._num_bytes = table["num_bytes"].copy()
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._num_rows = 0

    def location(self, shard: int) -> str:
        """Path or URL of a shard's tar, by its row in the shard table."""
        return str(self.corpus.tar_location(self.split, int(self._numbers[shard])))

    def rows(self, shard: int, index: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of a shard's index.

        Args:
            shard: Row of the shard table.
            index: Rows of the shard's index.

        Returns:
            A structured array as long as ``index``.

        Raises:
            ShardError: The index file is missing or not what its checksum says.
        """
        with self._lock:
            found = self._kept.get(shard)
            if found is not None:
                self._kept.move_to_end(shard)
        if found is None:
            found = self._load(shard)
        picked: NDArray[Any] = found[index]
        return picked

    def around(
        self, shard: int, index: NDArray[np.int64], *, before: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the small members of some samples lie: between their own data and their neighbours'.

        Args:
            shard: Row of the shard table.
            index: Rows of the shard's index.
            before: Whether they lie before the sample's data, or behind it.

        Returns:
            Start and stop in the tar, int64 each, as long as ``index``.

        Raises:
            ShardError: As for :meth:`rows`.
        """
        at = index - 1 if before else index
        count = int(self._counts[shard])
        left = self.rows(shard, np.maximum(at, 0))
        right = self.rows(shard, np.minimum(at + 1, count - 1))
        starts = np.where(at < 0, 0, left["offset"] + -(-left["size"] // BLOCK_BYTES) * BLOCK_BYTES)
        stops = np.where(at + 1 >= count, self._num_bytes[shard], right["offset"] - BLOCK_BYTES)
        return starts, stops

    def _load(self, shard: int) -> NDArray[Any]:
        try:
            loaded = self.corpus.index(self.split, int(self._numbers[shard]))
        except OSError as error:
            raise ShardError(
                f"index of a shard cannot be read: {error}",
                fix="run the same `clipfold convert` command again",
                shard=self.location(shard),
            ) from error
        if len(loaded) != self._counts[shard]:
            raise ShardError(
                f"index of a shard: {len(loaded):,} samples, expected {int(self._counts[shard]):,}",
                fix="run the same `clipfold convert` command again",
                shard=self.location(shard),
            )
        with self._lock:
            if shard not in self._kept:
                self._kept[shard] = loaded
                self._num_rows += len(loaded)
            while self._num_rows > self.max_rows and len(self._kept) > 1:
                self._num_rows -= len(self._kept.popitem(last=False)[1])
        return loaded
