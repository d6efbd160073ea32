"""The contracts as checks that anybody can run: for reducers and augmentations that live outside the package.

Each raises ``AssertionError`` that says which promise is broken; arithmetic is compared in float64. In a test file::

    from clipfold.testing import check_augmentation, check_reducer

    def test_my_reducer():
        check_reducer(MyReducer)                       # or lambda spec: MyReducer(spec, option=3)

    def test_my_augmentation():
        check_augmentation(MyAugmentation(p=0.5))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from clipfold.augment import Augmentation, Compose, FrameChannel, Params, Spatial
from clipfold.augment.photometric import Brightness, Contrast, Normalise
from clipfold.clip import ClipSpec
from clipfold.models.classifier import ClipClassifier
from clipfold.models.folding import fold
from clipfold.models.kernels import reduce
from clipfold.models.reducers import TemporalReducer
from clipfold.rng import Draw

__all__ = [
    "SPECS",
    "check_augmentation",
    "check_folded_equals_eager",
    "check_reducer",
    "relative_difference",
]

SPECS: tuple[ClipSpec, ...] = (
    ClipSpec(num_frames=7, channels=3, height=5, width=11),
    ClipSpec(num_frames=12, channels=1, height=8, width=3, dtype="uint16"),
    ClipSpec(num_frames=3, channels=4, height=2, width=16, dtype="float32"),
)
"""Small clips, far from the default shape: odd sizes, one channel, four channels, every dtype."""

# A value is a sum of at most a few hundred products (S * C weights, some steps of a chain). Each rounds by 1.1e-16, so
# even if all roundings add up the difference is below 1e-13 of the largest terms; 1e-10 leaves a factor of 1,000 for
# terms that cancel.
_BOUND = 1e-10


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """``|found - expected| / |expected|`` in norm; the plain difference where the expected norm is below 1.

    Raises:
        AssertionError: The shapes differ, or a number is not finite.
    """
    assert found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    found, expected = found.detach().double(), expected.detach().double()
    assert found.isfinite().all(), "a number is not finite"
    return float((found - expected).norm() / expected.norm().clamp_min(1.0))


def check_reducer(make: Callable[[ClipSpec], TemporalReducer], specs: Sequence[ClipSpec] = SPECS) -> None:
    """Check a reducer against its contract.

    It must give floats (B, C_out, H, W), treat each clip by itself, do without any memory order, train (finite
    gradients for all its parameters), be rebuilt from its state dict, give ``finish`` after ``weights`` what
    ``forward`` gives, and give the same images folded and not.

    Args:
        make: Builds the reducer for a spec; called several times.
        specs: The clips to try.

    Raises:
        AssertionError: A promise that is broken, with the spec.
    """
    for spec in specs:
        reducer = make(spec)
        assert isinstance(reducer, TemporalReducer), f"{spec}: a {type(reducer).__name__}, expected a TemporalReducer"
        reducer = reducer.double().eval()
        try:
            _check_images(reducer, spec)
            _check_linear_part(reducer, spec)
            _check_state(reducer, make(spec).double().eval(), spec)
            _check_folded_images(reducer, spec)
        except AssertionError as error:
            raise AssertionError(f"{type(reducer).__name__} for clips of {spec}: {error}") from error


def check_augmentation(augmentation: Augmentation, specs: Sequence[ClipSpec] = SPECS) -> None:
    """Check an augmentation against its contract.

    Its parameters must be tensors (B, ...) that follow from (seed, position, place) alone, whatever else is in the
    batch; ``transform`` must be pure, keep the dtype, treat each clip by itself and give the shape it says; and its
    linear form, if it has one, must give what ``transform`` gives, alone and in the middle of a chain, for the output
    and for the gradients of weights and bias.

    Args:
        augmentation: The augmentation.
        specs: The clips to try.

    Raises:
        AssertionError: A promise that is broken, with the spec.
    """
    assert isinstance(augmentation, Augmentation), f"a {type(augmentation).__name__}, expected an Augmentation"
    for spec in specs:
        try:
            _check_params(augmentation, spec)
            _check_transform(augmentation, spec)
            _check_linear_form(augmentation, spec)
        except AssertionError as error:
            raise AssertionError(f"{augmentation!r} for clips of {spec}: {error}") from error


def _random(spec: ClipSpec, num_clips: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num_clips, *spec.shape_SCHW, dtype=torch.float64, generator=generator)


def _stored(spec: ClipSpec) -> torch.Tensor:
    """Random clips in the spec's dtype; floats keep 53 bits, so that what is compared is the arithmetic."""
    pixels_BSCHW = _random(spec)
    if spec.dtype == "float32":
        return pixels_BSCHW
    return (pixels_BSCHW * spec.full_scale).round().to(getattr(torch, spec.dtype))


