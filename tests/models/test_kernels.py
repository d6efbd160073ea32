"""The reduction equals its definition for any dtype, layout and shape, and keeps bytes only."""

from __future__ import annotations

import pytest
import torch

from clipfold.models import kernels
from clipfold.models.kernels import choose, reduce, reference
from clipfold.testing import relative_difference

# fp64: a sum of S * C <= 100 products rounds by at most 100 * 1.1e-16 of its terms; 1e-10 leaves 10^4 for cancelling.
# fp32: 100 * 6e-8 = 6e-6 if all roundings of a sum add up, and they do not: 1e-5 in norm.
BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-5}


def make_clips(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.rand(shape, dtype=dtype, generator=generator)
    return torch.randint(0, 256 if dtype == torch.uint8 else 65536, shape, generator=generator).to(dtype)


def make_weights(num, K, S, C, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(num, K, S, C, dtype=dtype, generator=generator) - 0.4
    bias = torch.rand(num, K, dtype=dtype, generator=generator)
    return weights.requires_grad_(), bias.requires_grad_()


def define(pixels_BSCHW, weights_BKSC, bias_BK):
    weights = weights_BKSC.expand(len(pixels_BSCHW), -1, -1, -1)
    return torch.einsum("bksc,bschw->bkhw", weights, pixels_BSCHW.to(weights.dtype)) + bias_BK[:, :, None, None]


def check(pixels, weights, bias):
    found, expected = reduce(pixels, weights, bias), define(pixels, weights, bias)
    bound = BOUNDS[weights.dtype]
    assert found.dtype == weights.dtype
    assert found.is_contiguous()
    assert relative_difference(found, expected) <= bound
    grad = torch.rand(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(2)) - 0.3
    grads = zip(
        torch.autograd.grad(found, (weights, bias), grad),
        torch.autograd.grad(expected, (weights, bias), grad),
        strict=True,
    )
    for one, other in grads:
        assert relative_difference(one, other) <= bound


LAYOUTS = {
    "SCHW": lambda clips: clips,
    "SHWC": lambda clips: clips.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "window": lambda clips: torch.cat([clips, clips, clips], dim=1)[:, 2 : 2 + clips.shape[1]],
    "every other row": lambda clips: clips.repeat_interleave(2, dim=3)[:, :, :, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pixel_dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shared", [False, True])
def test_dtypes_and_layouts(layout, pixel_dtype, weight_dtype, shared):
    pixels = LAYOUTS[layout](make_clips((3, 7, 3, 5, 11), pixel_dtype))
    check(pixels, *make_weights(1 if shared else 3, 4, 7, 3, weight_dtype))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 1), (2, 1, 1, 3, 701), (5, 33, 1, 1, 2), (2, 3, 5, 7, 13), (9, 100, 1, 2, 3)]
)
@pytest.mark.parametrize("K", [1, 8, 64])
def test_shapes_far_from_the_default(shape, K):
    """K > S * C among them, and P that is a multiple of nothing."""
    check(make_clips(shape, torch.uint8), *make_weights(shape[0], K, *shape[1:3]))


@pytest.mark.parametrize("budget", [1, 100, 1000, 5000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_of_any_size(monkeypatch, budget, layout):
    """Tiles that end within a batch and within a clip give the same sums."""
    monkeypatch.setitem(reference._VALUES_PER_TILE, "cpu", budget)
    check(LAYOUTS[layout](make_clips((6, 7, 3, 5, 11), torch.uint8)), *make_weights(6, 4, 7, 3))


def test_shared_weights_with_a_bias_per_clip():
    weights, _ = make_weights(1, 4, 7, 3)
    _, bias = make_weights(3, 4, 7, 3)
    check(make_clips((3, 7, 3, 5, 11), torch.uint8), weights, bias)


def test_the_arguments_are_never_written_to():
    """Also where an output of one pixel could share the bias's memory."""
    pixels, (weights, bias) = make_clips((1, 2, 1, 1, 1), torch.uint8), make_weights(1, 4, 2, 1)
    before = [tensor.clone() for tensor in (pixels, weights, bias)]
    reduce(pixels, weights, bias).sum().backward()
    assert all(torch.equal(one, other) for one, other in zip((pixels, weights, bias), before, strict=True))


def test_no_clips():
    weights, bias = make_weights(1, 4, 7, 3)
    maps = reduce(make_clips((0, 7, 3, 5, 11), torch.uint8), weights, bias)
    assert maps.shape == (0, 4, 5, 11)
    maps.sum().backward()
    assert not weights.grad.any()


def test_only_bytes_are_kept_for_the_backward():
    pixels = make_clips((2, 10, 3, 8, 8), torch.uint8)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        reduce(pixels, *make_weights(2, 4, 10, 3))
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept) == pixels.numel()


def test_gradients_that_nobody_asks_for_are_not_made(monkeypatch):
    monkeypatch.setattr(reference, "reduce_grad", None)
    weights, bias = make_weights(1, 4, 7, 3)
    reduce(make_clips((2, 7, 3, 5, 11), torch.uint8), weights.detach(), bias).sum().backward()
    assert bias.grad.tolist() == [[2 * 55.0] * 4]


def test_autocast_does_not_touch_it():
    pixels, (weights, bias) = make_clips((2, 7, 3, 5, 11), torch.uint8), make_weights(2, 4, 7, 3, torch.float32)
    expected = reduce(pixels, weights, bias)
    (expected_grad,) = torch.autograd.grad(expected.sum(), weights)
    with torch.autocast("cpu", torch.bfloat16):
        found = reduce(pixels, weights, bias)
        (grad,) = torch.autograd.grad(found.sum(), weights)
    assert torch.equal(found, expected)
    assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, from inside its tracing
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_the_operator_is_sound(layout):
    pixels = LAYOUTS[layout](make_clips((2, 4, 3, 4, 5), torch.uint8))
    weights, bias = make_weights(2, 3, 4, 3)
    torch.library.opcheck(kernels._reduce_op, (pixels, weights, bias))
    torch.library.opcheck(kernels._reduce_grad_op, (pixels, torch.rand(2, 3, 4, 5)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compile_goes_through_it():
    pixels, (weights, bias) = make_clips((2, 7, 3, 5, 11), torch.uint8), make_weights(1, 4, 7, 3)

    def loss(pixels, weights, bias):
        return reduce(pixels, weights * 2, bias).relu().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(f(pixels, weights, bias), (weights, bias)) for f in (compiled, loss))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pixels": torch.rand(2, 7, 3, 5, 11, requires_grad=True)}, ValueError, "gives no gradient to its pixels"),
        ({"pixels": torch.zeros(2, 7, 3, 5, 11, dtype=torch.int64)}, TypeError, "int64"),
        ({"pixels": torch.zeros(2, 7, 3, 55)}, ValueError, "expected \\(B, S, C, H, W\\)"),
        ({"weights": torch.zeros(2, 4, 3, 7)}, ValueError, "shapes of pixels, weights and bias"),
        ({"weights": torch.zeros(3, 4, 7, 3)}, ValueError, "shapes of pixels, weights and bias"),
        ({"weights": torch.zeros(2, 4, 7, 3, dtype=torch.bfloat16)}, TypeError, "bfloat16 weights"),
        ({"bias": torch.zeros(2, 3)}, ValueError, "shapes of pixels, weights and bias"),
        ({"bias": torch.zeros(2, 4).double()}, TypeError, "dtype of the bias"),
    ],
)
def test_wrong_arguments(change, error, message):
    right = {"pixels": torch.zeros(2, 7, 3, 5, 11), "weights": torch.zeros(2, 4, 7, 3), "bias": torch.zeros(2, 4)}
    with pytest.raises(error, match=message):
        reduce(*(right | change).values())


def test_the_kernel_is_chosen_by_device_or_forced():
    cpu = torch.device("cpu")
    assert choose(cpu, {}) == "reference"
    assert choose(cpu, {"CLIPFOLD_KERNEL": "reference"}) == "reference"
    with pytest.raises(ValueError, match="CLIPFOLD_KERNEL: 'fast', expected one of reference, triton"):
        choose(cpu, {"CLIPFOLD_KERNEL": "fast"})


@pytest.mark.gpu
def test_on_a_gpu(skip_without):
    if not torch.cuda.is_available():
        skip_without("cuda", "no CUDA device")
    pixels, (weights, bias) = make_clips((3, 7, 3, 5, 11), torch.uint8), make_weights(3, 4, 7, 3)
    found = reduce(pixels.cuda(), weights.cuda(), bias.cuda())
    assert relative_difference(found.cpu(), define(pixels, weights, bias)) <= BOUNDS[torch.float64]
