"""Frame weights from the content of the frames: a reducer that is not linear in the pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from clipfold.clip import ClipSpec
from clipfold.models.reducers.base import TemporalReducer, check_option

__all__ = ["Attention"]

_GRID = (2, 8)  # what a frame is summed up by: means of 2 rows by 8 columns of cells


class Attention(TemporalReducer):
    """Each head weighs the frames by what is in them and when, and hands on its weighted mean.

    ::

        frame ──cell means──> Linear ──tanh──> Linear ──+ weight of its place in time──softmax over S──> (B, heads, S)
        image = conv_3x3( weighted means of the frames, heads * C channels )

    Not linear: normalised floats are read, 4 bytes a pixel, about ``2 * heads * S * C`` multiplications a pixel.
    For clips in which a few frames matter and it is not known which.

    Args:
        spec: The clips that it is given.
        heads: Weighted means per clip, at least 1.
        hidden: Width between the two layers, at least 1.
        out_channels: Channels of the image, at least 1.

    Raises:
        ValueError: A value below 1, or no whole number.
    """

    def __init__(self, spec: ClipSpec, *, heads: int = 4, hidden: int = 32, out_channels: int = 3) -> None:
        super().__init__(spec, out_channels=out_channels)
        for name, value in (("heads", heads), ("hidden", hidden), ("out_channels", out_channels)):
            check_option("attention", name, value)
        self.embed = nn.Linear(spec.channels * _GRID[0] * _GRID[1], hidden)
        self.score = nn.Linear(hidden, heads)
        self.place = nn.Parameter(0.1 * torch.randn(spec.num_frames, heads))  # breaks the symmetry of equal frames
        self.conv = nn.Conv2d(heads * spec.channels, out_channels, kernel_size=3, padding=1)

    def frame_weights(self, pixels_BSCHW: torch.Tensor) -> torch.Tensor:
        """(B, heads, S), each row at least 0 with sum 1."""
        cells = F.adaptive_avg_pool2d(pixels_BSCHW.flatten(0, 1), _GRID).flatten(1)
        scores = self.score(torch.tanh(self.embed(cells)))
        scores_BSN: torch.Tensor = scores.view(*pixels_BSCHW.shape[:2], -1) + self.place
        return scores_BSN.transpose(1, 2).softmax(dim=2)

    def forward(self, pixels_BSCHW: torch.Tensor) -> torch.Tensor:
        """(B, S, C, H, W) normalised floats -> (B, out_channels, H, W)."""
        means = torch.einsum("bns,bschw->bnchw", self.frame_weights(pixels_BSCHW).to(pixels_BSCHW.dtype), pixels_BSCHW)
        image: torch.Tensor = self.conv(means.flatten(1, 2))
        return image
