"""What a conversion did, for people and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clipfold.files import Location, read_bytes
from clipfold.ingest.sources import SPLITS, Found, Source
from clipfold.shards.manifest import Manifest
from clipfold.shards.source_list import ListedSource, reading_fields

__all__ = [
    "NO_NUMBER",
    "SKIPPED_NAME",
    "SOURCES_NAME",
    "ConvertSummary",
    "Skipped",
    "clips_by_class",
    "ignored_fields",
    "load_skipped",
    "merge_clips",
    "missing_rows",
    "new_fields",
    "since_fields",
    "size_text",
    "skipped_lines",
    "summary_of",
]

SOURCES_NAME = "sources.jsonl"
SKIPPED_NAME = "skipped.jsonl"

NO_NUMBER = -1

_MISSING_ROW = re.compile(r"row [0-9]+: no such file or folder")
_MOST_LINES = 20
_NUM_IGNORED_KEPT = 100


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A source that was left out, and why; a line of ``skipped.jsonl``.

    Args:
        number: Its number in ``sources.jsonl``; -1 for a row of a table whose file is missing: it is in no list.
        name: Its name.
        reason: A code: ``"decode"``, ``"source"``, ``"crash"``, ``"cpu_deadline"``, ``"wall_deadline"``,
            ``"out_of_memory"``, ``"vanished"``, ``"too_short"``, ``"missing"``, or the name of another exception.
        text: What happened, without times and process ids.
        fix: What can be done about it; ``""`` where nothing was said.
    """

    number: int
    name: str
    reason: str
    text: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class ConvertSummary:
    """What a conversion did, or in a dry run what it would do.

    Args:
        out: The corpus folder.
        is_dry_run: Nothing was written; clips were counted, bytes estimated.
        was_finished: The corpus was complete before; nothing was done.
        num_sources: Sources in the list.
        num_converted: Sources whose clips are in the corpus.
        num_clips: Clips in all splits.
        num_bytes: Bytes of all shards.
        clips: Clips by split and class (``""`` without a label).
        skipped: Sources that were left out.
        partial: Names of sources of which only the clips before an error were kept.
        ignored: Files that are no sources, with the reason: the first ones.
        num_ignored: How many there are of these.
        num_appended: Sources that this run added to a finished corpus, or tried again.
        new: Names of sources that are there but not in the finished corpus: the first ones.
        num_new: How many there are of these.
        changed: Names of sources of a finished corpus that have another size or time now: the first ones.
        num_changed: How many there are of these.
        vanished: Names of sources of a finished corpus that are not there any more: the first ones.
        num_vanished: How many there are of these.
        seconds: What this run took.
        clips_per_second: Of what this run decoded.
    """

    out: str
    is_dry_run: bool = False
    was_finished: bool = False
    num_sources: int
    num_converted: int
    num_clips: int
    num_bytes: int
    clips: Mapping[str, Mapping[str, int]]
    skipped: list[Skipped] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    num_ignored: int = 0
    num_appended: int = 0
    new: list[str] = field(default_factory=list)
    num_new: int = 0
    changed: list[str] = field(default_factory=list)
    num_changed: int = 0
    vanished: list[str] = field(default_factory=list)
    num_vanished: int = 0
    seconds: float = 0.0
    clips_per_second: float = 0.0

    @property
    def num_skipped(self) -> int:
        """Sources that were left out."""
        return len(self.skipped)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, ``num_skipped`` included."""
        return {**asdict(self), "num_skipped": self.num_skipped}

    def __str__(self) -> str:
        return "\n".join([self._first_line(), *self._split_lines(), *self._left_out_lines(), *self._since_lines()])

    def _first_line(self) -> str:
        amount = f"{self.num_clips:,} clips from {self.num_converted:,} of {self.num_sources:,} sources"
        if self.is_dry_run:
            return f"dry run: {amount}, about {size_text(self.num_bytes)}; nothing was written to {self.out}"
        if self.was_finished:
            return f"nothing to do: {self.out} is complete, {amount}, {size_text(self.num_bytes)}"
        speed = f"{self.seconds:.1f} s, {self.clips_per_second:.1f} clips/s"
        appended = f", {self.num_appended:,} of them appended" if self.num_appended else ""
        return f"{self.out}: {amount}{appended}, {size_text(self.num_bytes)}, {speed}"

    def _split_lines(self) -> list[str]:
        lines = []
        for split, classes in self.clips.items():
            each = ", ".join(f"{label or '(no label)'} {num:,}" for label, num in list(classes.items())[:_MOST_LINES])
            more = f", and {len(classes) - _MOST_LINES} classes more" if len(classes) > _MOST_LINES else ""
            lines.append(f"  {split}: {sum(classes.values()):,} clips ({each}{more})")
        return lines

    def _left_out_lines(self) -> list[str]:
        skipped = [
            f"  skipped {source.name}: {source.reason}: {source.text}{source.fix and f' ({source.fix})'}"
            for source in self.skipped
        ]
        ignored = [f"  ignored {text}" for text in self.ignored]
        partial = [f"  only the beginning of {name}" for name in self.partial]
        lines = []
        for some, total in ((skipped, len(skipped)), (partial, len(partial)), (ignored, self.num_ignored)):
            lines += some[:_MOST_LINES]
            if total > len(some[:_MOST_LINES]):
                lines.append(f"  ... and {total - len(some[:_MOST_LINES]):,} more")
        return lines

    def _since_lines(self) -> list[str]:
        """What is not as it was when the corpus was made."""
        notes = (
            ("new", self.new, self.num_new, "are not in the corpus; --append converts them"),
            ("changed", self.changed, self.num_changed, "have changed since; the clips are of what they were"),
            ("vanished", self.vanished, self.num_vanished, "are not there any more; their clips are"),
        )
        lines = []
        for word, names, total, text in notes:
            if total:
                shown = [f"  {word}: {name}" for name in names[:_MOST_LINES]]
                more = [f"  ... and {total - len(shown):,} more"] if total > len(shown) else []
                lines += [f"  {total:,} sources {text}", *shown, *more]
        return lines


def size_text(num_bytes: float) -> str:
    """``1.4 GB``: a size for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def clips_by_class(counted: Iterable[tuple[ListedSource, int]]) -> dict[str, dict[str, int]]:
    """Sums of (source, clips) by split and class."""
    return merge_clips(*({source.split: {source.label or "": num}} for source, num in counted if num))


