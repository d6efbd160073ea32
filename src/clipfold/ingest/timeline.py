"""Seconds to frames, by the times at which frames are really shown.

Times count from the first frame, which is at 0. Frame i is on the screen from its time to that of frame i + 1; the
last one stays as long as the usual gap. A time counts as reached half a millisecond early, because containers round
(Matroska: to milliseconds); less early where frames lie closer together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipfold.errors import SourceError

__all__ = ["chosen_frames", "nominal_times"]

_EARLY_SECONDS = 0.0005
_MAX_FRAMES = 1 << 28


def nominal_times(num_frames: int, fps: float) -> NDArray[np.float64]:
    """The times of frames that have none of their own (pts missing or repeated): as if each stayed ``1 / fps``."""
    return np.arange(num_frames) / fps


def chosen_frames(
    times_seconds: NDArray[np.float64],
    *,
    fps: float | None = None,
    start_seconds: float | None = None,
    stop_seconds: float | None = None,
) -> NDArray[np.int64]:
    """The frames of a part of a video, at its own rate or at another one.

    At its own rate (``fps`` is ``None``) they are those whose time t has start <= t < stop. At another rate frame k is
    what is on the screen at start + k / fps, for every such time before stop and before the end: a slower rate leaves
    frames out, a faster one repeats them.

    Args:
        times_seconds: float64 (N,), rising from 0, N at least 1.
        fps: Frames a second wanted.
        start_seconds, stop_seconds: The part; ``None`` is the start, or the end.

    Returns:
        int64 (T,), never falling, in [0, N).

    Raises:
        SourceError: The part holds no frame, or there would be more than 2**28.

    Example:
        >>> chosen_frames(np.array([0.0, 0.1, 0.2, 0.7, 0.8]), fps=5).tolist()
        [0, 2, 2, 2, 4]
        >>> chosen_frames(np.array([0.0, 0.1, 0.2, 0.7, 0.8]), start_seconds=0.1, stop_seconds=0.7).tolist()
        [1, 2]
    """
    gap = float(np.median(np.diff(times_seconds))) if len(times_seconds) > 1 else 1.0 / fps if fps else 0.0
    early = min(_EARLY_SECONDS, gap / 4) if gap else _EARLY_SECONDS
    start = start_seconds or 0.0
    end = float(times_seconds[-1]) + gap
    stop = end if stop_seconds is None else min(stop_seconds, end)
    if fps is None:
        bounds = [start, stop_seconds if stop_seconds is not None else np.inf]
        first, last = np.searchsorted(times_seconds, np.array(bounds) - early)
        chosen = np.arange(first, last, dtype=np.int64)
    else:
        count = max(0.0, np.ceil((stop - start - early) * fps))
        if count > _MAX_FRAMES:
            raise SourceError(f"{end:,.0f} seconds at {fps:g} frames a second are {count:,.0f} frames")
        wanted = start + np.arange(int(count)) / fps
        chosen = np.searchsorted(times_seconds, wanted + early, side="right").astype(np.int64) - 1
    if not len(chosen):
        raise SourceError(
            f"no frame from {start:g} to {stop_seconds if stop_seconds is not None else stop:g} seconds: it lasts "
            f"{end:.3f} seconds",
            fix="correct its start and stop",
        )
    return chosen
