from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfold.errors import SourceError
from clipfold.ingest.timeline import chosen_frames, nominal_times

rates = st.sampled_from([10.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94])
times = st.lists(st.integers(2, 500), min_size=1, max_size=60).map(lambda gaps: np.cumsum([0, *gaps]) / 1000)


@given(rates, st.integers(1, 3000))
def test_the_own_rate_takes_every_frame_once(fps: float, num_frames: int) -> None:
    assert chosen_frames(nominal_times(num_frames, fps), fps=fps).tolist() == list(range(num_frames))


@given(rates, st.integers(2, 3000))
def test_so_does_a_clock_of_milliseconds(fps: float, num_frames: int) -> None:
    """Matroska rounds times to milliseconds; 33, 67, 100 are still 30 frames a second."""
    rounded = np.round(nominal_times(num_frames, fps) * 1000) / 1000
    assert chosen_frames(rounded, fps=fps).tolist()[: num_frames - 1] == list(range(num_frames - 1))


@given(times, st.floats(0.5, 120))
def test_each_frame_is_what_was_on_the_screen(times: np.ndarray, fps: float) -> None:
    chosen = chosen_frames(times, fps=fps)
    assert (np.diff(chosen) >= 0).all()
    assert chosen[0] == 0
    gap = float(np.median(np.diff(times)))
    early = min(0.0005, gap / 4)
    ends = np.append(times[1:], times[-1] + gap)
    wanted = np.arange(len(chosen)) / fps
    assert (times[chosen] <= wanted + early + 1e-9).all()
    assert (wanted < ends[chosen] - early + 1e-9).all()
    assert len(chosen) / fps >= ends[-1] - early - 1e-9  # up to the end


@given(times, st.data())
def test_parts_side_by_side_hold_every_frame_once(times: np.ndarray, data: st.DataObject) -> None:
    cut = data.draw(st.floats(0, float(times[-1]) + 1))
    parts = []
    for bounds in ({"stop_seconds": cut}, {"start_seconds": cut}):
        with suppress(SourceError):  # no frame in this part
            parts += chosen_frames(times, **bounds).tolist()
    assert parts == list(range(len(times)))


def test_a_decimal_fraction_is_that_frame() -> None:
    times = np.array([float(Fraction(number, 25)) for number in range(100)])
    assert chosen_frames(times, start_seconds=0.04, stop_seconds=0.2).tolist() == [1, 2, 3, 4]


def test_variable_rate_repeats_what_stays() -> None:
    times = np.array([0.0, 0.1, 0.2, 2.2, 2.3])
    assert chosen_frames(times, fps=2).tolist() == [0, 2, 2, 2, 2]
    assert chosen_frames(times, fps=2, start_seconds=0.1, stop_seconds=2.3).tolist() == [1, 2, 2, 2, 2]


def test_times_without_end_are_refused() -> None:
    with pytest.raises(SourceError, match="frames a second are"):
        chosen_frames(np.array([0.0, 1e9]), fps=30)
