"""Clips to logits: folded and eager are the same model, and clips that do not fit are refused."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipfold.augment import Augmentation, Compose
from clipfold.augment.geometric import ColumnRoll, Erasing, HorizontalFlip
from clipfold.augment.photometric import Brightness, Contrast
from clipfold.augment.temporal import FrameDrop, TimeReversal
from clipfold.clip import ClipSpec
from clipfold.errors import PluginError
from clipfold.models.classifier import ClipClassifier, build_classifier
from clipfold.models.reducers import REDUCERS, TemporalReducer, make_reducer
from clipfold.testing import relative_difference

SPEC = ClipSpec(num_frames=12, channels=3, height=8, width=21)
NUMBERS = {"mean": [0.4, 0.5, 0.3], "std": [0.2, 0.25, 0.3]}
EVERYTHING = Compose(
    [TimeReversal(), FrameDrop(0.2), Brightness(0.2), HorizontalFlip(), Contrast(0.4), Erasing(value=0.3), ColumnRoll()]
)


class Gamma(Augmentation):
    """Not linear: has to see the pixels."""

    def make_params(self, draw, spec):
        return {"gamma": draw.uniform(low=0.7, high=1.5)}

    def transform(self, pixels_BSCHW, params):
        return pixels_BSCHW.clamp_min(0) ** params["gamma"].to(pixels_BSCHW.dtype)[:, None, None, None, None]


def stored(spec=SPEC, num=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(num, *spec.shape_SCHW, generator=generator, dtype=torch.float64)
    return (pixels * spec.full_scale).to(getattr(torch, spec.dtype))


def tiny_backbone(in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(5))


def tiny(augment=None, spec=SPEC, reducer="temporal_conv", **options):
    torch.manual_seed(0)
    made = make_reducer(reducer, spec)
    model = ClipClassifier(made, tiny_backbone(made.out_channels), 5, **NUMBERS, augment=augment, **options).double()
    model(stored(spec))  # the lazy layer learns its size
    return model


def test_it_is_normalisation_then_the_reference_code():
    model = tiny()
    mean, std = (
        torch.tensor(NUMBERS[name]).double()[:, None, None] for name in ("mean", "std")
    )  # rounded to fp32, as buffers
    floats = (stored().double() / 255 - mean) / std
    reducer = model.reducer
    image = reducer.conv_spatial(F.relu(reducer.conv_temp(floats.transpose(1, 2)))).squeeze(2)
    # fp64, sums of 36 and 72 products: 1e-10 leaves 10^4 for terms that cancel
    assert relative_difference(model.images(stored()), image) <= 1e-10
    assert relative_difference(model(stored()), model.backbone(image)) <= 1e-10


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("reducer", sorted(REDUCERS))
@pytest.mark.parametrize(
    "augment",
    [
        Compose(),
        EVERYTHING,
        Compose([*EVERYTHING, Gamma()]),
        Compose([Brightness(0.1), Gamma(), *EVERYTHING]),
    ],
    ids=["nothing", "all fold", "eager last", "eager in front"],
)
def test_folded_equals_eager(dtype, reducer, augment):
    """Logits and the gradients of all parameters, for chains that fold wholly, partly and not at all."""
    spec = ClipSpec(num_frames=12, channels=3, height=8, width=21, dtype=dtype)
    folded = tiny(augment, spec, reducer)
    eager = copy.deepcopy(folded)
    eager.fold = False
    results = []
    for model in (folded, eager):
        params = model.draw_params(seed=3, positions=torch.arange(3) + 40)
        logits = model(stored(spec), params=params)
        grads = torch.autograd.grad((logits * torch.arange(1, 6)).sum(), list(model.parameters()))
        results.append([logits, *grads])
    for one, other in zip(*results, strict=True):
        # fp64 as above; no maximum or ReLU comes within rounding of its kink at random pixels and non-zero bias
        assert relative_difference(one, other) <= 1e-10


def test_training_folded_and_eager_gives_the_same_losses():
    """50 steps in fp64: rounding of 1e-15 a step, which training may amplify; 1e-9 is below any wrong term."""
    losses = {}
    for fold in (True, False):
        model = tiny(EVERYTHING, fold=fold)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        losses[fold] = []
        for step in range(50):
            pixels, labels = stored(seed=step % 5), torch.tensor([0, 2, 4])
            params = model.draw_params(seed=0, positions=torch.arange(3) + 3 * step)
            loss = F.cross_entropy(model(pixels, params=params), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[fold].append(loss.item())
    assert losses[True] == pytest.approx(losses[False], rel=1e-9)
    assert losses[True][-1] < losses[True][0]


def test_augmentation_follows_from_seed_and_position():
    model = tiny(EVERYTHING)
    pixels = stored(num=6)
    positions = torch.tensor([5, 6, 7, 100, 101, 102])
    whole = model.images(pixels, params=model.draw_params(seed=1, positions=positions))
    halves = [
        model.images(pixels[part], params=model.draw_params(seed=1, positions=positions[part]))
        for part in (slice(0, 3), slice(3, 6))
    ]
    assert relative_difference(torch.cat(halves), whole) <= 1e-10  # tiles are cut otherwise: the sums round otherwise
    other = model.images(pixels, params=model.draw_params(seed=2, positions=positions))
    assert relative_difference(other, whole) > 0.01
    assert tiny().draw_params(seed=0, positions=positions) is None


def test_stored_memory_order_does_not_matter():
    pixels = stored()
    channels_last = pixels.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert relative_difference(tiny()(channels_last), tiny()(pixels)) <= 1e-10


def test_checkpoint_holds_the_normalisation():
    trained, fresh = tiny(), ClipClassifier(make_reducer("temporal_conv", SPEC), tiny_backbone(), 5).double()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(stored()), trained(stored()))


def test_a_channel_that_never_varies_is_left_alone():
    model = ClipClassifier(make_reducer("mean", SPEC), nn.Identity(), 5, mean=[0.0, 0.0, 0.0], std=[0.5, 0.0, 0.5])
    assert model.std.tolist() == [0.5, 1.0, 0.5]
    assert model.images(stored()).isfinite().all()


def test_bfloat16_autocast_keeps_the_reduction_exact():
    model = build_classifier(num_classes=4, spec=ClipSpec(num_frames=9, height=32, width=48), **NUMBERS)
    pixels = stored(model.spec)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(pixels)
        assert logits.dtype == torch.bfloat16
        logits.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("reducer", sorted(REDUCERS))
def test_build_by_name_trains(reducer):
    spec = ClipSpec(num_frames=6, channels=1, height=32, width=40)
    model = build_classifier(num_classes=4, spec=spec, reducer=reducer, mean=[0.4], std=[0.2], augment="light")
    pixels = stored(spec)
    model(pixels, params=model.draw_params(seed=0, positions=torch.arange(3))).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_clips_of_another_spec_are_refused_with_both():
    model = tiny()
    for pixels in (stored(ClipSpec(num_frames=11, channels=3, height=8, width=21)), stored().to(torch.float32)):
        with pytest.raises(ValueError, match="expected S=12 C=3 H=8 W=21 uint8") as caught:
            model(pixels)
        assert ("S=11" in str(caught.value)) or ("float32" in str(caught.value))
    with pytest.raises(ValueError, match="clips of B=12"):
        model(stored()[0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reducer": "convolution"}, PluginError, "expected one of attention, mean, temporal_conv"),
        ({"backbone": "resnet19"}, PluginError, "did you mean 'resnet1"),
        ({"augment": "strongest"}, PluginError, "unknown name among the augmentations"),
        ({"reducer_options": {"width": 2}}, ValueError, "options of reducer"),
        ({"mean": [0.1, 0.2]}, ValueError, "mean of the channels"),
        ({"std": [0.1, 0.2, float("inf")]}, ValueError, "std of the channels"),
        ({"backbone": "vit_b_16"}, ValueError, "cannot take pictures of 3x8x21"),
    ],
)
def test_wrong_names_and_numbers(change, error, message):
    with pytest.raises(error, match=message):
        build_classifier(**{"num_classes": 4, "spec": SPEC, **change})


def test_parameters_of_another_chain_are_refused():
    model = tiny(EVERYTHING)
    with pytest.raises(ValueError, match="parameters for a chain"):
        model(stored(), params=[])
    with pytest.raises(ValueError, match="clips reach the reducer as"):
        ClipClassifier(make_reducer("mean", SPEC), nn.Identity(), 5, spec=ClipSpec())


class Odd(TemporalReducer):
    """Breaks the contract in one place."""

    def __init__(self, spec, *, weights=(3, 12, 3), bias=(3,), image=(3, 8, 21), linear=True):
        super().__init__(spec, out_channels=3)
        self.shapes, self.image, self.linear = (weights, bias), image, linear

    def weights(self):
        return tuple(torch.zeros(shape, dtype=torch.float64) for shape in self.shapes) if self.linear else None

    def finish(self, maps_BKHW):
        return maps_BKHW.new_zeros(len(maps_BKHW), *self.image)

    def forward(self, pixels_BSCHW):
        return self.finish(pixels_BSCHW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (3, 11, 3)}, r"weights of reducer Odd: \(3, 11, 3\), expected \(K, S, C\) = \(any, 12, 3\)"),
        ({"weights": (12, 3)}, r"weights of reducer Odd: \(12, 3\)"),
        ({"bias": (2,)}, r"bias of reducer Odd: \(2,\), expected \(K,\) = \(3,\)"),
        ({"image": (4, 8, 21)}, r"image of reducer Odd: \(2, 4, 8, 21\), expected .* = \(2, 3, 8, 21\)"),
        ({"image": (3, 8)}, r"image of reducer Odd: \(2, 3, 8\)"),
        ({"image": (3, 8, 20), "linear": False}, r"image of reducer Odd: \(2, 3, 8, 20\)"),
    ],
)
def test_a_reducer_that_breaks_its_contract_is_named(change, message):
    model = ClipClassifier(Odd(SPEC, **change), nn.Flatten(), 5).double()
    with pytest.raises(PluginError, match=message):
        model(stored(num=2))


def test_compiled_it_gives_the_same():
    model = tiny(reducer="mean")
    model.backbone = nn.Flatten()
    found = torch.compile(model, backend="aot_eager", fullgraph=True)(stored())
    # the same operations in the same order
    assert torch.equal(found, model(stored()))
