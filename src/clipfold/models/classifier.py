"""Clips to logits: normalisation, augmentation and reduction in one pass over the bytes, then a backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from clipfold.augment.base import Params
from clipfold.augment.compose import Compose, recipe
from clipfold.augment.photometric import Normalise
from clipfold.clip import ClipSpec
from clipfold.errors import PluginError
from clipfold.models.backbones import make_backbone
from clipfold.models.folding import fold, num_eager
from clipfold.models.reducers import TemporalReducer, make_reducer

__all__ = ["ClipClassifier", "build_classifier"]


class ClipClassifier(nn.Module):
    """A temporal reducer and an image network.

    ::

        pixels (stored) ──/ full scale──augment (training)──normalise──reducer──> image ──backbone──> logits
                          └──────────── folded into the reducer's weights where they are linear ───┘

    Args:
        reducer: Removes the time axis.
        backbone: The name of an image network (:func:`clipfold.models.backbones.make_backbone`), or a module
            (B, C_out, H, W) -> (B, num_classes).
        num_classes: Number of logits.
        spec: The clips as they are stored; those of the reducer where ``None``.
        mean: Mean of each channel in units of full scale (``dataset.json`` has it); 0 where ``None``.
        std: Standard deviation of each channel, the same way; 1 where ``None``. A channel that never varies (0) is
            divided by 1.
        augment: What :meth:`draw_params` draws for, in training; nothing where ``None``.
        fold: Fold what is linear into the reducer's weights. False runs everything on float pixels: the same numbers
            up to rounding, slower; the definition.

    Raises:
        ValueError: Clips that the reducer or the backbone cannot take, or mean and std of another number of channels.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        reducer: TemporalReducer,
        backbone: str | nn.Module,
        num_classes: int,
        *,
        spec: ClipSpec | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Compose | None = None,
        fold: bool = True,
    ) -> None:
        super().__init__()
        self.spec = reducer.spec if spec is None else spec
        self.augment = Compose() if augment is None else augment
        self.num_classes = num_classes
        self.fold = fold
        seen = self.augment.output_spec(self.spec)
        if seen.shape_SCHW != reducer.spec.shape_SCHW:
            raise ValueError(f"clips reach the reducer as {seen}, and it is made for {reducer.spec}")
        self._image_size = seen.height, seen.width
        self.reducer = reducer
        if isinstance(backbone, str):
            backbone = make_backbone(
                backbone, num_classes=num_classes, in_channels=reducer.out_channels, size=(seen.height, seen.width)
            )
        self.backbone = backbone
        C = self.spec.channels
        self.register_buffer("mean", _per_channel("mean", [0.0] * C if mean is None else mean, C))
        std_C = _per_channel("std", [1.0] * C if std is None else std, C)
        self.register_buffer("std", torch.where(std_C == 0, 1.0, std_C))
        self._normalise = Normalise(0.0, 1.0)  # its numbers come as parameters, from the two buffers

    def forward(self, pixels_BSCHW: torch.Tensor, *, params: Sequence[Params] | None = None) -> torch.Tensor:
        """Classify clips.

        Args:
            pixels_BSCHW: (B, S, C, H, W) of the spec's dtype, as stored, in any memory order.
            params: What :meth:`draw_params` gave for these clips, to augment them; ``None`` for clips as they are.

        Returns:
            logits (B, num_classes).

        Raises:
            ValueError: Clips of another shape or dtype than the model was made for.
            PluginError: The reducer's weights or image have another shape than its contract says.
        """
        logits: torch.Tensor = self.backbone(self.images(pixels_BSCHW, params=params))
        return logits

    def images(self, pixels_BSCHW: torch.Tensor, *, params: Sequence[Params] | None = None) -> torch.Tensor:
        """What the backbone sees: (B, C_out, H, W) floats. Arguments and errors as for :meth:`forward`."""
        self._check(pixels_BSCHW)
        chain = Compose() if params is None else self.augment
        members = Compose([*chain, self._normalise])
        values = [*(params or ()), {"mean": self.mean[None], "std": self.std[None]}]
        linear = self.reducer.weights() if self.fold else None
        if linear is not None:
            S, C = self.reducer.spec.num_frames, self.reducer.spec.channels
            _check_shape(self.reducer, "weights", linear[0], (None, S, C))
            _check_shape(self.reducer, "bias", linear[1], (linear[0].shape[0],))
        with torch.autocast(pixels_BSCHW.device.type, enabled=False):
            if linear is None:
                floats_BSCHW = members.transform(self._floats(pixels_BSCHW), values)
            else:
                forms = members.linear_forms(values, self.spec)
                first = num_eager(forms)
                full_scale = self.spec.full_scale
                if first:
                    eager = Compose(members.augmentations[:first])
                    pixels_BSCHW = eager.transform(self._floats(pixels_BSCHW), values[:first])
                    full_scale = 1.0
                maps_BKHW = fold(forms[first:], *linear, full_scale=full_scale)(pixels_BSCHW)
        image: torch.Tensor = self.reducer(floats_BSCHW) if linear is None else self.reducer.finish(maps_BKHW)
        height, width = self._image_size
        _check_shape(self.reducer, "image", image, (len(pixels_BSCHW), self.reducer.out_channels, height, width))
        return image

    def draw_params(self, *, seed: int, positions: torch.Tensor) -> list[Params] | None:
        """Draw the augmentation of a batch for :meth:`forward`; ``None`` where there is nothing to draw.

        Args:
            seed: The run's seed.
            positions: int64 (B,), on the device of the clips (``ClipBatch.positions``).
        """
        if not len(self.augment):
            return None
        return self.augment.make_params(seed=seed, positions=positions, spec=self.spec)

    def _floats(self, pixels_BSCHW: torch.Tensor) -> torch.Tensor:
        return pixels_BSCHW.to(self.mean.dtype) / self.spec.full_scale

    def _check(self, pixels_BSCHW: torch.Tensor) -> None:
        dtype = str(pixels_BSCHW.dtype).removeprefix("torch.")
        fits_dtype = dtype == self.spec.dtype or (self.spec.dtype == "float32" and dtype == "float64")
        if tuple(pixels_BSCHW.shape[1:]) != self.spec.shape_SCHW or not fits_dtype:
            sizes = " ".join(f"{name}={size}" for name, size in zip("BSCHW", pixels_BSCHW.shape, strict=False))
            raise ValueError(
                f"clips of {sizes} {dtype}, expected {self.spec}, which this model was made for; "
                "convert the data to this spec, or train a model on it"
            )


