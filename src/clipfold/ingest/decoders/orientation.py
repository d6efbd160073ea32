"""How a frame has to be turned to be upright, by the display matrix of its file."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import av
from av.sidedata.sidedata import Type

__all__ = ["Orientation", "orientation_of"]


class Orientation(NamedTuple):
    """Mirror left to right first, then turn counter-clockwise by so many quarters."""

    num_turns: int
    is_mirrored: bool

    @property
    def rotation_degrees(self) -> int:
        return 90 * self.num_turns


_UPRIGHT = Orientation(0, False)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """By the frame's display matrix (libavutil/display.h), rounded to quarter turns."""
    side_data: Any = frame.side_data
    data = side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return _UPRIGHT
    # a stored point (p, q) is shown at (a p + c q, b p + d q)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    is_mirrored = a * d < b * c
    if is_mirrored:
        a, b = -a, -b
    if abs(a) >= abs(b):
        return Orientation(0 if a >= 0 else 2, is_mirrored)
    return Orientation(1 if b < 0 else 3, is_mirrored)
