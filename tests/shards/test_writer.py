from __future__ import annotations

import gc
import io
import json
import subprocess
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.shards.codecs import CODECS, get_codec
from clipfold.shards.index import dali_path, index_path, load_index, shard_rows, tar_path
from clipfold.shards.reader import Corpus
from clipfold.shards.writer import ShardWriter, finished_shard

META = {"source": "a.mp4", "fps": 25.0}


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def append(writer: ShardWriter, number: int, num_bytes: int = 700, **changes: Any) -> None:
    sample: dict[str, Any] = {"data": bytes([number]) * num_bytes, "num_valid_frames": 4, "label": 1, "meta": META}
    writer.append(source=number, clip=0, **{**sample, **changes})


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_written_twice_gives_the_same_bytes(make_corpus: Callable[..., Path], codec: str) -> None:
    first, second = (files_of(make_corpus(name, codec=codec)) for name in ("a", "b"))
    assert first == second
    assert len(first) == 1 + 2 * (1 + 3 * 3)


def test_nothing_of_this_machine_is_in_the_tar(make_corpus: Callable[..., Path]) -> None:
    with tarfile.open(make_corpus() / "train" / "train-000000.tar") as tar:
        members = tar.getmembers()
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
        assert (member.uname, member.gname, member.type) == ("clipfold", "clipfold", tarfile.REGTYPE)
    assert [member.name for member in members[:3]] == [f"00000000-0000.{ext}" for ext in ("cls", "json", "npy")]


def test_tar_reads_them(make_corpus: Callable[..., Path]) -> None:
    path = make_corpus() / "train" / "train-000000.tar"
    names = subprocess.run(["tar", "tf", str(path)], check=True, capture_output=True, text=True).stdout.split()
    with tarfile.open(path) as tar:
        assert tar.getnames() == names
    assert len(names) == 9


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_index_and_idx_say_where_everything_is(make_corpus: Callable[..., Path], codec: str) -> None:
    root = make_corpus(codec=codec)
    corpus = Corpus(root)
    for row in shard_rows(corpus.shard_table("val")):
        tar = Path(corpus.tar_location("val", row.number)).read_bytes()
        with tarfile.open(corpus.tar_location("val", row.number)) as archive:
            members = {member.name: member for member in archive}
            contents = {name: archive.extractfile(member).read() for name, member in members.items()}  # type: ignore[union-attr]
        lines = Path(dali_path(root, "val", row.number)).read_text().splitlines()
        assert lines[0] == f"v1.2 {row.num_samples}"
        fields = [line.split(" ") for line in lines[1:]]
        listed = [tuple(line[at : at + 4]) for line in fields for at in range(0, len(line), 4)]
        assert listed == [
            (name.partition(".")[2], str(member.offset_data), str(member.size), name)
            for name, member in members.items()
        ]
        for sample in corpus.index("val", row.number):
            data = tar[sample["offset"] : sample["offset"] + sample["size"]]
            key = f"{sample['source']:08d}-{sample['clip']:04d}"
            assert data == contents[f"{key}.{corpus.codec.extension}"]
            assert int(contents[f"{key}.cls"]) == sample["label"]
            assert json.loads(contents[f"{key}.json"])["num_valid_frames"] == sample["num_valid_frames"]


def stock_samples(path: Path, *stages: Any) -> list[dict[str, Any]]:
    import webdataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files to the garbage collector
        dataset = webdataset.WebDataset(str(path), shardshuffle=False)
        for stage in stages:
            dataset = dataset.decode(stage)
        samples = list(dataset)
        del dataset
        gc.collect()
    return samples


def test_stock_webdataset_reads_raw_and_jpeg(make_corpus: Callable[..., Path]) -> None:
    spec = ClipSpec(num_frames=4, channels=3, height=16, width=40)
    raw = stock_samples(make_corpus("r", spec=spec) / "train" / "train-000000.tar", "rgb8")
    jpeg = stock_samples(make_corpus("j", spec=spec, codec="jpeg") / "train" / "train-000000.tar", "rgb8")
    assert [sample["__key__"] for sample in raw] == ["00000000-0000", "00000000-0001", "00000001-0000"]
    assert [sample["cls"] for sample in jpeg] == [0, 0, 1]
    for exact, lossy in zip(raw, jpeg, strict=True):
        assert exact["npy"].shape == spec.shape_SCHW
        assert lossy["jpg"].shape == (4 * 16, 40, 3)
        strip = exact["npy"].transpose(0, 2, 3, 1).reshape(64, 40, 3)
        assert np.abs(strip.astype(int) - lossy["jpg"]).mean() < 4  # a gentle slope at quality 90
        assert exact["json"] == lossy["json"]
        assert exact["json"]["indices"][1] == exact["json"]["start"] + exact["json"]["step"]


