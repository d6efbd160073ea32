"""Appending: only what is new, behind what is there, whose shards stay as they are; the same bytes however done."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfold.errors import ClipfoldError, SourceError
from clipfold.shards import completion
from clipfold.shards import conversion as module
from clipfold.shards.convert import convert
from clipfold.shards.reader import Corpus
from clipfold.shards.source_list import assign_splits, continue_splits, load_source_list
from clipfold.shards.staging import Staging
from clipfold.shards.verify import verify
from clipfold.shards.writer import ShardWriter


def first_then_more(scripted, tmp_path, out="out", *, more=None, **options):
    """A corpus of 8 sources; then further sources beside them."""
    src = tmp_path / "src"
    if not src.exists():
        scripted.write_sources(src, scripted.good_sources(8))
    convert(src, out=tmp_path / out, num_workers=2, **{**scripted.OPTIONS, **options})
    before = scripted.content(tmp_path / out)
    return src, before, more or {"a/w1.mp4": {}, "c/w2.mp4": {"num_frames": 20}, "b/w3.mp4": {}, "c/bad.mp4": BAD}


BAD = {"open": "broken"}


def test_append_converts_what_is_new_and_leaves_the_rest_alone(scripted, tmp_path):
    src, before, more = first_then_more(scripted, tmp_path)
    scripted.write_sources(src, more)
    named = convert(src, out=tmp_path / "out", **scripted.OPTIONS)
    assert named.was_finished
    assert named.new == sorted(more)
    assert "4 sources are not in the corpus; --append converts them" in str(named)
    assert scripted.content(tmp_path / "out") == before

    summary = convert(src, out=tmp_path / "out", num_workers=2, append=True, **scripted.OPTIONS)
    after = scripted.content(tmp_path / "out")
    assert (summary.num_sources, summary.num_converted, summary.num_appended, summary.num_new) == (12, 11, 4, 0)
    assert [(each.name, each.reason) for each in summary.skipped] == [("c/bad.mp4", "decode")]
    for name, data in before.items():
        if name.endswith((".tar", ".idx", ".index.npy")):
            assert after[name] == data
    assert after["sources.jsonl"].startswith(before["sources.jsonl"])
    corpus = Corpus(tmp_path / "out")
    assert corpus.classes == ["a", "b", "c"]
    assert verify(tmp_path / "out").ok
    old = json.loads(before["dataset.json"])
    for split, totals in corpus.splits.items():
        assert totals.num_samples == sum(summary.clips[split].values())
        num_old = old["splits"].get(split, {"num_shards": 0})["num_shards"]
        new = [corpus.index(split, number)["source"] for number in range(num_old, totals.num_shards)]
        assert all((numbers >= 8).all() for numbers in new)

    again = convert(src, out=tmp_path / "out", append=True, **scripted.OPTIONS)
    assert again.was_finished
    assert scripted.content(tmp_path / "out") == after


def test_mean_and_totals_are_those_of_everything(scripted, tmp_path):
    src, _, more = first_then_more(scripted, tmp_path, split=None)
    scripted.write_sources(src, more)
    appended = convert(src, out=tmp_path / "out", append=True, **{**scripted.OPTIONS, "split": None})
    at_once = convert(src, out=tmp_path / "at_once", **{**scripted.OPTIONS, "split": None})
    assert (appended.clips, appended.num_clips) == (at_once.clips, at_once.num_clips)
    ours, theirs = Corpus(tmp_path / "out").manifest, Corpus(tmp_path / "at_once").manifest
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert ours.provenance["sums"] == theirs.provenance["sums"]


@pytest.mark.slow
def test_the_same_bytes_for_any_number_of_workers_and_however_often_interrupted(scripted, tmp_path, monkeypatch):
    expected = None
    for num_workers in (1, 3):
        src, _, more = first_then_more(scripted, tmp_path / str(num_workers))
        scripted.write_sources(src, more)
        out = tmp_path / str(num_workers) / "out"
        convert(src, out=out, num_workers=num_workers, append=True, **scripted.OPTIONS)
        expected = expected or scripted.content(out)
        assert scripted.content(out) == expected

    class Killed(BaseException):
        pass

    src, _, more = first_then_more(scripted, tmp_path / "killed")
    scripted.write_sources(src, more)
    out = tmp_path / "killed" / "out"
    steps_left = 0

    def killing(function):
        def step(*args, **kwargs):
            nonlocal steps_left
            if steps_left == 0:
                raise Killed
            steps_left -= 1
            return function(*args, **kwargs)

        return step

    for owner, name in (
        (Staging, "set_plan"),
        (Staging, "add_source"),
        (Staging, "add_shard"),
        (Staging, "remove_part"),
        (Staging, "remove"),
        (ShardWriter, "append"),
        (module.Base, "keep"),
        (module, "save_source_list"),
        (completion, "save_source_list"),
        (completion, "write_whole"),
        (completion.Manifest, "save"),
    ):
        monkeypatch.setattr(owner, name, killing(getattr(owner, name)))
    for num_steps in (*range(8), *range(8, 80, 3)):
        steps_left = num_steps
        try:
            convert(src, out=out, num_workers=1, append=True, **scripted.OPTIONS)
            break
        except Killed:
            continue
    else:
        pytest.fail("never ended")
    assert scripted.content(out) == expected


def test_an_unfinished_append_is_not_taken_for_a_finished_corpus(scripted, tmp_path, monkeypatch):
    src, _, more = first_then_more(scripted, tmp_path)
    scripted.write_sources(src, more)

    class Killed(BaseException):
        pass

    def kill(self, root):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(completion.Manifest, "save", kill)
        with pytest.raises(Killed):
            convert(src, out=tmp_path / "out", num_workers=1, append=True, **scripted.OPTIONS)
    with pytest.raises(ClipfoldError, match=r"being appended here, and that is not finished(.|\n)*with --append again"):
        convert(src, out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    convert(src, out=tmp_path / "out", num_workers=1, append=True, **scripted.OPTIONS)
    assert verify(tmp_path / "out").ok


def test_append_begins_a_new_corpus_and_finishes_an_unfinished_one(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8))
    convert(tmp_path / "src", out=tmp_path / "plain", **scripted.OPTIONS)
    convert(tmp_path / "src", out=tmp_path / "out", append=True, **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "plain")

    class Killed(BaseException):
        pass

    add_source = Staging.add_source

    def add(self, number, record):
        if number == 4:
            raise Killed
        add_source(self, number, record)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "add_source", add)
        with pytest.raises(Killed):
            convert(tmp_path / "src", out=tmp_path / "other", num_workers=1, **scripted.OPTIONS)
    scripted.write_sources(tmp_path / "src", {"a/late.mp4": {}})
    summary = convert(tmp_path / "src", out=tmp_path / "other", append=True, **scripted.OPTIONS)
    assert (summary.num_sources, summary.num_appended) == (9, 1)
    convert(tmp_path / "src", out=tmp_path / "out", append=True, **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "other")


def test_what_was_left_out_is_tried_again_in_a_finished_corpus(scripted, tmp_path):
    sources = scripted.good_sources(6) | {"a/bad.mp4": BAD, "b/worse.mp4": BAD}
    scripted.write_sources(tmp_path / "src", sources)
    first = convert(tmp_path / "src", out=tmp_path / "out", **scripted.OPTIONS)
    assert first.num_skipped == 2
    before = scripted.content(tmp_path / "out")
    numbers = {each.name: each.number for each in first.skipped}
    (tmp_path / "src/a/bad.mp4").write_text(json.dumps({"num_frames": 9, "seed": 1}))  # somebody mended it
    summary = convert(tmp_path / "src", out=tmp_path / "out", retry_skipped=True, **scripted.OPTIONS)
    assert (summary.num_sources, summary.num_converted, summary.num_appended) == (8, 7, 2)
    assert [each.name for each in summary.skipped] == ["b/worse.mp4"]
    corpus = Corpus(tmp_path / "out")
    listed = {source.name: source for source in load_source_list(tmp_path / "out/sources.jsonl")}
    assert listed["a/bad.mp4"].number == numbers["a/bad.mp4"]
    split = listed["a/bad.mp4"].split
    last = corpus.index(split, corpus.splits[split].num_shards - 1)
    assert set(last["source"].tolist()) == {numbers["a/bad.mp4"]}
    after = scripted.content(tmp_path / "out")
    assert all(
        after[name] == data
        for name, data in before.items()
        if name.endswith((".tar", ".npy", ".idx")) and "shards.npy" not in name
    )
    assert verify(tmp_path / "out").ok


def test_what_does_not_fit_is_refused(scripted, tmp_path):
    src, before, _ = first_then_more(scripted, tmp_path)
    scripted.write_sources(src, {"unlabelled.mp4": {}})
    with pytest.raises(SourceError, match=r"a new source has no label(.|\n)*unlabelled\.mp4"):
        convert(src, out=tmp_path / "out", append=True, **scripted.OPTIONS)
    with pytest.raises(ClipfoldError, match="other options"):
        convert(src, out=tmp_path / "out", append=True, **{**scripted.OPTIONS, "shard_clips": 6})
    assert scripted.content(tmp_path / "out") == before


def test_failures_alone_are_written_down(scripted, tmp_path):
    src, before, more = first_then_more(scripted, tmp_path, more={"a/bad.mp4": BAD})
    scripted.write_sources(src, more)
    summary = convert(src, out=tmp_path / "out", append=True, **scripted.OPTIONS)
    assert (summary.num_appended, summary.num_skipped) == (1, 1)
    after = scripted.content(tmp_path / "out")
    assert {name for name in before if after[name] != before[name]} == {
        "dataset.json",
        "sources.jsonl",
        "skipped.jsonl",
    }
    assert convert(src, out=tmp_path / "out", append=True, **scripted.OPTIONS).was_finished


def test_a_limit_counts_everything(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(6))
    options = {**scripted.OPTIONS, "limit": 4}
    convert(tmp_path / "src", out=tmp_path / "out", **options)
    assert convert(tmp_path / "src", out=tmp_path / "out", append=True, **options).was_finished


def test_another_folder_may_be_appended(scripted, tmp_path):
    first_then_more(scripted, tmp_path)
    scripted.write_sources(tmp_path / "more", {"a/x.mp4": {}})
    summary = convert(tmp_path / "more", out=tmp_path / "out", append=True, **scripted.OPTIONS)
    assert (summary.num_sources, summary.num_appended) == (9, 1)


shares = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)).filter(any)
sizes = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(st.integers(0, 20), st.integers(0, 20)))


@settings(deadline=None)
@given(shares, sizes)
def test_quotas_go_on(weights, classes):
    parts = [Fraction(weight, sum(weights)) for weight in weights]
    names = dict(zip(("train", "val", "test"), parts, strict=True))
    old = [(label, f"{label}/{n}") for label, (num, _) in classes.items() for n in range(num)]
    new = [(label, f"{label}/new{n}") for label, (_, num) in classes.items() for n in range(num)]
    had_splits = assign_splits(old, parts)
    before = [(label, group, had_splits[group]) for label, group in old]
    splits = continue_splits(new, parts, before)
    assert splits == continue_splits(new[::-1], parts, before[::-1])
    assert set(splits) == {group for _, group in new}
    for label, (num_old, num_new) in classes.items():
        had = Counter(split for name, _, split in before if name == label)
        got = Counter(splits[group] for name, group in new if name == label)
        for name, share in names.items():
            if got[name] and had.total() + got.total() > 1:
                # a split gets a group only while it has less than its share of those there are then
                assert had[name] + got[name] < share * (num_old + num_new) + 1 or name == max(names, key=names.get)
            assert share or not got[name]


def test_groups_keep_their_split():
    before = [("a", "g1", "val"), ("a", "g2", "train")]
    halves = [Fraction(1, 2), Fraction(1, 2), Fraction(0)]
    assert continue_splits([("a", "g1"), ("b", "g2")], halves, before) == {"g1": "val", "g2": "train"}


def test_new_files_of_a_run_are_pathless(scripted, tmp_path):
    """Nothing of the machine is in what appending writes."""
    src, _, more = first_then_more(scripted, tmp_path)
    scripted.write_sources(src, more)
    convert(src, out=tmp_path / "out", append=True, **scripted.OPTIONS)
    for data in scripted.content(tmp_path / "out").values():
        assert str(Path(tmp_path)).encode() not in data
    assert np.isfinite(Corpus(tmp_path / "out").manifest.mean).all()
