"""A small corpus whose classes differ by the direction of motion, and a small image network, for quick runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipfold import ClipSpec, TrainConfig, rng
from clipfold.shards.codecs import get_codec
from clipfold.shards.index import load_shard_table, shard_table_path, write_shard_table
from clipfold.shards.manifest import Manifest, SplitTotals
from clipfold.shards.writer import ShardWriter

SPEC = ClipSpec(num_frames=12, channels=3, height=8, width=24)
CLASSES = ["left", "right", "still"]

SMALL_NET = """
from torch import nn

def small(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )

def with_dropout(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )

def not_a_number(num_classes, in_channels):
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Linear(in_channels, num_classes)
        def forward(self, image):
            return self.scale(image.mean((2, 3))) * float("nan")
    return Bad()
"""


def clip_of(number: int, spec: ClipSpec = SPEC) -> np.ndarray:
    """A bright column on noise that moves after the class ``number % 3``."""
    S, C, H, W = spec.shape_SCHW
    bits = rng.words(S * C * H * W // 8 + 1, 5, number).view(np.uint8)[: S * C * H * W]
    pixels_SCHW = (bits % 60).reshape(spec.shape_SCHW).astype(spec.dtype)
    start = int(rng.words(1, 6, number)[0] % W)
    for s in range(S):
        column = (start + (-1, 1, 0)[number % 3] * 2 * s) % W
        pixels_SCHW[s, :, :, column] = 250
    return pixels_SCHW


def write_corpus(
    root: Path, counts: dict[str, int], *, spec: ClipSpec = SPEC, classes: list[str] = CLASSES, codec: str = "raw"
) -> Path:
    member = get_codec(codec)
    totals, number = {}, 0
    for split, count in counts.items():
        with ShardWriter(root, split, member.extension, labelled=bool(classes), shard_clips=7) as writer:
            for _ in range(count):
                writer.append(
                    source=number,
                    clip=0,
                    data=member.encode(clip_of(number, spec), spec),
                    num_valid_frames=spec.num_frames,
                    label=number % 3 if classes else None,
                    meta={},
                )
                number += 1
        path = shard_table_path(root, split)
        Path(path).parent.mkdir(exist_ok=True, parents=True)
        sha256 = write_shard_table(path, writer.rows)
        totals[split] = SplitTotals.of(load_shard_table(path, sha256=sha256), sha256)
    Manifest(
        spec=spec,
        codec=codec,
        codec_settings=member.settings(),
        classes=classes,
        splits=totals,
        mean=[0.12] * spec.channels,
        std=[0.15] * spec.channels,
    ).save(root)
    return root


@pytest.fixture(scope="session")
def corpora() -> Callable[..., Path]:
    return write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 45, "val": 12, "test": 17})


@pytest.fixture(scope="session")
def small_net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a module with image networks that live outside the package."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "small_net_of_tests.py").write_text(SMALL_NET)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def config(corpus: Path, small_net: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """``config(**changes)``: three epochs on the small corpus."""

    def make(**changes: Any) -> TrainConfig:
        settings: dict[str, Any] = {
            "data": str(corpus),
            "out": str(tmp_path / "run"),
            "backbone": "small_net_of_tests:small",
            "epochs": 3,
            "batch_size": 8,
            "cpu_threads": 1,
            "device": "cpu",
            "num_threads": 2,
            "log_every": 4,
            "show_progress": False,
        }
        return TrainConfig(**(settings | changes))

    return make