def _channels_last(pixels_BSCHW: torch.Tensor) -> torch.Tensor:
    """The same clips with (S, H, W, C) in memory, as some codecs leave them."""
    return pixels_BSCHW.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def _same(what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    difference = relative_difference(found, expected)
    assert difference <= _BOUND, f"{what}: {difference:.1e} apart, expected at most {_BOUND}"


def _check_images(reducer: TemporalReducer, spec: ClipSpec) -> None:
    pixels_BSCHW = _random(spec) - 0.5
    images = reducer(pixels_BSCHW)
    shape = (len(pixels_BSCHW), reducer.out_channels, spec.height, spec.width)
    assert tuple(images.shape) == shape, f"images {tuple(images.shape)}, expected {shape} (out_channels is its C)"
    assert images.dtype == torch.float64, f"images of {images.dtype}, expected the dtype of pixels and parameters"
    assert images.isfinite().all(), "an image has numbers that are not finite"
    _same("a clip alone and among others", reducer(pixels_BSCHW[1:2]), images[1:2])
    _same("channels last in memory", reducer(_channels_last(pixels_BSCHW)), images)
    parameters = {name: value for name, value in reducer.named_parameters() if value.requires_grad}
    if parameters:
        loss = (images * torch.linspace(-1, 1, images.numel(), dtype=torch.float64).view_as(images)).sum()
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, grad in zip(parameters, grads, strict=True):
            assert grad is not None, f"parameter {name} gets no gradient"
            assert grad.isfinite().all(), f"parameter {name} gets a gradient that is not finite"


def _check_linear_part(reducer: TemporalReducer, spec: ClipSpec) -> None:
    linear = reducer.weights()
    if linear is None:
        return
    weights_KSC, bias_K = linear
    K, S, C = len(bias_K), spec.num_frames, spec.channels
    shapes = tuple(weights_KSC.shape), tuple(bias_K.shape)
    assert shapes == ((K, S, C), (K,)), f"weights() gives {shapes}, expected (K, {S}, {C}) and (K,)"
    pixels_BSCHW = _random(spec) - 0.5
    images = reducer.finish(reduce(pixels_BSCHW, weights_KSC[None], bias_K[None]))
    _same("finish after weights, and forward", images, reducer(pixels_BSCHW))


def _check_state(reducer: TemporalReducer, other: TemporalReducer, spec: ClipSpec) -> None:
    other.load_state_dict(reducer.state_dict())
    pixels_BSCHW = _random(spec) - 0.5
    _same("rebuilt from its state dict", other(pixels_BSCHW), reducer(pixels_BSCHW))


def _check_folded_images(reducer: TemporalReducer, spec: ClipSpec) -> None:
    model = ClipClassifier(
        reducer,
        nn.Identity(),
        1,
        mean=[0.3] * spec.channels,
        std=[0.2] * spec.channels,
        augment=Compose([Brightness(0.2), Contrast(0.5)]),
    ).double()
    pixels_BSCHW = _stored(spec)
    params = model.draw_params(seed=1, positions=torch.arange(len(pixels_BSCHW)))
    model.fold = True
    folded = model.images(pixels_BSCHW, params=params)
    model.fold = False
    _same("folded and eager", folded, model.images(pixels_BSCHW, params=params))


def _draw(augmentation: Augmentation, spec: ClipSpec, positions: Sequence[int], *, seed: int = 5) -> Params:
    return augmentation.make_params(Draw(seed=seed, positions=torch.tensor(positions), place=2), spec)


def _check_params(augmentation: Augmentation, spec: ClipSpec) -> None:
    positions = [7, 10**12, 3]
    params, again = _draw(augmentation, spec, positions), _draw(augmentation, spec, positions)
    for name, value in params.items():
        assert isinstance(value, torch.Tensor), f"parameter {name} is a {type(value).__name__}, expected a tensor"
        rows = len(value) if value.ndim else 0
        assert rows == len(positions), (
            f"parameter {name} has shape {tuple(value.shape)}, expected ({len(positions)}, ...): one row per clip"
        )
        assert torch.equal(value, again[name]), f"parameter {name} differs when drawn again from the same seed"
    for row, position in enumerate(positions):
        for name, value in _draw(augmentation, spec, [position]).items():
            assert torch.equal(value[0], params[name][row]), f"parameter {name} depends on the other clips of the batch"


def _check_transform(augmentation: Augmentation, spec: ClipSpec) -> None:
    pixels_BSCHW = _random(spec)
    params = _draw(augmentation, spec, range(len(pixels_BSCHW)))
    before = pixels_BSCHW.clone()
    changed = augmentation.transform(pixels_BSCHW, params)
    assert torch.equal(pixels_BSCHW, before), "transform writes to its input"
    shape = (len(pixels_BSCHW), *augmentation.output_spec(spec).shape_SCHW)
    assert tuple(changed.shape) == shape, f"transform gives {tuple(changed.shape)}, output_spec says {shape}"
    for dtype in (torch.float32, torch.float64):
        found = augmentation.transform(pixels_BSCHW.to(dtype), params).dtype
        assert found == dtype, f"transform of {dtype} gives {found}"
    assert torch.equal(augmentation.transform(pixels_BSCHW, params), changed), "transform is not pure: twice differs"
    _same("channels last in memory", augmentation.transform(_channels_last(pixels_BSCHW), params), changed)
    alone = {name: value[1:2] for name, value in params.items()}
    _same("a clip alone and among others", augmentation.transform(pixels_BSCHW[1:2], alone), changed[1:2])


def _check_linear_form(augmentation: Augmentation, spec: ClipSpec) -> None:
    form = augmentation.linear_form(_draw(augmentation, spec, range(3)), spec)
    if form is None:
        return
    assert isinstance(form, (FrameChannel, Spatial)), f"linear_form gives a {type(form).__name__}"
    after = augmentation.output_spec(spec)
    chains = [
        Compose([augmentation]),
        Compose([Contrast(0.5), augmentation, Brightness(0.3), Normalise(0.4, [0.2] * after.channels)]),
        Compose([Brightness(0.3), augmentation, augmentation]) if after == spec else Compose([augmentation]),
    ]
    for chain in chains:
        check_folded_equals_eager(chain, spec)


def check_folded_equals_eager(chain: Compose, spec: ClipSpec, *, num_maps: int = 4, seed: int = 0) -> None:
    """Check that a chain of linear steps gives the same maps and gradients folded and on pixels, in float64.

    Args:
        chain: Steps that all have a linear form.
        spec: The clips before the chain.
        num_maps: K of the random weights that the chain is folded into.
        seed: Of pixels, weights and parameters.

    Raises:
        AssertionError: They differ by more than rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels_BSCHW = _stored(spec)
    after = chain.output_spec(spec)
    weights_KSC = torch.rand(num_maps, after.num_frames, after.channels, dtype=torch.float64, generator=generator) - 0.5
    bias_K = torch.rand(num_maps, dtype=torch.float64, generator=generator) + 0.1
    weights_KSC.requires_grad_()
    bias_K.requires_grad_()
    params = chain.make_params(seed=seed, positions=torch.arange(len(pixels_BSCHW)) + seed, spec=spec)
    folded = fold(chain.linear_forms(params, spec), weights_KSC, bias_K, full_scale=spec.full_scale)(pixels_BSCHW)
    floats_BSCHW = chain.transform(pixels_BSCHW.double() / spec.full_scale, params)
    eager = torch.einsum("ksc,bschw->bkhw", weights_KSC, floats_BSCHW) + bias_K[:, None, None]
    _same(f"folded and eager maps of {chain!r}", folded, eager)
    grad = torch.rand(eager.shape, dtype=torch.float64, generator=generator) - 0.3
    found = torch.autograd.grad(folded, (weights_KSC, bias_K), grad)
    expected = torch.autograd.grad(eager, (weights_KSC, bias_K), grad)
    for name, one, other in zip(("weights", "bias"), found, expected, strict=True):
        _same(f"folded and eager gradient of the {name} of {chain!r}", one, other)
