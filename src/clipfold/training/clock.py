"""How fast training is, and how much of its time is spent waiting for data."""

from __future__ import annotations

import time

from clipfold.stream.loader import ClipStream

__all__ = ["Clock"]


class Clock:
    """Time of the training steps, without what happens between epochs, and how much of it was waiting."""

    def __init__(self, stream: ClipStream) -> None:
        self._stream = stream
        self.num_clips = self._num_pending = 0
        self.seconds = self._waited = 0.0
        self.skip()

    def skip(self) -> None:
        """What passed since the last lap does not count."""
        self._start, self._start_waited = time.perf_counter(), self._stream.wait_seconds

    def count(self, num_clips: int) -> None:
        """A step with so many clips was made."""
        self._num_pending += num_clips

    def lap(self) -> dict[str, float]:
        """The figures of the stretch that ends now."""
        num_clips, self._num_pending = self._num_pending, 0
        seconds = time.perf_counter() - self._start
        waited = self._stream.wait_seconds - self._start_waited
        self.num_clips += num_clips
        self.seconds += seconds
        self._waited += waited
        self.skip()
        return {
            "clips_per_second": num_clips / max(seconds, 1e-9),
            "wait_share": min(waited / max(seconds, 1e-9), 1.0),
        }

    @property
    def share(self) -> float:
        """Share of all laps' time that was spent waiting."""
        return min(self._waited / max(self.seconds, 1e-9), 1.0)
