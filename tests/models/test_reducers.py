"""Every reducer keeps the contract, and temporal_conv is the reference code."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipfold.clip import ClipSpec
from clipfold.errors import PluginError
from clipfold.models.classifier import build_classifier
from clipfold.models.reducers import REDUCERS, make_reducer
from clipfold.models.reducers.attention import Attention
from clipfold.models.reducers.mean import Mean
from clipfold.models.reducers.temporal_conv import TemporalConv
from clipfold.testing import SPECS, check_reducer, relative_difference

# fp64: sums of S * C <= 300 and hidden * 9 products: 300 * 1.1e-16 if all roundings add up, and 10^3 for cancelling.
# fp32: 300 * 6e-8 = 1.8e-5 if all add up; they scatter (sqrt(300) * 6e-8 = 1e-6), so 1e-5 in norm.
BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-5}


class Reference(nn.Module):
    """The code that temporal_conv stands for, written as its users write it."""

    def __init__(self, spec, hidden=8, out_channels=3, n=None, stride=1):
        super().__init__()
        n = spec.num_frames if n is None else n
        self.conv_temp = nn.Conv3d(spec.channels, hidden, kernel_size=(n, 1, 1), stride=(stride, 1, 1))
        self.conv_spatial = nn.Conv3d(hidden, out_channels, kernel_size=(1, 3, 3), padding=(0, 1, 1))

    def forward(self, clip):
        return self.conv_spatial(F.relu(self.conv_temp(clip.transpose(1, 2)))).mean(2)


@pytest.mark.parametrize("name", sorted(REDUCERS))
def test_every_member_of_the_table(name):
    check_reducer(lambda spec: make_reducer(name, spec))


@pytest.mark.parametrize(
    "make",
    [
        lambda spec: TemporalConv(spec, hidden=1, out_channels=1),
        lambda spec: TemporalConv(spec, hidden=5, n=2),
        lambda spec: TemporalConv(spec, hidden=3, n=1, stride=2),
        lambda spec: TemporalConv(spec, hidden=40, n=2),  # more than 64 maps: not folded
        lambda spec: Attention(spec, heads=1, hidden=2, out_channels=1),
    ],
)
def test_other_settings(make):
    check_reducer(make)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["SCHW", "SHWC"])
@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (ClipSpec(num_frames=100, channels=3, height=6, width=41), {}),
        (ClipSpec(num_frames=9, channels=1, height=5, width=7), {"hidden": 3, "out_channels": 2}),
        (ClipSpec(num_frames=9, channels=3, height=5, width=7), {"hidden": 4, "n": 4}),
        (
            ClipSpec(num_frames=9, channels=3, height=5, width=7),
            {"hidden": 4, "n": 4, "stride": 3},
        ),  # frames 7, 8 unseen
        (ClipSpec(num_frames=9, channels=3, height=5, width=7), {"hidden": 4, "n": 8, "stride": 5}),  # one step, n < S
        (ClipSpec(num_frames=20, channels=2, height=5, width=7), {"hidden": 16, "n": 3}),  # 288 maps
    ],
)
def test_temporal_conv_is_the_reference_code(dtype, layout, spec, settings):
    """Images and all gradients, with the reference code's own state dict."""
    torch.manual_seed(0)
    reference, reducer = Reference(spec, **settings).to(dtype), TemporalConv(spec, **settings).to(dtype)
    reducer.load_state_dict(reference.state_dict())
    pixels = torch.randint(0, 256, (3, *spec.shape_SCHW)).to(torch.uint8)
    if layout == "SHWC":
        pixels = pixels.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    found, expected = reducer(pixels), reference(pixels.to(dtype))
    assert found.dtype == dtype
    assert relative_difference(found, expected) <= BOUNDS[dtype]
    grad = torch.rand(expected.shape, dtype=dtype) - 0.3
    grads = torch.autograd.grad(expected, list(reference.parameters()), grad)
    for one, other in zip(torch.autograd.grad(found, list(reducer.parameters()), grad), grads, strict=True):
        assert relative_difference(one, other) <= BOUNDS[dtype]


def test_temporal_conv_starts_where_the_reference_code_starts():
    spec = ClipSpec(num_frames=9, height=5, width=7)
    torch.manual_seed(3)
    expected = Reference(spec).state_dict()
    torch.manual_seed(3)
    found = TemporalConv(spec, initial="torch").state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_temporal_conv_starts_slow_with_the_variance_of_the_reference_code():
    spec = ClipSpec(num_frames=100, height=1, width=1)
    torch.manual_seed(0)
    kernel = TemporalConv(spec, hidden=256).conv_temp.weight.detach()[..., 0, 0]
    expected = Reference(spec).conv_temp.weight.std()
    # 256 x 3 mixtures of 8 numbers each: the variance is known to 2.5 times sqrt(2 / 6144) = 4.5 %
    assert relative_difference(kernel.std(), expected) < 0.05
    power = torch.fft.rfft(kernel, dim=2).abs().square().sum((0, 1))
    assert power[:6].sum() > 0.95 * power.sum()  # cosines up to the 7th are at most 3.5 turns of the clip
    with pytest.raises(ValueError, match="expected smooth or torch"):
        TemporalConv(spec, initial="zero")


def test_mean_is_the_mean():
    pixels = torch.rand(2, *SPECS[0].shape_SCHW, dtype=torch.float64)
    assert relative_difference(Mean(SPECS[0]).double()(pixels), pixels.mean(1)) <= BOUNDS[torch.float64]


