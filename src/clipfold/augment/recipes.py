"""Chains that are known by name. None flips or reverses: that would turn "drift left" into "drift right"."""

from __future__ import annotations

from collections.abc import Sequence

from clipfold.augment.base import Augmentation
from clipfold.augment.geometric import Erasing
from clipfold.augment.photometric import Brightness, Contrast
from clipfold.augment.temporal import FrameDrop

__all__ = ["light", "none"]


def none(*, mean: Sequence[float], std: Sequence[float]) -> list[Augmentation]:
    """No change at all."""
    return []


def light(*, mean: Sequence[float], std: Sequence[float]) -> list[Augmentation]:
    """Changes that keep the label of nearly any task: brightness, contrast, a few lost frames, a small hole."""
    return [
        FrameDrop(0.05, mode="hold", p=0.5),
        Brightness(0.1, p=0.8),
        Contrast(0.2, center=mean, p=0.8),
        Erasing(scale=(0.02, 0.1), value=mean, p=0.25),
    ]
