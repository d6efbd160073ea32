"""Which samples of which corpora are kept, under which numbers, labels and splits: a function of the inputs alone.

::

    Input (corpus, its sources, its skipped ones)  --look_through--> .json places, wanted samples
        \\__ merged: classes by name, sources in the order of a hash of their names, columns --> RepackPlan
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipfold.errors import ClipfoldError, ShardError
from clipfold.shards.index import parse_key, sample_key
from clipfold.shards.reader import Corpus
from clipfold.shards.repack_inputs import Input, Selection
from clipfold.shards.repack_task import Sample
from clipfold.shards.source_list import ListedSource, assign_splits, parse_split
from clipfold.shards.summary import Skipped

__all__ = ["ROW_DTYPE", "RepackPlan", "Unit", "plan_repacking"]

_DEFAULTS: dict[str, Any] = {"str": "", "int": 0, "float": 0.0, "bool": False}

ROW_DTYPE = np.dtype(
    [("tar", "<i4")]  # place in a list of tars
    + [(name, "<i8") for name in ("source", "clip", "num_valid_frames", "offset", "size")]
    + [("xxh3", "<u8"), ("json_offset", "<i8"), ("json_size", "<i8")]
)

Found = Mapping[tuple[int, str, int], NDArray[Any]]  # FOUND_DTYPE by (number of the input, split, shard)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A source whose clips are kept, some or all.

    Args:
        listed: The source as the new corpus lists it.
        input: Number of the input that it is from.
        rows: ROW_DTYPE, its kept samples in the order of their clips.
        tars: Where the shards are that the rows speak of.
    """

    listed: ListedSource
    input: int
    rows: NDArray[Any]
    tars: Sequence[str]

    def samples(self) -> tuple[Sample, ...]:
        """Its kept samples, in the order of their clips."""
        fields = ROW_DTYPE.names or ()
        rows = (dict(zip(fields, row, strict=True)) for row in self.rows.tolist())
        return tuple(Sample(tar=self.tars[row.pop("tar")], **row) for row in rows)


@dataclass(frozen=True, kw_only=True)
class RepackPlan:
    """Everything that the inputs and the options decide.

    Args:
        units: In the order of their new numbers.
        listed: All lines of the new ``sources.jsonl``.
        skipped: All lines of the new ``skipped.jsonl``.
        classes: Names of the new classes.
        columns: For each input, what its ``.json`` members lack or have as another kind of number.
        keeps_train: Whether the train split holds the very clips of the inputs' train splits.
        num_left_out: Samples that are not kept.
        notes: What should be known.
    """

    units: list[Unit]
    listed: list[ListedSource]
    skipped: list[Skipped]
    classes: list[str]
    columns: list[dict[str, Any]]
    keeps_train: bool
    num_left_out: int
    notes: list[str] = field(default_factory=list)