def merge_clips(*counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The sum of several counts by split and class."""
    merged: dict[str, dict[str, int]] = {}
    for each in counts:
        for split, classes in each.items():
            for label, num in classes.items():
                of_split = merged.setdefault(split, {})
                of_split[label] = of_split.get(label, 0) + num
    return {split: dict(sorted(merged[split].items())) for split in SPLITS if split in merged}


def load_skipped(location: Location) -> list[Skipped]:
    """Read ``skipped.jsonl``.

    Raises:
        OSError: It cannot be read.
    """
    lines = read_bytes(location).splitlines()  # bytes: a name may hold what str takes for a line break
    return [Skipped(**json.loads(line)) for line in lines]


def skipped_lines(skipped: Iterable[Skipped]) -> str:
    """The text of ``skipped.jsonl``."""
    values = [{name: value for name, value in asdict(each).items() if name != "fix" or value} for each in skipped]
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def summary_of(out: Location, manifest: Manifest, skipped: Sequence[Skipped]) -> ConvertSummary:
    """What a finished corpus says of its own making."""
    return ConvertSummary(
        out=str(out),
        num_sources=manifest.provenance["num_sources"],
        num_converted=manifest.provenance["num_converted"],
        num_clips=sum(totals.num_samples for totals in manifest.splits.values()),
        num_bytes=sum(totals.num_bytes for totals in manifest.splits.values()),
        clips=manifest.provenance["clips"],
        skipped=[each for each in skipped if each.reason != "partial"],
        partial=[each.name for each in skipped if each.reason == "partial"],
    )


def ignored_fields(found: Found) -> dict[str, Any]:
    """The fields ``ignored`` and ``num_ignored`` of a summary; rows without their file count as skipped instead."""
    ignored = [each for each in found.ignored if not _MISSING_ROW.fullmatch(each.reason)]
    shown = [f"{each.name}: {each.reason}" for each in ignored[:_NUM_IGNORED_KEPT]]
    return {"ignored": shown, "num_ignored": len(ignored)}


def missing_rows(found: Found) -> list[Skipped]:
    """The rows of a table whose file is missing, in its order."""
    return [
        Skipped(number=NO_NUMBER, name=each.name, reason="missing", text=each.reason)
        for each in found.ignored
        if _MISSING_ROW.fullmatch(each.reason)
    ]


def new_fields(new: Sequence[Source]) -> dict[str, Any]:
    """The fields ``new`` and ``num_new`` of a summary."""
    return {"new": [source.name for source in new[:_NUM_IGNORED_KEPT]], "num_new": len(new)}


def since_fields(
    listed: Sequence[ListedSource], there: Mapping[str, Source], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """The fields ``changed`` and ``vanished`` of a summary, and their numbers; of sources that have clips."""
    left_out = {each.number for each in skipped if each.reason != "partial"}
    kept = [source for source in listed if source.number not in left_out]
    vanished = [source.name for source in kept if source.name not in there]
    changed = [source.name for source in kept if source.name in there and _differs(source, there[source.name])]
    return {
        "changed": changed[:_NUM_IGNORED_KEPT],
        "num_changed": len(changed),
        "vanished": vanished[:_NUM_IGNORED_KEPT],
        "num_vanished": len(vanished),
    }


def _differs(listed: ListedSource, source: Source) -> bool:
    before = (listed.num_bytes, listed.mtime_ns, dict(listed.reading))
    return before != (source.num_bytes, source.mtime_ns, reading_fields(source))
