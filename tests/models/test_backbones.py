"""Image networks by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipfold.errors import PluginError
from clipfold.models.backbones import backbone_names, make_backbone


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "regnet_y_400mf"])
@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_torchvision_models(name, in_channels):
    model = make_backbone(name, num_classes=4, in_channels=in_channels, size=(32, 96))
    assert model.eval()(torch.rand(2, in_channels, 32, 96)).shape == (2, 4)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_models_with_extra_heads_give_logits_in_training(name):
    model = make_backbone(name, num_classes=4, size=(75, 75))
    assert model.train()(torch.rand(2, 3, 75, 75)).shape == (2, 4)


def test_resnet18_is_the_one_of_torchvision():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    expected = resnet18(num_classes=4).state_dict()
    torch.manual_seed(0)
    found = make_backbone("resnet18", num_classes=4, size=(16, 701)).state_dict()  # the size check draws nothing
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_new_stem_is_spread_like_the_old():
    torch.manual_seed(0)
    old = make_backbone("resnet18", num_classes=2).conv1
    new = make_backbone("resnet18", num_classes=2, in_channels=6).conv1
    assert (new.in_channels, new.kernel_size, new.stride, new.bias) == (6, old.kernel_size, old.stride, None)
    # 9,408 weights: the standard deviation of either is known to 0.7 %, six times that and both: 6 %
    assert new.weight.std().item() == pytest.approx(old.weight.std().item(), rel=0.06)


@pytest.mark.parametrize(("name", "size"), [("alexnet", (16, 701)), ("vit_b_16", (16, 701)), ("vit_b_16", (32, 96))])
def test_pictures_that_do_not_fit(name, size):
    with pytest.raises(ValueError, match=f"backbone '{name}' cannot take pictures of 3x{size[0]}x{size[1]}"):
        make_backbone(name, num_classes=4, size=size)


def test_unknown_names_list_the_known():
    assert "resnet18" in backbone_names()
    assert not any("fcn" in name or "r3d" in name or "raft" in name for name in backbone_names())
    with pytest.raises(PluginError, match="did you mean 'resnet18'") as caught:
        make_backbone("resnet81", num_classes=4)
    assert "mobilenet_v3_small" in str(caught.value)
    with pytest.raises(ValueError, match="num_classes 0"):
        make_backbone("resnet18", num_classes=0)


def test_plugins_from_outside(tmp_path, monkeypatch):
    (tmp_path / "outside_backbones_of_tests.py").write_text(
        "from torch import nn\n"
        "def tiny(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * in_channels, num_classes))\n"
        "def broken(num_classes, in_channels):\n"
        "    return 3\n"
        "def called(command, in_channels=3):\n"
        "    raise AssertionError('it was called')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = make_backbone("outside_backbones_of_tests:tiny", num_classes=4, in_channels=2, size=(9, 9))
    assert isinstance(model, nn.Module)
    assert model(torch.rand(1, 2, 9, 9)).shape == (1, 4)
    with pytest.raises(PluginError, match="is a int, expected"):
        make_backbone("outside_backbones_of_tests:broken", num_classes=4)
    for name in ("outside_backbones_of_tests:called", "os:system", "torch.nn:Linear"):
        with pytest.raises(PluginError, match="expected a class or function that takes num_classes= and in_channels="):
            make_backbone(name, num_classes=4)
    with pytest.raises(PluginError, match="is a float, expected a class or function"):
        make_backbone("math:pi", num_classes=4)
