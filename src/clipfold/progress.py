"""How far a long piece of work is: a bar on a terminal, a plain line every ten seconds anywhere else.

Always on the standard error, so that the standard output stays for results.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

__all__ = ["Progress"]

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Progress of one piece of work, with rate and time left.

    Args:
        title: What is being done, such as ``"converting"``.
        total: How many units there are; ``None`` where nobody knows yet.
        unit: Plural name of the unit, such as ``"clips"``.
        show: False shows nothing.

    Example:
        >>> with Progress("converting", total=2, unit="sources", show=False) as progress:
        ...     progress.advance(1, skipped=0)
        ...     progress.advance(1, skipped=1)
    """

    def __init__(self, title: str, *, total: int | None, unit: str, show: bool = True) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self._show = show
        self._start = self._last_line = time.monotonic()
        self._fields = ""
        self._bar: Bar | None = None
        if show and sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[extra]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, rate="", extra="")

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self.done / max(time.monotonic() - self._start, 1e-9)

    def advance(self, num: int = 1, **fields: object) -> None:
        """``num`` more units are done; ``fields`` are shown behind, such as ``skipped=3``."""
        self.done += num
        if fields:
            self._fields = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in fields.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=self._rate_text(), extra=self._fields)
        elif self._show and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._print_line()

    def _rate_text(self) -> str:
        return f"{self.rate:,.1f} {self.unit}/s"

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        of = "" if self.total is None else f"/{self.total:,}"
        left = ""
        if self.total is not None and self.done:
            left = f", {max(self.total - self.done, 0) / self.rate:,.0f} s left"
        line = f"{self.title}: {self.done:,}{of} {self.unit}, {self._rate_text()}{left}  {self._fields}"
        print(line.rstrip(), file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._show and self.done:
            self._print_line()
