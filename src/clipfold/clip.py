"""The words of the house: what a clip is, and what a batch of clips is.

The legend of letters, carried in the names of tensors and arrays (``pixels_BSCHW``, ``weights_BKSC``):

======  ==========================================================================================
``B``   clips in a batch
``S``   frames of a clip (the sequence)
``C``   channels
``H``   height in pixels
``W``   width in pixels
``P``   ``H * W``
``K``   maps of the reducer's linear part (the hidden channels)
``R``   rank of a low-rank clip
``T``   frames handed over by a decoder, or time steps left by a reducer
``N``   any other count
======  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Clip", "ClipBatch", "ClipSpec", "Dtype"]

Dtype = Literal["uint8", "uint16", "float32"]

_FULL_SCALE: dict[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """The shape and dtype of every clip of a corpus.

    The default is a 16-beam LiDAR turning at 600 rpm: 140 degrees in steps of 0.2 are 701 columns of 16 rows.

    Args:
        num_frames: S, at least 1.
        channels: C, at least 1 (1 grey, 3 RGB, in this order).
        height: H in pixels, at least 1.
        width: W in pixels, at least 1.
        dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``.

    Raises:
        ValueError: A size below 1, or an unknown dtype.
    """

    num_frames: int = 100
    channels: int = 3
    height: int = 16
    width: int = 701
    dtype: Dtype = "uint8"

    def __post_init__(self) -> None:
        for name in ("num_frames", "channels", "height", "width"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} of a clip: {value!r}, expected a whole number of at least 1")
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype of a clip: {self.dtype!r}, expected one of {', '.join(get_args(Dtype))}")

    @property
    def shape_SCHW(self) -> tuple[int, int, int, int]:
        """(S, C, H, W)."""
        return self.num_frames, self.channels, self.height, self.width

    @property
    def num_values(self) -> int:
        """S * C * H * W."""
        return self.num_frames * self.channels * self.height * self.width

    @property
    def num_bytes(self) -> int:
        """Bytes of one clip as it lies in memory."""
        return self.num_values * np.dtype(self.dtype).itemsize

    @property
    def full_scale(self) -> float:
        """What pixels are divided by before a model sees them: 255 (uint8), 65535 (uint16) or 1 (float32)."""
        return _FULL_SCALE[self.dtype]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values, for ``dataset.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClipSpec:
        """The spec that :meth:`to_json` wrote.

        Raises:
            ValueError: A missing or unknown name, or a value out of range.
        """
        names = {f.name for f in fields(cls)}
        if set(value) != names:
            raise ValueError(f"fields of a clip spec: {sorted(value)}, expected {sorted(names)}")
        return cls(**value)

    def __str__(self) -> str:
        return f"S={self.num_frames} C={self.channels} H={self.height} W={self.width} {self.dtype}"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip on its way from the user's files into a shard.

    Args:
        key: ``<source number>-<clip number>`` such as ``00000123-0004``: no dots, no spaces.
        pixels_SCHW: (S, C, H, W) of the spec's dtype; may be a permuted view of (S, H, W, C).
        indices: int64 (S,), the frame of the source that each frame of the clip shows.
        num_valid_frames: How many leading frames are real; the rest is padding of a short source. 1 to S.
        label: Class number, or ``None`` where the source has no label.
        meta: What goes into the sample's ``.json``: plain values only, the same names in every clip of a corpus.
    """

    key: str
    pixels_SCHW: NDArray[Any]
    indices: NDArray[np.int64]
    num_valid_frames: int
    label: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """A batch of clips as the stream hands it out.

    The memory belongs to the stream and is reused: **a batch is valid until the next one is asked for**.
    :meth:`clone` keeps one.

    Args:
        pixels_BSCHW: (B, S, C, H, W) of the spec's dtype, on the stream's device. May be a permuted view: a codec
            whose layout is SHWC leaves the channels last in memory.
        labels: int64 (B,), class numbers; 0 in padded slots, -1 where a clip has no label.
        valid: bool (B,); False in padded slots (an evaluation's tail) and for samples that could not be read.
        num_valid_frames: int64 (B,), leading frames of each clip that are not padding; 0 in padded slots.
        positions: int64 (B,), the place of each slot in the infinite order of reading; -1 in padded slots. All
            random draws hash (seed, position, place in the chain, counter).
        keys: B sample keys; ``""`` in padded slots.
        epoch: Epoch of the batch's first slot.
        meta: What each sample's ``.json`` says, the user's own columns included, ``{}`` in slots that are not valid;
            ``None`` unless the stream was asked for it.
    """

    pixels_BSCHW: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor
    num_valid_frames: torch.Tensor
    positions: torch.Tensor
    keys: Sequence[str]
    epoch: int = 0
    meta: Sequence[Mapping[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def clone(self) -> ClipBatch:
        """A copy that stays valid after the next batch is asked for."""
        return self._map(lambda tensor: tensor.clone())

    def to(self, device: torch.device | str) -> ClipBatch:
        """The batch on another device; tensors already there are shared, not copied."""
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Any) -> ClipBatch:
        names = ("pixels_BSCHW", "labels", "valid", "num_valid_frames", "positions")
        return ClipBatch(
            **{name: change(getattr(self, name)) for name in names},
            keys=list(self.keys),
            epoch=self.epoch,
            meta=None if self.meta is None else list(self.meta),
        )