def test_stock_webdataset_reads_the_other_codecs_as_bytes(make_corpus: Callable[..., Path]) -> None:
    for codec in ("lossless", "mp4"):
        path = make_corpus(codec, codec=codec) / "train" / "train-000000.tar"
        sample = stock_samples(path)[0]
        assert len(sample[get_codec(codec).extension]) > 50


def test_a_shard_closes_before_what_would_be_too_much(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train", "bin", labelled=True, shard_clips=2) as writer:
        for number in range(5):
            append(writer, number)
    assert [row.num_samples for row in writer.rows] == [2, 2, 1]
    # a sample: three headers, data padded to 1,024, two small members of 512; a tar: whole records of 10,240
    one = 3 * 512 + 1024 + 2 * 512
    for shard_bytes, per_shard in ((20_480, (20_480 - 1024) // one), (20_479, (10_240 - 1024) // one), (1, 1)):
        with ShardWriter(tmp_path / str(shard_bytes), "train", "bin", labelled=True, shard_bytes=shard_bytes) as writer:
            for number in range(11):
                append(writer, number)
        assert [row.num_samples for row in writer.rows][:-1] == [per_shard] * ((11 - 1) // per_shard)
        assert sum(row.num_samples for row in writer.rows) == 11
        if shard_bytes > 1:
            assert max(row.num_bytes for row in writer.rows) <= shard_bytes


def test_rows_come_as_shards_are_finished_and_can_be_read_back(tmp_path: Path) -> None:
    seen = []
    with ShardWriter(
        tmp_path, "train", "bin", labelled=True, shard_clips=2, first_number=5, on_finished=seen.append
    ) as writer:
        for number in range(3):
            append(writer, number)
        assert [row.number for row in seen] == [5]
        assert finished_shard(tmp_path, "train", 5) == seen[0]
        assert finished_shard(tmp_path, "train", 6) is None
    assert seen == writer.rows
    for path in (tar_path, index_path, dali_path):
        Path(path(tmp_path, "train", 6)).rename(tmp_path / "away")
        assert finished_shard(tmp_path, "train", 6) is None
        (tmp_path / "away").rename(path(tmp_path, "train", 6))
    assert finished_shard(tmp_path, "train", 6) == seen[1]


def test_an_error_leaves_no_unfinished_shard(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ShardWriter(tmp_path, "train", "bin", labelled=True, shard_clips=2) as writer:
        for number in range(3):
            append(writer, number)
        raise KeyError
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [
        "train-000000.idx",
        "train-000000.index.npy",
        "train-000000.tar",
    ]


def test_a_full_disk_leaves_no_unfinished_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import clipfold.shards.writer as module

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    writer = ShardWriter(tmp_path, "train", "bin", labelled=True)
    append(writer, 0)
    monkeypatch.setattr(module._HashedFile, "flush", full)
    with pytest.raises(OSError, match="No space"):
        writer.close()
    writer.abandon()
    assert list((tmp_path / "train").iterdir()) == []


def test_labels_are_in_every_sample_or_in_none(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train", "bin", labelled=True) as writer:
        append(writer, 0)
        with pytest.raises(ValueError, match="00000001-0000 has no label"):
            append(writer, 1, label=None)
    with ShardWriter(tmp_path, "val", "bin", labelled=False) as writer:
        append(writer, 0, label=None)
        append(writer, 1, label=1)
    assert load_index(index_path(tmp_path, "val", 0), sha256=None)["label"].tolist() == [-1, 1]
    with tarfile.open(tar_path(tmp_path, "val", 0)) as tar:
        assert not [name for name in tar.getnames() if name.endswith(".cls")]


def test_meta_is_the_same_in_every_sample(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train", "bin", labelled=True) as writer:
        append(writer, 0)
        for bad in ({"source": "a.mp4"}, {**META, "more": 1}, {**META, "fps": 25}, {**META, "fps": None}):
            with pytest.raises(ValueError, match="meta"):
                append(writer, 1, meta=bad)
        with pytest.raises(ValueError, match="at most"):
            append(writer, 1, meta={**META, "source": "a" * (1 << 20)})
        with pytest.raises(ValueError, match="negative"):
            append(writer, 1, label=-1)
    assert writer.rows[0].num_samples == 1


def test_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="shard_clips 0"):
        ShardWriter("x", "train", "bin", labelled=True, shard_clips=0)


def test_hashes_are_of_what_is_on_the_disk(tmp_path: Path) -> None:
    import hashlib

    with ShardWriter(tmp_path, "train", "bin", labelled=True) as writer:
        for number in range(4):
            append(writer, number, num_bytes=900_001)
    row = writer.rows[0]
    tar = Path(tar_path(tmp_path, "train", 0)).read_bytes()
    assert (len(tar), hashlib.sha256(tar).digest()) == (row.num_bytes, row.sha256)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert archive.getnames()[-1] == "00000003-0000.json"
