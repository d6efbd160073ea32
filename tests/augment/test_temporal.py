"""Frames are reversed and lost as the documentation draws it."""

from __future__ import annotations

import pytest
import torch

from clipfold.augment.temporal import FrameDrop, TimeReversal
from clipfold.clip import ClipSpec
from clipfold.rng import Draw

SPEC = ClipSpec(num_frames=5, channels=1, height=1, width=1)


def clip(*values):
    return torch.tensor(values, dtype=torch.float64)[None, :, None, None, None]


def frames(pixels_BSCHW):
    return pixels_BSCHW.flatten().tolist()


def test_reversal():
    member = TimeReversal()
    both = torch.cat([clip(1, 2, 3, 4, 5)] * 2)
    changed = member.transform(both, {"reversed": torch.tensor([True, False])})
    assert frames(changed) == [5, 4, 3, 2, 1, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("mode", "kept", "expected"),
    [
        ("zero", [1, 0, 0, 1, 1], [1, 0, 0, 4, 6]),
        ("hold", [1, 0, 0, 1, 1], [1, 1, 1, 4, 6]),
        ("hold", [0, 0, 1, 0, 1], [3, 3, 3, 3, 6]),
        ("hold", [0, 0, 0, 0, 1], [6, 6, 6, 6, 6]),
        ("mean", [1, 0, 0, 0, 1], [1, 3.5, 3.5, 3.5, 6]),
        ("mean", [1, 1, 1, 1, 1], [1, 2, 3, 4, 6]),
    ],
)
def test_lost_frames_are_replaced(mode, kept, expected):
    changed = FrameDrop(mode=mode).transform(clip(1, 2, 3, 4, 6), {"kept": torch.tensor([kept], dtype=torch.bool)})
    assert frames(changed) == expected


def test_zero_hides_even_what_is_not_a_number():
    changed = FrameDrop(mode="zero").transform(
        clip(1, float("nan"), 3, 4, 5), {"kept": torch.tensor([[True, False, True, True, True]])}
    )
    assert frames(changed) == [1, 0, 3, 4, 5]


def test_rate_and_probability():
    num, spec = 4000, ClipSpec(num_frames=20, channels=1, height=1, width=1)

    def kept(**settings):
        return FrameDrop(**settings).make_params(Draw(seed=0, positions=torch.arange(num)), spec)["kept"]

    # six standard deviations of a share of 80,000 frames with rate 0.25: 6 * sqrt(0.1875 / 80,000) = 0.0092
    assert abs(kept(rate=0.25).double().mean().item() - 0.75) < 0.0092
    assert kept(rate=0.0).all()
    assert (kept(rate=1.0).sum(1) == 1).all()  # one frame always stays
    untouched = kept(rate=0.9, p=0.5).all(1).double().mean().item()
    assert abs(untouched - 0.5) < 6 * 0.5 / num**0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": -0.1}, "rate: -0.1"),
        ({"mode": "blur"}, "mode: 'blur', expected one of zero, hold, mean"),
        ({"p": 2}, "p: 2"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        FrameDrop(**settings)