def test_attention_weighs_frames_by_content():
    torch.manual_seed(0)
    spec = ClipSpec(num_frames=6, channels=2, height=4, width=9)
    reducer = Attention(spec).double()
    pixels = torch.randn(2, *spec.shape_SCHW, dtype=torch.float64)
    weights = reducer.frame_weights(pixels)
    assert weights.shape == (2, 4, 6)
    assert (weights > 0).all()
    assert torch.allclose(weights.sum(2), torch.ones(2, 4, dtype=torch.float64))
    assert not torch.allclose(weights[0], weights[1])  # other content, other weights
    assert reducer.weights() is None
    doubled = reducer(2 * pixels) - reducer(torch.zeros_like(pixels))
    single = reducer(pixels) - reducer(torch.zeros_like(pixels))
    assert not torch.allclose(doubled, 2 * single)  # not linear


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("temporal_conv", {"n": 8}, "n of temporal_conv: 8, expected 1 to the clip's 7 frames"),
        ("temporal_conv", {"n": 0}, "n of temporal_conv: 0"),
        ("temporal_conv", {"hidden": 0}, "hidden of temporal_conv: 0"),
        ("temporal_conv", {"stride": 0}, "stride of temporal_conv: 0"),
        ("temporal_conv", {"depth": 2}, "options of reducer 'temporal_conv': depth, expected some of hidden"),
        ("mean", {"hidden": 2}, "options of reducer 'mean': hidden, but mean has no options"),
        ("temporal_conv", {"hidden": "x"}, "hidden of temporal_conv: 'x', expected a whole number"),
        ("temporal_conv", {"hidden": 2.5}, "hidden of temporal_conv: 2.5, expected a whole number"),
        ("temporal_conv", {"n": "3"}, "n of temporal_conv: '3', expected a whole number"),
        ("temporal_conv", {"stride": None}, "stride of temporal_conv: None"),
        ("temporal_conv", {"out_channels": True}, "out_channels of temporal_conv: True"),
        ("temporal_conv", {"initial": ["smooth"]}, "initial of temporal_conv"),
        ("attention", {"heads": 1.5}, "heads of attention: 1.5, expected a whole number"),
        ("attention", {"heads": 0}, "heads of attention: 0"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_reducer(name, SPECS[0], **options)


OUTSIDE = """
import torch
from torch import nn
from clipfold.models.reducers import TemporalReducer

class LastMinusFirst(TemporalReducer):
    def __init__(self, spec, gain=1.0):
        super().__init__(spec, out_channels=spec.channels)
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, pixels_BSCHW):
        return self.gain * (pixels_BSCHW[:, -1] - pixels_BSCHW[:, 0])

class Learned(TemporalReducer):
    def __init__(self, spec):
        super().__init__(spec, out_channels=4)
        self.weight = nn.Parameter(torch.randn(4, spec.num_frames, spec.channels))
        self.bias = nn.Parameter(torch.rand(4))

    def weights(self):
        return self.weight, self.bias

class Needy(TemporalReducer):
    def __init__(self, spec, size):
        super().__init__(spec, out_channels=size)

class Plain(nn.Module):
    def __init__(self, spec):
        super().__init__()
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package that is not ours, with an entry point."""
    (tmp_path / "outside_reducers.py").write_text(OUTSIDE)
    described = tmp_path / "outside-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        "[clipfold.reducers]\nlast_minus_first = outside_reducers:LastMinusFirst\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("outside_reducers", None)


@pytest.mark.parametrize("name", ["last_minus_first", "outside_reducers:LastMinusFirst", "outside_reducers:Learned"])
def test_plugins_from_outside(outside, name):
    """They keep the contract, and a classifier of them trains."""
    check_reducer(lambda spec: make_reducer(name, spec))
    spec = ClipSpec(num_frames=5, height=16, width=40)
    model = build_classifier(num_classes=3, spec=spec, reducer=name, augment="light")
    pixels = torch.randint(0, 256, (2, *spec.shape_SCHW)).to(torch.uint8)
    model(pixels, params=model.draw_params(seed=0, positions=torch.arange(2))).sum().backward()
    assert all(parameter.grad is not None for parameter in model.reducer.parameters())


def test_options_reach_a_plugin(outside):
    assert make_reducer("last_minus_first", SPECS[0], gain=2.5).gain.item() == 2.5
    with pytest.raises(ValueError, match="options of reducer 'last_minus_first': hidden, expected some of gain"):
        make_reducer("last_minus_first", SPECS[0], hidden=2)


def test_unknown_names_list_the_known(outside):
    with pytest.raises(PluginError, match="attention, last_minus_first, mean, temporal_conv") as caught:
        make_reducer("temporal_conf", SPECS[0])
    assert "did you mean 'temporal_conv'" in str(caught.value)
    with pytest.raises(PluginError, match="Plain, expected a TemporalReducer"):
        make_reducer("outside_reducers:Plain", SPECS[0])
    with pytest.raises(PluginError, match="Linear, expected a TemporalReducer"):
        make_reducer("torch.nn:Linear", SPECS[0])
    with pytest.raises(PluginError, match="is a float, expected a class or function that takes spec"):
        make_reducer("math:pi", SPECS[0])
    with pytest.raises(PluginError, match="missing a required argument: 'size'"):
        make_reducer("outside_reducers:Needy", SPECS[0])
    with pytest.raises(PluginError, match="cannot import"):
        make_reducer("outside_reducers:Missing", SPECS[0])
