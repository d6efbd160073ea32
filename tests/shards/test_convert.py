"""Conversion: the same bytes however it is done, and one clear message for whatever is wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError, DecodeError, PluginError, SourceError
from clipfold.ingest.sampling import Sampling
from clipfold.ingest.sources import find_sources
from clipfold.shards.convert import convert
from clipfold.shards.index import load_index
from clipfold.shards.reader import Corpus
from clipfold.shards.records import skipped_of, take_outcome
from clipfold.shards.source_list import freeze
from clipfold.shards.summary import load_skipped, skipped_lines
from clipfold.worker import Outcome


def pixels_of(corpus, split="train"):
    """(key, label, pixels) of every sample, in the order of the shards."""
    for row in corpus.shard_table(split):
        tar = Path(corpus.tar_location(split, int(row["number"]))).read_bytes()
        for sample in corpus.index(split, int(row["number"])):
            out = np.empty(corpus.spec.shape_SCHW, np.uint8)
            corpus.codec.decode_into(tar[sample["offset"] : sample["offset"] + sample["size"]], out, corpus.spec)
            yield int(sample["source"]), int(sample["clip"]), int(sample["label"]), out


def test_the_same_bytes_for_any_number_of_workers(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(12) | {"a/bad.mp4": {"open": "broken"}})
    results = []
    for num_workers in (1, 2, 3):
        out = tmp_path / f"out{num_workers}"
        summary = convert(tmp_path / "src", out=out, num_workers=num_workers, **scripted.OPTIONS)
        results.append(scripted.content(out))
        assert (summary.num_sources, summary.num_converted, summary.num_skipped) == (13, 12, 1)
    assert results[0] == results[1] == results[2]
    assert not [name for name in results[0] if ".converting" in name or name.endswith(".tmp")]


def test_the_corpus_is_what_the_sources_hold(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(7))
    options = {**scripted.OPTIONS, "split": None}
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **options)
    corpus = Corpus(tmp_path / "out")
    listed = [json.loads(line) for line in (tmp_path / "out/sources.jsonl").read_text().splitlines()]
    assert corpus.classes == ["a", "b"]
    assert summary.clips == {"train": {"a": summary.clips["train"]["a"], "b": summary.clips["train"]["b"]}}
    values, keys = [], []
    for source, clip, label, pixels_SCHW in pixels_of(corpus):
        path = tmp_path / "src" / listed[source]["name"]
        script = json.loads(path.read_text())
        rng = np.random.default_rng(script["seed"])
        frames = rng.integers(0, 256, (script["num_frames"], 8, 12, 3), dtype=np.uint8)
        indices = np.minimum(np.arange(2 * clip, 2 * clip + 4), len(frames) - 1)
        assert np.array_equal(pixels_SCHW, frames[indices].transpose(0, 3, 1, 2))
        assert corpus.classes[label] == path.parent.name
        values.append(pixels_SCHW[: script["num_frames"]])
        keys.append((source, clip))
    assert keys == sorted(keys)
    assert len(keys) == summary.num_clips == len(set(keys))
    # the mean and standard deviation: both are exact until the last division and square root
    every = np.concatenate(values).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(corpus.manifest.mean, every.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(corpus.manifest.std, every.std(axis=1), rtol=1e-12)


def test_a_finished_corpus_has_nothing_left_to_do(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    first = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    before = scripted.content(tmp_path / "out")
    again = convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **scripted.OPTIONS)
    assert again.was_finished
    assert not first.was_finished
    for name in ("num_sources", "num_converted", "num_clips", "num_bytes", "clips", "skipped"):
        assert getattr(first, name) == getattr(again, name)
    assert scripted.content(tmp_path / "out") == before
    shutil.rmtree(tmp_path / "src")  # the videos are not needed any more
    (tmp_path / "src").mkdir()
    emptied = convert(tmp_path / "src", out=tmp_path / "out", **scripted.OPTIONS)
    assert emptied.was_finished
    assert emptied.num_vanished == 4


def test_a_finished_corpus_does_not_hide_sources_that_cannot_be_listed(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "bad.csv").write_text("title,text\na,b\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.tex").write_text("important")
    for name in ("gone", "bad.parquet", "bad.csv", "notes"):
        with pytest.raises(SourceError):
            convert(tmp_path / name, out=tmp_path / "out", **scripted.OPTIONS)


def test_sources_that_changed_since_the_corpus_was_finished_are_named(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    first = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert (first.num_changed, first.num_vanished) == (0, 0)
    gone, changed = sorted(tmp_path.glob("src/*/*.mp4"))[:2]
    gone.unlink()
    changed.write_text(changed.read_text() + " ")
    again = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert again.was_finished
    assert again.vanished == [gone.relative_to(tmp_path / "src").as_posix()]
    assert again.changed == [changed.relative_to(tmp_path / "src").as_posix()]
    assert f"changed: {again.changed[0]}" in str(again)


def test_other_options_or_sources_are_refused(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    with pytest.raises(ClipfoldError, match=r"finished corpus with other options .*split: '0.6/0.2/0.2' there, None"):
        convert(tmp_path / "src", out=tmp_path / "out", **{**scripted.OPTIONS, "split": None})
    with pytest.raises(ClipfoldError, match=r"spec.width: 12 there, 701 here"):
        convert(tmp_path / "src", out=tmp_path / "out", **{**scripted.OPTIONS, "spec": ClipSpec(num_frames=4)})
    scripted.write_sources(tmp_path / "other", {"a/other.mp4": {}})
    with pytest.raises(ClipfoldError, match="of other sources"):
        convert(tmp_path / "other", out=tmp_path / "out", **scripted.OPTIONS)


def test_folders_that_hold_something_else_are_left_alone(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(2))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("important")
    with pytest.raises(ClipfoldError, match=r"holds something else: thesis\.tex"):
        convert(tmp_path / "src", out=tmp_path / "out", **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == {"thesis.tex": b"important"}
    with pytest.raises(ClipfoldError, match="is a file"):
        convert(tmp_path / "src", out=tmp_path / "out/thesis.tex", **scripted.OPTIONS)


def test_wrong_use_leaves_nothing_behind(scripted, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="the folder is empty"):
        convert(tmp_path / "empty", out=tmp_path / "out", **scripted.OPTIONS)
    scripted.write_sources(tmp_path / "src", scripted.good_sources(2))
    for change, kind, message in (
        ({"codec": "jepg"}, PluginError, "unknown name among the codecs: 'jepg', expected one of .*jpeg"),
        ({"decoder": "ffmpeg"}, PluginError, "unknown name among the decoders: 'ffmpeg'"),
        ({"engine": "rey"}, PluginError, "unknown name among the engines"),
        ({"codec": "jpeg", "spec": ClipSpec(dtype="uint16")}, ValueError, "holds uint8 clips"),
        ({"codec_settings": {"quality": 3}}, ValueError, "settings of codec 'raw'"),
        ({"split": "0.8/0.3"}, ValueError, "expected three shares"),
        ({"on_error": "ignore"}, ValueError, "expected 'skip' or 'raise'"),
        ({"shard_clips": 0}, ValueError, "shard_clips: 0"),
        ({"deadline_seconds": 0}, ValueError, "deadline_seconds: 0, expected more than 0"),
        ({"num_workers": 0}, ValueError, "num_workers: 0"),
        ({"limit": 0}, ValueError, "limit: 0"),
        ({"include": ["nothing*"]}, SourceError, "none of the 2 sources passes"),
    ):
        with pytest.raises(kind, match=message):
            convert(tmp_path / "src", out=tmp_path / "out", **{**scripted.OPTIONS, **change})
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="lies in the folder of the sources"):
        convert(tmp_path / "src", out=tmp_path / "src/corpus", **scripted.OPTIONS)


def test_folders_of_splits_and_shares_exclude_each_other(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", {f"{split}/a/{n}.mp4": {} for split in ("train", "val") for n in range(2)})
    with pytest.raises(ValueError, match="folders of splits already"):
        convert(tmp_path / "src", out=tmp_path / "out", **scripted.OPTIONS)
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **{**scripted.OPTIONS, "split": None})
    assert summary.clips == {"train": {"a": 6}, "val": {"a": 6}}


def test_broken_sources_are_left_out_and_named(scripted, tmp_path):
    names = scripted.good_sources(4) | {
        "a/middle.mp4": {"then": "broken"},
        "b/start.mp4": {"open": "broken"},
        "b/gone.mp4": {"then": "vanish"},
    }
    scripted.write_sources(tmp_path / "src", names)
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **scripted.OPTIONS)
    found = {each.name: (each.reason, each.text) for each in summary.skipped}
    assert found == {
        "a/middle.mp4": ("decode", "frames are missing"),
        "b/start.mp4": ("decode", "it is broken"),
        "b/gone.mp4": ("source", "cannot be read: No such file"),
    }
    lines = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == [each.name for each in summary.skipped]
    assert "skipped a/middle.mp4: decode: frames are missing" in str(summary)
    assert json.loads(json.dumps(summary.to_json()))["num_skipped"] == 3


def test_on_error_raise_stops_and_looks_unfinished(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4) | {"a/bad.mp4": {"open": "broken"}})
    with pytest.raises(DecodeError, match=r"it is broken\n  file: .*a/bad\.mp4"):
        convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, on_error="raise", **scripted.OPTIONS)
    assert not (tmp_path / "out/dataset.json").exists()
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert summary.num_skipped == 1


def test_max_failures(scripted, tmp_path):
    bad = {f"a/bad{n}.mp4": {"open": "broken"} for n in range(3)}
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4) | bad)
    with pytest.raises(SourceError, match="2 sources had to be left out, expected at most 1"):
        convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, max_failures=1, **scripted.OPTIONS)
    assert not (tmp_path / "out/dataset.json").exists()


def test_nothing_but_failures_is_an_error(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", {f"a/bad{n}.mp4": {"open": "broken"} for n in range(3)})
    with pytest.raises(SourceError, match=r"none of 3 sources could be converted(.|\n)*a/bad\d\.mp4: decode: it is br"):
        convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert not (tmp_path / "out").exists()


def test_keep_partial_keeps_the_beginning_and_says_so(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", {"a/x.mp4": {"num_frames": 20, "then": "broken"}, "a/y.mp4": {}})
    options = {**scripted.OPTIONS, "split": None, "keep_partial": True}
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **options)
    assert summary.num_converted == 2
    assert summary.partial == ["a/x.mp4"]
    assert summary.num_clips == 3 + 4  # windows of x that end before frame 10: starts 0, 2, 4, 6
    line = json.loads((tmp_path / "out/skipped.jsonl").read_text())
    assert (line["reason"], line["text"]) == ("partial", "frames are missing")


def test_short_sources_may_be_dropped(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", {"a/long.mp4": {}, "a/short.mp4": {"num_frames": 3}})
    options = {**scripted.OPTIONS, "split": None, "sampling": Sampling(short="drop")}
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **options)
    assert [(each.name, each.reason) for each in summary.skipped] == [("a/short.mp4", "too_short")]


def test_dry_run_counts_and_writes_nothing(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(6) | {"a/bad.mp4": {"open": "broken"}})
    before = scripted.content(tmp_path)
    dry = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, dry_run=True, **scripted.OPTIONS)
    assert scripted.content(tmp_path) == before
    assert not (tmp_path / "out").exists()
    real = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert dry.is_dry_run
    assert (dry.num_sources, dry.num_converted, dry.num_clips) == (7, 6, real.num_clips)
    assert dry.clips == real.clips
    assert [each.reason for each in dry.skipped] == ["decode"]


def test_shards_close_by_clips_and_by_bytes(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(10))
    options = {**scripted.OPTIONS, "split": None}
    convert(tmp_path / "src", out=tmp_path / "clips", num_workers=1, **options)
    table = Corpus(tmp_path / "clips").shard_table("train")
    assert set(table["num_samples"][:-1].tolist()) == {5}
    convert(tmp_path / "src", out=tmp_path / "bytes", num_workers=1, **{**options, "shard_bytes": 20_480})
    table = Corpus(tmp_path / "bytes").shard_table("train")
    assert len(table) > 5
    assert table["num_bytes"].max() <= 20_480
    indices = [load_index(path, sha256=None) for path in sorted((tmp_path / "bytes/train").glob("*.index.npy"))]
    assert sum(map(len, indices)) == Corpus(tmp_path / "clips").splits["train"].num_samples


def test_image_folders_and_unlabelled_sources(tmp_path):
    for name in ("seq_1", "seq_2"):
        (tmp_path / "src" / name).mkdir(parents=True)
        for frame in range(5):
            Image.new("RGB", (12, 8), (frame, 0, 0)).save(tmp_path / "src" / name / f"f_{frame}.png")
    spec = ClipSpec(num_frames=5, height=8, width=12)
    summary = convert(tmp_path / "src", out=tmp_path / "out", spec=spec, num_workers=1, show_progress=False)
    corpus = Corpus(tmp_path / "out")
    assert summary.clips == {"train": {"": 2}}
    assert corpus.classes == []
    for _, _, label, pixels_SCHW in pixels_of(corpus):
        assert label == -1
        assert pixels_SCHW[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_limit_keeps_to_the_frozen_list(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(6))
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **{**scripted.OPTIONS, "limit": 3})
    assert summary.num_sources == 3


@pytest.mark.slow
def test_real_videos(media, tmp_path):
    """Every good file gives its clips, each bad one is named; the frame counts are those of the README there."""
    expected = {}
    for line in (media / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 12 and (media / "videos" / cells[1]).is_file():
            counts = cells[8].split("/")
            expected[cells[1]] = int(counts[1]) if counts[1].strip().isdecimal() else None
    expected["tcodec__nasa_13013.mp4"] = 390  # the best of its two video streams
    spec = ClipSpec(num_frames=10, height=16, width=32)
    summary = convert(
        media / "videos", out=tmp_path / "out", spec=spec, num_workers=2, show_progress=False, codec="jpeg"
    )
    assert {each.name for each in summary.skipped} == {name for name, num in expected.items() if num is None}
    clips = {name: max(num // 10, 1) for name, num in expected.items() if num is not None}
    assert summary.num_clips == sum(clips.values())
    assert len(find_sources(media / "videos").sources) == summary.num_sources == len(expected)


def test_rows_of_a_table_whose_file_is_missing_are_skipped_sources(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    names = [path.relative_to(tmp_path / "src").as_posix() for path in sorted(tmp_path.glob("src/*/*.mp4"))]
    table = tmp_path / "src/table.csv"
    table.write_text("\n".join(["path", *names]) + "\n")
    convert(table, out=tmp_path / "whole", num_workers=1, **scripted.OPTIONS)
    table.write_text("\n".join(["path", "gone.mp4", *names, "b/later.mp4"]) + "\n")
    tried = convert(table, out=tmp_path / "out", dry_run=True, num_workers=1, **scripted.OPTIONS)
    summary = convert(table, out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    for each in (tried, summary, convert(table, out=tmp_path / "out", **scripted.OPTIONS)):
        assert (each.num_sources, each.num_converted, each.num_skipped, each.num_ignored) == (6, 4, 2, 0)
    lines = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [(line["number"], line["name"], line["reason"]) for line in lines] == [
        (-1, "b/later.mp4", "missing"),
        (-1, "gone.mp4", "missing"),
    ]
    whole, out = scripted.content(tmp_path / "whole"), scripted.content(tmp_path / "out")
    assert {name for name in whole if whole[name] != out[name]} == {"skipped.jsonl", "dataset.json"}
    shutil.copy(tmp_path / "src" / names[0], tmp_path / "src/b/later.mp4")
    more = convert(table, out=tmp_path / "out", append=True, retry_skipped=True, num_workers=1, **scripted.OPTIONS)
    assert (more.num_sources, more.num_converted, [each.name for each in more.skipped]) == (6, 5, ["gone.mp4"])


def test_what_can_be_done_is_kept_with_a_skipped_source(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"")
    source = find_sources(tmp_path).sources[0]
    error = SourceError("unclear", fix=f"name the axes of {source.path}")
    record = take_outcome(Outcome(kind="failed", error=error, error_name="SourceError"), source, stops=False)
    assert record == {"reason": "source", "text": "unclear", "fix": "name the axes of a.npy"}
    (listed,) = freeze([source], split=None)
    skipped = skipped_of([listed], {0: record})
    (tmp_path / "skipped.jsonl").write_text(skipped_lines(skipped))
    assert load_skipped(tmp_path / "skipped.jsonl") == skipped
    assert "fix" not in skipped_lines([replace(skipped[0], fix="")])
