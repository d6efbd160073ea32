"""The fold, step by step. Random chains of all members are in tests/augment/test_contract.py."""

from __future__ import annotations

import pytest
import torch

from clipfold.augment import Compose, FrameChannel, Spatial
from clipfold.augment.geometric import Erasing, HorizontalFlip
from clipfold.augment.photometric import Brightness, Contrast, Normalise
from clipfold.augment.temporal import FrameDrop
from clipfold.clip import ClipSpec
from clipfold.models.folding import fold, num_eager
from clipfold.testing import relative_difference

SPEC = ClipSpec(num_frames=10, channels=3, height=6, width=31)


def make(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(4, 10, 3, dtype=dtype, generator=generator) - 0.5
    bias = torch.rand(4, dtype=dtype, generator=generator)
    return weights.requires_grad_(), bias.requires_grad_()


def test_without_a_chain_only_the_scale_is_left():
    weights, bias = make()
    folded = fold([], weights, bias, full_scale=255.0)
    assert torch.equal(folded.weights_BKSC, weights[None] / 255.0)
    assert torch.equal(folded.bias_BK, bias[None])
    assert folded.steps == ()


def test_each_spatial_step_has_its_own_fill():
    """Two boxes with other values, with a change of values between them: a common fill would be wrong."""
    chain = Compose([Erasing(value=0.9, p=1.0), Brightness(0.5), Erasing(value=0.1, p=1.0), Normalise(0.5, 0.25)])
    weights, bias = make()
    params = chain.make_params(seed=0, positions=torch.arange(3), spec=SPEC)
    folded = fold(chain.linear_forms(params, SPEC), weights, bias)
    first, second = folded.steps
    assert not torch.allclose(first.fill_BK, second.fill_BK)
    inside_first = torch.full((3, *SPEC.shape_SCHW), 0.9, dtype=torch.float64)  # what the first box paints
    for member, values in list(zip(chain, params, strict=True))[1:2]:
        inside_first = member.transform(inside_first, values)
    normalised = (inside_first - 0.5) / 0.25
    expected = torch.einsum("ksc,bsc->bk", weights, normalised[..., 0, 0]) + bias
    assert relative_difference(first.fill_BK, expected) <= 1e-10  # sums of 30 products in fp64


def test_weights_stay_shared_while_nothing_differs_between_clips():
    """Normalisation alone costs one set of weights for the batch, not one per clip."""
    weights, bias = make()
    values = {"mean": torch.rand(1, 3), "std": torch.rand(1, 3) + 0.5}
    folded = fold([Normalise(0.0, 1.0).linear_form(values, SPEC)], weights, bias)
    assert folded.weights_BKSC.shape == (1, 4, 10, 3)
    assert folded.bias_BK.shape == (1, 4)


def test_single_precision():
    """The light chain in fp32 against fp64: sums of 30 products round by 1e-6 in norm, the bound is 1e-5."""
    chain = Compose([FrameDrop(0.3), Contrast(0.3), HorizontalFlip(), Erasing(p=1.0), Normalise(0.45, 0.22)])
    pixels = torch.randint(0, 256, (4, *SPEC.shape_SCHW)).to(torch.uint8)
    params = chain.make_params(seed=0, positions=torch.arange(4), spec=SPEC)
    maps = {}
    for dtype in (torch.float32, torch.float64):
        weights, bias = make()
        folded = fold(chain.linear_forms(params, SPEC), weights.to(dtype), bias.to(dtype), full_scale=255.0)
        maps[dtype] = folded(pixels)
        assert maps[dtype].dtype == dtype
    assert relative_difference(maps[torch.float32], maps[torch.float64]) <= 1e-5


def test_num_eager():
    linear = Spatial(move=torch.relu)
    assert num_eager([]) == 0
    assert num_eager([linear, linear]) == 0
    assert num_eager([None, linear, None, linear]) == 3
    assert num_eager([linear, None]) == 2


def test_a_step_without_a_form_is_refused():
    weights, bias = make()
    with pytest.raises(ValueError, match="no linear form"):
        fold([FrameChannel(pull=lambda weights: weights), None], weights, bias)
