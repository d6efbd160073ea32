"""Corpora whose pixels say which sample they are: a wrong sample anywhere shows as a wrong number."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipfold.clip import ClipSpec
from clipfold.shards.codecs import get_codec
from clipfold.shards.index import shard_table_path, write_shard_table
from clipfold.shards.manifest import Manifest, SplitTotals
from clipfold.shards.reader import Corpus
from clipfold.shards.writer import ShardWriter
from clipfold.stream.loader import ClipStream
from clipfold.world import World

SPEC = ClipSpec(num_frames=4, channels=3, height=8, width=16)


def _pixels_of(number: int, spec: ClipSpec = SPEC) -> np.ndarray:
    """Frame s is filled with the s-th hexadecimal digit of the number; JPEG keeps flat frames to within one."""
    digits = np.array([number >> 4 * s & 15 for s in range(spec.num_frames)])
    return np.broadcast_to((digits * 16 + 8)[:, None, None, None], spec.shape_SCHW).astype(spec.dtype)


def _numbers_in(pixels_BSCHW: torch.Tensor) -> list[int]:
    """Which samples the clips show; -1 where a clip is all zeros. Every pixel of a frame has to agree."""
    values = pixels_BSCHW.to(torch.float64).flatten(2)
    assert (values.amax(2) - values.amin(2) <= 2).all(), "frames that were written flat are not"
    digits = ((values.mean(2) - 8) / 16).round().long()
    numbers = (digits * 16 ** torch.arange(digits.shape[1])).sum(1)
    return torch.where((values == 0).flatten(1).all(1), -1, numbers).tolist()


def _write_corpus(root: Path, splits: dict[str, Sequence[int]], *, codec: str = "raw", spec: ClipSpec = SPEC) -> Path:
    """Splits as samples per shard; samples are numbered through all of them."""
    member = get_codec(codec)
    totals, number = {}, 0
    for split, counts in splits.items():
        rows = []
        for shard, count in enumerate(counts):
            with ShardWriter(root, split, member.extension, labelled=True, first_number=shard) as writer:
                for _ in range(count):
                    writer.append(
                        source=number,
                        clip=number % 3,
                        data=member.encode(_pixels_of(number, spec), spec),
                        num_valid_frames=1 + number % spec.num_frames,
                        label=number % 7,
                        meta={},
                    )
                    number += 1
            rows += writer.rows
        path = shard_table_path(root, split)
        Path(path).parent.mkdir(exist_ok=True, parents=True)
        sha256 = write_shard_table(path, rows)
        totals[split] = SplitTotals.of(np.load(path, allow_pickle=False), sha256)
    Manifest(
        spec=spec,
        codec=codec,
        codec_settings=member.settings(),
        classes=[f"class{label}" for label in range(7)],
        splits=totals,
        mean=[0.5] * spec.channels,
        std=[0.25] * spec.channels,
    ).save(root)
    return root


def _keys_of(stream: ClipStream, num_batches: int | None = None) -> list[list[str]]:
    out: list[list[str]] = []
    while num_batches is None or len(out) < num_batches:
        for batch in stream:
            out.append(list(batch.keys))
            if len(out) == num_batches:
                break
        if num_batches is None:
            break
    return out


def _steps_of(data: Any, num_steps: int, *, world_size: int, accumulate: int, state: Any = None, **options: Any) -> Any:
    """What all ranks together see: for each step its keys in the order of the slots, and the state afterwards."""
    shares, states = [], []
    for rank in range(world_size):
        with ClipStream(data, world=World(rank, world_size), accumulate=accumulate, **options) as stream:
            if state is not None:
                stream.load_state_dict(json.loads(json.dumps(state)))
            shares.append(_keys_of(stream, num_steps * accumulate))
            states.append(stream.state_dict())
    assert all(state == states[0] for state in states)
    steps = [
        [key for share in shares for micro in share[step * accumulate : (step + 1) * accumulate] for key in micro]
        for step in range(num_steps)
    ]
    return steps, states[0]


@pytest.fixture(scope="session")
def keys_of() -> Callable[..., list[list[str]]]:
    """``keys_of(stream, num_batches=None)``: the keys of that many batches, or of one iteration."""
    return _keys_of


@pytest.fixture(scope="session")
def steps_of() -> Callable[..., Any]:
    """``steps_of(data, num_steps, world_size=, accumulate=, ...)``: what all ranks together see, and the state."""
    return _steps_of


@pytest.fixture(scope="session")
def numbers_in() -> Callable[[torch.Tensor], list[int]]:
    """``numbers_in(pixels_BSCHW)``: which samples the clips show, -1 where a clip is all zeros."""
    return _numbers_in


@pytest.fixture(scope="session")
def write_corpus() -> Callable[..., Path]:
    """``write_corpus(root, {split: samples of each shard}, codec=, spec=)``."""
    return _write_corpus


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``corpora(codec)``: 37 samples of train in uneven shards, 11 of val, none of test. Not to be changed."""
    made: dict[str, Path] = {}

    def get(codec: str) -> Path:
        if codec not in made:
            root = tmp_path_factory.mktemp(f"corpus-{codec}")
            made[codec] = _write_corpus(root, {"train": [5, 3, 8, 1, 20], "val": [4, 7], "test": []}, codec=codec)
        return made[codec]

    return get


@pytest.fixture(scope="session")
def corpus(corpora: Callable[[str], Path]) -> Corpus:
    """The raw corpus, opened."""
    return Corpus(corpora("raw"))
