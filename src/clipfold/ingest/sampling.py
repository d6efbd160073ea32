"""Which frames make the clips of a source.

A clip spans ``frame_step * (S - 1) + 1`` frames: S=4, step 1 ``ffff``, step 2 ``f.f.f.f``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClipPlan", "Clips", "Sampling", "Short"]

Clips = Literal["windows", "equal"]
Short = Literal["repeat_last", "wrap", "zero", "drop", "error"]


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """The clips of one source, front to back.

    Args:
        starts: int64 (N,), rising; the first frame of each clip.
        num_frames: Frames in the source.
        spec_num_frames: S.
        frame_step: Frames from one frame of a clip to its next.
        short: What stands behind the last frame of a source that is shorter than a clip.
    """

    starts: NDArray[np.int64]
    num_frames: int
    spec_num_frames: int
    frame_step: int
    short: Short

    def __len__(self) -> int:
        return len(self.starts)

    def clip(self, number: int) -> NDArray[np.int64]:
        """int64 (S,): the frames of one clip, each in [0, num_frames), or -1 where ``short`` is "zero"."""
        indices: NDArray[np.int64] = self.starts[number] + self.frame_step * np.arange(
            self.spec_num_frames, dtype=np.int64
        )
        inside = indices < self.num_frames
        if not inside.all():
            num_valid = int(inside.sum())
            if self.short == "wrap":
                indices = np.resize(indices[:num_valid], self.spec_num_frames)
            else:
                indices[num_valid:] = -1 if self.short == "zero" else indices[num_valid - 1]
        return indices

    @property
    def indices(self) -> NDArray[np.int64]:
        """int64 (N, S): all clips at once."""
        return np.array([self.clip(number) for number in range(len(self))], dtype=np.int64).reshape(
            len(self), self.spec_num_frames
        )

    @property
    def num_valid(self) -> NDArray[np.int64]:
        """int64 (N,): how many leading frames of each clip are in the source; the rest is padding."""
        left = -(-(self.num_frames - self.starts) // self.frame_step)
        return np.minimum(left, self.spec_num_frames)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How clips are cut out of a source.

    Args:
        clips: ``"windows"``: sliding windows, one every ``clip_stride`` frames; a last one that would run past the end
            is left out. ``"equal"``: ``num_clips`` clips spread evenly from the first frame to the last (one clip lies
            in the middle); equal starts are taken once, so a short source may give fewer.
        num_clips: For ``"equal"`` only.
        frame_step: Take every so many-th frame.
        clip_stride: Frames from one window's start to the next; ``None`` is ``S * frame_step``, windows side by side.
        short: A source shorter than one clip gives one clip, padded behind its last frame. With 4 frames wanted and
            frames 0, 1, 2 there: ``"repeat_last"`` [0, 1, 2, 2], ``"wrap"`` [0, 1, 2, 0], ``"zero"`` [0, 1, 2, -1]
            (pixels 0), ``"drop"`` no clip, ``"error"`` an error.

    Raises:
        ValueError: A number below 1, an unknown word, or ``num_clips`` without ``"equal"``.

    Example:
        >>> Sampling(frame_step=2, clip_stride=3).plan(10, 3).indices.tolist()
        [[0, 2, 4], [3, 5, 7]]
    """

    clips: Clips = "windows"
    num_clips: int = 1
    frame_step: int = 1
    clip_stride: int | None = None
    short: Short = "repeat_last"

    def __post_init__(self) -> None:
        for name, known in (("clips", get_args(Clips)), ("short", get_args(Short))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} of a sampling: {getattr(self, name)!r}, expected one of {', '.join(known)}")
        for name in ("num_clips", "frame_step", "clip_stride"):
            value = getattr(self, name)
            if value is None and name == "clip_stride":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} of a sampling: {value!r}, expected a whole number of at least 1")
        if self.clips == "windows" and self.num_clips != 1:
            raise ValueError(f"num_clips: {self.num_clips} with windows; give it with clips='equal' only")
        if self.clips == "equal" and self.clip_stride is not None:
            raise ValueError(f"clip_stride: {self.clip_stride} with equal clips; it belongs to clips='windows'")

    def plan(self, num_frames: int, spec_num_frames: int) -> ClipPlan:
        """The clips of a source.

        Args:
            num_frames: Frames in the source, exact.
            spec_num_frames: S.

        Raises:
            ValueError: ``num_frames`` or S below 1, or the source is shorter than a clip and ``short`` is "error".
        """
        if num_frames < 1 or spec_num_frames < 1:
            raise ValueError(f"{num_frames} frames for clips of {spec_num_frames}, expected at least 1 of each")
        span = self.frame_step * (spec_num_frames - 1) + 1
        if num_frames < span and self.short == "error":
            raise ValueError(f"the source has {num_frames} frames, expected at least {span} for one clip")
        return ClipPlan(
            starts=self._starts(num_frames - span, spec_num_frames),
            num_frames=num_frames,
            spec_num_frames=spec_num_frames,
            frame_step=self.frame_step,
            short=self.short,
        )

    def _starts(self, last_start: int, spec_num_frames: int) -> NDArray[np.int64]:
        if last_start < 0:
            return np.zeros(0 if self.short == "drop" else 1, dtype=np.int64)
        if self.clips == "windows":
            return np.arange(0, last_start + 1, self.clip_stride or spec_num_frames * self.frame_step, dtype=np.int64)
        if self.num_clips == 1:
            return np.array([last_start // 2], dtype=np.int64)
        places = np.arange(self.num_clips, dtype=np.int64)  # whole numbers only: the same on every machine
        return np.unique(places * last_start // (self.num_clips - 1))

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Sampling:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: A missing or unknown name, or a value that is not allowed.
        """
        names = {entry.name for entry in fields(cls)}
        if set(value) != names:
            raise ValueError(f"fields of a sampling: {sorted(value)}, expected {sorted(names)}")
        return cls(**value)
