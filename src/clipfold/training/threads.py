"""How many CPU threads compute best: measured, because more threads than free cores are worse than slow."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

from clipfold.models.classifier import ClipClassifier

__all__ = ["choose_cpu_threads", "torch_threads"]


def choose_cpu_threads(model: ClipClassifier, *, batch_size: int) -> int:
    """Time a training step with one thread and with all, on a copy of the model, and take the faster.

    Two steps each, of which the faster counts; the number that torch uses is left as it was.

    Args:
        model: Is not changed.
        batch_size: Clips of the timed step; at most 16 are taken, which tells as much.

    Returns:
        Number of threads, at least 1.
    """
    num_cores = len(os.sched_getaffinity(0))
    if num_cores == 1:
        return 1
    before = torch.get_num_threads()
    try:
        seconds = {threads: _seconds_per_step(model, threads, min(batch_size, 16)) for threads in (num_cores, 1)}
    finally:
        torch.set_num_threads(before)
    return min(seconds, key=lambda threads: seconds[threads])


def _seconds_per_step(model: ClipClassifier, threads: int, batch_size: int) -> float:
    torch.set_num_threads(threads)
    trial = copy.deepcopy(model).train()
    S, C, H, W = model.spec.shape_SCHW
    values = torch.arange(batch_size * S * C * H * W) % 251  # pixels that are neither all equal nor random state
    pixels_BSCHW = values.to(getattr(torch, model.spec.dtype)).view(batch_size, S, C, H, W)
    labels = torch.arange(batch_size) % model.num_classes
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        F.cross_entropy(trial(pixels_BSCHW), labels).backward()  # type: ignore[no-untyped-call]
        best = min(best, time.perf_counter() - start)
    return best


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch compute with so many threads while the block runs; ``None`` leaves it as it is."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
