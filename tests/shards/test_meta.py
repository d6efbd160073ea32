from __future__ import annotations

import numpy as np
import pytest

from clipfold.shards.meta import frame_fields, meta_kinds, sample_meta


@pytest.mark.parametrize(
    ("indices", "start", "step"),
    [([4, 6, 8], 4, 2), ([5], 5, 1), ([0, 1, 2, 2], 0, 0), ([3, 3, 3], 3, 0), ([9, 8, 7], 9, 0), ([0, 1, -1], 0, 0)],
)
def test_frames(indices: list[int], start: int, step: int) -> None:
    found = frame_fields(np.array(indices))
    assert found == {"start": start, "step": step, "count": len(indices), "indices": indices}
    if step:
        assert [start + step * i for i in range(len(indices))] == indices


def test_same_types_whatever_the_source() -> None:
    def make(indices: list[int], label: str | None, fps: float) -> dict[str, str]:
        meta = sample_meta(
            source="a/b.mp4", indices=np.array(indices), label=label, fps=fps, num_valid_frames=2, height=4, width=5
        )
        assert None not in meta.values()
        return meta_kinds(meta)

    assert make([0, 1], None, 25) == make([0, 0], "x", 0.0)


def test_what_json_cannot_hold() -> None:
    for bad in (None, float("nan"), b"x", [1, None], {"a": None}, np.float32(1)):
        with pytest.raises(ValueError, match="meta field"):
            meta_kinds({"column": bad})
    with pytest.raises(ValueError, match="names are ours"):
        sample_meta(
            source="", indices=np.array([0]), label="", fps=0, num_valid_frames=1, height=1, width=1, extra={"fps": 3}
        )
