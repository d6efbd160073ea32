"""The mean over time: the simplest reducer, without parameters."""

from __future__ import annotations

import torch

from clipfold.clip import ClipSpec
from clipfold.models.reducers.base import TemporalReducer

__all__ = ["Mean"]


class Mean(TemporalReducer):
    """The mean of all frames, channel by channel: C_out = C. Blind to the order of frames.

    Args:
        spec: The clips that it is given.
    """

    weights_KSC: torch.Tensor
    bias_K: torch.Tensor

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec, out_channels=spec.channels)
        S, C = spec.num_frames, spec.channels
        self.register_buffer("weights_KSC", (torch.eye(C) / S)[:, None].repeat(1, S, 1), persistent=False)
        self.register_buffer("bias_K", torch.zeros(C), persistent=False)

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights 1/S for the own channel, (C, S, C), and bias 0."""
        return self.weights_KSC, self.bias_K
