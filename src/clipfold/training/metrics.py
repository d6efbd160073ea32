"""``metrics.jsonl``: one JSON object a line, appended while training."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from clipfold.files import write_whole

__all__ = ["MetricsLog"]


class MetricsLog:
    """The growing list of what was measured.

    Args:
        path: The file; made where it is missing.
        up_to_step: Lines of later steps are taken out: a run that goes on from a checkpoint writes them again. A last
            line that was cut short goes as well.
    """

    def __init__(self, path: Path, *, up_to_step: int | None = None) -> None:
        self.path = path
        if up_to_step is not None and path.exists():
            kept = [line for line in self.read(path) if line["step"] <= up_to_step]
            write_whole(path, "".join(f"{json.dumps(line)}\n" for line in kept))

    def append(self, kind: str, *, step: int, **values: Any) -> None:
        """Write one line: ``{"kind": ..., "step": ..., ...}``. Numbers that are not finite are written as null.

        Raises:
            OSError: The disk is full.
        """
        line = {"kind": kind, "step": step, **{name: _plain(value) for name, value in values.items()}}
        with open(self.path, "ab") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """All whole lines of a file; the last one may have been cut short and is then left out."""
        lines = []
        for text in path.read_bytes().split(b"\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
        return lines


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
