"""Batches on a GPU: the same as on the CPU, and never overwritten while work on them is still queued."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipfold.shards.reader import Corpus
from clipfold.stream.loader import ClipStream

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda(skip_without: Callable[[str, str], None]) -> None:
    """Skip where there is no GPU."""
    if not torch.cuda.is_available():
        skip_without("cuda", "torch finds no CUDA device")


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("options", [{"split": "val"}, {"tail": "cross"}, {"prefetch": 1}, {"prefetch": 6}])
def test_the_same_batches_as_on_the_cpu(corpora: Callable[[str], Path], codec: str, options: dict[str, Any]) -> None:
    with (
        ClipStream(corpora(codec), batch_size=4, **options) as stream,
        ClipStream(corpora(codec), batch_size=4, device="cuda", **options) as on_gpu,
    ):
        for _ in range(3):
            for one, other in zip(stream, on_gpu, strict=True):
                assert other.pixels_BSCHW.is_cuda
                assert one.keys == other.keys
                for name in ("pixels_BSCHW", "labels", "valid", "num_valid_frames", "positions"):
                    assert torch.equal(getattr(one, name), getattr(other, name).cpu())
        assert on_gpu.state_dict() == stream.state_dict()
        assert on_gpu._hosts[0].tensors[0].is_pinned()


@pytest.mark.parametrize("side_stream", [False, True])
def test_slots_wait_for_work_that_is_queued(corpus: Corpus, numbers_in: Any, side_stream: bool) -> None:
    """The host runs far ahead of the device: each copy must wait until a slow reader of its slot is done."""
    current = torch.cuda.Stream() if side_stream else torch.cuda.current_stream()
    kept = []
    with torch.cuda.stream(current), ClipStream(corpus, batch_size=4, tail="cross", device="cuda") as stream:
        for _ in range(3):
            for batch in stream:
                torch.cuda._sleep(20_000_000)  # some 10 ms in front of the reader, far longer than a copy
                kept.append((list(batch.keys), batch.pixels_BSCHW.clone()))
        current.synchronize()
    for keys, pixels in kept:
        assert numbers_in(pixels.cpu()) == [int(key.partition("-")[0]) for key in keys]


def test_abandoned_and_resumed_on_the_gpu(corpus: Corpus, keys_of: Any, numbers_in: Any) -> None:
    with ClipStream(corpus, batch_size=4) as whole:
        expected = keys_of(whole)
    with ClipStream(corpus, batch_size=4, device="cuda") as stream:
        found = keys_of(stream, 3)
        stream.load_state_dict(stream.state_dict())  # drops what was prepared ahead
        for batch in stream:
            assert numbers_in(batch.pixels_BSCHW.cpu()) == [
                int(key.partition("-")[0]) if key else -1 for key in batch.keys
            ]
            found.append(list(batch.keys))
    assert found == expected
    assert stream.stats()["copy_seconds"] == 0.0 or stream.stats()["num_batches"] == len(expected)


def test_a_stream_is_read_in_and_out_of_inference_mode(cuda: None, corpus: Corpus) -> None:
    with ClipStream(corpus, split="val", batch_size=4, device="cuda") as stream:
        with torch.inference_mode():
            keys = [list(batch.keys) for batch in stream]
        for batch, expected in zip(stream, keys, strict=True):
            assert list(batch.keys) == expected
            batch.pixels_BSCHW.float().requires_grad_().sum().backward()
