"""Tables for people: drawn with rich on a terminal, plain aligned text anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "bar", "plain_text", "show"]

_BAR_CELLS = 24


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title and rows of text.

    Args:
        title: Above it.
        rows: Each as long as ``columns``.
        columns: Headings; empty for a list of names and values.
        numbers: Places of the columns that are set flush right.
    """

    title: str
    rows: Sequence[Sequence[str]]
    columns: Sequence[str] = ()
    numbers: Sequence[int] = ()


def bar(value: float, most: float) -> str:
    """A bar of at most 24 cells; one at least for what is not nothing."""
    cells = round(_BAR_CELLS * value / most) if most else 0
    return "#" * max(cells, 1 if value else 0)


def plain_text(tables: Sequence[Table]) -> str:
    """All tables as text without colours."""
    return "\n\n".join("\n".join(_plain_lines(table)) for table in tables if table.rows)


def show(tables: Sequence[Table], *, to_stderr: bool = False) -> None:
    """Print the tables: on a terminal with rich, elsewhere plain."""
    stream = sys.stderr if to_stderr else sys.stdout
    if not stream.isatty():
        print(plain_text(tables), file=stream)
        return
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stream)
    for table in tables:
        if not table.rows:
            continue
        num = max(map(len, table.rows))
        console.print(Text(table.title, style="bold"))
        drawn = RichTable(show_header=bool(table.columns), box=None)
        for place in range(num):
            heading = table.columns[place] if table.columns else ""
            right = place in table.numbers
            drawn.add_column(Text(heading), justify="right" if right else "left", overflow="fold", no_wrap=right)
        for row in table.rows:
            drawn.add_row(*(Text(cell, style="cyan" if cell and set(cell) == {"#"} else "") for cell in row))
        console.print(drawn)
        console.print()


def _plain_lines(table: Table) -> list[str]:
    rows = [list(table.columns), *table.rows] if table.columns else list(table.rows)
    widths = [
        max((len(row[place]) for row in rows if len(row) > place), default=0) for place in range(max(map(len, rows)))
    ]
    lines = [table.title]
    for row in rows:
        cells = [
            cell.rjust(widths[place]) if place in table.numbers else cell.ljust(widths[place])
            for place, cell in enumerate(row)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
