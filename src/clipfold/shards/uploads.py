"""Finished shards of a conversion on their way behind a URL, each noted in the journal once it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipfold.shards.base import Base
from clipfold.shards.index import ShardRow
from clipfold.shards.staging import Staging
from clipfold.shards.store import Store

__all__ = ["Uploads"]


@dataclass(frozen=True)
class Uploads:
    """The shards of one conversion.

    Args:
        store: Where they go.
        folder: Where they are made; what has arrived is deleted here.
        staging: Keeps the journal.
        base: The finished corpus that is appended to.
    """

    store: Store
    folder: Path
    staging: Staging
    base: Base | None

    def add(self, split: str, row: ShardRow) -> None:
        """Upload a shard that was just finished.

        Raises:
            ClipfoldError: It did not arrive.
        """
        self.store.put_shard(self.folder, split, row)
        first = len(self.base.shards.get(split, [])) if self.base else 0
        self.staging.add_upload(split, row.number + 1 - first)

    def catch_up(self) -> None:
        """Upload the shards that were finished, but had not arrived, when the command was killed.

        Raises:
            ClipfoldError: One did not arrive.
        """
        for split, rows in self.staging.shards.items():
            for row in rows[self.staging.num_uploaded.get(split, 0) :]:
                self.add(split, row)
