"""Repacking: every clip where it belongs, the same bytes however it is done, and one message for what is wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError, PluginError, ShardError
from clipfold.shards import repack_run as module
from clipfold.shards.convert import convert
from clipfold.shards.index import sample_key
from clipfold.shards.reader import Corpus
from clipfold.shards.repack import repack
from clipfold.shards.source_list import ListedSource, load_source_list, save_source_list
from clipfold.shards.staging import Staging
from clipfold.shards.verify import verify
from clipfold.shards.writer import ShardWriter

QUIET = {"show_progress": False, "num_workers": 1}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A folder for the corpus below, which is converted once."""
    return tmp_path_factory.mktemp("converted")


@pytest.fixture
def corpus(scripted, converted, tmp_path):
    """Ten sources of two classes in three splits, 40 clips of noise, raw; one source was broken."""
    if not (converted / "corpus").exists():
        scripted.write_sources(converted / "src", scripted.good_sources(10) | {"a/bad.mp4": {"open": "broken"}})
        convert(converted / "src", out=converted / "corpus", num_workers=2, **scripted.OPTIONS)
    return Path(shutil.copytree(converted / "corpus", tmp_path / "corpus"))


def samples_of(root, split=None):
    """(split, source's name, clip, class name, .json, member bytes, pixels) by key."""
    corpus = Corpus(root)
    names = {source.number: source.name for source in load_source_list(f"{root}/sources.jsonl")}
    found = {}
    for each in corpus.splits if split is None else [split]:
        for number in corpus.shard_table(each)["number"].tolist():
            with tarfile.open(corpus.tar_location(each, number)) as tar:
                members = {member.name: tar.extractfile(member).read() for member in tar}
            for row in corpus.index(each, number):
                key = sample_key(int(row["source"]), int(row["clip"]))
                data = members[f"{key}.{corpus.codec.extension}"]
                out = np.empty(corpus.spec.shape_SCHW, np.uint8)
                if corpus.codec.layout == "SHWC":
                    out = np.ascontiguousarray(out.transpose(0, 2, 3, 1))
                corpus.codec.decode_into(data, out, corpus.spec)
                pixels = out.transpose(0, 3, 1, 2) if corpus.codec.layout == "SHWC" else out
                label = corpus.classes[row["label"]] if row["label"] >= 0 else None
                assert key not in found
                found[key] = {
                    "split": each,
                    "name": names[int(row["source"])],
                    "clip": int(row["clip"]),
                    "label": label,
                    "meta": json.loads(members[f"{key}.json"]),
                    "data": data,
                    "pixels": pixels,
                    "num_valid_frames": int(row["num_valid_frames"]),
                }
    return found


def identity(sample):
    """What makes a clip this clip, whatever its key, split and codec."""
    return sample["name"], sample["label"], json.dumps(sample["meta"]), hashlib.sha256(sample["pixels"]).hexdigest()


def assert_fine(root):
    report = verify(root, num_workers=2)
    assert report.ok, "\n".join(map(str, report.problems))


def expected_statistics(samples):
    """Mean and standard deviation of the valid frames of the train split, float64 over everything."""
    frames = [each["pixels"][: each["num_valid_frames"]] for each in samples.values() if each["split"] == "train"]
    every = np.concatenate(frames).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    return every.mean(axis=1), every.std(axis=1)


# ---- what comes out ----


def test_another_shard_size_copies_every_byte(corpus, tmp_path):
    summary = repack(corpus, out=tmp_path / "out", shard_clips=3, **QUIET)
    before, after = samples_of(corpus), samples_of(tmp_path / "out")
    assert list(before) == list(after)
    for key, sample in before.items():
        assert (sample["data"], sample["meta"], sample["split"]) == tuple(
            after[key][n] for n in ("data", "meta", "split")
        )
    old, new = Corpus(corpus).manifest, Corpus(tmp_path / "out").manifest
    assert (new.mean, new.std, new.classes, new.codec) == (old.mean, old.std, old.classes, old.codec)
    assert max(Corpus(tmp_path / "out").shard_table("train")["num_samples"]) == 3
    assert (summary.num_copied, summary.num_left_out) == (len(before), 0)
    for name in ("sources.jsonl", "skipped.jsonl"):  # what could not be converted is still named
        assert (tmp_path / "out" / name).read_bytes() == (corpus / name).read_bytes()
    assert_fine(tmp_path / "out")


