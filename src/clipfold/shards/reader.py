"""An opened corpus: its manifest, its tables, and where its tars are. Reads no pixels."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.files import Location
from clipfold.shards.codecs import Codec, codec_from_manifest
from clipfold.shards.index import index_path, load_index, load_shard_table, shard_table_path, tar_path
from clipfold.shards.manifest import Manifest, SplitTotals

__all__ = ["Corpus"]


class Corpus:
    """A corpus folder or URL that is complete.

    Args:
        root: The folder that holds ``dataset.json``, or its URL.
        codec: Only for a corpus written with a codec of your own: names that a file gives import no code.

    Raises:
        ShardError: ``dataset.json`` is missing, damaged or of a newer format; its codec is unknown.

    Example:
        >>> corpus = Corpus("corpus")                                           # doctest: +SKIP
        >>> for row in corpus.shard_table("train"):                             # doctest: +SKIP
        ...     index = corpus.index("train", int(row["number"]))
    """

    def __init__(self, root: Location, *, codec: Codec | None = None) -> None:
        self.root = str(root)
        self.manifest = Manifest.load(root)
        self._tables: dict[str, NDArray[Any]] = {}
        if codec is not None:
            self.codec = codec
        try:
            self.codec.check(self.spec)
        except ValueError as error:
            raise ShardError(f"the corpus' codec cannot hold its clips: {error}", file=self.root) from error

    @cached_property
    def codec(self) -> Codec:
        """What the clips are stored with."""
        return codec_from_manifest(self.manifest.codec, self.manifest.codec_settings)

    @property
    def spec(self) -> ClipSpec:
        """Shape and dtype of every clip."""
        return self.manifest.spec

    @property
    def classes(self) -> list[str]:
        """Names of the classes; a label is a position in this list."""
        return list(self.manifest.classes)

    @property
    def splits(self) -> dict[str, SplitTotals]:
        """Totals by name of the split."""
        return dict(self.manifest.splits)

    def shard_table(self, split: str) -> NDArray[Any]:
        """A split's shards, verified against the manifest.

        Returns:
            SHARD_DTYPE (num_shards,).

        Raises:
            ValueError: No such split; the message names those there are.
            ShardError: The table is missing, damaged, or does not add up to the manifest's totals.
        """
        if split not in self.splits:
            raise ValueError(f"split: {split!r}, expected one of {', '.join(self.splits)} (corpus {self.root})")
        totals, location = self.splits[split], shard_table_path(self.root, split)
        sha256 = bytes.fromhex(totals.shards_sha256)
        table = load_shard_table(location, sha256=sha256)
        found = SplitTotals.of(table, sha256)
        if found != totals or table["number"].tolist() != list(range(len(table))):
            raise ShardError(
                f"shards of split {split!r} add up to {found}, expected {totals} with numbers from 0",
                fix="dataset.json and shards.npy are of different corpora; copy the corpus again",
                file=location,
            )
        return table

    def index(self, split: str, number: int) -> NDArray[Any]:
        """The samples of one shard, verified against the table of shards.

        Raises:
            ValueError: No such split.
            IndexError: No such shard.
            ShardError: The index is missing, damaged, or has another number of rows than the table says.
        """
        table = self._table(split)
        if not 0 <= number < len(table):
            raise IndexError(f"shard {number} of split {split!r}, which has {len(table)} shards")
        location = index_path(self.root, split, number)
        index = load_index(location, sha256=table[number]["index_sha256"].tobytes())
        if len(index) != table[number]["num_samples"]:
            raise ShardError(
                f"index has {len(index):,} rows, expected {int(table[number]['num_samples']):,}", file=location
            )
        return index

    def tar_location(self, split: str, number: int) -> str:
        """Path or URL of a shard's tar; it need not be there."""
        return tar_path(self.root, split, number)

    def _table(self, split: str) -> NDArray[Any]:
        if split not in self._tables:
            self._tables[split] = self.shard_table(split)
        return self._tables[split]
