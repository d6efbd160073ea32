from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipfold import ClipSpec
from clipfold.demo.sizes import _shrunk, spec_for


@pytest.mark.parametrize("height", [1, 9, 16, 64, 720, 4000])
@pytest.mark.parametrize("width", [1, 20, 96, 701, 1920])
def test_pictures_are_shrunk_to_their_shape_and_never_enlarged(height: int, width: int) -> None:
    small = _shrunk(height, width)
    assert small[0] <= height
    assert small[1] <= width
    if height * width <= 4096:
        assert small == (height, width)
    assert small[0] * small[1] <= 4096 * 1.5  # each side is rounded to a multiple of 8, from 16 on: 4 / 16 a side
    assert _shrunk(width, height) == small[::-1]


def test_length_and_size_follow_the_media(tmp_path: Path) -> None:
    for number, num_frames in enumerate([3, 30, 40, 400]):
        folder = tmp_path / "ab"[number % 2] / str(number)
        folder.mkdir(parents=True)
        for frame in range(num_frames):
            Image.fromarray(np.zeros((10, 12), np.uint8)).save(folder / f"{frame}.png")
    (tmp_path / "a" / "broken.mp4").write_bytes(b"no video")
    assert spec_for(tmp_path) == ClipSpec(num_frames=30, height=10, width=12)


def test_real_media(media: Path) -> None:
    assert spec_for(media / "labelled" / "radhar") == ClipSpec(num_frames=100, height=16, width=256)
