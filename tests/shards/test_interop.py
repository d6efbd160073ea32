"""Stock software reads our shards: webdataset, Hugging Face datasets, GNU tar, and what DALI's index promises."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from clipfold.clip import ClipSpec
from clipfold.shards.codecs import CODECS, empty_slot, get_codec
from clipfold.shards.index import dali_path, sample_key
from clipfold.shards.reader import Corpus

Make = Callable[..., Path]

# four frames of 16 x 40, three samples in the first shard of a split
SPEC = ClipSpec(num_frames=4, channels=3, height=16, width=40)


def clips_of(root: Path, split: str = "train") -> dict[str, dict[str, Any]]:
    """Label, member bytes and decoded pixels of every sample, by key, as our own code reads them."""
    corpus = Corpus(root)
    found = {}
    for number in corpus.shard_table(split)["number"].tolist():
        tar = Path(corpus.tar_location(split, number)).read_bytes()
        for row in corpus.index(split, number):
            data = tar[row["offset"] : row["offset"] + row["size"]]
            slot, pixels_SCHW = empty_slot(corpus.codec, corpus.spec)
            corpus.codec.decode_into(data, slot, corpus.spec)
            key = sample_key(int(row["source"]), int(row["clip"]))
            found[key] = {"label": int(row["label"]), "data": data, "pixels": pixels_SCHW}
    return found


# ---- webdataset ----


def read_with_webdataset(pattern: str) -> list[dict[str, Any]]:
    import webdataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files to the garbage collector
        dataset = webdataset.WebDataset(pattern, shardshuffle=False, empty_check=False).decode("rgb8")
        samples = list(dataset)
        del dataset
        gc.collect()
    return samples


def as_clip(codec: str, member: Any) -> np.ndarray[Any, Any]:
    """(S, C, H, W) from what ``decode("rgb8")`` gives, with nothing of ours but the codec that stock readers lack."""
    if codec == "raw":
        return np.asarray(member)
    if codec == "lossless":
        data = (
            member
            if isinstance(member, np.ndarray)
            else np.load(
                io.BytesIO(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(member)).read()), allow_pickle=False
            )
        )
        return np.asarray(data)
    if codec == "jpeg":  # one tall picture, uint8 (S * H, W, C)
        return np.asarray(member).reshape(SPEC.num_frames, SPEC.height, SPEC.width, 3).transpose(0, 3, 1, 2)
    if codec == "mp4":
        import av

        with av.open(io.BytesIO(member)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames).transpose(0, 3, 1, 2)
    slot, pixels_SCHW = empty_slot(get_codec(codec), SPEC)
    get_codec(codec).decode_into(member, slot, SPEC)
    return pixels_SCHW


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_webdataset(make_corpus: Make, codec: str) -> None:
    root = make_corpus(codec=codec, spec=SPEC)
    expected = clips_of(root)
    samples = read_with_webdataset(f"{root}/train/train-{{000000..000002}}.tar")
    assert [sample["__key__"] for sample in samples] == list(expected)
    for sample in samples:
        ours = expected[sample["__key__"]]
        assert sample["cls"] == ours["label"]
        assert sample["json"]["count"] == SPEC.num_frames
        found = as_clip(codec, sample[get_codec(codec).extension])
        assert found.shape == SPEC.shape_SCHW
        # two JPEG decoders may round differently by one step of 8 x 8 transform and colour conversion each
        assert np.abs(found.astype(int) - ours["pixels"]).max() <= (0 if codec != "jpeg" else 4)


def test_webdataset_without_labels(make_corpus: Make) -> None:
    samples = read_with_webdataset(f"{make_corpus(labelled=False)}/train/train-000000.tar")
    assert {name for sample in samples for name in sample if not name.startswith("__")} == {"json", "npy"}


# ---- Hugging Face datasets ----

_DATASETS = """
import json, sys
import datasets
datasets.disable_progress_bars()
for codec, extension, folder, cache in json.loads(sys.argv[1]):
    for streaming in (True, False):
        options = {"streaming": True} if streaming else {"cache_dir": cache}
        files = {"train": folder + "/train/*.tar"}
        found = datasets.load_dataset("webdataset", data_files=files, split="train", **options)
        if codec == "mp4":  # its decoder is torchcodec, which need not be there
            found = found.cast_column("mp4", datasets.Video(decode=False))
        for sample in found:
            member = sample[extension]
            if codec in ("raw", "lossless"):
                member = sum(int(value) for frame in member for plane in frame for row in plane for value in row)
            elif codec == "jpeg":
                member = list(member.size)
            elif codec == "mp4":
                member = len(member["bytes"])
            else:
                member = len(member)
            member = member if codec == "jpeg" else int(member)
            print(json.dumps([codec, streaming, sample["__key__"], sample["cls"], sample["json"], member]))
