"""``clipfold verify DIR``: check every checksum and every sample of a corpus."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from clipfold.shards.verify import verify

__all__ = ["Verify"]


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check every checksum, every count and every sample of a corpus; change nothing.

    Exit code 0: all is well. 1: something is wrong; which shard and which sample is printed.
    """

    data: tyro.conf.Positional[str]
    """Corpus folder or URL."""
    split: tuple[str, ...] = ()
    """Only these splits."""
    num_workers: int | None = None
    """Threads; one a core where it is not given."""
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON object as the last line.")] = False

    def run(self) -> int:
        """Verify, print what was found, and return the exit code."""
        report = verify(self.data, splits=self.split, num_workers=self.num_workers, show_progress=True)
        print(report)
        if self.json:
            print(_to_json(report.to_json()))
        return 0 if report.ok else 1


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
