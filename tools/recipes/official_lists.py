"""What the recipes share: a dataset's official lists become a table, and the table a corpus.

::

    lists of the dataset --> listing() --> OUT.sources.jsonl, OUT.classes.json --> clipfold convert --> OUT

A recipe is a :class:`clipfold.cli.convert.Convert` (all its flags are there) that says which rows there are. What it
writes beside the corpus can be converted without it, by ``clipfold convert OUT.sources.jsonl --media-root SRC --classes
OUT.classes.json --out OUT``. Videos of the lists that are not there are counted, and named in
``OUT.missing.txt``.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

import tyro

from clipfold import ClipfoldError, SourceError
from clipfold.cli.convert import Convert
from clipfold.files import is_url, name_of, write_json, write_whole
from clipfold.shards.source_list import assign_splits

__all__ = [
    "Listing",
    "OfficialConvert",
    "Row",
    "check_labels",
    "cut_validation",
    "read_csv",
    "read_lines",
    "run_recipe",
]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One video or folder of frames that the lists name.

    Args:
        path: Where it is, relative to the dataset's folder; of a missing one any name for it.
        label: Its class; ``None`` where the lists keep that to themselves.
        split: ``"train"``, ``"val"`` or ``"test"``; ``None`` leaves it to ``--split``.
        group: What no split may tear; ``None`` is the video itself.
        start, stop: The part of it, in seconds; ``None`` is its start, or its end.
        columns: What else goes with each of its clips.
        is_missing: It is not there.
    """

    path: str
    label: str | None
    split: str | None
    group: str | None = None
    start: float | None = None
    stop: float | None = None
    columns: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    is_missing: bool = False


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All rows, and the classes in the order of their numbers (none: in the order of their names).

    ``media_root`` is what paths are relative to, where that is not the dataset's folder.
    """

    rows: Sequence[Row]
    classes: Sequence[str]
    media_root: str | None = None


@dataclass(frozen=True, kw_only=True)
class OfficialConvert(Convert):
    """A conversion whose sources, labels and splits are the official ones."""

    src: tyro.conf.Positional[str]
    """Local folder of the dataset's videos or frames."""

    split: tyro.conf.Suppress[str | None] = None
    media_root: tyro.conf.Suppress[str | None] = None

    def listing(self) -> Listing:
        """What the dataset's lists say.

        Raises:
            SourceError: A list is missing or is not what it should be.
        """
        raise NotImplementedError

    def run(self) -> int:
        """Write the table, then convert what it lists."""
        if not Path(self.src).is_dir():
            raise SourceError("no such folder", fix="SRC is the local folder of the dataset", file=self.src)
        listing = self.listing()
        if not self.dry_run:
            return self._convert(listing, Path(name_of(self.out) if is_url(self.out) else self.out.rstrip("/")))
        with tempfile.TemporaryDirectory() as folder:
            return self._convert(listing, Path(folder) / name_of(self.out))

    def _convert(self, listing: Listing, beside: Path) -> int:
        missing = [row.path for row in listing.rows if row.is_missing]
        present = [row for row in listing.rows if not row.is_missing]
        if not present:
            raise SourceError(
                f"none of the {len(missing):,} videos of the lists is there, the first is {missing[0]}",
                fix="SRC is the folder that the lists' paths start from: look at `--help`",
                file=self.src,
            )
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            place = "" if self.dry_run else f"; all of them in {beside}.missing.txt"
            print(f"{len(missing):,} of {len(listing.rows):,} videos are missing: {shown}{place}", file=sys.stderr)
        unlabelled = {row.split or "a part" for row in present if row.label is None}
        if unlabelled and any(row.label is not None for row in present):
            print(
                f"{', '.join(sorted(unlabelled))} has no labels: no sample of this corpus gets a .cls member. Labels "
                "are in the index and in .json; a corpus of its own for the unlabelled split avoids that.",
                file=sys.stderr,
            )
        beside.parent.mkdir(parents=True, exist_ok=True)
        write_whole(f"{beside}.missing.txt", "".join(f"{name}\n" for name in missing))
        write_whole(f"{beside}.sources.jsonl", "".join(_lines(present)))
        write_json(f"{beside}.classes.json", list(listing.classes))
        classes = self.classes if self.classes is not None or not listing.classes else f"{beside}.classes.json"
        plain = {each: getattr(self, each) for each in Convert.__dataclass_fields__}
        changed = {
            "src": f"{beside}.sources.jsonl",
            "media_root": os.path.abspath(listing.media_root or self.src),
            "classes": classes,
        }
        return Convert(**{**plain, **changed}).run()


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table. A group that the lists themselves put into several splits is one group in each of them."""
    splits: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        splits[row.group or row.path].add(row.split)
    if torn := sorted(group for group in splits if len(splits[group]) > 1):
        print(f"the lists put parts of {len(torn):,} groups into different splits: {torn[0]}, ...", file=sys.stderr)
    for row in rows:
        group = row.group or row.path
        value = {
            "path": row.path,
            "label": row.label,
            "split": row.split,
            "group": f"{group} ({row.split})" if len(splits[group]) > 1 else group,
            "start": row.start,
            "stop": row.stop,
            **row.columns,
        }
        yield json.dumps(value, ensure_ascii=False) + "\n"


def cut_validation(rows: Sequence[Row], share: float) -> list[Row]:
    """The same rows, a share of the training groups of each class moved to ``"val"``; no group is torn.

    Raises:
        ValueError: ``share`` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(
            f"--val-share: {share}, expected a share of the training groups from 0 to below 1, such as 0.1"
        )
    part = Fraction(str(share))
    train = [(row.label, row.group or row.path) for row in rows if row.split == "train"]
    splits = assign_splits(train, (1 - part, part, Fraction(0)))
    return [replace(row, split=splits[row.group or row.path]) if row.split == "train" else row for row in rows]


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty.

    Raises:
        SourceError: It is not there or cannot be read.
    """
    return [line.strip() for line in _read_text(path).splitlines() if line.strip()]


def read_csv(path: Path, *, delimiter: str = ",") -> list[list[str]]:
    """The rows of a list that are not empty.

    Raises:
        SourceError: It is not there, or is no such table.
    """
    try:
        rows = list(csv.reader(io.StringIO(_read_text(path), newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise SourceError(f"cannot be read as a table: {error}", fix="download it again", file=str(path)) from error
    return [[each.strip() for each in row] for row in rows if any(each.strip() for each in row)]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SourceError(
            f"a list of the dataset cannot be read: {reason}", fix="the official lists come with it", file=str(path)
        ) from error


def check_labels(rows: Sequence[Row], classes: Sequence[str], *, file: str) -> None:
    """Every label is one of the classes.

    Raises:
        SourceError: One is not.
    """
    for label in dict.fromkeys(row.label for row in rows if row.label is not None):
        if label not in set(classes):
            close = get_close_matches(label, classes, n=1)
            raise SourceError(
                f"a label that is not among the {len(classes)} classes: {label!r}"
                + (f", did you mean {close[0]!r}?" if close else ""),
                fix="take all lists from one version of the dataset",
                file=file,
            )


def run_recipe(recipe: type[Convert], argv: Sequence[str] | None = None) -> int:
    """Parse the flags and run. The exit code: 0 done, 1 the work failed, 2 wrong use, 130 interrupted."""
    try:
        return tyro.cli(recipe, args=None if argv is None else list(argv)).run()
    except (ClipfoldError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
