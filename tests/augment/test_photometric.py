"""Values change by the stated formula, in units of full scale, and nothing clamps."""

from __future__ import annotations

import pytest
import torch

from clipfold.augment.photometric import Brightness, Contrast, Normalise
from clipfold.clip import ClipSpec
from clipfold.rng import Draw

SPEC = ClipSpec(num_frames=4, channels=3, height=2, width=5)
PIXELS = torch.rand(50, *SPEC.shape_SCHW, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def params_of(member, spec=SPEC, num=50):
    return member.make_params(Draw(seed=0, positions=torch.arange(num)), spec)


def test_normalise():
    member = Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])
    changed = member.transform(PIXELS, params_of(member))
    assert torch.equal(changed[:, :, 2], (PIXELS[:, :, 2] - 0.3) / 4.0)


def test_brightness_adds_and_does_not_clamp():
    member = Brightness(2.0, p=0.5)
    offset = params_of(member)["offset"]
    assert offset.abs().max() <= 2.0
    assert offset.min() < -1.0
    assert offset.max() > 1.0
    assert 10 < (offset == 0).sum() < 40  # half of 50, six standard deviations of 3.5 being 21
    changed = member.transform(PIXELS, {"offset": offset})
    assert torch.equal(changed, PIXELS + offset[:, None, None, None, None])
    assert changed.min() < 0
    assert changed.max() > 1


def test_contrast_keeps_its_center():
    member = Contrast(0.5, center=[0.2, 0.5, 0.7])
    params = params_of(member)
    assert params["factor"].min() >= 0.5
    assert params["factor"].max() < 1.5
    at_center = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)[None, None, :, None, None].expand_as(PIXELS)
    # two products and a sum of numbers below 1.5, each rounded by 1.1e-16
    assert (member.transform(at_center, params) - at_center).abs().max() < 1e-15
    assert (params_of(Contrast(3.0))["factor"] >= 0).all()  # values are never turned round


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Brightness(-0.1), "brightness: -0.1"),
        (lambda: Brightness(p=1.5), "probability p: 1.5"),
        (lambda: Contrast(-1), "contrast: -1"),
        (lambda: Normalise([0.1], [0.0]), "std: 0.0"),
        (lambda: Normalise(0.0, float("nan")), "std: nan"),
        (lambda: Normalise(float("nan"), 1), "mean: nan, expected a finite number"),
        (lambda: Normalise([0.1, float("inf")], 1), "mean: inf"),
        (lambda: Brightness(float("nan")), "brightness: nan, expected a finite number of at least 0"),
        (lambda: Brightness(float("inf")), "brightness: inf"),
        (lambda: Contrast(float("nan")), "contrast: nan"),
        (lambda: Contrast(center=float("nan")), "center: nan"),
        (lambda: Contrast(p=float("nan")), "probability p: nan"),
        (lambda: params_of(Normalise([0.1, 0.2], [1.0, 1.0])), "mean: 2 values, expected 1 or 3"),
        (lambda: params_of(Contrast(center=[0.1] * 4)), "center: 4 values, expected 1 or 3"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Brightness("0.1"), "brightness: '0.1', expected a finite number"),
        (lambda: Contrast(None), "contrast: None"),
        (lambda: Normalise("grey", 1), "mean: 'grey'"),
        (lambda: Normalise(0, ["1"]), "std: '1'"),
        (lambda: Brightness(p="often"), "probability p: 'often'"),
    ],
)
def test_what_is_no_number(make, message):
    with pytest.raises(TypeError, match=message):
        make()
