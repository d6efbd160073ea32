"""Where training runs, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from clipfold.models.classifier import ClipClassifier

__all__ = ["autocast", "choose_device", "move_model"]


def choose_device(name: str) -> torch.device:
    """The device of a configuration.

    Args:
        name: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.

    Raises:
        ValueError: No such device on this machine, or a kind that is not supported.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: {name!r}, expected auto, cpu, cuda or cuda:<number>") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: {name!r}, expected auto, cpu, cuda or cuda:<number>")
    if device.type == "cuda":
        num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= num_gpus:
            raise ValueError(
                f"device: {name!r}, but PyTorch sees {num_gpus} CUDA devices here; use --device cpu or auto"
            )
        return torch.device("cuda", device.index or 0)
    return device


def move_model(model: ClipClassifier, device: torch.device) -> ClipClassifier:
    """Bring a model to its device; on CUDA in channels-last order, which is faster there and slower on CPU."""
    model = model.to(device)
    if device.type == "cuda":
        model.backbone.to(memory_format=torch.channels_last)
    return model


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass: bfloat16 for ``"bf16"``, and for ``"auto"`` on CUDA; nothing otherwise."""
    if precision == "bf16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
