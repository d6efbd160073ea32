"""The optimiser, and the state of torch's own random numbers that goes into a checkpoint beside it."""

from __future__ import annotations

import torch

from clipfold.models.classifier import ClipClassifier
from clipfold.training.config import TrainConfig

__all__ = ["make_optimizer", "random_state", "set_random_state"]


def make_optimizer(model: ClipClassifier, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW without decay on norms and biases: on everything that has one dimension."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Of torch's own generators, which only backbones with dropout use."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
