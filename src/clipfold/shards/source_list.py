"""``sources.jsonl``: what a corpus is made from, in which order and for which split, frozen before any work.

A source's number is its place in the order of a hash of its name, so that neighbours in a shard are not of one class
(a listing in the order of the folders would put them together) and the order depends on nothing but the names.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any

import xxhash

from clipfold.errors import SourceError
from clipfold.files import Location, read_bytes, write_whole
from clipfold.ingest.sources import SPLITS, Source
from clipfold.shards.columns import Column, column_kinds, conform

__all__ = [
    "ListedSource",
    "assign_splits",
    "continue_splits",
    "freeze",
    "load_source_list",
    "parse_split",
    "quotas",
    "reading_fields",
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
        columns: The user's own columns: the same names and types in every line of a corpus.
        reading: What else decides about what is read (the kind of source, start and stop, members of a tar): the
            source's own fields, as JSON values, those with their default left out.
    """

    number: int
    name: str
    num_bytes: int
    mtime_ns: int
    split: str
    label: str | None
    group: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)


_OWN_COLUMNS = {"name", "path", "label", "split", "group", "num_bytes", "mtime_ns", "frames", "columns"}


def reading_fields(source: Source) -> dict[str, Any]:
    """The fields of a source that no other entry of its line holds, as JSON values; its path and frames are not kept:
    they are the machine's, and found again.
    """
    found = {
        each.name: getattr(source, each.name)
        for each in fields(source)
        if each.name not in _OWN_COLUMNS and getattr(source, each.name) != _default(each)
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=asdict))
    return plain


def _default(entry: Any) -> Any:
    if entry.name == "kind":
        return "video"
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def freeze(
    sources: Iterable[Source],
    *,
    split: str | None,
    after: Sequence[ListedSource] = (),
) -> list[ListedSource]:
    """Order and number the sources and give each its split.

    Args:
        sources: As found, in any order; none of them in ``after``.
        split: Shares such as ``"0.8/0.1/0.1"``; ``None`` takes the split of each source's folder, and ``"train"``
            where it has none.
        after: The sources that a corpus has already: numbers and quotas go on behind them, columns are theirs.

    Raises:
        ValueError: ``split`` is not three shares, or the folders have splits already; a column has a name of ours, or
            does not fit those of ``after``.
    """
    ordered = sorted(sources, key=lambda source: (_hash(source.name), source.name))
    splits = _splits(ordered, split, after)
    own = [getattr(source, "columns", {}) for source in ordered]
    kinds = column_kinds([after[0].columns]) if after else column_kinds(own)
    first = after[-1].number + 1 if after else 0
    return [
        ListedSource(
            number=number,
            name=source.name,
            num_bytes=source.num_bytes,
            mtime_ns=source.mtime_ns,
            split=splits[source.name],
            label=source.label,
            group=source.group,
            columns=conform(columns, kinds, name=source.name),
            reading=reading_fields(source),
        )
        for number, (source, columns) in enumerate(zip(ordered, own, strict=True), first)
    ]


def _splits(sources: Sequence[Source], split: str | None, after: Sequence[ListedSource]) -> dict[str, str]:
    if split is None:
        return {source.name: source.split or SPLITS[0] for source in sources}
    shares = parse_split(split)
    if found := sorted({source.split for source in sources if source.split}):
        raise ValueError(
            f"split {split!r}, but the sources lie in folders of splits already ({', '.join(found)}): leave it out, or "
            "name one of these folders as the source"
        )
    groups = [(source.label, source.group) for source in sources]
    if after:
        by_group = continue_splits(groups, shares, [(old.label, old.group, old.split) for old in after])
    else:
        by_group = assign_splits(groups, shares)
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
    class_of = _classes_of(groups)
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


def continue_splits(
    groups: Iterable[tuple[str | None, str]],
    shares: Sequence[Fraction],
    before: Iterable[tuple[str | None, str, str]],
) -> dict[str, str]:
    """A split for every group that joins those which have one; a group that has one keeps it.

    One group after the other, by class and by a hash of its name: among the splits of which its class has less than
    the share, it goes to the one of which all classes together lack most (a class of one to the largest share). So
    in every class, no split that got a new group has a whole group more than its share.

    Args:
        groups: (class, group) of every new source, repeats included.
        shares: Of train, val and test, adding up to 1.
        before: (class, group, split) of every old source.

    Returns:
        The split of each new group.
    """
    old = list(before)
    old_class = _classes_of((label, group) for label, group, _ in old)
    old_split = {group: split for _, group, split in reversed(old)}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for group, split in old_split.items():
        counts[old_class[group]][split] += 1
    total = sum(counts.values(), start=Counter[str]())
    new_class = _classes_of(groups)
    splits: dict[str, str] = {}
    for group in sorted(new_class, key=lambda group: (new_class[group], _hash(f"split\0{group}"), group)):
        if group not in old_split:
            own = counts[new_class[group]]
            chosen = _next_split(own, total, shares)
            own[chosen] += 1
            total[chosen] += 1
        splits[group] = old_split.get(group) or chosen
    return splits


def _next_split(own: Counter[str], total: Counter[str], shares: Sequence[Fraction]) -> str:
    """The split of the next group of a class that has ``own`` so far, where all classes have ``total``."""
    by_name = dict(zip(SPLITS, shares, strict=True))
    largest = max(SPLITS, key=lambda name: by_name[name])
    if not own[largest]:
        return largest
    lacking = [name for name in SPLITS if own[name] < by_name[name] * (own.total() + 1)]
    return max(lacking, key=lambda name: by_name[name] * (total.total() + 1) - total[name])


def _classes_of(groups: Iterable[tuple[str | None, str]]) -> dict[str, str]:
    """The class that each group counts for: the first one in the order of their names."""
    class_of: dict[str, str] = {}
    for label, group in groups:
        class_of[group] = min(label or "", class_of.get(group, label or ""))
    return class_of


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
    write_whole(path, "".join(json.dumps(_line(source), ensure_ascii=False) + "\n" for source in sources))


def _line(source: ListedSource) -> dict[str, Any]:
    """The fields; ``columns`` and ``reading`` only where there are any."""
    value = asdict(source)
    return {name: entry for name, entry in value.items() if name not in ("columns", "reading") or entry}


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
    names = {entry.name for entry in fields(ListedSource)}
    needed = names - {"columns", "reading"}
    if not needed <= set(value) <= names or value["split"] not in SPLITS:
        raise ValueError(f"line {str(value)[:200]}")
    return ListedSource(**value)
