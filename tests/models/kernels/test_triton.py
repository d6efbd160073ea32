"""The Triton kernels equal the definition, element by element, on a GPU or through Triton's interpreter.

Without a GPU, the last test of this file runs the others in a process of its own with ``TRITON_INTERPRET=1``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from clipfold.models import kernels
from clipfold.models.kernels import choose, triton

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CUDA = torch.cuda.is_available() and not INTERPRETED
DEVICE = torch.device("cuda", torch.cuda.current_device()) if CUDA else torch.device("cpu")

runs = pytest.mark.skipif(not (CUDA or INTERPRETED), reason="no CUDA device; run by test_on_the_interpreter instead")


def make_clips(shape, dtype=torch.uint8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.rand(shape, dtype=dtype, generator=generator)
    return torch.randint(0, 256 if dtype == torch.uint8 else 65536, shape, generator=generator).to(dtype)


def make_weights(num, K, S, C, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, K, S, C, generator=generator), torch.randn(num, K, generator=generator)


def check(pixels, weights, bias):
    """Forward and gradients, each element within its bound; ``pixels`` may be on the device, with its strides."""
    maps = triton.reduce(pixels, weights.to(DEVICE), bias.to(DEVICE))
    x, w = pixels.cpu().double(), weights.double().expand(len(pixels), -1, -1, -1)
    R, P = pixels.shape[1] * pixels.shape[2], pixels.shape[3] * pixels.shape[4]
    # A sum of n terms rounds (tensor cores: truncates) n times, each time at most 2^-23 of the sum of absolute terms;
    # two fp16 limbs of a weight are 2^-22 off, two bf16 limbs of a gradient 2^-18.
    expected = torch.einsum("bksc,bschw->bkhw", w, x) + bias.double()[:, :, None, None]
    terms = torch.einsum("bksc,bschw->bkhw", w.abs(), x.abs()) + bias.double().abs()[:, :, None, None]
    assert maps.dtype == torch.float32
    assert maps.is_contiguous()
    assert maps.shape == expected.shape
    assert within(maps, expected, terms, 2**-22 + (R + 2) * 2**-23)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    grad_weights, grad_bias = triton.reduce_grad(pixels, grad.to(DEVICE))
    g = grad.double()
    for found, one, other in [
        (grad_weights, torch.einsum("bkhw,bschw->bksc", g, x), torch.einsum("bkhw,bschw->bksc", g.abs(), x.abs())),
        (grad_bias, g.sum((2, 3)), g.abs().sum((2, 3))),
    ]:
        assert found.shape == one.shape
        assert found.is_contiguous()
        assert within(found, one, other, 2**-18 + (P + 2) * 2**-23)


def within(found, expected, terms, bound):
    return bool(((found.cpu().double() - expected).abs() <= bound * terms).all())  # false for what is no number


LAYOUTS = {
    "SCHW": lambda clips: clips,
    "SHWC": lambda clips: clips.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "CSHW": lambda clips: clips.transpose(1, 2).contiguous().transpose(1, 2),
    "window": lambda clips: torch.cat([clips, clips, clips], dim=1)[:, 2 : 2 + clips.shape[1]],
    "every other row": lambda clips: clips.repeat_interleave(2, dim=3)[:, :, :, ::2],
    "every other column": lambda clips: clips.repeat_interleave(2, dim=4)[..., ::2],
    "one clip for all": lambda clips: clips[:1].expand(len(clips), -1, -1, -1, -1),
}


@runs
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_dtypes_and_layouts(layout, dtype):
    pixels = make_clips((3, 7, 3, 5, 11), dtype).to(DEVICE)
    check(LAYOUTS[layout](pixels), *make_weights(3, 4, 7, 3))


@runs
@pytest.mark.parametrize("K", [1, 8, 9, 17, 65])
def test_numbers_of_maps(K):
    check(make_clips((1, 5, 3, 3, 16)).to(DEVICE), *make_weights(1, K, 5, 3))


@runs
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1, 1), (2, 1, 1, 3, 701), (2, 67, 3, 1, 2), (3, 2, 5, 7, 13), (1, 3, 3, 4, 404), (1, 2, 1, 8, 1)],
)
def test_shapes_far_from_the_default(shape):
    """One position, rows of one block and of several, positions that end within a block, several splits."""
    check(make_clips(shape).to(DEVICE), *make_weights(shape[0], 3, *shape[1:3]))


@runs
@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
@pytest.mark.parametrize("K", [9, 33])
def test_wide_pixels_with_many_maps(dtype, K):
    check(make_clips((1, 23, 3, 4, 50), dtype).to(DEVICE), *make_weights(1, K, 23, 3))


@runs
def test_shared_weights_or_bias():
    pixels = make_clips((3, 7, 3, 5, 11)).to(DEVICE)
    (weights, bias), (shared_weights, shared_bias) = make_weights(3, 4, 7, 3), make_weights(1, 4, 7, 3)
    check(pixels, shared_weights, bias)
    check(pixels, weights, shared_bias)


@runs
def test_rows_of_weights_of_any_scale():
    """Each row has its own power of two; the smallest normal number, large ones and zero among them."""
    weights, bias = make_weights(1, 6, 7, 3)
    scales = torch.tensor([2.0**-126, 1e-20, 0.0, 1.0, 1e20, 1e33])
    pixels = make_clips((2, 7, 3, 5, 11)).to(DEVICE)
    check(pixels, weights * scales[:, None, None], bias * 0)


@runs
def test_still_and_bright_clips_with_filters_that_see_motion_only():
    """What is left of large sums that cancel is right to the precision of the sums."""
    weights, bias = make_weights(2, 8, 50, 3)
    weights -= weights.mean(2, keepdim=True)
    pixels = (make_clips((2, 1, 3, 4, 16)) % 8 + 247).expand(-1, 50, -1, -1, -1).contiguous()
    check(pixels.to(DEVICE), weights, bias)


@runs
def test_gradients_of_maps_in_any_memory_order():
    pixels = make_clips((2, 4, 3, 5, 8)).to(DEVICE)
    grad = torch.randn(2, 3, 5, 8).to(DEVICE)
    for one, other in zip(
        triton.reduce_grad(pixels, grad),
        triton.reduce_grad(pixels, grad.contiguous(memory_format=torch.channels_last)),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.fixture
def guards(monkeypatch):
    """New tensors are full of what is no number, and lie between guards; yields a function that looks at these."""
    buffers = []
    new_empty = torch.Tensor.new_empty

    def guarded(self, *size, dtype=None, device=None):
        if device is not None:  # the interpreter's own
            return new_empty(self, *size, dtype=dtype or self.dtype, device=device)
        size = torch.Size(size[0] if isinstance(size[0], tuple | torch.Size) else size)
        buffer = new_empty(self, size.numel() + 64, dtype=dtype or self.dtype).fill_(float("nan"))
        buffer[:32], buffer[-32:] = 7, 7
        buffers.append(buffer)
        return buffer[32:-32].view(size)

    def intact():
        return len(buffers) > 0 and all(bool((part == 7).all()) for b in buffers for part in (b[:32], b[-32:]))

    monkeypatch.setattr(torch.Tensor, "new_empty", guarded)
    return intact


@runs
@pytest.mark.parametrize("layout", ["SCHW", "SHWC"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize("HW", [(3, 7), (4, 8)])
def test_nothing_is_read_or_written_beyond(guards, layout, dtype, HW):
    """All of the outputs is written, nothing else; what lies beside the pixels does not matter, whatever it is."""
    shape, maps = (2, 7, 3, *HW), []
    clips = LAYOUTS[layout](make_clips(shape, dtype))
    for beside in (0, 255) if dtype != torch.float32 else (0, float("nan")):
        buffer = torch.full((64 + clips.numel() + 64,), beside, dtype=torch.float32).to(dtype).to(DEVICE)
        pixels = buffer[64:-64].as_strided(shape, clips.stride(), storage_offset=64)
        pixels.copy_(clips)
        check(pixels, *make_weights(2, 3, 7, 3))
        maps.append(triton.reduce(pixels, *(tensor.to(DEVICE) for tensor in make_weights(2, 3, 7, 3))))
    assert torch.equal(*maps)
    assert guards()


@runs
def test_the_same_bits_each_time():
    pixels, (weights, bias) = make_clips((2, 40, 3, 8, 404)).to(DEVICE), make_weights(2, 8, 40, 3)
    grad = torch.randn(2, 8, 8, 404, device=DEVICE)
    runs = [
        (triton.reduce(pixels, weights.to(DEVICE), bias.to(DEVICE)), *triton.reduce_grad(pixels, grad))
        for _ in range(2)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@runs
def test_float64_goes_to_the_reference():
    pixels, (weights, bias) = make_clips((2, 4, 3, 5, 8)).to(DEVICE), make_weights(2, 3, 4, 3)
    maps = triton.reduce(pixels, weights.double().to(DEVICE), bias.double().to(DEVICE))
    assert maps.dtype == torch.float64
    assert triton.reduce(pixels.double(), weights.to(DEVICE), bias.to(DEVICE)).dtype == torch.float32
    assert triton.reduce_grad(pixels, maps)[0].dtype == torch.float64


@runs
def test_nothing_to_do():
    weights, bias = (tensor.to(DEVICE) for tensor in make_weights(1, 3, 4, 3))
    no_clips = make_clips((0, 4, 3, 5, 8)).to(DEVICE)
    assert triton.reduce(no_clips, weights, bias).shape == (0, 3, 5, 8)
    assert [tuple(grad.shape) for grad in triton.reduce_grad(no_clips, weights.new_zeros(0, 3, 5, 8))] == [
        (0, 3, 4, 3),
        (0, 3),
    ]


@runs
def test_it_is_there_for_who_asks_and_differentiable(monkeypatch):
    monkeypatch.setenv("CLIPFOLD_KERNEL", "triton")
    assert choose(DEVICE) == "triton"
    pixels, (weights, bias) = make_clips((2, 4, 3, 5, 8)).to(DEVICE), make_weights(1, 3, 4, 3)
    weights, bias = weights.to(DEVICE).requires_grad_(), bias.to(DEVICE).requires_grad_()
    found = torch.autograd.grad(kernels.reduce(pixels, weights, bias).square().sum(), (weights, bias))
    w, b = weights.double(), bias.double()
    maps = torch.einsum("bksc,bschw->bkhw", w.expand(2, -1, -1, -1), pixels.double()) + b[:, :, None, None]
    expected = torch.autograd.grad(maps.square().sum(), (weights, bias))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_devices():
    assert triton.supports(torch.device("cpu")) == INTERPRETED
    assert not triton.supports(torch.device("meta"))


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.fixture(autouse=True)
    def gpu(self, skip_without, monkeypatch):
        if not CUDA:
            skip_without("cuda", "no CUDA device")
        monkeypatch.setenv("CLIPFOLD_KERNEL", "triton")

    @pytest.mark.parametrize("layout", ["SCHW", "SHWC"])
    @pytest.mark.parametrize("K", [8, 16, 32, 64])
    @pytest.mark.parametrize("shape", [(5, 100, 3, 16, 701), (2, 31, 4, 30, 91)])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
    def test_real_sizes(self, layout, K, shape, dtype):
        check(LAYOUTS[layout](make_clips(shape, dtype).to(DEVICE)), *make_weights(shape[0], K, *shape[1:3]))

    @pytest.mark.parametrize("layout", ["SCHW", "SHWC"])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
    def test_the_operator_is_sound(self, layout, dtype):
        pixels = LAYOUTS[layout](make_clips((2, 4, 3, 4, 5), dtype).to(DEVICE))
        weights, bias = (tensor.to(DEVICE).requires_grad_() for tensor in make_weights(2, 3, 4, 3))
        torch.library.opcheck(kernels._reduce_op, (pixels, weights, bias))
        torch.library.opcheck(kernels._reduce_grad_op, (pixels, torch.rand(2, 3, 4, 5, device=DEVICE)))

    @pytest.mark.filterwarnings("ignore")
    def test_compile_and_graphs(self):
        """One step compiled, and captured in a CUDA graph and replayed on other clips, gives the same gradients."""
        weights, bias = (tensor.to(DEVICE).requires_grad_() for tensor in make_weights(1, 8, 20, 3))
        clips = [make_clips((4, 20, 3, 16, 70), seed=seed).to(DEVICE) for seed in (0, 1)]

        def step(pixels):
            loss = kernels.reduce(pixels, weights * 2, bias).relu().mean()
            return torch.autograd.grad(loss, (weights, bias))

        expected = [step(pixels) for pixels in clips]
        compiled = torch.compile(lambda pixels: kernels.reduce(pixels, weights * 2, bias).relu().mean(), fullgraph=True)
        for pixels, grads in zip(clips, expected, strict=True):
            for one, other in zip(torch.autograd.grad(compiled(pixels), (weights, bias)), grads, strict=True):
                assert (one - other).norm() <= 1e-5 * other.norm()
        still = clips[0].clone()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            step(still)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = step(still)
        for pixels, grads in zip(clips, expected, strict=True):
            still.copy_(pixels)
            graph.replay()
            assert all(torch.equal(one, other) for one, other in zip(found, grads, strict=True))


@pytest.mark.skipif(CUDA or INTERPRETED, reason="the tests above ran already")
def test_on_the_interpreter(skip_without):
    if find_spec("triton") is None:
        skip_without("triton", "Triton is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu", __file__]
    found = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout
