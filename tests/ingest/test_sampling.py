from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfold.ingest.sampling import Sampling

SHORT = ["repeat_last", "wrap", "zero", "drop", "error"]


@given(
    num_frames=st.integers(1, 400),
    size=st.integers(1, 40),
    step=st.integers(1, 5),
    stride=st.none() | st.integers(1, 60),
    short=st.sampled_from(SHORT[:4]),
)
def test_windows(num_frames: int, size: int, step: int, stride: int | None, short: str) -> None:
    plan = Sampling(frame_step=step, clip_stride=stride, short=short).plan(num_frames, size)  # type: ignore[arg-type]
    span, stride = step * (size - 1) + 1, stride or size * step
    indices = plan.indices
    assert indices.shape == (len(plan), size)
    assert indices.dtype == plan.num_valid.dtype == np.int64
    if num_frames >= span:
        want = [[start + step * i for i in range(size)] for start in range(0, num_frames - span + 1, stride)]
        assert indices.tolist() == want
        assert (plan.num_valid == size).all()
    else:
        assert len(plan) == (short != "drop")
        real = list(range(0, num_frames, step))
        for row, num_valid in zip(indices.tolist(), plan.num_valid.tolist(), strict=True):
            assert num_valid == len(real) < size
            assert row[:num_valid] == real
            padding = {"repeat_last": real[-1:] * size, "wrap": (real * size)[len(real) :], "zero": [-1] * size}[short]
            assert row == (real + padding)[:size] if short != "wrap" else row == (real * size)[:size]


@given(num_frames=st.integers(1, 400), size=st.integers(1, 40), step=st.integers(1, 4), num=st.integers(1, 12))
def test_equal(num_frames: int, size: int, step: int, num: int) -> None:
    plan = Sampling(clips="equal", num_clips=num, frame_step=step).plan(num_frames, size)
    last_start = num_frames - (step * (size - 1) + 1)
    starts = plan.starts.tolist()
    if last_start < 0:
        assert starts == [0]
        return
    assert len(starts) == min(num, last_start + 1) if num > 1 else starts == [last_start // 2]
    assert sorted(set(starts)) == starts
    assert plan.indices.max() < num_frames
    if len(starts) > 1:
        assert starts[0] == 0
        assert starts[-1] == last_start
        gaps = np.diff(starts)
        assert gaps.max() - gaps.min() <= 1


def test_short_by_example() -> None:
    found = {short: Sampling(short=short).plan(3, 5).indices.tolist() for short in SHORT[:4]}  # type: ignore[arg-type]
    assert found == {
        "repeat_last": [[0, 1, 2, 2, 2]],
        "wrap": [[0, 1, 2, 0, 1]],
        "zero": [[0, 1, 2, -1, -1]],
        "drop": [],
    }
    with pytest.raises(ValueError, match="3 frames, expected at least 5"):
        Sampling(short="error").plan(3, 5)
    assert Sampling(short="error").plan(5, 5).indices.tolist() == [[0, 1, 2, 3, 4]]


def test_json_round_trip() -> None:
    sampling = Sampling(clips="equal", num_clips=4, frame_step=2, short="wrap")
    assert Sampling.from_json(json.loads(json.dumps(sampling.to_json()))) == sampling
    with pytest.raises(ValueError, match="fields of a sampling"):
        Sampling.from_json({"clips": "equal"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"clips": "random"},
        {"short": "mirror"},
        {"frame_step": 0},
        {"clip_stride": 0},
        {"num_clips": 2},
        {"clips": "equal", "num_clips": 0},
        {"clips": "equal", "clip_stride": 3},
        {"frame_step": 1.5},
    ],
)
def test_wrong_arguments(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_no_frames() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Sampling().plan(0, 5)
