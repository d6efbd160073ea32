"""Damaged corpora: every fault named with its place, or replaced by the same sample on any number of ranks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipfold.errors import ShardError
from clipfold.shards.reader import Corpus
from clipfold.stream.loader import ClipStream

M = 37  # samples of train


def number_of(key: str) -> int:
    """The number of the sample that has this key."""
    return int(key.partition("-")[0])


@pytest.fixture
def copy(corpora: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpora("raw"), tmp_path / "copy"))


def flip(root: Path, shard: int, row: int, byte: int = 200) -> int:
    """Flip one bit of a sample's pixels; the sample's number."""
    index = Corpus(root).index("train", shard)
    path = root / "train" / f"train-{shard:06d}.tar"
    data = bytearray(path.read_bytes())
    data[int(index[row]["offset"]) + byte] ^= 16
    path.write_bytes(data)
    return int(index[row]["source"])


@pytest.mark.parametrize("url", [False, True])
def test_a_flipped_bit_is_named(copy: Path, url: bool) -> None:
    number = flip(copy, 2, 3)
    with (
        ClipStream(f"file://{copy}" if url else copy, batch_size=4, num_threads=2) as stream,
        pytest.raises(ShardError, match="checksum") as caught,
    ):
        for _ in stream:
            pass
    error = caught.value
    assert error.key.startswith(f"{number:08d}-")
    assert error.shard.endswith("train/train-000002.tar")
    assert error.offset == int(Corpus(copy).index("train", 2)[3]["offset"])
    assert error.fix


def test_checksums_may_be_left_out(copy: Path) -> None:
    number = flip(copy, 2, 3)
    with ClipStream(copy, batch_size=M, verify_checksums=False) as stream:
        batch = next(iter(stream))
        slot = [number_of(key) for key in batch.keys].index(number)
        pixels = batch.pixels_BSCHW[slot].flatten()
        assert (pixels != pixels[72]).sum() >= 1  # byte 200 is pixel 72: the flipped bit went through
    flip(copy, 2, 3, byte=4)  # a header that is not ours is found all the same
    with ClipStream(copy, batch_size=M, verify_checksums=False) as stream, pytest.raises(ShardError, match="header"):
        next(iter(stream))


@pytest.mark.parametrize("url", [False, True])
def test_a_shard_cut_short_is_named(copy: Path, url: bool) -> None:
    path = copy / "train" / "train-000004.tar"
    index = Corpus(copy).index("train", 4)
    cut = int(index[10]["offset"]) + 50
    path.write_bytes(path.read_bytes()[:cut])
    with (
        ClipStream(f"file://{copy}" if url else copy, batch_size=4, shuffle=False) as stream,
        pytest.raises(ShardError, match="ends inside a sample: 50 bytes") as caught,
    ):
        for _ in stream:
            pass
    assert caught.value.offset == int(index[10]["offset"])
    assert caught.value.shard.endswith("train-000004.tar")
    assert number_of(caught.value.key) == int(index[10]["source"])


@pytest.mark.parametrize("name", ["train-000004.tar", "train-000004.index.npy"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / "train" / name).unlink()
    with ClipStream(copy, batch_size=4) as stream, pytest.raises(ShardError, match=r"not there|missing") as caught:
        for _ in stream:
            pass
    assert caught.value.shard.endswith("train-000004.tar")


def faults_in(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(folder.glob("faults.*.jsonl")) for line in path.read_text().splitlines()
    ]


def test_substitutes_are_the_same_on_any_number_of_ranks(copy: Path, tmp_path: Path, steps_of: Any) -> None:
    broken = {flip(copy, 4, row) for row in (0, 3, 7)} | {flip(copy, 0, row) for row in range(5)}
    options: dict[str, Any] = {"tail": "cross", "on_error": "substitute"}
    expected, state = steps_of(copy, 8, world_size=1, accumulate=1, batch_size=6, ledger=tmp_path / "one", **options)
    numbers = [number_of(key) for step in expected for key in step]
    assert not broken & set(numbers)
    assert state["position"] == 48
    for world_size, accumulate in [(2, 1), (3, 2)]:
        folder = tmp_path / f"{world_size}"
        found, _ = steps_of(
            copy, 8, world_size=world_size, accumulate=accumulate, batch_size=6 // world_size // accumulate,
            ledger=folder, **options,
        )  # fmt: skip
        assert found == expected
        rows = {(row["position"], row["attempt"], row["key"]) for row in faults_in(folder)}
        assert rows == {(row["position"], row["attempt"], row["key"]) for row in faults_in(tmp_path / "one")}
        assert len(list(folder.iterdir())) == world_size
    first = [row for row in faults_in(tmp_path / "one") if row["attempt"] == 0]
    assert {number_of(row["key"]) for row in first} <= broken
    assert all("checksum" in row["reason"] and row["shard"] and row["offset"] > 0 for row in first)


def test_pixels_of_a_substitute_are_its_own(copy: Path, numbers_in: Any) -> None:
    for row in range(20):
        flip(copy, 4, row)
    with ClipStream(copy, batch_size=M, on_error="substitute") as stream:
        batch = next(iter(stream))
        assert numbers_in(batch.pixels_BSCHW) == [number_of(key) for key in batch.keys]
        assert batch.labels.tolist() == [number_of(key) % 7 for key in batch.keys]
        assert batch.valid.all()
        assert sorted(batch.positions.tolist()) == list(range(M))
        assert stream.stats()["num_failures"] >= 20


def test_a_resumed_run_repeats_faults_that_have_passed(copy: Path, corpora: Any, tmp_path: Path, keys_of: Any) -> None:
    flip(copy, 4, 2)
    options: dict[str, Any] = {"batch_size": 5, "on_error": "substitute", "ledger": tmp_path / "run"}
    with ClipStream(copy, **options) as stream:
        expected = keys_of(stream)
    shutil.copy(corpora("raw") / "train" / "train-000004.tar", copy / "train")  # the disk has recovered
    with (tmp_path / "run" / "faults.0.jsonl").open("a") as file:
        file.write('{"position": 3, "att')  # and the last line was torn
    with ClipStream(copy, **options) as stream:
        assert keys_of(stream) == expected
    assert len((tmp_path / "run" / "faults.0.jsonl").read_text().splitlines()) == 2
    with ClipStream(copy, **options | {"seed": 1}) as stream:  # another order knows nothing of it
        assert sorted(number_of(key) for keys in keys_of(stream) for key in keys if key) == list(range(M))


def test_evaluation_marks_what_cannot_be_read(copy: Path, tmp_path: Path) -> None:
    number = flip(copy, 2, 3)
    for _ in range(2):  # the second time the ledger knows of it, and says it once all the same
        with ClipStream(copy, shuffle=False, batch_size=10, on_error="substitute", ledger=tmp_path / "run") as stream:
            batches = [batch.clone() for batch in stream]
        keys = [key for batch in batches for key in batch.keys]
        valid = torch.cat([batch.valid for batch in batches])
        assert [number_of(key) for key, ok in zip(keys, valid, strict=True) if ok] == [
            n for n in range(M) if n != number
        ]
        assert number_of(keys[number]) == number
        assert not batches[number // 10].pixels_BSCHW[number % 10].any()
        assert int(batches[number // 10].positions[number % 10]) == number
    assert [row["action"] for row in faults_in(tmp_path / "run")] == ["invalid"]


def test_a_lost_index_loses_its_shard_only(copy: Path) -> None:
    (copy / "train" / "train-000002.index.npy").unlink()
    with ClipStream(copy, shuffle=False, batch_size=M, on_error="substitute") as stream:
        batch = next(iter(stream))
        assert (~batch.valid).nonzero().flatten().tolist() == list(range(8, 16))
        assert set(np.array(batch.keys)[8:16]) == {""}


def test_too_many_failures(copy: Path) -> None:
    for row in range(8):
        flip(copy, 2, row)
    with (
        ClipStream(copy, batch_size=3, on_error="substitute", max_failures=4) as stream,
        pytest.raises(ShardError, match="at most 4") as caught,
    ):
        for _ in range(3):
            for _ in stream:
                pass
    assert "checksum" in str(caught.value)


def test_a_corpus_without_a_readable_sample(copy: Path) -> None:
    for path in (copy / "train").glob("*.tar"):
        path.unlink()
    with (
        ClipStream(copy, batch_size=3, on_error="substitute") as stream,
        pytest.raises(ShardError, match="substitutes"),
    ):
        next(iter(stream))
