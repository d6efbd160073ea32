"""Positions change as stated: which way a roll goes, where a box may lie."""

from __future__ import annotations

import pytest
import torch

from clipfold.augment.geometric import ColumnRoll, Erasing, HorizontalFlip, VerticalFlip
from clipfold.clip import ClipSpec
from clipfold.rng import Draw

SPEC = ClipSpec(num_frames=2, channels=3, height=16, width=701)


def params_of(member, spec=SPEC, num=1000):
    return member.make_params(Draw(seed=0, positions=torch.arange(num)), spec)


def test_flips():
    pixels = torch.arange(12.0).view(1, 1, 1, 3, 4).repeat(2, 1, 1, 1, 1)
    flipped = {"flipped": torch.tensor([True, False])}
    across = HorizontalFlip().transform(pixels, flipped)
    assert across[0, 0, 0, 0].tolist() == [3, 2, 1, 0]
    assert torch.equal(across[1], pixels[1])
    assert VerticalFlip().transform(pixels, flipped)[0, 0, 0, :, 0].tolist() == [8, 4, 0]


def test_roll_goes_to_the_right():
    pixels = torch.arange(5.0).view(1, 1, 1, 1, 5).repeat(3, 1, 1, 1, 1)
    rolled = ColumnRoll().transform(pixels, {"shift": torch.tensor([1, 0, -7])})
    assert rolled[:, 0, 0, 0].tolist() == [[4, 0, 1, 2, 3], [0, 1, 2, 3, 4], [2, 3, 4, 0, 1]]
    assert torch.equal(rolled[0], pixels[0].roll(1, -1))


def test_roll_has_the_gradient_of_torch_roll():
    maps = torch.rand(2, 3, 2, 7, dtype=torch.float64, requires_grad=True)
    form = ColumnRoll().linear_form({"shift": torch.tensor([2, -3])}, SPEC)
    assert torch.autograd.gradcheck(form.move, (maps,))


def test_roll_covers_every_shift():
    shift = params_of(ColumnRoll(), ClipSpec(width=7), num=500)["shift"]
    assert shift.unique().tolist() == list(range(7))
    assert params_of(ColumnRoll(2), num=500)["shift"].unique().tolist() == [-2, -1, 0, 1, 2]
    assert params_of(ColumnRoll(0))["shift"].unique().tolist() == [0]


@pytest.mark.parametrize("spec", [SPEC, ClipSpec(height=32, width=96), ClipSpec(height=1, width=1)])
def test_boxes_lie_inside_and_have_the_area_asked_for(spec):
    box = params_of(Erasing(scale=(0.1, 0.2), ratio=(0.5, 2.0), p=1.0), spec)["box"]
    top, left, height, width = box.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top + height <= spec.height).all()
    assert (left + width <= spec.width).all()
    if spec == SPEC:
        # both sides fit: at most sqrt(0.2 * 2) = 0.63 of the height; rounding moves a height of 3.6 rows by up to 0.5
        share = (height * width).double() / (spec.height * spec.width)
        assert share.min() > 0.1 * (1 - 0.5 / 3.5)
        assert share.max() < 0.2 * (1 + 0.5 / 3.5)
        assert {0, spec.height - 1} <= {*top.tolist(), *(top + height - 1).tolist()}  # the border can be reached


def test_erasing_paints_its_value_in_all_frames():
    member = Erasing(value=[0.1, 0.2, 0.3])
    pixels = torch.rand(1, *SPEC.shape_SCHW)
    painted = member.transform(
        pixels, {"box": torch.tensor([[2, 10, 3, 20]]), "value": torch.tensor([[0.1, 0.2, 0.3]])}
    )
    assert (painted[0, :, 1, 2:5, 10:30] == 0.2).all()
    inside = torch.zeros(16, 701, dtype=torch.bool)
    inside[2:5, 10:30] = True
    assert torch.equal(painted[..., ~inside], pixels[..., ~inside])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HorizontalFlip(p=-1), "p: -1"),
        (lambda: ColumnRoll(-1), "max_shift: -1"),
        (lambda: Erasing(scale=(0.5, 0.2)), "scale"),
        (lambda: Erasing(ratio=(0.0, 1.0)), "ratio"),
        (lambda: Erasing(scale=(0.5, 1.2)), "scale"),
        (lambda: Erasing(scale=(0.1, 0.2, 0.3)), "expected two shares of the area"),
        (lambda: Erasing(value=float("nan")), "value: nan"),
        (lambda: params_of(Erasing(value=[0.1, 0.2])), "value: 2 values, expected 1 or 3"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Erasing(scale=0.3), r"scale: 0.3, expected two shares of the area.*such as scale=\(0.1, 0.3\)"),
        (lambda: Erasing(ratio=("1", "2")), "ratio: '1', expected two ratios"),
        (lambda: ColumnRoll(2.5), "max_shift: 2.5, expected a whole number"),
    ],
)
def test_settings_of_another_type(make, message):
    with pytest.raises(TypeError, match=message):
        make()
