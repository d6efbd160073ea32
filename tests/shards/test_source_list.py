"""The frozen list: its order, its splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfold.errors import SourceError
from clipfold.ingest.sources import Member, Source
from clipfold.shards.source_list import (
    assign_splits,
    freeze,
    load_source_list,
    parse_split,
    quotas,
    save_source_list,
)


def source(name, *, split=None, group=None):
    label = name.split("/")[0] if "/" in name else None
    return Source(
        name=name,
        path=f"/somewhere/{name}",
        kind="video",
        label=label,
        split=split,
        group=group or name,
        num_bytes=5,
        mtime_ns=7,
    )


shares = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)).filter(any)
classes = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 40), min_size=1, max_size=6)


@given(shares, classes)
def test_every_class_keeps_to_its_quota(weights, sizes):
    parts = [Fraction(weight, sum(weights)) for weight in weights]
    groups = [(label, f"{label}/{n}") for label, size in sizes.items() for n in range(size)]
    splits = assign_splits(groups, parts)
    assert len(splits) == len(groups)
    for label, size in sizes.items():
        found = Counter(splits[group] for name, group in groups if name == label)
        for name, share in zip(("train", "val", "test"), parts, strict=True):
            exact = size * share
            if share == 0:
                assert found[name] == 0
            elif size == 1 or exact < 1:
                assert found[name] <= 1
            else:
                # rounded down or up; one less where the largest share, which would get nothing, was served first
                assert exact - 2 < found[name] < exact + 1
            if exact.denominator == 1 and all((size * other).denominator == 1 for other in parts):
                assert found[name] == exact


@given(shares, st.integers(1, 30), st.integers(1, 40))
def test_small_classes_together_keep_to_the_shares(weights, num_classes, size):
    """What one class is owed the next one gets: the error does not grow with the number of classes."""
    parts = [Fraction(weight, sum(weights)) for weight in weights]
    if min(size * share for share in parts if share == max(parts)) < 1:
        return  # classes of which the largest share gets less than one favour it on purpose
    groups = [(f"c{k:02d}", f"c{k:02d}/{n}") for k in range(num_classes) for n in range(size)]
    found = Counter(assign_splits(groups, parts).values())
    for name, share in zip(("train", "val", "test"), parts, strict=True):
        # each class gives floor or ceiling, chosen by what is owed: with three parts no debt passes two
        assert abs(found[name] - len(groups) * share) <= 2


def test_the_example():
    assert quotas(10, parse_split("0.8/0.1/0.1")) == [8, 1, 1]
    assert quotas(10, parse_split("1/0/0")) == [10, 0, 0]
    assert quotas(1, parse_split("0.8/0.1/0.1")) == [1, 0, 0]
    assert quotas(4, parse_split("0.5/0/0.5")) == [2, 0, 2]
    assert quotas(0, parse_split("0.8/0.1/0.1")) == [0, 0, 0]


def test_splits_depend_on_names_alone_and_groups_stay_whole():
    names = [f"{'ab'[n % 2]}/{n}" for n in range(40)]
    sources = [source(name, group=f"g{n // 4}") for n, name in enumerate(names)]
    whole = freeze(sources, split="0.5/0.25/0.25")
    turned = freeze(sources[::-1], split="0.5/0.25/0.25")
    assert whole == turned
    by_group = {}
    for each in whole:
        by_group.setdefault(each.group, set()).add(each.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert {each.split for each in whole} == {"train", "val", "test"}


def test_numbers_follow_a_hash_of_the_name():
    listed = freeze([source(f"{label}/{n}") for label in "abc" for n in range(20)], split=None)
    assert [each.number for each in listed] == list(range(60))
    assert len({each.label for each in listed[:12]}) == 3  # neighbours are not of one class
    assert {each.split for each in listed} == {"train"}


def test_folders_give_splits():
    listed = freeze([source("a/1", split="test"), source("a/2", split="val")], split=None)
    assert {each.name: each.split for each in listed} == {"a/1": "test", "a/2": "val"}
    with pytest.raises(ValueError, match=r"folders of splits already \(test\)"):
        freeze([source("a/1", split="test")], split="0.8/0.1/0.1")


@pytest.mark.parametrize("text", ["", "0.8/0.2", "0.8/0.1/0.2", "1/-1/1", "a/b/c", "0.5/0.5/1/0", "1/0/0/0"])
def test_wrong_shares(text):
    with pytest.raises(ValueError, match="expected three shares"):
        parse_split(text)


def test_the_list_comes_back_from_its_file(tmp_path):
    listed = freeze([source("ä/1 2.mp4"), source("b/\u2028.mp4"), source("plain.mp4")], split=None)
    save_source_list(tmp_path / "sources.jsonl", listed)
    assert load_source_list(tmp_path / "sources.jsonl") == listed
    (tmp_path / "sources.jsonl").write_text('{"number": 1}\n')
    with pytest.raises(SourceError, match="cannot be read"):
        load_source_list(tmp_path / "sources.jsonl")


def test_all_that_reading_needs_comes_back_from_the_file(tmp_path):
    """Kind, part and members of a source are in its line, machine's paths are not."""
    sources = [
        replace(source("a/v.mp4"), name="a/v.mp4@1.5-3", start_seconds=1.5, stop_seconds=3.0, columns={"age": 3}),
        replace(source("a/x.npy"), kind="array", columns={"age": 2}),
        replace(source("t.tar"), name="t.tar/k", kind="sample", members=(Member("mp4", 512, 99),), columns={"age": 1}),
        replace(source("seq"), kind="frames", frames=("1.png", "2.png"), columns={}),
    ]
    listed = freeze(sources, split=None)
    save_source_list(tmp_path / "sources.jsonl", listed)
    assert load_source_list(tmp_path / "sources.jsonl") == listed
    assert "/somewhere" not in (tmp_path / "sources.jsonl").read_text()
    found = {each.name: (dict(each.reading), dict(each.columns)) for each in listed}
    assert found == {
        "a/v.mp4@1.5-3": ({"start_seconds": 1.5, "stop_seconds": 3.0}, {"age": 3}),
        "a/x.npy": ({"kind": "array"}, {"age": 2}),
        "t.tar/k": ({"kind": "sample", "members": [{"name": "mp4", "offset": 512, "num_bytes": 99}]}, {"age": 1}),
        "seq": ({"kind": "frames"}, {"age": 0}),
    }