# ---- what is kept ----


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A source of an input on its way to a unit."""

    source: ListedSource
    input: int
    split: str
    label: str | None
    rows: NDArray[Any]
    tars: Sequence[str]


def plan_repacking(
    inputs: Sequence[Input],
    found: Found,
    kinds: Sequence[Mapping[str, str]],
    *,
    selection: Selection,
    split: str | None,
) -> RepackPlan:
    """Decide about everything.

    Args:
        inputs: The corpora.
        found: What :func:`look_through` found in each shard.
        kinds: For each input, the kinds of its columns.
        selection: What is kept.
        split: Shares of train, val and test; ``None`` leaves every source in its split.

    Raises:
        ValueError: A class or a key is not there, or the selection takes nothing.
        ClipfoldError: The columns of the inputs do not fit together.
        ShardError: An input lists another source for a sample than it should.
    """
    _check_selection(inputs, selection)
    kept: list[_Kept] = []
    num_left_out, keeps_train = 0, split is None
    for number, each in enumerate(inputs):
        of_input, left_out = _kept_of(number, each, found, selection)
        kept += of_input
        num_left_out += sum(left_out.values())
        keeps_train = keeps_train and not left_out["train"]
    if not kept:
        raise ValueError(f"repack: the selection takes none of the {num_left_out:,} samples")
    numbers = _new_numbers(inputs, kept, takes_all=selection.takes_all)
    splits = _new_splits(kept, split)
    columns = _new_columns(kinds)
    units = [
        Unit(
            listed=replace(
                each.source,
                number=numbers[each.input, each.source.number],
                split=splits[each.input, each.source.number],
                label=each.label,
                columns=_filled(each.source.columns, columns[each.input]),
            ),
            input=each.input,
            rows=each.rows,
            tars=each.tars,
        )
        for each in kept
    ]
    units.sort(key=lambda unit: unit.listed.number)
    listed = {unit.listed.number: unit.listed for unit in units}
    for (number, old), new in numbers.items():
        source = inputs[number].sources[old]
        listed.setdefault(new, replace(source, number=new, columns=_filled(source.columns, columns[number])))
    return RepackPlan(
        units=units,
        listed=[listed[number] for number in sorted(listed)],
        skipped=_new_skipped(inputs, numbers),
        classes=_new_classes(inputs, selection),
        columns=columns,
        keeps_train=keeps_train,
        num_left_out=num_left_out,
        notes=_torn_groups(units),
    )


def _check_selection(inputs: Sequence[Input], selection: Selection) -> None:
    known = {name for each in inputs for name in each.corpus.classes}
    if unknown := [name for name in selection.classes if name not in known]:
        shown = ", ".join(sorted(known)[:20]) or "none: the samples have no labels"
        raise ValueError(f"classes: {unknown[0]!r} is no class of the corpus, expected some of: {shown}")
    if selection.keys is not None and len(inputs) > 1:
        raise ValueError("keys: a key names a sample of one corpus, but several are given; repack that one alone first")
    if selection.keys is not None:
        _check_keys(inputs[0].corpus, selection.keys)


def _kept_of(number: int, each: Input, found: Found, selection: Selection) -> tuple[list[_Kept], Counter[str]]:
    """The sources of an input with their kept samples, and how many samples of each split are left out."""
    corpus, kept, left_out = each.corpus, list[_Kept](), Counter[str]()
    tars: list[str] = []
    for split in corpus.splits:
        pieces, labels = [], []
        for shard in corpus.shard_table(split)["number"].tolist():
            index, places = corpus.index(split, shard), found[number, split, shard]
            is_kept = _is_kept(index, places, corpus.classes, selection)
            left_out[split] += int((~is_kept).sum())
            rows = np.zeros(int(is_kept.sum()), ROW_DTYPE)
            for name in ROW_DTYPE.names or ():
                if name != "tar":
                    rows[name] = (places if name.startswith("json") else index)[name][is_kept]
            rows["tar"] = len(tars)
            tars.append(corpus.tar_location(split, shard))
            pieces.append(rows)
            labels.append(index["label"][is_kept])
        kept += _by_source(number, each, split, np.concatenate(pieces), np.concatenate(labels), tars)
    for source, times in Counter(one.source.number for one in kept).items():
        if times > 1:
            raise _foreign(corpus, f"source {source} is in several splits")
    return kept, left_out


def _is_kept(
    index: NDArray[Any], places: NDArray[Any], classes: Sequence[str], selection: Selection
) -> NDArray[np.bool_]:
    is_kept: NDArray[np.bool_] = places["is_wanted"] != 0
    if selection.classes:
        is_kept &= np.isin(index["label"], [label for label, name in enumerate(classes) if name in selection.classes])
    if selection.keys is not None:
        is_kept &= np.isin(_packed(index), _packed_keys(selection.keys))
    return is_kept


def _by_source(
    number: int, each: Input, split: str, rows: NDArray[Any], labels: NDArray[Any], tars: Sequence[str]
) -> list[_Kept]:
    """The rows of a split, divided by their source."""
    if not len(rows):
        return []
    order = np.lexsort((rows["clip"], rows["source"]))
    rows, labels = rows[order], labels[order]
    starts = np.flatnonzero(np.diff(rows["source"], prepend=-1))
    kept = []
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        source, label = int(rows["source"][start]), int(labels[start])
        if source not in each.sources:
            raise _foreign(each.corpus, f"source {source} of its index is not listed")
        if (labels[start:stop] != label).any():
            raise _foreign(each.corpus, f"the clips of source {source} are of different classes")
        name = each.corpus.classes[label] if label >= 0 else None
        kept.append(
            _Kept(source=each.sources[source], input=number, split=split, label=name, rows=rows[start:stop], tars=tars)
        )
    return kept


def _foreign(corpus: Corpus, what: str) -> ShardError:
    return ShardError(f"the corpus is not one that clipfold made: {what}", file=corpus.root)


def _check_keys(corpus: Corpus, keys: Collection[str]) -> None:
    """Every key that was asked for is there."""
    missing = set(_packed_keys(keys).tolist())
    for split in corpus.splits:
        for shard in corpus.shard_table(split)["number"].tolist():
            missing.difference_update(_packed(corpus.index(split, shard)).tolist())
    if missing:
        shown = sample_key(min(missing) >> 32, min(missing) & 0xFFFFFFFF)
        raise ValueError(f"keys: no sample {shown!r} in the corpus ({len(missing):,} of {len(keys):,} are missing)")


def _packed_keys(keys: Collection[str]) -> NDArray[np.int64]:
    return np.array([(source << 32) + clip for source, clip in map(parse_key, sorted(keys))], np.int64)


def _packed(index: NDArray[Any]) -> NDArray[np.int64]:
    """Source and clip of each row as one number."""
    packed: NDArray[np.int64] = (index["source"] << 32) + index["clip"]
    return packed


# ---- under which names ----


def _new_numbers(inputs: Sequence[Input], kept: Sequence[_Kept], *, takes_all: bool) -> dict[tuple[int, int], int]:
    """The number of each listed source: the old one where there is one input, so that keys stay what they are.

    Several inputs are mixed by a hash of the sources' names, so that neighbours are not of one input.
    """
    if takes_all:  # what could not be converted stays in the list
        sources = [(number, source) for number, each in enumerate(inputs) for source in each.sources.values()]
    else:
        sources = [(each.input, each.source) for each in kept]
    if len(inputs) == 1:
        return {(number, source.number): source.number for number, source in sources}
    sources.sort(
        key=lambda pair: (xxhash.xxh3_64_intdigest(pair[1].name.encode()), pair[1].name, pair[0], pair[1].number)
    )
    return {(number, source.number): place for place, (number, source) in enumerate(sources)}


def _new_splits(kept: Sequence[_Kept], split: str | None) -> dict[tuple[int, int], str]:
    if split is None:
        return {(each.input, each.source.number): each.split for each in kept}
    by_group = assign_splits([(each.label, each.source.group) for each in kept], parse_split(split))
    return {(each.input, each.source.number): by_group[each.source.group] for each in kept}


def _new_skipped(inputs: Sequence[Input], numbers: Mapping[tuple[int, int], int]) -> list[Skipped]:
    skipped = [
        replace(each, number=numbers[number, each.number])
        for number, of_input in enumerate(inputs)
        for each in of_input.skipped
        if (number, each.number) in numbers
    ]
    return sorted(skipped, key=lambda each: each.number)


def _new_classes(inputs: Sequence[Input], selection: Selection) -> list[str]:
    """The first input's classes, then those that others add; only those that were asked for."""
    names = list(dict.fromkeys(name for each in inputs for name in each.corpus.classes))
    return [name for name in names if not selection.classes or name in selection.classes]


