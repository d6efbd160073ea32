"""Reused memory for one batch on the host, laid out as the codec writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipfold.clip import ClipBatch, ClipSpec
from clipfold.shards.codecs import Layout, slot_shape
from clipfold.shards.index import sample_key

__all__ = ["HostBatch", "Meta", "clip_batch", "empty_tensors"]

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # pixels as they lie, int64 (3, B), bool (B,)
Meta = list[Mapping[str, Any]] | None
_LABEL, _NUM_VALID_FRAMES, _POSITION = range(3)


def empty_tensors(
    batch_size: int, spec: ClipSpec, layout: Layout, *, device: torch.device | str = "cpu", pinned: bool = False
) -> Tensors:
    """Memory for a batch: pixels (B, S, C, H, W) or (B, S, H, W, C), three rows of whole numbers, what is valid."""
    where: dict[str, Any] = {"device": device, "pin_memory": pinned}
    return (
        torch.empty(batch_size, *slot_shape(layout, spec), dtype=getattr(torch, spec.dtype), **where),
        torch.zeros(3, batch_size, dtype=torch.int64, **where),
        torch.zeros(batch_size, dtype=torch.bool, **where),
    )


def clip_batch(tensors: Tensors, layout: Layout, keys: list[str], epoch: int, meta: Meta) -> ClipBatch:
    """The batch that shows these tensors; ``pixels_BSCHW`` is a permuted view where the channels lie last."""
    pixels, numbers, valid = tensors
    return ClipBatch(
        pixels_BSCHW=pixels if layout == "SCHW" else pixels.permute(0, 1, 4, 2, 3),
        labels=numbers[_LABEL],
        valid=valid,
        num_valid_frames=numbers[_NUM_VALID_FRAMES],
        positions=numbers[_POSITION],
        keys=keys,
        epoch=epoch,
        meta=meta,
    )


class HostBatch:
    """One batch under way or handed out. Different slots may be filled by different threads.

    Args:
        batch_size: B.
        spec: Of the clips.
        layout: Of the codec.
        pinned: Whether the memory is page-locked, so that copies to a GPU run beside everything else.
        has_meta: Whether there is room for what each sample's ``.json`` says.
    """

    def __init__(
        self, batch_size: int, spec: ClipSpec, layout: Layout, *, pinned: bool, has_meta: bool = False
    ) -> None:
        self.layout = layout
        self.tensors = empty_tensors(batch_size, spec, layout, pinned=pinned)
        pixels, numbers, valid = (tensor.numpy() for tensor in self.tensors)
        self.slots: list[NDArray[Any]] = list(pixels)
        self.slot_bytes = [row.data for row in pixels.view(np.uint8).reshape(batch_size, -1)]
        self.keys = [""] * batch_size
        self.meta: Meta = [{}] * batch_size if has_meta else None
        self.copied: torch.cuda.Event | None = None  # set while a copy to a device may still read from here
        self._numbers, self._valid = numbers, valid

    def start(self, positions: NDArray[np.int64]) -> None:
        """Make ready for other samples: slots of position -1 are padding, the others are to be filled."""
        if self.copied is not None:
            self.copied.synchronize()
            self.copied = None
        self.keys = [""] * len(positions)  # a new list: the old one was handed out
        self.meta = None if self.meta is None else [{}] * len(positions)
        self._numbers[:] = 0
        self._numbers[_POSITION] = positions
        self._valid[:] = positions >= 0
        for slot in np.flatnonzero(positions < 0).tolist():
            self.slots[slot].fill(0)

    def describe(self, slots: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Label, valid frames and key of some slots, from their rows of the index."""
        self._numbers[_LABEL, slots] = rows["label"]
        self._numbers[_NUM_VALID_FRAMES, slots] = rows["num_valid_frames"]
        for slot, source, clip in zip(slots.tolist(), rows["source"].tolist(), rows["clip"].tolist(), strict=True):
            self.keys[slot] = sample_key(source, clip)

    def mark_unreadable(self, slot: int) -> None:
        """Take a slot out of the count: zeros, not valid; position, label and key stay where they are known."""
        self.slots[slot].fill(0)
        self._valid[slot] = False
        if self.meta is not None:
            self.meta[slot] = {}

    def batch(self, epoch: int) -> ClipBatch:
        """What is handed out where nothing has to be copied."""
        return clip_batch(self.tensors, self.layout, self.keys, epoch, self.meta)
