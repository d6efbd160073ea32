"""What a sample's ``.json`` says about its clip: the same names and types in every sample of a corpus, never null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_META_BYTES", "META_NAMES", "frame_fields", "meta_kinds", "sample_meta"]

META_NAMES = frozenset(
    ["source", "label", "start", "step", "count", "indices", "num_valid_frames", "fps", "height", "width"]
)
MAX_META_BYTES = 1 << 20  # of one .json: what a reader may take into memory without asking


def frame_fields(indices: NDArray[np.int64]) -> dict[str, Any]:
    """How ``.json`` names the source's frames: ``start``, ``step``, ``count`` and the list ``indices``.

    Regular indices (each ``step`` after the one before) have their step; anything else, such as the repeated last
    frame of a short source, has step 0. The list is always whole: Hugging Face ``datasets`` takes the types of the
    first samples for all, and one that is empty there and filled later ends its conversion with an error.

    Args:
        indices: int64 (S,).

    Example:
        >>> frame_fields(np.array([4, 6, 8]))
        {'start': 4, 'step': 2, 'count': 3, 'indices': [4, 6, 8]}
        >>> frame_fields(np.array([4, 6, 6]))
        {'start': 4, 'step': 0, 'count': 3, 'indices': [4, 6, 6]}
    """
    listed = [int(index) for index in indices]
    steps = {after - before for before, after in pairwise(listed)} or {1}
    step = steps.pop() if len(steps) == 1 else 0
    return {"start": listed[0], "step": max(step, 0), "count": len(listed), "indices": listed}


def sample_meta(
    *,
    source: str,
    indices: NDArray[np.int64],
    label: str | None,
    fps: float,
    num_valid_frames: int,
    height: int,
    width: int,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What goes into a sample's ``.json``: the same names and types in every sample, never null.

    Args:
        source: Name of the source, a path relative to the root of the user's files.
        indices: int64 (S,), frames of the source; -1 where a frame shows none.
        label: Name of the class; ``None`` becomes ``""``.
        fps: Frames per second of the source, 0.0 where unknown.
        num_valid_frames: Leading frames that are not padding.
        height: Of the source, in pixels.
        width: Of the source, in pixels.
        extra: The user's own columns; no name of ours.

    Raises:
        ValueError: A column of ``extra`` has a name of ours.
    """
    fields: dict[str, Any] = {
        "source": source,
        "label": label or "",
        **frame_fields(indices),
        "num_valid_frames": int(num_valid_frames),
        "fps": float(fps),
        "height": int(height),
        "width": int(width),
    }
    if taken := META_NAMES & set(extra or {}):
        raise ValueError(f"extra columns {sorted(taken)}: these names are ours; rename the columns")
    return {**fields, **(extra or {})}


def meta_kinds(meta: Mapping[str, Any]) -> dict[str, str]:
    """The name of each field's type.

    Raises:
        ValueError: A null, a number that is not finite, or a value that JSON does not have.
    """
    return {name: _kind(name, value) for name, value in sorted(meta.items())}


def _kind(name: str, value: Any) -> str:
    if isinstance(value, (bool, int, str)):
        return type(value).__name__
    if isinstance(value, float) and math.isfinite(value):
        return "float"
    if isinstance(value, (list, tuple)):
        for item in value:
            _kind(name, item)
        return "list"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {kind}" for key, kind in meta_kinds(value).items()) + "}"
    raise ValueError(f"meta field {name!r}: {value!r}, expected text, a finite number, true, false, a list or a table")
