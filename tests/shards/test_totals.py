"""Sums of channels: exact, in any order."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.shards.totals import ChannelSums, mean_and_std


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_whole_numbers_are_summed_exactly(dtype):
    rng = np.random.default_rng(0)
    clips = rng.integers(0, np.iinfo(dtype).max, (3, 5, 2, 130, 701), dtype=dtype, endpoint=True)
    sums = [ChannelSums.of(clip, 4) for clip in clips]
    exact = clips[:, :4].astype(object)
    total = sums[0] + sums[1] + sums[2]
    assert total == sums[2] + sums[0] + sums[1]
    assert total.num == 3 * 4 * 130 * 701
    assert list(total.sums) == [exact[:, :, channel].sum() for channel in range(2)]
    assert list(total.squares) == [(exact[:, :, channel] ** 2).sum() for channel in range(2)]
    assert ChannelSums.from_json(json.loads(json.dumps(total.to_json()))) == total


def test_layout_in_memory_does_not_matter():
    clip_SHWC = np.random.default_rng(1).random((3, 4, 5, 2), dtype=np.float32)
    view = clip_SHWC.transpose(0, 3, 1, 2)
    assert ChannelSums.of(view, 3) == ChannelSums.of(np.ascontiguousarray(view), 3)


def test_mean_and_std_in_the_units_of_the_model():
    spec = ClipSpec(num_frames=2, channels=2, height=1, width=2)
    clip = np.array([[[[0, 255]], [[51, 51]]], [[[9, 9]], [[9, 9]]]], dtype=np.uint8)
    mean, std = mean_and_std([ChannelSums.of(clip, 1)], spec)  # the second frame is padding
    assert mean == [0.5, 0.2]
    assert std == [0.5, 0.0]


def test_no_values_at_all():
    assert mean_and_std([], ClipSpec(channels=1)) == ([0.0], [1.0])
