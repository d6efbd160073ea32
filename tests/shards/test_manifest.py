from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.manifest import FORMAT, Manifest, SplitTotals

TOTALS = SplitTotals(num_shards=2, num_samples=20, num_bytes=1000, shards_sha256="ab" * 32)
MANIFEST = Manifest(
    spec=ClipSpec(),
    codec="jpeg",
    codec_settings={"quality": 90},
    classes=["links", "rückwärts"],
    splits={"train": TOTALS, "val": TOTALS},
    mean=[0.1, 0.2, 1 / 3],
    std=[0.1, 0.2, 0.3],
    provenance={"version": "0.1.0", "sampling": {"frame_step": 2}},
    file_sha256={"sources.jsonl": "0" * 64},
)


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    first = (tmp_path / "dataset.json").read_bytes()
    assert Manifest.load(tmp_path) == MANIFEST
    Manifest.load(tmp_path).save(tmp_path)
    assert (tmp_path / "dataset.json").read_bytes() == first


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    path = tmp_path / "dataset.json"
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in (0, 5):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            with pytest.raises(ShardError, match=r"dataset\.json is not what clipfold wrote|has format"):
                Manifest.load(tmp_path)
    for damaged in (data[:-1], data + b"\n", data.replace(b"  ", b" "), b"", b"[]", b"[" * 100_000):
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match="not what clipfold wrote"):
            Manifest.load(tmp_path)


def test_newer_format_is_refused_with_the_version_that_reads_it(tmp_path: Path) -> None:
    replace(MANIFEST, format=FORMAT + 1, provenance={"version": "9.1"}).save(tmp_path)
    with pytest.raises(ShardError, match=f"format {FORMAT + 1}, this clipfold reads up to {FORMAT}") as caught:
        Manifest.load(tmp_path)
    assert "clipfold 9.1" in str(caught.value)
    (tmp_path / "dataset.json").write_text(json.dumps({"format": FORMAT + 1, "all": "new"}))
    with pytest.raises(ShardError, match="this clipfold reads up to"):
        Manifest.load(tmp_path)


def test_no_corpus_and_unfinished_corpus(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no corpus here") as caught:
        Manifest.load(tmp_path / "nowhere")
    assert "--out FOLDER" in caught.value.fix
    (tmp_path / "sources.jsonl").write_text("")
    with pytest.raises(ShardError, match="no corpus here") as caught:
        Manifest.load(tmp_path)
    assert "did not end" in caught.value.fix


def test_values_out_of_range() -> None:
    with pytest.raises(ValueError, match="mean"):
        replace(MANIFEST, mean=[0.1])
    with pytest.raises(ValueError, match="std"):
        replace(MANIFEST, std=[0.1, 0.2, float("nan")])
    with pytest.raises(ValueError, match="every name once"):
        replace(MANIFEST, classes=["a", "a"])
    for split in ("../train", "", "a b", "-x", "a/b"):
        with pytest.raises(ValueError, match="name of a split"):
            replace(MANIFEST, splits={split: TOTALS})


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"num_frames": 0, "channels": 3, "height": 1, "width": 1, "dtype": "uint8"}},
        {"spec": None},
        {"codec": 3},
        {"classes": [1]},
        {"splits": {"train": {"num_shards": -1}}},
        {"splits": {"../up": vars(TOTALS)}},
        {"mean": ["x", "y", "z"]},
        {"surplus": 1},
        {"format": 0},
    ],
    ids=str,
)
def test_wrong_fields(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Manifest.from_json(MANIFEST.to_json() | change)
