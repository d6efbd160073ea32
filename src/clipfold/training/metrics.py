"""``metrics.jsonl``, and what is added up on the device between two of its lines."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clipfold.errors import TrainingError
from clipfold.files import write_whole

__all__ = ["MetricsLog", "RunningLoss"]

_MOST_KEYS = 16


class MetricsLog:
    """The growing list of what was measured: one JSON object a line.

    Args:
        path: The file; made where it is missing.
        num_bytes: Its size when the checkpoint was written that the run goes on from. Whatever came later is taken
            out, for the run writes it again: nothing is there twice. ``None`` keeps everything.
    """

    def __init__(self, path: Path, *, num_bytes: int | None = None) -> None:
        self.path = path
        if num_bytes is not None and path.exists():
            data = path.read_bytes()
            kept = data[:num_bytes]
            kept = kept[: kept.rfind(b"\n") + 1]  # somebody may have changed the file: whole lines in any case
            if kept != data:
                write_whole(path, kept)

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, kind: str, *, step: int, **values: Any) -> None:
        """Write one line: ``{"kind": ..., "step": ..., ...}``. Numbers that are not finite are written as null.

        Raises:
            OSError: The disk is full.
        """
        line = {"kind": kind, "step": step, **{name: _plain(value) for name, value in values.items()}}
        with open(self.path, "ab") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """All whole lines of a file; a last one that was cut short is left out.

        Raises:
            OSError: It cannot be read.
        """
        lines = []
        for text in path.read_bytes().split(b"\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
        return lines


class RunningLoss:
    """Loss and gradient norm since the last log line, on the device: nothing is fetched before :meth:`check` is asked.

    Args:
        device: Of the training.
        num_kept: For how many steps the keys of the clips are remembered, to name them in an error.
    """

    def __init__(self, device: torch.device, *, num_kept: int) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.norm_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.first_bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self.num_steps = 0
        self._step_loss = torch.zeros((), dtype=torch.float64, device=device)
        self._step_keys: list[str] = []
        self._keys: deque[tuple[int, list[str]]] = deque(maxlen=num_kept)

    def add(self, loss: torch.Tensor, keys: Sequence[str]) -> None:
        """One micro-batch's share of a step's loss."""
        self._step_loss += loss.detach()
        self._step_keys += keys

    def end_step(self, step: int, gradient_norm: torch.Tensor) -> None:
        """The micro-batches since the last call were step number ``step``."""
        is_bad = ~torch.isfinite(self._step_loss + gradient_norm.detach())
        self.first_bad_step = torch.where(is_bad & (self.first_bad_step < 0), step, self.first_bad_step)
        self.loss_sum += self._step_loss
        self.norm_sum += gradient_norm.detach()
        self.num_steps += 1
        self._keys.append((step, self._step_keys))
        self._step_loss, self._step_keys = torch.zeros_like(self._step_loss), []

    def check(self, run: Path) -> None:
        """Make sure that all steps had finite losses and gradients. Waits for the device.

        Raises:
            TrainingError: One had not; the message names the step and its clips.
        """
        bad = int(self.first_bad_step)
        if bad < 0:
            return
        keys = dict(self._keys).get(bad, [])
        more = f" and {len(keys) - _MOST_KEYS} more" if len(keys) > _MOST_KEYS else ""
        raise TrainingError(
            f"the loss or its gradient is not finite at step {bad}",
            fix="a lower --learning-rate or --precision fp32; --resume auto goes on from a checkpoint if there is one",
            keys=", ".join(keys[:_MOST_KEYS]) + more,
            run=str(run),
        )

    def take(self) -> dict[str, float]:
        """The means since the last call, which begin anew."""
        values = {"loss": float(self.loss_sum) / self.num_steps, "gradient_norm": float(self.norm_sum) / self.num_steps}
        self.loss_sum.zero_()
        self.norm_sum.zero_()
        self.num_steps = 0
        return values

    @property
    def mean_loss(self) -> float | None:
        """Of the steps since the last log line; ``None`` without any."""
        return float(self.loss_sum) / self.num_steps if self.num_steps else None

    def state_dict(self) -> dict[str, Any]:
        """The sums, as plain numbers."""
        return {"loss_sum": float(self.loss_sum), "norm_sum": float(self.norm_sum), "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss_sum.fill_(state["loss_sum"])
        self.norm_sum.fill_(state["norm_sum"])
        self.num_steps = state["num_steps"]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