def _new_columns(kinds: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """What each input's ``.json`` members have to be given so that all have the same names and types."""
    together: dict[str, str] = {}
    for name, kind in ((name, kind) for each in kinds for name, kind in each.items()):
        before = together.setdefault(name, kind)
        if {before, kind} == {"int", "float"}:
            together[name] = "float"
        elif before != kind:
            raise ClipfoldError(
                f"the corpora do not agree about the column {name!r}: {before} in one, {kind} in another",
                fix="convert one of them again with that column renamed or of the other type",
            )
    columns: list[dict[str, Any]] = []
    for each in kinds:
        lacks = [name for name in sorted(together) if each.get(name) != together[name]]
        if stuck := [name for name in lacks if together[name] not in _DEFAULTS]:
            raise ClipfoldError(
                f"one of the corpora lacks the column {stuck[0]!r}, a {together[stuck[0]]}, which has no empty value",
                fix="convert one of them again, with or without that column",
            )
        columns.append({name: _DEFAULTS[together[name]] for name in lacks})
    return columns


def _filled(own: Mapping[str, Any], lacks: Mapping[str, Any]) -> dict[str, Any]:
    """A source's columns with those that it lacks, and numbers of the type that the others have."""
    filled = {name: float(value) if isinstance(lacks.get(name), float) else value for name, value in own.items()}
    return {name: filled.get(name, lacks.get(name)) for name in sorted({*own, *lacks})}


def _torn_groups(units: Sequence[Unit]) -> list[str]:
    """Groups whose sources are in several splits, as merging can make them."""
    splits: dict[str, set[str]] = defaultdict(set)
    for unit in units:
        splits[unit.listed.group].add(unit.listed.split)
    torn = sorted(group for group, names in splits.items() if len(names) > 1)
    if not torn:
        return []
    return [
        f"{len(torn)} groups are in several splits, such as {torn[0]!r}: if these are the same recordings, split anew"
    ]
