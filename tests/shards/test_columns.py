"""Columns: the same names and types in every sample."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace

import pytest

from clipfold.shards import wanted as module
from clipfold.shards.columns import column_kinds, conform
from clipfold.shards.convert import convert
from clipfold.shards.source_list import freeze, load_source_list, save_source_list


def test_types_are_those_of_all_values():
    rows = [
        {"a": 1, "b": 1, "c": True, "d": "x"},
        {"a": 2.5, "b": 2, "c": False, "e": None},
        {"d": 3, "f": float("nan")},
    ]
    kinds = column_kinds(rows)
    assert kinds == {"a": float, "b": int, "c": bool, "d": str, "e": str, "f": str}
    assert conform(rows[0], kinds, name="x") == {"a": 1.0, "b": 1, "c": True, "d": "x", "e": "", "f": ""}
    assert conform(rows[2], kinds, name="x") == {"a": 0.0, "b": 0, "c": False, "d": "3", "e": "", "f": ""}
    for row in rows:
        assert {name: type(value) for name, value in conform(row, kinds, name="x").items()} == kinds


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="columns fps, label: every sample has a field of this name"):
        column_kinds([{"fps": 3, "label": "x", "mine": 1}])
    with pytest.raises(ValueError, match="column 'a' holds list"):
        column_kinds([{"a": [1]}])
    with pytest.raises(ValueError, match="columns b of x: the corpus has a"):
        conform({"b": 1}, {"a": int}, name="x")
    with pytest.raises(ValueError, match="column 'a' of x: 'word', expected a whole number"):
        conform({"a": "word"}, {"a": int}, name="x")
    with pytest.raises(ValueError, match="column 'a' of x: inf, expected a finite number"):
        conform({"a": float("inf")}, {"a": float}, name="x")


@pytest.fixture
def with_columns(monkeypatch):
    """Sources have columns, as those of a table have: each its number, the others a place."""
    find_sources = module.find_sources

    def find(*args, **kwargs):
        found = find_sources(*args, **kwargs)
        sources = [
            replace(source, columns={"number": n} if n % 2 else {"place": "inside", "number": None})
            for n, source in enumerate(found.sources)
        ]
        return replace(found, sources=sources)

    monkeypatch.setattr(module, "find_sources", find)
    return find


def test_columns_are_in_every_sample(scripted, tmp_path, with_columns):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(6))
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **{**scripted.OPTIONS, "split": None})
    listed = {source.name: source.columns for source in load_source_list(tmp_path / "out/sources.jsonl")}
    assert listed["b/v05.mp4"] == {"number": 5, "place": ""}
    for path in (tmp_path / "out/train").glob("*.tar"):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if name.endswith(".json"):
                    meta = json.load(tar.extractfile(name))
                    assert {key: meta[key] for key in ("number", "place")} == listed[meta["source"]]


def test_lists_keep_columns(scripted, tmp_path, with_columns):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(6))
    listed = freeze(with_columns(tmp_path / "src").sources, split=None)
    save_source_list(tmp_path / "sources.jsonl", listed)
    assert load_source_list(tmp_path / "sources.jsonl") == listed
