from __future__ import annotations

import numpy as np

from clipfold.looking.clips import ShownClip
from clipfold.looking.tone import captions, tones_of


def clip_of(pixels_SHWC: np.ndarray, num_valid_frames: int | None = None) -> ShownClip:
    return ShownClip(
        key="k", label=None, pixels_SHWC=pixels_SHWC, num_valid_frames=num_valid_frames or len(pixels_SHWC)
    )


def test_8_bits_are_shown_as_they_are() -> None:
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    clips = [clip_of(pixels)]
    tones = tones_of(clips)
    assert np.array_equal(tones["uint8"].apply(pixels), pixels)
    assert captions(tones, clips) == []


def test_16_bits_are_stretched_between_percentiles_without_the_zeros() -> None:
    pixels = np.zeros((1, 10, 101, 1), np.uint16)
    pixels[0, 0] = np.arange(1000, 1101)[:, None]  # percentiles 1 and 99 of these 101 values: 1001 and 1099
    clips = [clip_of(pixels)]
    tone = tones_of(clips)["uint16"]
    assert (tone.low, tone.high) == (1001.0, 1099.0)
    shown = tone.apply(pixels)
    assert shown.shape == (1, 10, 101, 3)
    assert shown[0, 0, 1].tolist() == [0, 0, 0]
    assert shown[0, 0, 99].tolist() == [255, 255, 255]
    assert not shown[0, 1:].any()
    assert "1,001 (black) to 1,099 (white)" in captions({"uint16": tone}, clips)[0]


def test_padding_does_not_count_and_odd_values_do_no_harm() -> None:
    pixels = np.full((2, 4, 4, 1), np.nan, np.float32)
    pixels[0, :2] = 2.0
    pixels[0, 2:] = 4.0
    pixels[1] = 1e9
    tone = tones_of([clip_of(pixels, 1)])["float32"]
    assert (tone.low, tone.high) == (2.0, 4.0)
    pixels[0, 0, 0] = np.nan
    assert tone.apply(pixels)[0, 0, 0].tolist() == [0, 0, 0]
    empty = np.zeros((1, 2, 2, 1), np.uint16)
    assert not tones_of([clip_of(empty)])["uint16"].apply(empty).any()


def test_other_numbers_of_channels_say_what_is_left_out() -> None:
    clips = [clip_of(np.zeros((1, 2, 2, 5), np.uint8)), clip_of(np.zeros((1, 2, 2, 2), np.uint8))]
    assert all(tones_of(clips)["uint8"].apply(clip.pixels_SHWC).shape[3] == 3 for clip in clips)
    assert captions(tones_of(clips), clips) == [
        "of 2 channels the first 1 are shown",
        "of 5 channels the first 3 are shown",
    ]
