"""Tiny datasets in the layout of the real ones: each frame shows which video and which frame it is."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from clipfold.shards.reader import Corpus

RECIPES = Path(__file__).resolve().parents[2] / "tools" / "recipes"
CLASSES = {
    "hmdb51": "Hmdb51",
    "jester": "Jester",
    "kinetics": "Kinetics",
    "rotating_lidar": "RotatingLidar",
    "something_something": "SomethingSomething",
    "ucf101": "Ucf101",
}
_FORMATS = {".avi": ("avi", "ffv1", "bgr0"), ".mp4": ("mp4", "png", "rgb24"), ".webm": ("matroska", "ffv1", "bgr0")}


def _picture(video: int, frame: int) -> np.ndarray[Any, Any]:
    return np.full((8, 12, 3), (video, frame, 100), np.uint8)


def _write_video(path: Path, video: int, num_frames: int = 6) -> None:
    """25 frames a second, lossless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    container_format, codec, pixel_format = _FORMATS[path.suffix]
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 8, 12, pixel_format
        for frame in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_picture(video, frame), format="rgb24")))
        container.mux(stream.encode(None))


def _write_frames(folder: Path, video: int, num_frames: int = 6) -> None:
    """00001.png and so on."""
    folder.mkdir(parents=True)
    for frame in range(num_frames):
        Image.fromarray(_picture(video, frame)).save(folder / f"{frame + 1:05d}.png")


@pytest.fixture
def write() -> SimpleNamespace:
    """``video(path, number)`` and ``frames(folder, number)``."""
    return SimpleNamespace(video=_write_video, frames=_write_frames)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Sequence[str]], int]:
    """``recipe(name, flags)`` runs one and returns its exit code."""
    monkeypatch.syspath_prepend(str(RECIPES))

    def run(name: str, flags: Sequence[str]) -> int:
        lists = import_module("official_lists")
        return int(lists.run_recipe(getattr(import_module(name), CLASSES[name]), flags))

    return run


def _clips(out: Path) -> dict[str, SimpleNamespace]:
    """Every clip of a corpus of codec raw, by the name of its source (and the clip's number from the second on)."""
    corpus, clips = Corpus(out), {}
    for split in corpus.splits:
        for row in corpus.shard_table(split):
            labels = corpus.index(split, int(row["number"]))["label"]
            with tarfile.open(corpus.tar_location(split, int(row["number"]))) as tar:
                members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
            keys = list(dict.fromkeys(name.partition(".")[0] for name in members))
            for key, label in zip(keys, labels, strict=True):
                meta = json.loads(members[f"{key}.json"])
                pixels_SCHW = np.load(io.BytesIO(members[f"{key}.npy"]), allow_pickle=False)
                number = int(key.partition("-")[2])
                clips[meta["source"] + (f"#{number}" if number else "")] = SimpleNamespace(
                    split=split,
                    label=corpus.classes[label] if label >= 0 else None,
                    cls=members.get(f"{key}.cls"),
                    meta=meta,
                    pixels_SCHW=pixels_SCHW,
                    videos=sorted(set(pixels_SCHW[:, 0].ravel().tolist())),
                    frames=pixels_SCHW[:, 1 % pixels_SCHW.shape[1], 0, 0].tolist(),
                )
    return clips


@pytest.fixture
def clips() -> Callable[[Path], dict[str, SimpleNamespace]]:
    return _clips