def build_classifier(
    *,
    num_classes: int,
    spec: ClipSpec,
    reducer: str = "temporal_conv",
    reducer_options: Mapping[str, Any] | None = None,
    backbone: str = "resnet18",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augment: str | Compose = "none",
    fold: bool = True,
) -> ClipClassifier:
    """Build a classifier from names.

    Args:
        num_classes: Number of logits.
        spec: The clips as they are stored.
        reducer: A name for :func:`clipfold.models.reducers.make_reducer`.
        reducer_options: The reducer's keyword arguments, such as ``{"hidden": 16}``.
        backbone: A name for :func:`clipfold.models.backbones.make_backbone`.
        mean: As for :class:`ClipClassifier`.
        std: As for :class:`ClipClassifier`.
        augment: A name for :func:`clipfold.augment.recipe`, or a chain.
        fold: As for :class:`ClipClassifier`.

    Raises:
        PluginError: An unknown name.
        ValueError: An option that does not exist, or a value that does not fit the clips.
    """
    if isinstance(augment, str):
        augment = recipe(augment, mean=mean or [0.0] * spec.channels, std=std or [1.0] * spec.channels)
    return ClipClassifier(
        make_reducer(reducer, augment.output_spec(spec), **(reducer_options or {})),
        backbone,
        num_classes,
        spec=spec,
        mean=mean,
        std=std,
        augment=augment,
        fold=fold,
    )


def _check_shape(reducer: TemporalReducer, name: str, found: torch.Tensor, expected: tuple[int | None, ...]) -> None:
    """Compare sizes alone: nothing waits for a device. ``None`` is any size."""
    fits = len(found.shape) == len(expected)
    for size, wanted in zip(found.shape, expected, strict=False):
        fits = fits and (wanted is None or size == wanted)
    if not fits:
        letters = {"weights": "(K, S, C)", "bias": "(K,)", "image": "(B, out_channels, H, W)"}[name]
        shape = ", ".join("any" if size is None else str(size) for size in expected) + "," * (len(expected) == 1)
        raise PluginError(
            f"{name} of reducer {type(reducer).__name__}: {tuple(found.shape)}, expected {letters} = ({shape})",
            fix="give weights() of (K, S, C) and (K,), and finish() or forward() of (B, out_channels, H, W)",
        )


def _per_channel(name: str, values: Sequence[float], channels: int) -> torch.Tensor:
    if len(values) != channels or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{name} of the channels: {list(values)}, expected {channels} finite numbers, one per channel")
    return torch.tensor(values, dtype=torch.float32)
