from __future__ import annotations

import json

import pytest
import torch

from clipfold import ClipBatch, ClipSpec


def test_the_default_is_the_lidar_strip() -> None:
    spec = ClipSpec()
    assert spec.shape_SCHW == (100, 3, 16, 701)
    assert spec.num_bytes == 3_364_800
    assert ClipSpec(dtype="uint16").num_bytes == 2 * spec.num_bytes
    assert [ClipSpec(dtype=dtype).full_scale for dtype in ("uint8", "uint16", "float32")] == [255, 65535, 1]


def test_a_spec_survives_json() -> None:
    spec = ClipSpec(num_frames=7, channels=1, height=2, width=3, dtype="float32")
    assert ClipSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(ValueError, match="fields of a clip spec"):
        ClipSpec.from_json({"num_frames": 7})


@pytest.mark.parametrize(
    "wrong", [{"num_frames": 0}, {"height": -1}, {"width": 1.5}, {"channels": True}, {"dtype": "int8"}]
)
def test_a_wrong_spec_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClipSpec(**wrong)  # type: ignore[arg-type]


def test_a_clone_does_not_share_memory() -> None:
    pixels = torch.zeros(2, 1, 1, 1, 1, dtype=torch.uint8)
    batch = ClipBatch(
        pixels_BSCHW=pixels,
        labels=torch.zeros(2, dtype=torch.int64),
        valid=torch.ones(2, dtype=torch.bool),
        num_valid_frames=torch.ones(2, dtype=torch.int64),
        positions=torch.arange(2),
        keys=["a", "b"],
        epoch=3,
    )
    kept = batch.clone()
    pixels.fill_(7)
    assert int(kept.pixels_BSCHW.sum()) == 0
    assert (len(kept), kept.keys, kept.epoch) == (2, ["a", "b"], 3)
    assert batch.to("cpu").pixels_BSCHW.data_ptr() == pixels.data_ptr()
