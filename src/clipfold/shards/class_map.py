"""``--classes``: a file that renames, merges, orders and drops classes.

::

    classes.txt                 classes.csv         classes.json
    walk                        walk,walk           {"walk": "walk", "stroll": "walk", "jump": "jump", "noise": null}
    stroll -> walk              stroll,walk
    jump                        jump,jump           or a list, which only orders: ["walk", "jump"]
    noise -> -                  noise,-
    # * -> -  drops all others

Left stands the class as the folders or the table say it, right the class of the corpus; ``-``, nothing or ``null``
drops its sources. ``*`` stands for every class that is not named; without it those are kept, behind the named ones, in
the order of their names. A class that is named has its number even where no source has it, so several corpora that
are made with one file agree about their numbers. Sources without a label keep none.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from clipfold.errors import ClipfoldError, SourceError
from clipfold.files import Location, name_of, read_bytes
from clipfold.ingest.sources import Found, Ignored

__all__ = ["ClassMap"]

REST = "*"
Pair = tuple[str, str | None]


@dataclass(frozen=True)
class ClassMap:
    """Pairs (class of the sources, class of the corpus or ``None``), in the order of the file.

    Raises:
        ValueError: A class of the sources is named twice, or a class of the corpus has no name.
    """

    pairs: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        named = [old for old, _ in self.pairs]
        if twice := sorted({old for old in named if named.count(old) > 1}):
            raise ValueError(f"class map: {', '.join(twice)} named more than once")
        if any(not old or new == "" for old, new in self.pairs):
            raise ValueError("class map: a class without a name")

    @classmethod
    def load(cls, location: Location) -> ClassMap:
        """Read a ``.txt``, ``.csv`` or ``.json`` file.

        Raises:
            ClipfoldError: It is not one of these, cannot be read, or does not say what this module's first lines show.
        """
        parsers = {".txt": _parse_text, ".csv": _parse_csv, ".json": _parse_json}
        extension = Path(name_of(location)).suffix.lower()
        try:
            if extension not in parsers:
                raise ValueError(f"expected a .txt, .csv or .json file, found {extension or 'no extension'}")
            return cls(tuple(parsers[extension](read_bytes(location).decode("utf-8-sig"))))
        except (OSError, ValueError) as error:
            raise ClipfoldError(
                f"the class map cannot be used: {error}",
                fix="`clipfold convert --help` shows what such a file looks like",
                file=str(location),
            ) from error

    def label(self, label: str | None) -> tuple[bool, str | None]:
        """Whether sources of a class are kept, and under which class."""
        if label is None:
            return True, None
        named = dict(self.pairs)
        new = named.get(label, named.get(REST, label))
        new = label if new == REST else new
        return new is not None, new

    def apply(self, found: Found) -> Found:
        """Sources under the classes of the corpus; those that are dropped are among the ignored ones.

        Raises:
            SourceError: None is left.
        """
        if not self.pairs:
            return found
        sources, ignored = [], list(found.ignored)
        for source in found.sources:
            is_kept, label = self.label(source.label)
            if is_kept:
                sources.append(replace(source, label=label))
            else:
                ignored.append(Ignored(name=source.name, reason=f"the class map drops {source.label!r}"))
        unused = self.unused(source.label for source in found.sources if source.label is not None)
        ignored += [Ignored(name="class map", reason=f"no source has the class {line}") for line in unused]
        if not sources:
            raise SourceError(
                f"nothing to read: the class map drops all of {len(found.sources)} sources",
                fix="name the classes as the folders or the table do",
            )
        return Found(sources=sources, ignored=ignored)

    def order(self, labels: Iterable[str], *, after: Iterable[str] = ()) -> list[str]:
        """The classes of a corpus, in the order of their numbers.

        Args:
            labels: Classes that its sources have, as :meth:`label` gave them.
            after: Classes that have numbers already.
        """
        named = [new for _, new in self.pairs if new not in (None, REST)]
        return list(dict.fromkeys([*after, *(new for new in named if new is not None), *sorted(set(labels))]))

    def unused(self, labels: Iterable[str]) -> list[str]:
        """What is named but no source's class, each with the class that may have been meant."""
        known = sorted(set(labels))
        lines = []
        for old in (old for old, _ in self.pairs if old != REST and old not in known):
            close = get_close_matches(old, known, n=1)
            lines.append(f"{old!r}, did you mean {close[0]!r}?" if close else f"{old!r}")
        return lines


def _parse_text(text: str) -> list[Pair]:
    lines = [line.strip() for line in text.splitlines()]
    pairs = []
    for line in lines:
        if line and not line.startswith("#"):
            old, arrow, new = (part.strip() for part in line.partition("->"))
            pairs.append((old, _new(new) if arrow else old))
    return pairs


def _parse_csv(text: str) -> list[Pair]:
    rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    if wrong := [row for row in rows if len(row) > 2]:
        raise ValueError(f"row {wrong[0]}, expected one or two columns")
    return [(row[0].strip(), _new(row[1].strip()) if len(row) == 2 else row[0].strip()) for row in rows]


def _parse_json(text: str) -> list[Pair]:
    value = json.loads(text, object_pairs_hook=list)  # a list of pairs: a name that is there twice shows
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [(name, name) for name in value]
    if isinstance(value, list) and all(isinstance(each, tuple) and isinstance(each[1], str | None) for each in value):
        return [(old, _new(new)) for old, new in value]
    raise ValueError("expected names of classes by name, or a list of names")


def _new(text: str | None) -> str | None:
    return None if text in (None, "", "-") else text
