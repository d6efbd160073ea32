from __future__ import annotations

import numpy as np
import pytest

from clipfold.looking.clips import Gallery, ShownClip
from clipfold.looking.drawing import RED, frames_picture, slice_of
from clipfold.looking.sheet import contact_sheet
from clipfold.looking.tone import Tone
from clipfold.looking.words import shorten, wrap


def moving_bar(shape_SHW: tuple[int, int, int], *, ground: int = 40) -> np.ndarray:
    S, H, W = shape_SHW
    pixels = np.full((S, H, W, 3), ground, np.uint8)
    for number in range(S):
        pixels[number, :, number % W] = 255
    return pixels


def clip_of(pixels: np.ndarray, num_valid_frames: int | None = None, label: str | None = None) -> ShownClip:
    return ShownClip(
        key="00000001-0000", label=label, pixels_SHWC=pixels, num_valid_frames=num_valid_frames or len(pixels), fps=10.0
    )


@pytest.mark.parametrize("ground", [40, 0])
def test_a_slice_is_one_row_over_time(ground: int) -> None:
    pixels = moving_bar((20, 6, 24), ground=ground)
    found = slice_of(clip_of(pixels), Tone())
    shown = np.asarray(found.image)
    assert shown.shape == (20, 24, 3)
    assert shown[:, :, 0].argmax(axis=1).tolist() == list(range(20))  # what moves is a slanted line
    assert found.caption == ("brightest row over time" if ground == 0 else found.caption)


def test_a_slice_takes_the_row_that_changes_most() -> None:
    pixels = np.full((10, 6, 24, 3), 90, np.uint8)
    pixels[::2, 4] = 200
    assert slice_of(clip_of(pixels), Tone()).caption == "row 4 over time"
    pixels[:] = 90
    assert slice_of(clip_of(pixels), Tone()).caption == "row 3 over time"  # nothing moves: the middle


def test_high_pictures_are_sliced_along_a_column() -> None:
    pixels = moving_bar((20, 6, 24)).transpose(0, 2, 1, 3)
    found = slice_of(clip_of(np.ascontiguousarray(pixels)), Tone())
    assert found.image.size == (20, 24)
    assert np.asarray(found.image)[:, :, 0].argmax(axis=0).tolist() == list(range(20))
    assert found.caption.startswith("column")


def test_strips_are_stacked_and_their_rows_can_be_seen() -> None:
    picture = frames_picture(clip_of(moving_bar((100, 16, 701))), Tone())
    strip = np.asarray(picture)[:48, -701:]
    assert picture.height >= 6 * 48
    assert (strip[:, 0] == 255).all()  # frame 0: the bar is in column 0, in 16 rows of 3 pixels
    assert (strip[:, 1:] == 40).all()


def test_padding_is_red_and_valid_frames_get_the_room() -> None:
    for shape in ((20, 16, 128), (20, 24, 32)):
        padded = np.asarray(frames_picture(clip_of(moving_bar(shape), 7), Tone())).reshape(-1, 3)
        whole = np.asarray(frames_picture(clip_of(moving_bar(shape)), Tone())).reshape(-1, 3)
        assert (padded == RED).all(axis=1).any()
        assert not (whole == RED).all(axis=1).any()
    found = np.asarray(slice_of(clip_of(moving_bar((20, 6, 24)), 8), Tone()).image)
    assert len(found) == 10  # 8 valid, a quarter as much of the padding
    assert (found[8:, -1, 0] > found[8:, -1, 1]).all()
    assert (found[:8, -1, 0] == found[:8, -1, 1]).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (100, 16, 701), (3, 400, 20), (2, 5, 5000), (7, 300, 400)])
def test_any_shape_gives_a_sheet(shape: tuple[int, int, int]) -> None:
    clips = [clip_of(moving_bar(shape), label="a"), clip_of(moving_bar(shape), 1, label="b \u00e9\u6f22")]
    sheet = contact_sheet(Gallery(title="x" * 300, facts={"clips": "y " * 300}, clips=clips, notes=["a note"]))
    assert 600 < sheet.width < 2000
    assert sheet.height > 100


def test_words_fit() -> None:
    assert shorten("abc", 100, 12) == "abc"
    assert "..." in shorten("abcdefghijklmnopqrstuvwxyz" * 4, 100, 12)
    assert wrap("", 100, 12) == []
    assert " ".join(wrap("one two three four five six seven", 80, 12)) == "one two three four five six seven"
