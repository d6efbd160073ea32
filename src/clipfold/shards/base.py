"""A finished corpus that more sources are appended to: what is known of it, kept until the new manifest is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipfold.errors import ClipfoldError
from clipfold.files import Location, join, read_bytes, write_whole
from clipfold.shards.index import ShardRow, load_shard_table, shard_rows, shard_table_path
from clipfold.shards.manifest import MANIFEST_NAME, Manifest
from clipfold.shards.source_list import ListedSource, load_source_list
from clipfold.shards.summary import SKIPPED_NAME, SOURCES_NAME, Skipped, load_skipped
from clipfold.shards.totals import ChannelSums

__all__ = ["Base", "sha256_of"]


@dataclass(frozen=True, kw_only=True)
class Base:
    """A finished corpus.

    Args:
        manifest: Its manifest.
        sha256: Of its ``dataset.json``, in hexadecimal: tells it from what appending makes of it.
        sources: Its list of sources.
        skipped: Its sources that were left out.
        shards: The shards of each split.
    """

    manifest: Manifest
    sha256: str
    sources: Sequence[ListedSource]
    skipped: Sequence[Skipped]
    shards: Mapping[str, list[ShardRow]]

    @classmethod
    def load(cls, root: Location, *, tables: Location | None = None) -> Base:
        """Open a corpus.

        Args:
            root: Folder or URL of the corpus.
            tables: Where :meth:`keep` put its tables; ``None`` reads those of the corpus itself.

        Raises:
            ShardError: Something is missing or damaged.
            SourceError: The list of sources cannot be read.
        """
        manifest = Manifest.load(root)
        tables = root if tables is None else tables
        shards = {
            split: shard_rows(
                load_shard_table(shard_table_path(tables, split), sha256=bytes.fromhex(totals.shards_sha256))
            )
            for split, totals in manifest.splits.items()
        }
        return cls(
            manifest=manifest,
            sha256=sha256_of(root),
            sources=load_source_list(join(tables, SOURCES_NAME)),
            skipped=load_skipped(join(tables, SKIPPED_NAME)),
            shards=shards,
        )

    def keep(self, root: Location, tables: Path) -> None:
        """Copy the tables of the corpus aside: they are replaced before its manifest is.

        Raises:
            OSError: The disk is full, or something cannot be read.
        """
        names = [SOURCES_NAME, SKIPPED_NAME, *(f"{split}/shards.npy" for split in self.shards)]
        for name in names:
            (tables / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(tables / name, read_bytes(join(root, name)))

    @property
    def is_labelled(self) -> bool:
        """Whether every sample has a ``.cls``."""
        return all(source.label is not None for source in self.sources)

    def sums(self, root: Location) -> ChannelSums | None:
        """Sums over the train split; ``None`` where it is empty.

        Raises:
            ClipfoldError: The corpus was made by something that did not keep them.
        """
        if "sums" not in self.manifest.provenance:
            raise ClipfoldError(
                "nothing can be appended to this corpus: it does not hold the sums that its mean was made from",
                fix="convert the new sources into a folder of their own; `clipfold repack` merges corpora",
                file=str(root),
            )
        value: list[Any] | None = self.manifest.provenance["sums"]
        return None if value is None else ChannelSums.from_json(value)


def sha256_of(root: Location) -> str:
    """Of a corpus' ``dataset.json``, in hexadecimal."""
    return hashlib.sha256(read_bytes(join(root, MANIFEST_NAME))).hexdigest()
