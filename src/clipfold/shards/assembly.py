"""Staged parts, in the order of the sources, into the shards of all splits.

::

    part 0 (train)  part 1 (val)  part 2 (train) ...  -->  [train shard 0 | train shard 1 ...]  [val shard 0 ...]

A finished shard is noted in the journal with the first clip behind it; a part is deleted once all its clips are in
finished shards. After a kill, whatever is not noted is appended again: the same clips to the same shards.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from clipfold.shards.codecs import get_codec
from clipfold.shards.index import ShardRow, shard_table_path, write_shard_table
from clipfold.shards.manifest import SplitTotals
from clipfold.shards.source_list import ListedSource
from clipfold.shards.staging import PartClip, PartReader, Staging
from clipfold.shards.writer import ShardWriter

__all__ = ["Assembly", "Part", "ShardOptions"]


class ShardOptions(Protocol):
    """How clips are stored, and when a shard closes."""

    @property
    def codec(self) -> str: ...
    @property
    def codec_settings(self) -> Mapping[str, Any]: ...
    @property
    def shard_bytes(self) -> int: ...
    @property
    def shard_clips(self) -> int: ...


class Part(Protocol):
    """The clips of one source."""

    def clips(self, start: int = 0) -> Iterator[tuple[int, PartClip]]:
        """(place, clip) from place ``start`` on."""
        ...


class Assembly:
    """The one writer of a conversion; a context manager that drops unfinished shards when it is left.

    Args:
        out: The corpus folder.
        recipe: Codec and sizes of the shards.
        sources: The frozen list.
        classes: Names of the classes, in the order of their numbers.
        staging: Where the parts are.
        open_part: Gives the part of a source; ``None`` takes the staged one.
        before: The shards of each split that the corpus has already; the new ones come behind them.
        labelled: Whether every sample gets a ``.cls``; ``None`` where all sources have a label.
        on_shard: Called with split and row of each shard once it is noted.
    """

    def __init__(
        self,
        out: Path,
        recipe: ShardOptions,
        sources: Sequence[ListedSource],
        classes: Sequence[str],
        staging: Staging,
        *,
        open_part: Callable[[ListedSource], Part] | None = None,
        before: Mapping[str, Sequence[ShardRow]] | None = None,
        labelled: bool | None = None,
        on_shard: Callable[[str, ShardRow], None] | None = None,
    ) -> None:
        self._out, self._recipe, self._sources, self._staging = out, recipe, sources, staging
        self._open_part = open_part or (lambda source: PartReader(staging.part_path(source.number)))
        self._labels = {name: number for number, name in enumerate(classes)}
        self._labelled = all(source.label is not None for source in sources) if labelled is None else labelled
        self._before, self._on_shard = before or {}, on_shard
        self._extension = get_codec(recipe.codec, recipe.codec_settings).extension
        self._writers: dict[str, ShardWriter] = {}
        self._parts: dict[str, deque[int]] = defaultdict(deque)  # appended, but not yet all in finished shards
        self._at = (0, 0)  # the clip that is being appended
        for split in {source.split for source in sources}:
            for leftover in (out / split).glob(".*.tmp"):  # of a process that was killed
                leftover.unlink()

    def needs_part(self, source: ListedSource) -> bool:
        """Whether clips of this source have yet to be written into a finished shard."""
        record = self._staging.sources.get(source.number)
        if record is None:
            return True
        if "reason" in record:
            return False
        number, clip = self._staging.next_clip.get(source.split, (0, 0))
        return source.number > number or (source.number == number and clip < record["num_clips"])

    def append(self, source: ListedSource) -> None:
        """Append the clips of a staged source, those that are in finished shards left out.

        Raises:
            ShardError: The part is damaged.
            OSError: The disk is full.
        """
        number, clip = self._staging.next_clip.get(source.split, (0, 0))
        part = self._open_part(source)
        writer = self._writer(source.split)
        self._parts[source.split].append(source.number)
        for self._at, staged in (
            ((source.number, place), staged) for place, staged in part.clips(clip if source.number == number else 0)
        ):
            writer.append(
                source=source.number,
                clip=self._at[1] if staged.number is None else staged.number,
                data=staged.data,
                num_valid_frames=staged.num_valid_frames,
                label=None if source.label is None else self._labels[source.label],
                meta=staged.meta,
            )

    def close(self) -> dict[str, SplitTotals]:
        """Finish the last shards and write the table of shards of each split.

        Returns:
            The totals of each split that has any clips.

        Raises:
            OSError: The disk is full.
        """
        self._at = (max((source.number for source in self._sources), default=-1) + 1, 0)
        for writer in self._writers.values():
            writer.close()
        totals = {}
        for split in sorted({*self._before, *self._staging.shards}):
            rows = [*self._before.get(split, []), *self._staging.shards.get(split, [])]
            (self._out / split).mkdir(exist_ok=True)
            sha256 = write_shard_table(shard_table_path(self._out, split), rows)
            totals[split] = SplitTotals(
                num_shards=len(rows),
                num_samples=sum(row.num_samples for row in rows),
                num_bytes=sum(row.num_bytes for row in rows),
                shards_sha256=sha256.hex(),
            )
        return totals

    def __enter__(self) -> Assembly:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.abandon()

    def _writer(self, split: str) -> ShardWriter:
        if split not in self._writers:
            self._writers[split] = ShardWriter(
                self._out,
                split,
                self._extension,
                labelled=self._labelled,
                shard_bytes=self._recipe.shard_bytes,
                shard_clips=self._recipe.shard_clips,
                first_number=len(self._before.get(split, [])) + len(self._staging.shards.get(split, [])),
                on_finished=lambda row: self._note_shard(split, row),
            )
        return self._writers[split]

    def _note_shard(self, split: str, row: ShardRow) -> None:
        self._staging.add_shard(split, row, self._at)
        if self._on_shard is not None:
            self._on_shard(split, row)
        while self._parts[split] and self._parts[split][0] < self._at[0]:
            self._staging.remove_part(self._parts[split].popleft())
