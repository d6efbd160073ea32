"""What is found below a folder, as a conversion takes it and tells about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError
from clipfold.shards.convert import convert
from clipfold.shards.summary import ConvertSummary


def write_sequence(folder: Path, num_frames: int = 4) -> None:
    folder.mkdir(parents=True)
    for index in range(num_frames):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04d}.png")


def converted(root: Path, **options: Any) -> ConvertSummary:
    spec = ClipSpec(num_frames=2, height=4, width=6)
    return convert(root, out=root.parent / "out", spec=spec, num_workers=1, show_progress=False, **options)


def test_links_out_of_the_folder_are_followed_when_asked(tmp_path: Path) -> None:
    write_sequence(tmp_path / "src/x/a")
    write_sequence(tmp_path / "elsewhere/b")
    os.symlink(tmp_path / "elsewhere", tmp_path / "src/y")
    dry = converted(tmp_path / "src", dry_run=True)
    assert dry.num_sources == 1
    assert "--follow-outside follows it" in str(dry)
    assert converted(tmp_path / "src", follow_outside=True).num_sources == 2
    assert converted(tmp_path / "src", follow_outside=True).was_finished
    with pytest.raises(ClipfoldError, match="follow_outside"):
        converted(tmp_path / "src")


def test_an_empty_class_is_in_the_summary(tmp_path: Path) -> None:
    write_sequence(tmp_path / "src/x/a")
    (tmp_path / "src/y").mkdir()
    assert "ignored y: a folder without videos or images" in str(converted(tmp_path / "src"))
