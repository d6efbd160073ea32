"""A small corpus on the disk, as `clipfold convert` would leave it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.shards.codecs import get_codec
from clipfold.shards.index import load_shard_table, shard_table_path, write_shard_table
from clipfold.shards.manifest import Manifest, SplitTotals
from clipfold.shards.meta import sample_meta
from clipfold.shards.writer import ShardWriter

SPEC = ClipSpec(num_frames=4, channels=3, height=6, width=10)
CLASSES = ["left", "right"]


def clip_pixels(source: int, clip: int, spec: ClipSpec = SPEC) -> np.ndarray[Any, Any]:
    """Smooth pictures, so that lossy codecs keep them, that differ by sample and frame."""
    S, C, H, W = np.indices(spec.shape_SCHW)
    values = 40 + 7 * source + 3 * clip + 9 * S + 5 * C + H + 2 * W
    return (values % (200 if spec.dtype == "uint8" else 60_000)).astype(spec.dtype)


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Path]:
    """Writes a corpus of `num_sources` sources with two clips each, three samples a shard."""

    def make(
        name: str = "corpus",
        *,
        codec: str = "raw",
        spec: ClipSpec = SPEC,
        num_sources: int = 4,
        splits: Sequence[str] = ("train", "val"),
        labelled: bool = True,
        meta: dict[str, Any] | None = None,
    ) -> Path:
        root = tmp_path / name
        member, totals = get_codec(codec), {}
        for split in splits:
            with ShardWriter(root, split, member.extension, labelled=labelled, shard_clips=3) as writer:
                for source in range(num_sources):
                    for clip in range(2):
                        label = source % 2 if labelled else None
                        writer.append(
                            source=source,
                            clip=clip,
                            data=member.encode(clip_pixels(source, clip, spec), spec),
                            num_valid_frames=spec.num_frames,
                            label=label,
                            meta=sample_meta(
                                source=f"left/v_{source}.mp4",
                                indices=np.arange(spec.num_frames) * 2 + clip,
                                label=None if label is None else CLASSES[label],
                                fps=25.0,
                                num_valid_frames=spec.num_frames,
                                height=120,
                                width=160,
                                extra=meta,
                            ),
                        )
            sha256 = write_shard_table(shard_table_path(root, split), writer.rows)
            totals[split] = SplitTotals.of(load_shard_table(shard_table_path(root, split), sha256=sha256), sha256)
        Manifest(
            spec=spec,
            codec=codec,
            codec_settings=member.settings(),
            classes=CLASSES if labelled else [],
            splits=totals,
            mean=[0.5] * spec.channels,
            std=[0.25] * spec.channels,
            provenance={"version": "0.1.0"},
        ).save(root)
        return root

    return make


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module ``convert_corpus`` beside this file; its decoder can be imported here and in worker processes."""
    spec = importlib.util.spec_from_file_location("convert_corpus", Path(__file__).with_name("convert_corpus.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = module.install_decoder(tmp_path / "code")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
    yield module
    sys.modules.pop("scripted_decoder", None)
