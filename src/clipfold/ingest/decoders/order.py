"""Frames in any order, out of decoders that load them in rising order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.ingest.resize import Resize

__all__ = ["gather"]


def gather(
    indices: Sequence[int],
    resize: Resize,
    load: Callable[[list[int]], Mapping[int, NDArray[Any]]],
    *,
    num_frames: int,
    path: str,
) -> NDArray[Any]:
    """(T, H, W, C) for any indices.

    Args:
        indices: In any order, with repeats.
        resize: Whose spec the frames have.
        load: The frames at rising indices, at least one.
        num_frames: Frames that there are.
        path: For messages.

    Raises:
        IndexError: An index out of range.
    """
    wanted = [int(index) for index in indices]
    for index in wanted:
        if not 0 <= index < num_frames:
            raise IndexError(f"frame {index} of {path}, expected 0 to {num_frames - 1}")
    spec = resize.spec
    out = np.empty((len(wanted), spec.height, spec.width, spec.channels), dtype=spec.dtype)
    frames = load(sorted(set(wanted))) if wanted else {}
    for place, index in enumerate(wanted):
        out[place] = frames[index]
    return out
