"""Batches on their way to a GPU: a ring of device memory, filled on a stream of its own beside the computation.

::

    host batches   [a] [b] [c]          filled by threads, pinned
                     |   copy stream    waits until the computation has let go of the slot
    device slots   [0] [1] [2]          handed out in turn; the computation's stream waits for the copy

Nothing here blocks the host: who waits for whom is said to the device by events.
"""

from __future__ import annotations

import torch

from clipfold.clip import ClipBatch, ClipSpec
from clipfold.shards.codecs import Layout
from clipfold.stream.batch import HostBatch, Meta, Tensors, clip_batch, empty_tensors

__all__ = ["DeviceRing"]


class DeviceRing:
    """A few batches of memory on one CUDA device, used in turn.

    Args:
        device: A CUDA device.
        batch_size: B.
        spec: Of the clips.
        layout: Of the codec.
        num_slots: 2 copies one batch while another is computed on; 3 has one more ready.
    """

    def __init__(
        self, device: torch.device, batch_size: int, spec: ClipSpec, layout: Layout, *, num_slots: int = 3
    ) -> None:
        self.device, self.layout, self.num_slots = device, layout, num_slots
        self.copy_seconds = 0.0
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = [empty_tensors(batch_size, spec, layout, device=device) for _ in range(num_slots)]
        self._stream.wait_stream(torch.cuda.current_stream(device))
        for tensors in self._slots:
            for tensor in tensors:
                tensor.record_stream(self._stream)  # freed memory is not given away while a copy may write to it
        self._let_go: list[torch.cuda.Event | None] = [None] * num_slots
        self._copied: list[tuple[torch.cuda.Event, torch.cuda.Event] | None] = [None] * num_slots

    def copy(self, host: HostBatch, slot: int) -> None:
        """Start copying a host batch into a slot, once the computation has let go of it. Returns at once."""
        self._add_copy_time(slot)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            let_go = self._let_go[slot]
            if let_go is not None:
                self._stream.wait_event(let_go)
            start.record(self._stream)
            for source, target in zip(host.tensors, self._slots[slot], strict=True):
                target.copy_(source, non_blocking=True)
            stop.record(self._stream)
        self._copied[slot] = start, stop
        host.copied = stop

    def hand_out(self, slot: int, keys: list[str], epoch: int, meta: Meta) -> ClipBatch:
        """The batch in a slot, for the caller's current CUDA stream, which waits for the copy."""
        copied = self._copied[slot]
        if copied is not None:
            torch.cuda.current_stream(self.device).wait_event(copied[1])
        tensors: Tensors = self._slots[slot]
        return clip_batch(tensors, self.layout, keys, epoch, meta)

    def let_go(self, slot: int) -> None:
        """The slot may be written again as soon as the work that is on the caller's current CUDA stream is done."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        self._let_go[slot] = event

    def let_go_of_all(self) -> None:
        """As :meth:`let_go`, for every slot."""
        for slot in range(self.num_slots):
            self.let_go(slot)

    def _add_copy_time(self, slot: int) -> None:
        copied = self._copied[slot]
        if copied is not None and copied[1].query():  # type: ignore[no-untyped-call]
            self.copy_seconds += copied[0].elapsed_time(copied[1]) / 1000
