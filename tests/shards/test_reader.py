from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from clipfold.errors import ShardError
from clipfold.shards.codecs import get_codec
from clipfold.shards.reader import Corpus


def test_opens_what_was_written(make_corpus: Callable[..., Path]) -> None:
    root = make_corpus(codec="jpeg")
    corpus = Corpus(root)
    assert corpus.classes == ["left", "right"]
    assert list(corpus.splits) == ["train", "val"]
    assert corpus.codec.settings() == {"quality": 90}
    assert corpus.shard_table("train")["num_samples"].tolist() == [3, 3, 2]
    assert corpus.index("train", 2)["clip"].tolist() == [0, 1]
    assert corpus.tar_location("train", 1) == f"{root}/train/train-000001.tar"
    with pytest.raises(ValueError, match="'test', expected one of train, val"):
        corpus.shard_table("test")
    with pytest.raises(IndexError, match="3 shards"):
        corpus.index("train", 3)


def test_opens_urls(make_corpus: Callable[..., Path]) -> None:
    root = make_corpus()
    memory = fsspec.filesystem("memory")
    memory.put(str(root), "/reader-corpus", recursive=True)
    corpus = Corpus("memory://reader-corpus")
    np.testing.assert_array_equal(corpus.index("val", 1), Corpus(root).index("val", 1))
    assert corpus.tar_location("val", 0) == "memory://reader-corpus/val/val-000000.tar"
    with pytest.raises(ShardError, match="no corpus here"):
        Corpus("memory://nothing")


def test_damaged_tables_are_found(make_corpus: Callable[..., Path]) -> None:
    root = make_corpus()
    for name, read in (
        ("shards.npy", lambda corpus: corpus.shard_table("train")),
        ("train-000001.index.npy", lambda corpus: corpus.index("train", 1)),
    ):
        path = root / "train" / name
        data = path.read_bytes()
        for at in range(0, len(data), 7):
            path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
            with pytest.raises(ShardError, match="sha256"):
                read(Corpus(root))
        path.unlink()
        with pytest.raises(ShardError, match="is missing"):
            read(Corpus(root))
        path.write_bytes(data)


def test_a_codec_of_ones_own_is_passed_not_imported(make_corpus: Callable[..., Path]) -> None:
    from dataclasses import replace

    root = make_corpus()
    replace(Corpus(root).manifest, codec="my_package:Codec").save(root)
    with pytest.raises(ShardError, match=r"Corpus\(root, codec"):
        Corpus(root)
    own = get_codec("raw")
    assert Corpus(root, codec=own).codec is own


def test_codec_and_spec_must_fit(make_corpus: Callable[..., Path]) -> None:
    from dataclasses import replace

    from clipfold.clip import ClipSpec

    root = make_corpus()
    replace(Corpus(root).manifest, codec="jpeg", spec=ClipSpec(dtype="float32")).save(root)
    with pytest.raises(ShardError, match="cannot hold its clips"):
        Corpus(root)