def test_there_and_back_gives_the_same_shards(scripted, corpus, tmp_path):
    repack(corpus, out=tmp_path / "small", codec="lossless", shard_clips=2, **QUIET)
    repack(tmp_path / "small", out=tmp_path / "back", codec="raw", shard_clips=5, **QUIET)
    assert_fine(tmp_path / "small")
    before, after = scripted.content(corpus), scripted.content(tmp_path / "back")
    before.pop("dataset.json"), after.pop("dataset.json")  # says what it was made from
    assert before == after
    assert Corpus(corpus).manifest.mean == Corpus(tmp_path / "back").manifest.mean


@pytest.mark.parametrize("codec", ["lossless", "jpeg", "mp4", "lowrank"])
def test_the_same_bytes_for_any_number_of_workers(scripted, corpus, tmp_path, codec):
    results = []
    for num_workers in (1, 3):
        out = tmp_path / f"out{num_workers}"
        repack(corpus, out=out, codec=codec, shard_clips=7, show_progress=False, num_workers=num_workers)
        results.append(scripted.content(out))
    assert results[0] == results[1]
    assert not [name for name in results[0] if ".converting" in name or name.endswith(".tmp")]
    assert_fine(tmp_path / "out1")
    assert [each["meta"] for each in samples_of(tmp_path / "out1").values()] == [
        each["meta"] for each in samples_of(corpus).values()
    ]


def test_settings_are_part_of_the_codec(corpus, tmp_path):
    repack(corpus, out=tmp_path / "jpeg", codec="jpeg", **QUIET)
    same = repack(tmp_path / "jpeg", out=tmp_path / "same", codec="jpeg", **QUIET)
    other = repack(tmp_path / "jpeg", out=tmp_path / "other", codec="jpeg", codec_settings={"quality": 50}, **QUIET)
    assert same.num_copied == same.num_clips
    assert same.notes == []
    assert other.num_copied == 0
    assert "encoded again as jpeg, which adds its own loss" in other.notes[0]
    exact = repack(tmp_path / "jpeg", out=tmp_path / "exact", codec="raw", **QUIET)
    assert "what jpeg lost stays lost" in str(exact)


