"""What becomes of a source: the record that the journal keeps, and what a record means for the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clipfold.errors import ClipfoldError, SourceError
from clipfold.ingest.sources import Source
from clipfold.shards.source_list import ListedSource
from clipfold.shards.summary import Skipped
from clipfold.worker import Outcome

__all__ = [
    "changed_source",
    "check_failures",
    "check_one_cpu_type",
    "nothing_converted",
    "reason_of",
    "skipped_of",
    "take_outcome",
]

Record = Mapping[str, Any]

_REASONS = {
    "DecodeError": "decode",
    "SourceError": "source",
    "Crash": "crash",
    "CpuDeadline": "cpu_deadline",
    "WallDeadline": "wall_deadline",
    "OutOfMemory": "out_of_memory",
}


def reason_of(error_name: str) -> str:
    """The code that ``skipped.jsonl`` has for an error."""
    return _REASONS.get(error_name, error_name)


def take_outcome(outcome: Outcome, source: Source, *, stops: bool) -> dict[str, Any]:
    """The record of a source that was just worked on; see :func:`clipfold.shards.task.convert_source`.

    Raises:
        ClipfoldError: It cannot be read and ``stops`` says so.
        SourceError: It has changed since it was listed.
        OSError: Its part cannot be written.
    """
    if outcome.error is None:
        record: dict[str, Any] = outcome.value
        if "changed" in record:
            raise changed_source(source, record["changed"])
        if "unwritable" in record:
            raise OSError(record["errno"], record["unwritable"])
        return record
    if stops:
        outcome.error.where.setdefault("file", source.path)
        raise outcome.error
    # no machine's paths: the same failure gives the same bytes everywhere
    text = outcome.error.what.replace(source.path, source.name)
    fix = outcome.error.fix.replace(source.path, source.name)
    return {"reason": reason_of(outcome.error_name), "text": text, **({"fix": fix} if fix else {})}


def skipped_of(
    listed: Iterable[ListedSource], records: Mapping[int, Record], *, before: Sequence[Skipped] = ()
) -> list[Skipped]:
    """The lines of ``skipped.jsonl``: sources that were left out, and those of which only the beginning was kept.

    Args:
        listed: The sources that were gone through.
        records: What became of them.
        before: What was left out earlier; a source that was tried again is not.
    """
    found = {each.number: each for each in before}
    for source in listed:
        found.pop(source.number, None)
        record = records[source.number]
        if "broken_by" in record:
            record = {"reason": "partial", "text": record["broken_by"]}
        if "reason" in record:
            found[source.number] = Skipped(
                number=source.number,
                name=source.name,
                reason=record["reason"],
                text=record["text"],
                fix=record.get("fix", ""),
            )
    return [found[number] for number in sorted(found)]


def changed_source(source: Source, text: str) -> SourceError:
    """A source that is not what the frozen list says."""
    return SourceError(
        f"a source has changed since the list was frozen: {text}",
        fix="put the old file back, or take it away (then it is left out), or convert into a new folder",
        file=source.path,
    )


def check_failures(num: int, most: int | None, source: ListedSource, record: Record) -> None:
    """Raise ``SourceError`` where too many sources had to be left out."""
    if most is not None and num > most:
        raise SourceError(
            f"{num} sources had to be left out, expected at most {most}; the last: {record['reason']}: "
            f"{record['text']}",
            fix="look at the sources, or allow more failures",
            file=source.name,
        )


def check_one_cpu_type(types: Iterable[str]) -> None:
    """Raise ``ClipfoldError`` where a codec whose bytes depend on the CPU would run, or ran, on several types."""
    if len(found := sorted(set(types))) > 1:
        raise ClipfoldError(
            f"this codec's bytes depend on the type of the CPU, and there are {len(found)}: {', '.join(found)}",
            fix="use machines of one type, or --allow-mixed-cpu (clips stay as good, but bytes are not reproducible)",
        )


def nothing_converted(listed: Sequence[ListedSource], records: Mapping[int, Record]) -> SourceError:
    """All sources had to be left out."""
    found = [(source.name, records[source.number]) for source in listed]
    lines = [f"  {name}: {record['reason']}: {record['text']}" for name, record in found]
    more = f"\n  ... and {len(lines) - 5} more" if len(lines) > 5 else ""
    shown = "\n".join(lines[:5])
    return SourceError(f"none of {len(lines)} sources could be converted, nothing was written\n{shown}{more}")
