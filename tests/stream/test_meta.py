"""``batch.meta``: what each sample's ``.json`` says, wherever that lies in the tar."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import torch

from clipfold.errors import ShardError
from clipfold.shards.codecs import get_codec
from clipfold.shards.index import shard_table_path, write_shard_table
from clipfold.shards.manifest import Manifest, SplitTotals
from clipfold.shards.writer import ShardWriter
from clipfold.stream.loader import ClipStream


@pytest.fixture
def described(tmp_path, write_corpus):
    """Makes corpora whose samples have a text of their own, of differing length, in ``.json``."""

    def make(codec, *, labelled=True):
        root = write_corpus(tmp_path / f"plain-{codec}", {"train": [2]}, codec=codec)  # for its manifest's fields
        manifest, member = Manifest.load(root), get_codec(codec)
        root = tmp_path / f"described-{codec}-{labelled}"
        with ShardWriter(root, "train", member.extension, labelled=labelled, shard_clips=4) as writer:
            for number in range(11):
                pixels = np.full(manifest.spec.shape_SCHW, 10 * number, np.uint8)
                writer.append(
                    source=number,
                    clip=0,
                    data=member.encode(pixels, manifest.spec),
                    num_valid_frames=4,
                    label=number % 3,
                    meta={"number": number, "place": "ä" * (211 * number)},
                )
        path = shard_table_path(root, "train")
        sha256 = write_shard_table(path, writer.rows)
        totals = SplitTotals.of(np.load(path, allow_pickle=False), sha256)
        Manifest.from_json({**manifest.to_json(), "splits": {"train": vars(totals)}}).save(root)
        return root

    return make


def metas_in(root):
    """By key, read by the standard library."""
    found = {}
    for path in sorted((root / "train").glob("*.tar")):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if name.endswith(".json"):
                    found[name.removesuffix(".json")] = json.load(tar.extractfile(name))
    return found


@pytest.mark.parametrize("codec", ["raw", "lossless", "jpeg", "mp4", "lowrank"])
def test_every_batch_has_what_the_tars_say(described, codec):
    root = described(codec)
    expected = metas_in(root)
    for data in (root, f"file://{root}"):
        seen = {}
        with ClipStream(data, batch_size=3, meta=True, num_threads=3) as stream:
            for batch in stream:
                for key, valid, meta in zip(batch.keys, batch.valid.tolist(), batch.meta, strict=True):
                    assert valid or meta == {}
                    if valid:
                        seen[key] = meta
        assert seen == expected


def test_without_labels_and_where_nobody_asks(described):
    root = described("raw", labelled=False)
    with ClipStream(root, batch_size=11, meta=True) as stream:
        batch = next(iter(stream))
        assert dict(zip(batch.keys, batch.meta, strict=True)) == metas_in(root)
        kept = batch.clone()
        assert kept.meta == batch.meta
        assert kept.to("cpu").meta == batch.meta
    with ClipStream(root, batch_size=11) as stream:
        assert next(iter(stream)).meta is None


def test_the_batches_are_the_same(described):
    root = described("jpeg")
    with ClipStream(root, batch_size=4, seed=3) as plain, ClipStream(root, batch_size=4, seed=3, meta=True) as more:
        for one, other in zip(plain, more, strict=True):
            assert one.keys == other.keys
            assert torch.equal(one.pixels_BSCHW, other.pixels_BSCHW)


@pytest.mark.parametrize("what", ["name", "text"])
def test_a_damaged_json_is_a_fault_of_its_sample(described, what):
    root = described("raw")
    path = root / "train/train-000001.tar"
    with tarfile.open(path) as tar:
        member = tar.getmember("00000005-0000.json")
    data = bytearray(path.read_bytes())
    data[member.offset if what == "name" else member.offset_data] ^= 1
    path.write_bytes(data)
    with (
        ClipStream(root, batch_size=11, meta=True) as stream,
        pytest.raises(ShardError, match=r"json|header") as caught,
    ):
        next(iter(stream))
    assert caught.value.key == "00000005-0000"
    with ClipStream(root, batch_size=11, meta=True, on_error="substitute") as stream:
        batch = next(iter(stream))
        assert all(meta["number"] == int(key[:8]) for key, meta in zip(batch.keys, batch.meta, strict=True))
        assert "00000005-0000" not in batch.keys
    with ClipStream(root, batch_size=11, meta=True, on_error="substitute", shuffle=False) as stream:
        batch = next(iter(stream))
        assert [key for key, valid in zip(batch.keys, batch.valid, strict=True) if not valid] == ["00000005-0000"]
        assert batch.meta[5] == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(described):
    root = described("raw")
    with ClipStream(root, batch_size=3, meta=True, device="cuda") as stream:
        seen = {}
        for batch in stream:
            seen.update(pair for pair in zip(batch.keys, batch.meta, strict=True) if pair[0])
    assert seen == metas_in(root)
