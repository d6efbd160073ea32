"""What could not be read: a line for each failed attempt, kept so that a resumed run repeats itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from clipfold.errors import ClipfoldError

__all__ = ["Fault", "Ledger", "with_place"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One attempt at one slot that failed.

    Args:
        position: The slot's place in the order of reading.
        attempt: 0 for the sample itself, n for its n-th substitute.
        action: ``"substituted"`` by the next attempt, or the clip marked ``"invalid"``.
        key: The sample's key; ``""`` where even the index could not be read.
        shard: Path or URL of its shard.
        offset: Where in the shard; -1 where that is not known.
        reason: The error.
    """

    position: int
    attempt: int
    action: Literal["substituted", "invalid"]
    key: str
    shard: str
    offset: int
    reason: str


class Ledger:
    """The faults of all ranks in a folder, one file a rank: ``faults.<rank>.jsonl``.

    A fault that may pass (a network that was down) still has to repeat itself when the run is resumed from before it,
    else the resumed run would see other samples than the one it continues. So the faults of the same order of
    reading, whichever rank met them, are known from the start.

    Args:
        folder: Where the files are; made if it is missing. ``None`` writes nothing and knows nothing.
        rank: Of this process.
        order: What tells this order of reading from others: only faults with the same are taken over.
    """

    def __init__(self, folder: str | Path | None, *, rank: int, order: str) -> None:
        self.order = order
        self.path = None if folder is None else Path(folder) / f"faults.{rank}.jsonl"
        self._known: set[tuple[int, int]] = set()
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.path.parent.glob("faults.*.jsonl")):
                self._known.update(_read(path, order))

    def knows(self, position: int, attempt: int) -> bool:
        """Whether this attempt failed before."""
        return (position, attempt) in self._known

    def record(self, faults: Iterable[Fault]) -> None:
        """Write down the faults that are new.

        Raises:
            OSError: The file cannot be written.
        """
        new = [fault for fault in faults if not self.knows(fault.position, fault.attempt)]
        if self.path is None or not new:
            return
        self._known.update((fault.position, fault.attempt) for fault in new)
        text = "".join(json.dumps(asdict(fault) | {"order": self.order}, ensure_ascii=False) + "\n" for fault in new)
        # A log only grows. What a crash may tear is its last line: readers skip it, and the next one starts afresh.
        with open(self.path, "a+b") as file:
            if file.seek(0, os.SEEK_END) and not _ends_with_newline(file):
                text = "\n" + text
            file.write(text.encode())


def with_place(error: ClipfoldError, **where: Any) -> ClipfoldError:
    """The same error with more context; what it knows itself is kept."""
    made = type(error)(error.what, fix=error.fix, **(where | error.where))
    made.__cause__ = error.__cause__
    return made


def _ends_with_newline(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _read(path: Path, order: str) -> Iterable[tuple[int, int]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if row["order"] == order:
                yield int(row["position"]), int(row["attempt"])
        except (ValueError, KeyError, TypeError):
            continue  # a line torn by a crash