def test_keeping_some_classes(corpus, tmp_path):
    summary = repack(corpus, out=tmp_path / "out", classes=["b"], **QUIET)
    before, after = samples_of(corpus), samples_of(tmp_path / "out")
    wanted = {key: each for key, each in before.items() if each["label"] == "b"}
    assert Corpus(tmp_path / "out").classes == ["b"]
    assert list(after) == list(wanted)  # keys stay what they are
    assert [identity(each) for each in after.values()] == [identity(each) for each in wanted.values()]
    assert summary.num_left_out == len(before) - len(wanted)
    mean, std = expected_statistics(after)  # both are exact until the last division and square root
    np.testing.assert_allclose(Corpus(tmp_path / "out").manifest.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(Corpus(tmp_path / "out").manifest.std, std, rtol=1e-12)
    assert {source.label for source in load_source_list(tmp_path / "out/sources.jsonl")} == {"b"}
    assert_fine(tmp_path / "out")


def test_keeping_keys_and_conditions(corpus, tmp_path):
    before = samples_of(corpus)
    keys = [key for key in before if int(key[-1]) % 2]
    repack(corpus, out=tmp_path / "keys", keys=[*keys, keys[0]], codec="lossless", **QUIET)
    assert list(samples_of(tmp_path / "keys")) == keys
    assert_fine(tmp_path / "keys")
    repack(corpus, out=tmp_path / "where", where='start >= 4 and "a/" in source and split == "train"', **QUIET)
    found = samples_of(tmp_path / "where")
    assert list(found) == [
        key
        for key, each in before.items()
        if each["meta"]["start"] >= 4 and each["label"] == "a" and each["split"] == "train"
    ]
    assert set(Corpus(tmp_path / "where").splits) == {"train"}
    assert Corpus(tmp_path / "where").classes == ["a", "b"]
    assert_fine(tmp_path / "where")


def test_another_split_never_tears_a_source(corpus, tmp_path):
    summary = repack(corpus, out=tmp_path / "out", split="0.5/0.5/0", **QUIET)
    before, after = samples_of(corpus), samples_of(tmp_path / "out")
    assert sorted(map(identity, before.values())) == sorted(map(identity, after.values()))
    splits = {}
    for each in after.values():
        assert splits.setdefault(each["name"], each["split"]) == each["split"]
    assert Counter(splits.values()) == {"train": 5, "val": 5}
    assert list(summary.clips) == ["train", "val"]
    mean, std = expected_statistics(after)
    np.testing.assert_allclose(Corpus(tmp_path / "out").manifest.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(Corpus(tmp_path / "out").manifest.std, std, rtol=1e-12)
    assert_fine(tmp_path / "out")


def test_groups_stay_together(corpus, tmp_path):
    listed = [replace(source, group=str(source.number // 3)) for source in load_source_list(corpus / "sources.jsonl")]
    save_source_list(corpus / "sources.jsonl", listed)
    repack(corpus, out=tmp_path / "out", split="0.5/0.25/0.25", **QUIET)
    groups = {}
    for key, each in samples_of(tmp_path / "out").items():
        groups.setdefault(int(key[:8]) // 3, set()).add(each["split"])
    assert all(len(splits) == 1 for splits in groups.values())


def test_merging(scripted, corpus, tmp_path):
    scripted.write_sources(
        tmp_path / "src2", {f"{label}/w{n}.mp4": {"num_frames": 6} for label in "cb" for n in range(4)}
    )
    convert(tmp_path / "src2", out=tmp_path / "second", num_workers=1, **{**scripted.OPTIONS, "codec": "lossless"})
    both = [corpus, tmp_path / "second"]
    with pytest.raises(ValueError, match="the corpora have several"):
        repack(both, out=tmp_path / "out", **QUIET)
    summary = repack(both, out=tmp_path / "out", codec="raw", **QUIET)
    assert Corpus(tmp_path / "out").classes == ["a", "b", "c"]
    before = [*samples_of(corpus).values(), *samples_of(tmp_path / "second").values()]
    after = samples_of(tmp_path / "out")
    assert sorted(map(identity, before)) == sorted(map(identity, after.values()))
    assert summary.num_copied == len(samples_of(corpus))
    assert Counter(each["split"] for each in before) == Counter(each["split"] for each in after.values())
    mean, std = expected_statistics(after)
    np.testing.assert_allclose(Corpus(tmp_path / "out").manifest.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(Corpus(tmp_path / "out").manifest.std, std, rtol=1e-12)
    # mixed: the sources of one do not stand behind those of the other
    names = [source.name for source in load_source_list(tmp_path / "out/sources.jsonl")]
    assert sorted(map(len, names)) != list(map(len, names))
    skipped = json.loads((tmp_path / "out/skipped.jsonl").read_text())
    assert names[skipped["number"]] == skipped["name"] == "a/bad.mp4"
    made_from = Corpus(tmp_path / "out").manifest.provenance["made_from"]
    assert [each["fingerprint"] for each in made_from] == [
        hashlib.sha256((root / "dataset.json").read_bytes()).hexdigest() for root in both
    ]
    assert str(tmp_path) not in (tmp_path / "out/dataset.json").read_text()
    assert_fine(tmp_path / "out")


def listed_corpus(make_corpus, name, labelled=True, **options):
    """A corpus of one split with its list of sources."""
    root = make_corpus(name, splits=("train",), labelled=labelled, **options)
    sources = [
        ListedSource(
            number=number,
            name=f"{name}/{number}",
            num_bytes=1,
            mtime_ns=1,
            split="train",
            label=None,
            group=str(number),
            columns=options.get("meta", {}),
        )
        for number in range(4)
    ]
    save_source_list(root / "sources.jsonl", sources)
    (root / "skipped.jsonl").write_bytes(b"")
    return root


def test_merging_fills_columns(make_corpus, tmp_path):
    one = listed_corpus(make_corpus, "one", meta={"speed": 3, "place": "x"})
    two = listed_corpus(make_corpus, "two", meta={"speed": 1.5, "night": True})
    repack([one, two], out=tmp_path / "out", **QUIET)
    found = [
        (each["meta"]["speed"], each["meta"]["place"], each["meta"]["night"])
        for each in samples_of(tmp_path / "out").values()
    ]
    assert Counter(found) == {(3.0, "x", False): 8, (1.5, "", True): 8}
    assert {type(speed) for speed, _, _ in found} == {float}
    listed = load_source_list(tmp_path / "out/sources.jsonl")
    assert Counter(tuple(source.columns.items()) for source in listed) == {
        (("night", False), ("place", "x"), ("speed", 3.0)): 4,
        (("night", True), ("place", ""), ("speed", 1.5)): 4,
    }
    assert_fine(tmp_path / "out")
    three = listed_corpus(make_corpus, "three", meta={"speed": "fast"})
    with pytest.raises(ClipfoldError, match="do not agree about the column 'speed': int in one, str in another"):
        repack([one, three], out=tmp_path / "other", **QUIET)
    four = listed_corpus(make_corpus, "four", meta={"speed": 1, "place": "", "path": [1]})
    with pytest.raises(ClipfoldError, match="lacks the column 'path', a list"):
        repack([one, four], out=tmp_path / "other", **QUIET)
    assert not (tmp_path / "other").exists()


def test_labelled_and_unlabelled_together(make_corpus, tmp_path):
    one, two = listed_corpus(make_corpus, "one"), listed_corpus(make_corpus, "two", labelled=False)
    repack([one, two], out=tmp_path / "out", codec="jpeg", **QUIET)
    assert Counter(each["label"] for each in samples_of(tmp_path / "out").values()) == {"left": 4, "right": 4, None: 8}
    assert_fine(tmp_path / "out")


def test_groups_in_several_splits_are_named(scripted, tmp_path):
    for name, top in (("one", "train"), ("two", "test")):
        scripted.write_sources(tmp_path / name, {f"{top}/a/v.mp4": {"seed": len(name + top)}})
        options = {**scripted.OPTIONS, "split": None}
        convert(tmp_path / name / top, out=tmp_path / f"{name}.corpus", num_workers=1, **options)
    root = tmp_path / "two.corpus"
    test = repack(root, out=tmp_path / "two.test", split="0/0/1", **QUIET)
    assert list(test.clips) == ["test"]
    merged = repack([tmp_path / "one.corpus", tmp_path / "two.test"], out=tmp_path / "out", **QUIET)
    assert "1 groups are in several splits, such as 'a/v.mp4'" in merged.notes[0]
    anew = repack([tmp_path / "one.corpus", tmp_path / "two.test"], out=tmp_path / "new", split="0.5/0.5/0", **QUIET)
    assert anew.notes == []
    assert len(anew.clips) == 1


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_exact_dtypes(make_corpus, tmp_path, dtype):
    spec = ClipSpec(num_frames=4, channels=2, height=5, width=7, dtype=dtype)
    root = listed_corpus(make_corpus, "one", spec=spec)
    repack(root, out=tmp_path / "out", codec="lossless", split="0.5/0.5/0", **QUIET)
    repack(tmp_path / "out", out=tmp_path / "back", codec="raw", split="1/0/0", **QUIET)
    old, new = (Path(Corpus(each).tar_location("train", 0)).read_bytes() for each in (root, tmp_path / "back"))
    row = Corpus(root).index("train", 0)[0]
    assert old[row["offset"] : row["offset"] + row["size"]] in new
    assert_fine(tmp_path / "back")
    with pytest.raises(ValueError, match="holds uint8 clips"):
        repack(root, out=tmp_path / "jpeg", codec="jpeg", **QUIET)


def test_urls(corpus, tmp_path):
    repack(f"file://{corpus}", out=tmp_path / "out", shard_clips=4, where="start < 4", **QUIET)
    repack(corpus, out=tmp_path / "local", shard_clips=4, where="start < 4", **QUIET)
    assert samples_of(tmp_path / "out").keys() == samples_of(tmp_path / "local").keys()
    assert_fine(tmp_path / "out")


# ---- auto ----


def test_the_choice_is_made_once(corpus, tmp_path, monkeypatch):
    first = repack(corpus, out=tmp_path / "out", codec="auto", target="size", **QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(module, "choose_codec_of_corpora", lambda *args, **kwargs: pytest.fail("measured again"))
        again = repack(corpus, out=tmp_path / "out", codec="auto", target="size", **QUIET)
        assert again.was_finished
        assert again.codec == first.codec
    with pytest.raises(ClipfoldError, match=r"chosen_for.target: 'size' there, 'speed' here"):
        repack(corpus, out=tmp_path / "out", codec="auto", target="speed", **QUIET)
    with pytest.raises(ValueError, match="codec 'auto' chooses the settings as well"):
        repack(corpus, out=tmp_path / "out", codec="auto", codec_settings={"quality": 3}, **QUIET)


# ---- surviving ----


class Killed(BaseException):
    pass


@pytest.mark.parametrize("options", [{"split": "0.5/0.25/0.25"}, {"codec": "lossless"}], ids=["copied", "encoded"])
def test_killed_between_every_two_steps(scripted, corpus, tmp_path, monkeypatch, options):
    """The process ends, as by a kill, at each step that changes the disk, one step later every time."""
    repack(corpus, out=tmp_path / "undisturbed", shard_clips=4, **options, **QUIET)
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
        (Staging, "remove"),
        (ShardWriter, "append"),
        (module, "save_source_list"),
        (module, "look_through_all"),
        (module, "write_whole"),
        (module.Manifest, "save"),
    ):
        monkeypatch.setattr(owner, name, killing(getattr(owner, name)))
    for num_steps in (*range(5), *range(5, 90, 7)):
        steps_left = num_steps
        try:
            repack(corpus, out=tmp_path / "out", shard_clips=4, **options, **QUIET)
            break
        except Killed:
            continue
    else:
        pytest.fail("never ended")
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "undisturbed")


@pytest.mark.slow
def test_killed_again_and_again(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(120))
    convert(tmp_path / "src", out=tmp_path / "corpus", num_workers=3, **scripted.OPTIONS)
    flags = ["--codec", "mp4", "--shard-clips", "9", "--num-workers", "2"]
    command = [sys.executable, "-m", "clipfold", "repack", str(tmp_path / "corpus"), *flags, "--out"]
    subprocess.run([*command, str(tmp_path / "undisturbed")], check=True, capture_output=True)
    num_kills = 0
    for seconds in 0.9, 1.2, 1.6, 2.0, 2.4, 300:
        process = subprocess.Popen(
            [*command, str(tmp_path / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            code = process.wait(timeout=seconds)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            num_kills += 1
    assert code == 0
    assert num_kills
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "undisturbed")


def test_a_finished_corpus_has_nothing_left_to_do(scripted, corpus, tmp_path):
    first = repack(corpus, out=tmp_path / "out", where="start >= 0", **QUIET)
    before = scripted.content(tmp_path / "out")
    again = repack(corpus, out=tmp_path / "out", where="start >= 0", **QUIET)
    assert again.was_finished
    assert (again.num_clips, again.clips, again.notes) == (first.num_clips, first.clips, first.notes)
    assert scripted.content(tmp_path / "out") == before
    with pytest.raises(ClipfoldError, match=r"finished corpus with other options .*where: 'start >= 0' there, '' here"):
        repack(corpus, out=tmp_path / "out", **QUIET)


def test_one_command_at_a_time(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    with Staging(tmp_path / "out"), pytest.raises(ClipfoldError, match="another command"):
        repack(corpus, out=tmp_path / "out", **QUIET)
    repack(corpus, out=tmp_path / "out", **QUIET)


def test_a_full_disk_can_be_gone_on_from(scripted, corpus, tmp_path, monkeypatch):
    append, num_appended = ShardWriter.append, 0

    def full(self, **kwargs):
        nonlocal num_appended
        num_appended += 1
        if num_appended > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "append", full)
        with pytest.raises(ClipfoldError, match=r"no space left on the disk(.|\n)*run the same command again"):
            repack(corpus, out=tmp_path / "out", shard_clips=4, **QUIET)
    assert not (tmp_path / "out/dataset.json").exists()
    repack(corpus, out=tmp_path / "out", shard_clips=4, **QUIET)
    repack(corpus, out=tmp_path / "undisturbed", shard_clips=4, **QUIET)
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "undisturbed")


def test_too_little_space_is_said_before(corpus, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ClipfoldError, match=r"not enough free space: about .* needed, 10\.0 kB free"):
        repack(corpus, out=tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


# ---- what is wrong ----


@pytest.mark.parametrize("codec", ["raw", "lossless"])
@pytest.mark.parametrize("part", ["json", "npy"])
def test_damage_is_never_passed_on(corpus, tmp_path, part, codec):
    path = Path(Corpus(corpus).tar_location("train", 0))
    with tarfile.open(path) as tar:
        member = next(each for each in tar if each.name.endswith(f".{part}"))
    data = bytearray(path.read_bytes())
    data[member.offset_data + member.size - 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"does not have its checksum(.|\n)*train-000000\.tar(.|\n)*clipfold verify"):
        repack(corpus, out=tmp_path / "out", codec=codec, **QUIET)
    assert not (tmp_path / "out").exists()


def test_damage_that_comes_later_is_found(corpus, tmp_path, monkeypatch):
    """A clip is read a second time, after its shard was looked through."""
    look = module.look_through_all

    def look_then_damage(*args, **kwargs):
        found = look(*args, **kwargs)
        row = Corpus(corpus).index("train", 0)[0]
        path = Path(Corpus(corpus).tar_location("train", 0))
        data = bytearray(path.read_bytes())
        data[row["offset"] + 200] ^= 1
        path.write_bytes(data)
        return found

    monkeypatch.setattr(module, "look_through_all", look_then_damage)
    with pytest.raises(ShardError, match=r"the sample does not have its checksum\n.*key: 0000"):
        repack(corpus, out=tmp_path / "out", **QUIET)


def test_wrong_use_leaves_nothing_behind(scripted, corpus, make_corpus, tmp_path):
    other = listed_corpus(make_corpus, "other")
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    for inputs, change, kind, message in (
        ([], {}, ValueError, "no corpus is named"),
        (tmp_path / "src", {}, ShardError, "no corpus here"),
        ([corpus, copy], {}, ValueError, "copy is named twice"),
        ([corpus, other], {}, ClipfoldError, "clips of the corpora differ: S=4 C=3 H=6 W=10 uint8 there, S=4 C=3 H=8"),
        (corpus, {"out": corpus}, ValueError, "is one of the corpora"),
        (corpus, {"out": "s3://bucket/x"}, ValueError, "expected a local folder"),
        (corpus, {"codec": "jepg"}, PluginError, "unknown name among the codecs"),
        (corpus, {"codec": "raw", "codec_settings": {"quality": 3}}, ValueError, "settings of codec 'raw'"),
        (corpus, {"codec": "auto", "min_psnr": 90}, ValueError, "min_psnr: 90, expected 20 to 60"),
        (corpus, {"split": "0.8/0.3"}, ValueError, "expected three shares"),
        (corpus, {"shard_clips": 0}, ValueError, "shard_clips 0"),
        (corpus, {"classes": ["c"]}, ValueError, "'c' is no class of the corpus, expected some of: a, b"),
        (corpus, {"keys": ["00000000-0099"]}, ValueError, r"no sample '00000000-0099' in the corpus \(1 of 1"),
        (corpus, {"keys": ["walk"]}, ValueError, "sample key: 'walk'"),
        (corpus, {"where": "start > 999"}, ValueError, "the selection takes none of the"),
        (corpus, {"where": "strat > 9"}, ValueError, "no column 'strat'; did you mean 'start'"),
        (corpus, {"where": "source > 9"}, ValueError, "expected two numbers or two texts"),
        (corpus, {"where": "source >"}, ValueError, "is not an expression"),
        (corpus, {"num_workers": 0}, ValueError, "num_workers: 0"),
    ):
        with pytest.raises(kind, match=message):
            repack(inputs, **{"out": tmp_path / "out", **QUIET, **change})
        assert not (tmp_path / "out").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").write_text("important")
    with pytest.raises(ClipfoldError, match=r"holds something else: thesis\.tex"):
        repack(corpus, out=tmp_path / "thesis", **QUIET)
    (corpus / "sources.jsonl").unlink()
    with pytest.raises(ShardError, match=r"sources\.jsonl is missing"):
        repack(corpus, out=tmp_path / "out", **QUIET)
