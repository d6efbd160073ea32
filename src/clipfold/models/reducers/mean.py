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

    same_CC: torch.Tensor

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec, out_channels=spec.channels)
        self.register_buffer("same_CC", torch.eye(spec.channels), persistent=False)

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights 1/S for the own channel, (C, S, C), and bias 0."""
        weights_KC = self.same_CC / self.spec.num_frames  # here, so that float64 is exact after .double()
        return weights_KC[:, None, :].expand(-1, self.spec.num_frames, -1), torch.zeros_like(weights_KC[0])
