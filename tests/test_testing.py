"""The public checks pass for what keeps its promises (tests/augment, tests/models) and fail for what does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipfold.augment import Augmentation, FrameChannel, Spatial
from clipfold.augment.photometric import Brightness
from clipfold.models.reducers import TemporalReducer
from clipfold.models.reducers.mean import Mean
from clipfold.testing import check_augmentation, check_reducer, relative_difference


def test_relative_difference_is_in_norm():
    assert relative_difference(torch.tensor([3.0, 4.1]), torch.tensor([3.0, 4.0])) == pytest.approx(0.02, rel=1e-5)
    with pytest.raises(AssertionError, match="finite"):
        relative_difference(torch.tensor([float("nan")]), torch.tensor([1.0]))


class Stateful(Brightness):
    def make_params(self, draw, spec):
        return {"offset": torch.rand(len(draw), dtype=torch.float64)}


class OfTheBatch(Brightness):
    def make_params(self, draw, spec):
        return {"offset": draw.uniform().flip(0)}


class Clamping(Brightness):
    def transform(self, pixels_BSCHW, params):
        return super().transform(pixels_BSCHW, params).clamp(0, 1)


class WritingInPlace(Brightness):
    def transform(self, pixels_BSCHW, params):
        return pixels_BSCHW.mul_(0.5)


class WrongOffset(Brightness):
    def linear_form(self, params, spec):
        form = super().linear_form(params, spec)
        return FrameChannel(pull=form.pull, offset_BSC=form.offset_BSC * 1.001)


class HolesWithoutFill(Augmentation):
    def make_params(self, draw, spec):
        return {}

    def transform(self, pixels_BSCHW, params):
        return torch.cat([torch.zeros_like(pixels_BSCHW[..., :1]), pixels_BSCHW[..., 1:]], dim=-1)

    def linear_form(self, params, spec):
        def move(maps):
            return torch.cat([torch.zeros_like(maps[..., :1]), maps[..., 1:]], dim=-1)

        return Spatial(move=move)  # the maps' constants are lost there as well: it needs fill_BSC = 0


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (Stateful(), "drawn again"),
        (OfTheBatch(), "other clips"),
        (Clamping(0.5), "folded and eager maps"),
        (WritingInPlace(), "writes to its input"),
        (WrongOffset(), "folded and eager maps"),
        (HolesWithoutFill(), "folded and eager maps"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_check_augmentation_finds(augmentation, message):
    with pytest.raises(AssertionError, match=message):
        check_augmentation(augmentation)


class WrongChannels(Mean):
    def __init__(self, spec):
        super().__init__(spec)
        self.out_channels += 1


class WrongWeights(Mean):
    def forward(self, pixels_BSCHW):
        return pixels_BSCHW[:, 0]


class MixesClips(TemporalReducer):
    def __init__(self, spec):
        super().__init__(spec, out_channels=spec.channels)

    def forward(self, pixels_BSCHW):
        return pixels_BSCHW.mean(1) - pixels_BSCHW.mean()


class UnusedParameter(Mean):
    def __init__(self, spec):
        super().__init__(spec)
        self.unused = nn.Parameter(torch.zeros(()))
        self.used = nn.Parameter(torch.ones(()))

    def finish(self, maps_BKHW):
        return maps_BKHW * self.used


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (WrongChannels, "out_channels"),
        (WrongWeights, "finish after weights"),
        (MixesClips, "among others"),
        (UnusedParameter, "parameter unused gets no gradient"),
        (lambda spec: nn.Identity(), "expected a TemporalReducer"),
    ],
)
def test_check_reducer_finds(make, message):
    with pytest.raises(AssertionError, match=message):
        check_reducer(make)