"""


@pytest.mark.slow
def test_hugging_face_datasets(make_corpus: Make, tmp_path: Path, skip_without: Callable[[str, str], None]) -> None:
    """In a process of its own: the library reads its settings (no network) when it is imported."""
    try:
        import datasets  # noqa: F401
    except ImportError:
        skip_without("datasets", "Hugging Face datasets is not installed")
    roots = {codec: make_corpus(codec, codec=codec, spec=SPEC, splits=("train",)) for codec in CODECS}
    jobs = [[codec, get_codec(codec).extension, str(root), str(tmp_path / "cache")] for codec, root in roots.items()]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", _DATASETS, json.dumps(jobs)],
        env={**os.environ, **offline, "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for codec, root in roots.items():
        expected = clips_of(root)
        for streaming in (True, False):
            found = [line[2:] for line in lines if line[:2] == [codec, streaming]]
            assert [line[0] for line in found] == list(expected)
            for key, label, meta, member in found:
                ours = expected[key]
                assert label == ours["label"]
                assert meta["num_valid_frames"] == len(meta["indices"]) == SPEC.num_frames
                sizes = {"jpeg": [SPEC.width, SPEC.num_frames * SPEC.height]}
                exact = int(ours["pixels"].sum()) if codec in ("raw", "lossless") else len(ours["data"])
                assert member == sizes.get(codec, exact)


# ---- GNU tar, and DALI's index ----


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_tar_extracts_what_the_index_says(make_corpus: Make, tmp_path: Path, codec: str) -> None:
    root = make_corpus(codec=codec, spec=SPEC)
    (tmp_path / "out").mkdir()
    for number in range(3):
        path = Corpus(root).tar_location("train", number)
        subprocess.run(["tar", "xf", path, "-C", tmp_path / "out"], check=True)
    expected = clips_of(root)
    extension = get_codec(codec).extension
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{key}.{end}" for key in expected for end in (extension, "cls", "json")
    }
    for key, ours in expected.items():
        assert (tmp_path / "out" / f"{key}.{extension}").read_bytes() == ours["data"]
        assert int((tmp_path / "out" / f"{key}.cls").read_text()) == ours["label"]


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_dali_finds_every_member(make_corpus: Make, codec: str) -> None:
    """``v1.2 <samples>``, then a line a sample with extension, offset, size and name of each of its members: what
    https://github.com/NVIDIA/DALI/blob/main/tools/wds2idx.py writes, the extension being all behind the first dot."""
    root = make_corpus(codec=codec, spec=SPEC)
    for number in range(3):
        path = Corpus(root).tar_location("train", number)
        data = Path(path).read_bytes()
        # "block 3: <name>": the 512-byte block of its header; its data follow in the next one
        listing = subprocess.run(["tar", "tRf", path], check=True, capture_output=True, text=True).stdout.splitlines()
        pairs = [line.split(": ", 1) for line in listing if "*" not in line]  # "** Block of NULs **" ends it
        blocks = {name: int(block.split()[1]) for block, name in pairs}
        first, *lines = Path(dali_path(root, "train", number)).read_text().splitlines()
        assert first == f"v1.2 {len(lines)}"
        seen = []
        for line in lines:
            words = line.split(" ")
            members = [words[start : start + 4] for start in range(0, len(words), 4)]
            assert len({name.split(".", 1)[0] for _, _, _, name in members}) == 1
            for end, offset, size, name in members:
                assert name.split(".", 1)[1] == end
                assert int(offset) == 512 * (blocks[name] + 1)
                content = subprocess.run(["tar", "xOf", path, name], check=True, capture_output=True).stdout
                assert data[int(offset) : int(offset) + int(size)] == content
                seen.append(name)
        assert seen == list(blocks)
