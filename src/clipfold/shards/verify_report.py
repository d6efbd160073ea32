"""What :func:`clipfold.shards.verify.verify` found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Problem", "VerifyReport"]

_MAX_PROBLEMS = 1_000  # kept in full; all are counted


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Args:
        what: What was found, and what was expected.
        file: Path relative to the corpus.
        key: The sample it is about; ``None`` where it is about the file.
        offset: Byte of the file where it shows; ``None`` where there is no such place.
    """

    what: str
    file: str
    key: str | None = None
    offset: int | None = None

    def __str__(self) -> str:
        key = "" if self.key is None else f" sample {self.key}"
        offset = "" if self.offset is None else f" (offset {self.offset:,})"
        return f"{self.file}:{key} {self.what}{offset}"


@dataclass(kw_only=True)
class VerifyReport:
    """What was looked at and what was wrong.

    Args:
        root: The corpus.
        num_shards: Shards looked at.
        num_samples: Samples looked at.
        num_bytes: Bytes of the tars looked at.
        num_problems: How many problems there are.
        problems: The first 1,000 of them.
    """

    root: str
    num_shards: int = 0
    num_samples: int = 0
    num_bytes: int = 0
    num_problems: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True where nothing is wrong."""
        return self.num_problems == 0

    def add(self, what: str, file: str, *, key: str | None = None, offset: int | None = None) -> None:
        """Count a problem, and keep it if it is among the first."""
        self.num_problems += 1
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(Problem(what=what, file=file, key=key, offset=offset))

    def merge(self, other: VerifyReport) -> None:
        """Add what a part of the work found."""
        self.num_shards += other.num_shards
        self.num_samples += other.num_samples
        self.num_bytes += other.num_bytes
        self.num_problems += other.num_problems
        self.problems += other.problems[: _MAX_PROBLEMS - len(self.problems)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``ok`` is the verdict."""
        return {
            "root": self.root,
            "ok": self.ok,
            "num_shards": self.num_shards,
            "num_samples": self.num_samples,
            "num_bytes": self.num_bytes,
            "num_problems": self.num_problems,
            "problems": [dict(vars(problem)) for problem in self.problems],
        }

    def __str__(self) -> str:
        looked_at = f"{self.num_shards:,} shards, {self.num_samples:,} samples, {self.num_bytes / 1e6:,.1f} MB"
        if self.ok:
            return f"{self.root}: all is well in {looked_at}"
        lines = [f"  {problem}" for problem in self.problems]
        if self.num_problems > len(lines):
            lines.append(f"  ... and {self.num_problems - len(lines):,} more")
        return "\n".join([f"{self.root}: {self.num_problems:,} problems in {looked_at}", *lines])
