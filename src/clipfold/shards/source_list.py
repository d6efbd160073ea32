"""``sources.jsonl``: what a corpus is made from, in which order and for which split, frozen before any work.

A source's number is its place in the order of a hash of its name, so that neighbours in a shard are not of one class
(a listing in the order of the folders would put them together) and the order depends on nothing but the names.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any

import xxhash

from clipfold.errors import SourceError
from clipfold.files import Location, read_bytes, write_whole
from clipfold.ingest.sources import SPLITS, Source

__all__ = [
    "ListedSource",
    "assign_splits",
    "freeze",
    "load_source_list",
    "parse_split",
    "quotas",
    "save_source_list",
]


@dataclass(frozen=True, kw_only=True)
class ListedSource:
    """One line of ``sources.jsonl``.

    Args:
        number: Its place in the list, from 0; the first half of its samples' keys.
        name: Its path relative to the root.
        num_bytes: Size of the file, or of all frames of a folder.
        mtime_ns: Time of the last change, or of the newest frame's.
        split: ``"train"``, ``"val"`` or ``"test"``.
        label: Name of its class; ``None`` without one.
        group: What splits never tear.
    """

    number: int
    name: str
    num_bytes: int
    mtime_ns: int
    split: str
    label: str | None
    group: str


def freeze(sources: Iterable[Source], *, split: str | None) -> list[ListedSource]:
    """Order and number the sources and give each its split.

    Args:
        sources: As found, in any order.
        split: Shares such as ``"0.8/0.1/0.1"``; ``None`` takes the split of each source's folder, and ``"train"``
            where it has none.

    Raises:
        ValueError: ``split`` is not three shares, or the folders have splits already.
    """
    ordered = sorted(sources, key=lambda source: (_hash(source.name), source.name))
    splits = _splits(ordered, split)
    return [
        ListedSource(
            number=number,
            name=source.name,
            num_bytes=source.num_bytes,
            mtime_ns=source.mtime_ns,
            split=splits[source.name],
            label=source.label,
            group=source.group,
        )
        for number, source in enumerate(ordered)
    ]


def _splits(sources: Sequence[Source], split: str | None) -> dict[str, str]:
    if split is None:
        return {source.name: source.split or SPLITS[0] for source in sources}
    shares = parse_split(split)
    if found := sorted({source.split for source in sources if source.split}):
        raise ValueError(
            f"split {split!r}, but the sources lie in folders of splits already ({', '.join(found)}): leave it out, or "
            "name one of these folders as the source"
        )
    by_group = assign_splits([(source.label, source.group) for source in sources], shares)
    return {source.name: by_group[source.group] for source in sources}


def parse_split(text: str) -> tuple[Fraction, ...]:
    """The shares in ``"0.8/0.1/0.1"``: train, val and test, exactly as written.

    Raises:
        ValueError: Not three numbers from 0 to 1 that add up to 1.
    """
    try:
        shares = tuple(Fraction(part.strip()) for part in text.split("/"))
    except (ValueError, ZeroDivisionError):
        shares = ()
    if len(shares) != len(SPLITS) or min(shares) < 0 or sum(shares) != 1:
        raise ValueError(
            f"split: {text!r}, expected three shares of train, val and test that add up to 1, such as '0.8/0.1/0.1' "
            "(a share may be 0)"
        )
    return shares


def assign_splits(groups: Iterable[tuple[str | None, str]], shares: Sequence[Fraction]) -> dict[str, str]:
    """A split for every group, by quota within each class and by a hash of the group's name.

    What does not divide evenly in one class is made up for in the next: 100 classes of 3 groups give val and test
    their tenths although no such class alone could.

    Args:
        groups: (class, group) of every source, repeats included. A group of several classes counts for the first one
            in the order of their names.
        shares: Of train, val and test, adding up to 1.

    Returns:
        The split of each group.
    """
    class_of: dict[str, str] = {}
    for label, group in groups:
        class_of[group] = min(label or "", class_of.get(group, label or ""))
    members: dict[str, list[str]] = defaultdict(list)
    for group, label in class_of.items():
        members[label].append(group)
    owed = [Fraction(0)] * len(shares)
    splits: dict[str, str] = {}
    for label in sorted(members):
        ordered = sorted(members[label], key=lambda group: (_hash(f"split\0{group}"), group))
        counts = quotas(len(ordered), shares, owed)
        owed = [before + len(ordered) * share - num for before, share, num in zip(owed, shares, counts, strict=True)]
        start = 0
        for name, num in zip(SPLITS, counts, strict=True):
            splits.update(dict.fromkeys(ordered[start : start + num], name))
            start += num
    return splits


def quotas(num: int, shares: Sequence[Fraction], owed: Sequence[Fraction] | None = None) -> list[int]:
    """Divide ``num`` things by shares: each part gets its quota rounded down or up, a share of 0 nothing.

    The largest share is served first where it would get nothing (a class of one goes to train); what is then left goes
    to the largest remainders, to which what a part is still owed from before is added; then to the earlier part.

    Example:
        >>> quotas(10, parse_split("0.8/0.1/0.1"))
        [8, 1, 1]
        >>> quotas(1, parse_split("0.8/0.1/0.1"))
        [1, 0, 0]
    """
    exact = [num * share for share in shares]
    counts = [floor(value) for value in exact]
    largest = max(range(len(shares)), key=lambda part: shares[part])
    if num and not counts[largest]:
        counts[largest] = 1
    waiting = [part for part in range(len(shares)) if shares[part] and counts[part] < exact[part]]
    claims = {part: exact[part] - counts[part] + (owed[part] if owed else 0) for part in waiting}
    for part in sorted(waiting, key=lambda part: -claims[part])[: num - sum(counts)]:
        counts[part] += 1
    return counts


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def save_source_list(path: Location, sources: Iterable[ListedSource]) -> None:
    """Write ``sources.jsonl``, whole or not at all.

    Raises:
        OSError: The disk is full, or the folder is missing or read-only.
    """
    write_whole(path, "".join(json.dumps(asdict(source), ensure_ascii=False) + "\n" for source in sources))


def load_source_list(path: Location) -> list[ListedSource]:
    """Read ``sources.jsonl``.

    Raises:
        SourceError: It is not a list that :func:`freeze` made.
        OSError: It cannot be read.
    """
    try:
        found = [_parse(json.loads(line)) for line in read_bytes(path).splitlines()]
        if any(after.number <= before.number for before, after in pairwise(found)) or (found and found[0].number < 0):
            raise ValueError("the numbers do not rise")  # there may be gaps: a part of a corpus keeps its numbers
    except ValueError as error:
        raise SourceError(
            f"the frozen list of sources cannot be read: {error}", fix="convert into a new folder", file=str(path)
        ) from error
    return found


def _parse(value: Mapping[str, Any]) -> ListedSource:
    if set(value) != {field.name for field in fields(ListedSource)} or value["split"] not in SPLITS:
        raise ValueError(f"line {str(value)[:200]}")
    return ListedSource(**value)
