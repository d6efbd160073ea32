"""Every augmentation of the table keeps the contract, also with settings far from the defaults."""

from __future__ import annotations

import random

import pytest
import torch

from clipfold.augment import AUGMENTATIONS, RECIPES, Compose, recipe
from clipfold.augment.geometric import ColumnRoll, Erasing, HorizontalFlip, VerticalFlip
from clipfold.augment.photometric import Brightness, Contrast, Normalise
from clipfold.augment.temporal import FrameDrop, TimeReversal
from clipfold.clip import ClipSpec
from clipfold.testing import SPECS, check_augmentation, check_folded_equals_eager

POSITIONS = torch.arange(4)

MEMBERS = [
    Normalise(0.4, 0.2),
    Brightness(0.5, p=0.5),
    Contrast(0.9, center=0.3, p=0.5),
    HorizontalFlip(),
    HorizontalFlip(p=1.0),
    VerticalFlip(),
    ColumnRoll(),
    ColumnRoll(2, p=0.5),
    ColumnRoll(100),
    TimeReversal(),
    FrameDrop(0.4, mode="zero"),
    FrameDrop(0.4, mode="hold", p=0.5),
    FrameDrop(0.4, mode="mean"),
    FrameDrop(1.0, mode="hold"),
    Erasing(p=1.0),
    Erasing(scale=(0.0, 1.0), ratio=(0.01, 100.0), value=0.7, p=0.5),
    Erasing(scale=(1.0, 1.0), ratio=(1.0, 1.0), value=0.2, p=1.0),
]


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_every_member_of_the_table(name):
    for spec in SPECS:
        mean, std = [0.1 * (c + 1) for c in range(spec.channels)], [0.2 + 0.1 * c for c in range(spec.channels)]
        (member,) = recipe(name, mean=mean, std=std)
        check_augmentation(member, [spec])
        params = Compose([member]).make_params(seed=0, positions=POSITIONS, spec=spec)
        assert member.linear_form(params[0], spec) is not None  # all of ours fold


@pytest.mark.parametrize("member", MEMBERS, ids=repr)
def test_other_settings(member):
    check_augmentation(member)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_folds(name):
    for spec in SPECS:
        chain = recipe(name, mean=[0.4] * spec.channels, std=[0.2] * spec.channels)
        for member in chain:
            check_augmentation(member, [spec])
        check_folded_equals_eager(chain, spec)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_no_recipe_flips_or_reverses(name):
    """That would turn "drift left" into "drift right"."""
    chain = recipe(name, mean=[0.4] * 3, std=[0.2] * 3)
    assert not any(isinstance(member, (HorizontalFlip, TimeReversal)) for member in chain)  # VerticalFlip is a flip


def random_chain(seed: int) -> tuple[Compose, ClipSpec]:
    """One to six members in any order, and clips of any small size and dtype."""
    choose = random.Random(seed)
    chain = Compose([choose.choice(MEMBERS) for _ in range(choose.randint(1, 6))])
    dtypes = ("uint8", "uint16", "float32")
    spec = ClipSpec(
        num_frames=choose.randint(1, 9),
        channels=choose.choice([1, 2, 3, 5]),
        height=choose.randint(1, 8),
        width=choose.randint(1, 12),
        dtype=choose.choice(dtypes),
    )
    return chain, spec


@pytest.mark.parametrize("seed", range(100))
def test_random_chains_fold(seed):
    """The bound is derived beside it in clipfold.testing: 1e-10 relative in norm, output and gradients."""
    chain, spec = random_chain(seed)
    check_folded_equals_eager(chain, spec, num_maps=random.Random(seed).randint(1, 5), seed=seed)
