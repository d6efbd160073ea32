"""Chains draw by place, recipes and plug-ins are found by name."""

from __future__ import annotations

import sys

import pytest
import torch

from clipfold import augment
from clipfold.augment import Compose, recipe
from clipfold.augment.photometric import Brightness, Contrast
from clipfold.clip import ClipSpec
from clipfold.errors import PluginError

SPEC = ClipSpec(num_frames=3, channels=2, height=2, width=4)
NUMBERS = {"mean": [0.4, 0.5], "std": [0.2, 0.3]}

OUTSIDE = """
from clipfold.augment import Augmentation, Compose
from clipfold.augment.photometric import Brightness

class Invert(Augmentation):
    def make_params(self, draw, spec):
        return {}
    def transform(self, pixels_BSCHW, params):
        return 1 - pixels_BSCHW

chain = Compose([Invert(), Brightness(0.1)])
number = 3
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package that is not ours, with an entry point."""
    (tmp_path / "outside_augmentations.py").write_text(OUTSIDE)
    described = tmp_path / "outside-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[clipfold.augmentations]\ninvert = outside_augmentations:Invert\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("outside_augmentations", None)


def test_equal_members_draw_different_numbers():
    chain = Compose([Brightness(), Brightness()])
    first, second = chain.make_params(seed=0, positions=torch.arange(5), spec=SPEC)
    assert not (first["offset"] == second["offset"]).any()


def test_the_chain_is_applied_in_order():
    chain = Compose([Brightness(0.5), Contrast(0.5, center=0.0)])
    params = chain.make_params(seed=0, positions=torch.arange(3), spec=SPEC)
    pixels = torch.rand(3, *SPEC.shape_SCHW, dtype=torch.float64)
    offset, factor = (value[:, None, None, None, None] for value in (params[0]["offset"], params[1]["factor"]))
    assert torch.equal(chain.transform(pixels, params), factor * (pixels + offset) + (1 - factor) * 0.0)


def test_an_empty_chain_changes_nothing():
    pixels = torch.rand(2, *SPEC.shape_SCHW)
    assert Compose().transform(pixels, []) is pixels
    assert len(recipe("none", **NUMBERS)) == 0


def test_wrong_use():
    with pytest.raises(TypeError, match="not its class"):
        Compose([Brightness])
    for single in (Brightness(), Brightness, 3):
        with pytest.raises(TypeError, match="expected a list of augmentations"):
            Compose(single)
    with pytest.raises(ValueError, match="chain of 0, expected 1"):
        Compose([Brightness()]).transform(torch.zeros(1, *SPEC.shape_SCHW), [])


@pytest.mark.parametrize("name", ["invert", "outside_augmentations:Invert", "outside_augmentations:chain"])
def test_plugins_from_outside(outside, name):
    chain = recipe(name, **NUMBERS)
    assert type(next(iter(chain))).__name__ == "Invert"
    params = chain.make_params(seed=0, positions=torch.arange(2), spec=SPEC)
    assert chain.linear_forms(params, SPEC)[0] is None


def test_unknown_names_list_the_known(outside):
    with pytest.raises(PluginError, match="did you mean 'light'") as caught:
        recipe("ligth", **NUMBERS)
    assert "invert" in str(caught.value)
    assert "erasing" in str(caught.value)
    with pytest.raises(PluginError, match="is a int, expected an Augmentation"):
        recipe("outside_augmentations:number", **NUMBERS)


def test_all_members_can_be_imported_from_the_room():
    assert sorted(set(augment.__all__)) == sorted(augment.__all__)
    for target in augment.AUGMENTATIONS.values():
        name = target.partition(":")[2]
        assert name in augment.__all__
        assert issubclass(getattr(augment, name), augment.Augmentation)


def test_a_chain_may_come_from_a_generator():
    assert len(Compose(member for member in [Brightness()])) == 1
