"""``clipfold status``: how far a conversion is, from what it leaves on the disk; takes no lock, changes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clipfold.errors import ClipfoldError
from clipfold.files import exists, is_url, join, read_json
from clipfold.shards.manifest import MANIFEST_NAME, Manifest
from clipfold.shards.source_list import load_source_list
from clipfold.shards.staging import STAGING_NAME, Journal
from clipfold.shards.store import default_staging
from clipfold.shards.summary import SKIPPED_NAME, SOURCES_NAME, Skipped, load_skipped, size_text

__all__ = ["Status", "status"]

_NUM_LAST = 5


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a conversion is.

    Args:
        out: The corpus folder or URL.
        is_finished: Whether it is complete.
        is_running: Whether a command is at work on it now, on this machine.
        is_appending: Whether what is under way extends a finished corpus; counts of sources are then of what is new.
        num_sources: Sources in the list.
        num_done: Sources that were converted.
        num_skipped: Sources that were left out.
        num_left: Sources that were not gone through yet.
        left: Of these, how many of each split.
        num_clips: Clips that were made; of a finished corpus all.
        num_bytes: Bytes of finished shards and of staged parts.
        sources_per_second: Of the command at work, since it started; 0.0 where none is.
        seconds_left: What is left at this rate; ``None`` where that is not known.
        last_skipped: The last sources that were left out.
    """

    out: str
    is_finished: bool
    is_running: bool = False
    is_appending: bool = False
    num_sources: int = 0
    num_done: int = 0
    num_skipped: int = 0
    num_left: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    num_clips: int = 0
    num_bytes: int = 0
    sources_per_second: float = 0.0
    seconds_left: float | None = None
    last_skipped: list[Skipped] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        amount = f"{self.num_clips:,} clips, {size_text(self.num_bytes)}"
        counted = f"{self.num_done:,} of {self.num_sources:,} sources converted, {self.num_skipped:,} left out"
        skipped = [f"  skipped {each.name}: {each.reason}: {each.text}" for each in self.last_skipped]
        if self.is_finished:
            return "\n".join([f"{self.out}: finished; {counted}; {amount}", *skipped])
        state = "running" if self.is_running else "not finished, and no command is at work on this machine"
        what = f"{state}, appending" if self.is_appending else state
        left = ", ".join(f"{split} {num:,}" for split, num in self.left.items())
        lines = [f"{self.out}: {what}; {counted}, {self.num_left:,} left{f' ({left})' if left else ''}; {amount}"]
        if self.sources_per_second:
            more = "" if self.seconds_left is None else f", about {_time_text(self.seconds_left)} left"
            lines.append(f"  {self.sources_per_second:.2f} sources/s{more}")
        return "\n".join([*lines, *skipped])


def status(out: str | Path, *, staging: str | Path | None = None) -> Status:
    """How far a conversion is, also while it runs.

    Args:
        out: The corpus folder, or its URL.
        staging: With a URL: the local folder in which it is made, if that was named.

    Raises:
        ClipfoldError: No conversion was begun there.
        ShardError, SourceError: What is there is damaged.
    """
    folder = Path(out) if not is_url(out) else default_staging(str(out)) if staging is None else Path(staging)
    for _ in range(3):
        try:
            found = _unfinished(str(out), folder)
        except FileNotFoundError:  # it ended, or another began, while we looked
            time.sleep(0.1)
            continue
        if found is not None:
            return found
        break
    if exists(join(out, MANIFEST_NAME)):
        return _finished(str(out))
    raise ClipfoldError(
        "no conversion was begun here",
        fix="name the folder that `clipfold convert SRC --out FOLDER` writes"
        + (", and its --staging" if is_url(out) else ""),
        file=str(out),
    )


def _finished(out: str) -> Status:
    manifest = Manifest.load(out)
    skipped = [each for each in load_skipped(join(out, SKIPPED_NAME)) if each.reason != "partial"]
    made = manifest.provenance
    return Status(
        out=out,
        is_finished=True,
        num_sources=made.get("num_sources", 0),
        num_done=made.get("num_converted", 0),
        num_skipped=len(skipped),
        num_clips=sum(totals.num_samples for totals in manifest.splits.values()),
        num_bytes=sum(totals.num_bytes for totals in manifest.splits.values()),
        last_skipped=skipped[-_NUM_LAST:],
    )


def _unfinished(out: str, folder: Path) -> Status | None:
    """What the staging folder says; ``None`` where nothing is under way."""
    staging = folder / STAGING_NAME
    if not (staging / "plan.json").exists():
        return None
    is_appending = "base" in read_json(staging / "plan.json")
    if not is_appending and exists(join(out, MANIFEST_NAME)):
        return None  # ended, but for clearing up
    journal_path = staging / "journal.jsonl"
    listed = load_source_list((staging if is_appending else folder) / SOURCES_NAME)
    journal = Journal.parse(journal_path.read_bytes()) if journal_path.exists() else Journal()
    names = {source.number: source.name for source in listed}
    skipped = [
        Skipped(number=number, name=names[number], reason=record["reason"], text=record["text"])
        for number, record in journal.sources.items()
        if "reason" in record
    ]
    left: dict[str, int] = {}
    for source in listed:
        if source.number not in journal.sources:
            left[source.split] = left.get(source.split, 0) + 1
    shard_bytes = sum(row.num_bytes for rows in journal.shards.values() for row in rows)
    is_running = _is_locked(staging / "lock")
    rate = _rate(staging / "run.json", len(journal.sources)) if is_running else 0.0
    return Status(
        out=out,
        is_finished=False,
        is_running=is_running,
        is_appending=is_appending,
        num_sources=len(listed),
        num_done=len(journal.sources) - len(skipped),
        num_skipped=len(skipped),
        num_left=sum(left.values()),
        left=left,
        num_clips=sum(record.get("num_clips", 0) for record in journal.sources.values()),
        num_bytes=shard_bytes + _size_of_parts(staging / "parts"),
        sources_per_second=rate,
        seconds_left=sum(left.values()) / rate if rate else None,
        last_skipped=skipped[-_NUM_LAST:],
    )


def _size_of_parts(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.part"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # its shard was just finished
            continue
    return total


def _rate(path: Path, num_done: int) -> float:
    """Sources a second of the command at work."""
    try:
        run = read_json(path)
    except (FileNotFoundError, ValueError):
        return 0.0
    return float(max(num_done - run["num_done"], 0) / max(time.time() - run["start"], 1e-3))


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock, as the kernel lists it: trying to take it could stop a command that starts."""
    status = os.stat(path)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    return any("FLOCK" in line and place in line.split() for line in lines)


def _time_text(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
