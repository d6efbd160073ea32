"""Changes of the order and presence of frames: time reversal, frame drop."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from clipfold.augment.base import Augmentation, FrameChannel, Params, check_probability
from clipfold.clip import ClipSpec
from clipfold.rng import Draw

__all__ = ["DropMode", "FrameDrop", "TimeReversal"]

DropMode = Literal["zero", "hold", "mean"]


class TimeReversal(Augmentation):
    """Shows the frames backwards. What drifted left drifts right: use it only where no label depends on direction.

    Args:
        p: Probability that a clip is reversed.

    Raises:
        ValueError: ``p`` outside [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability(p)

    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """``reversed``, bool (B,)."""
        return {"reversed": draw.bernoulli(self.p)}

    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """Frames from last to first where it applies."""
        return torch.where(params["reversed"][:, None, None, None, None], pixels_BSCHW.flip(1), pixels_BSCHW)

    def linear_form(self, params: Params, spec: ClipSpec) -> FrameChannel:
        """Weights from last to first where it applies."""
        reversed_BKSC = params["reversed"][:, None, None, None]
        return FrameChannel(pull=lambda weights_BKSC: torch.where(reversed_BKSC, weights_BKSC.flip(2), weights_BKSC))


class FrameDrop(Augmentation):
    """Loses frames, as a sensor or a network does. At least one frame of a clip is kept.

    With S=5 and frames 1 and 2 lost, ``abcde`` becomes ``a00de`` (``zero``), ``aaade`` (``hold``: the last kept
    frame; before the first kept one, that one), or ``ammde`` with m the mean of a, d and e (``mean``).

    Args:
        rate: Probability that a frame is lost, independently of the others, in [0, 1].
        mode: What is shown in place of a lost frame: ``"zero"``, ``"hold"`` or ``"mean"``.
        p: Probability that a clip loses frames at all.

    Raises:
        ValueError: ``rate`` or ``p`` outside [0, 1], or an unknown mode.
    """

    def __init__(self, rate: float = 0.1, *, mode: DropMode = "hold", p: float = 1.0) -> None:
        if mode not in get_args(DropMode):
            raise ValueError(f"mode: {mode!r}, expected one of {', '.join(get_args(DropMode))}")
        self.rate = check_probability(rate, "rate")
        self.mode = mode
        self.p = check_probability(p)

    def make_params(self, draw: Draw, spec: ClipSpec) -> Params:
        """``kept``, bool (B, S)."""
        applies = draw.bernoulli(self.p)
        luck = draw.uniform(spec.num_frames)
        luckiest = luck == luck.amax(dim=1, keepdim=True)
        return {"kept": (luck >= self.rate) | luckiest | ~applies[:, None]}

    def transform(self, pixels_BSCHW: torch.Tensor, params: Params) -> torch.Tensor:
        """Lost frames replaced."""
        kept = params["kept"][:, :, None, None, None]
        if self.mode == "hold":
            clips = torch.arange(len(pixels_BSCHW), device=pixels_BSCHW.device)
            return pixels_BSCHW[clips[:, None], _last_kept(params["kept"])]
        zero = pixels_BSCHW.new_zeros(())
        shown = torch.where(kept, pixels_BSCHW, zero)
        if self.mode == "zero":
            return shown
        mean = shown.sum(1, keepdim=True) / kept.sum(1, keepdim=True).to(shown.dtype)
        return torch.where(kept, pixels_BSCHW, mean)

    def linear_form(self, params: Params, spec: ClipSpec) -> FrameChannel:
        """Weights of lost frames vanish (zero), or go to the frames that are shown in their place."""
        kept_BS = params["kept"]
        pull = {"zero": _pull_zero, "hold": _pull_hold, "mean": _pull_mean}[self.mode]
        return FrameChannel(pull=lambda weights_BKSC: pull(weights_BKSC, kept_BS))


def _last_kept(kept_BS: torch.Tensor) -> torch.Tensor:
    """int64 (B, S): the kept frame that is shown at each place."""
    places = torch.arange(kept_BS.shape[1], device=kept_BS.device)
    last = torch.where(kept_BS, places, -1).cummax(dim=1).values
    first = kept_BS.to(torch.int8).argmax(dim=1, keepdim=True)
    return torch.where(last < 0, first, last)


def _pull_zero(weights_BKSC: torch.Tensor, kept_BS: torch.Tensor) -> torch.Tensor:
    return weights_BKSC * kept_BS[:, None, :, None].to(weights_BKSC.dtype)


def _pull_hold(weights_BKSC: torch.Tensor, kept_BS: torch.Tensor) -> torch.Tensor:
    """Sum each kept frame's weights over the places that show it: a product with a matrix of 0 and 1.

    It is made in float64, because a GPU may round the factors of a float32 product (tf32).
    """
    places = torch.arange(kept_BS.shape[1], device=kept_BS.device)
    shows_BTS = (_last_kept(kept_BS)[:, :, None] == places).double()
    return torch.einsum("bktc,bts->bksc", weights_BKSC.double(), shows_BTS).to(weights_BKSC.dtype)


def _pull_mean(weights_BKSC: torch.Tensor, kept_BS: torch.Tensor) -> torch.Tensor:
    kept = kept_BS[:, None, :, None].to(weights_BKSC.dtype)
    lost_weight = (weights_BKSC * (1 - kept)).sum(2, keepdim=True)
    return kept * (weights_BKSC + lost_weight / kept.sum(2, keepdim=True))
