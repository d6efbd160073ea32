"""Chains of augmentations, and recipes by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from clipfold.augment.base import Augmentation, LinearForm, Params
from clipfold.clip import ClipSpec
from clipfold.errors import PluginError
from clipfold.plugins import load
from clipfold.rng import Draw

__all__ = ["AUGMENTATIONS", "RECIPES", "Compose", "recipe"]

AUGMENTATIONS: dict[str, str] = {
    "brightness": "clipfold.augment.photometric:Brightness",
    "column_roll": "clipfold.augment.geometric:ColumnRoll",
    "contrast": "clipfold.augment.photometric:Contrast",
    "erasing": "clipfold.augment.geometric:Erasing",
    "frame_drop": "clipfold.augment.temporal:FrameDrop",
    "horizontal_flip": "clipfold.augment.geometric:HorizontalFlip",
    "normalise": "clipfold.augment.photometric:Normalise",
    "time_reversal": "clipfold.augment.temporal:TimeReversal",
    "vertical_flip": "clipfold.augment.geometric:VerticalFlip",
}

RECIPES: dict[str, str] = {
    "light": "clipfold.augment.recipes:light",
    "none": "clipfold.augment.recipes:none",
}


class Compose:
    """Augmentations one after the other, in the order given.

    Each draws from (seed, position, its place in the chain), so what happens to a clip depends neither on the batch
    it is in nor on the number of ranks.

    Args:
        augmentations: The chain; may be empty.

    Raises:
        TypeError: No list, or a member that is no :class:`Augmentation`.
    """

    def __init__(self, augmentations: Iterable[Augmentation] = ()) -> None:
        if isinstance(augmentations, Augmentation) or not isinstance(augmentations, Iterable):
            raise TypeError(
                f"a chain: {augmentations!r}, expected a list of augmentations, such as Compose([HorizontalFlip()])"
            )
        self.augmentations = tuple(augmentations)
        for member in self.augmentations:
            if not isinstance(member, Augmentation):
                raise TypeError(f"member of a chain: {member!r}, expected an Augmentation (an object, not its class)")

    def __len__(self) -> int:
        return len(self.augmentations)

    def __iter__(self) -> Iterator[Augmentation]:
        return iter(self.augmentations)

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.augmentations))}])"

    def make_params(self, *, seed: int, positions: torch.Tensor, spec: ClipSpec) -> list[Params]:
        """Draw for a batch.

        Args:
            seed: The run's seed.
            positions: int64 (B,), each clip's place in the order of reading (``ClipBatch.positions``); its device is
                where the parameters appear.
            spec: The clips before the chain.

        Returns:
            The parameters of each member.
        """
        params = []
        for place, (member, before) in enumerate(zip(self, self.specs(spec), strict=False)):
            params.append(member.make_params(Draw(seed=seed, positions=positions, place=place), before))
        return params

    def transform(self, pixels_BSCHW: torch.Tensor, params: Sequence[Params]) -> torch.Tensor:
        """Apply the chain to floats that are divided by full scale.

        Args:
            pixels_BSCHW: (B, S, C, H, W) float32 or float64.
            params: What :meth:`make_params` gave for these clips.

        Returns:
            Floats of the shape that :meth:`output_spec` says.

        Raises:
            ValueError: Parameters of a chain of another length.
        """
        self.check_params(params)
        for member, values in zip(self, params, strict=True):
            pixels_BSCHW = member.transform(pixels_BSCHW, values)
        return pixels_BSCHW

    def linear_forms(self, params: Sequence[Params], spec: ClipSpec) -> list[LinearForm | None]:
        """The linear form of each member, ``None`` for those that have to see the pixels.

        Raises:
            ValueError: Parameters of a chain of another length.
        """
        self.check_params(params)
        before = self.specs(spec)
        return [
            member.linear_form(values, before[i]) for i, (member, values) in enumerate(zip(self, params, strict=True))
        ]

    def specs(self, spec: ClipSpec) -> list[ClipSpec]:
        """The clips before each member, and after the last: one more than there are members."""
        specs = [spec]
        for member in self:
            specs.append(member.output_spec(specs[-1]))
        return specs

    def output_spec(self, spec: ClipSpec) -> ClipSpec:
        """The clips after the chain."""
        return self.specs(spec)[-1]

    def check_params(self, params: Sequence[Params]) -> None:
        """Raise ``ValueError`` unless there is one set of parameters per member."""
        if len(params) != len(self):
            raise ValueError(
                f"parameters for a chain of {len(params)}, expected {len(self)}; draw them with its make_params"
            )


def recipe(name: str, *, mean: Sequence[float], std: Sequence[float]) -> Compose:
    """A chain by name. Normalisation is not part of it: the model does that, always.

    Args:
        name: A recipe (``none``, ``light``), a member of ``AUGMENTATIONS`` with its default settings, an entry point
            of ``clipfold.augmentations``, or ``my_package.module:Thing``: a :class:`Compose`, an
            :class:`Augmentation`, or something that makes one when it is called without arguments.
        mean: Mean of each channel in units of full scale, as in ``dataset.json``; what erased pixels show.
        std: Standard deviation of each channel, which recipes may scale their changes by.

    Raises:
        PluginError: Nothing has this name, or what it names is no augmentation.
    """
    found = load("augmentations", name, {**AUGMENTATIONS, **RECIPES})
    if name in RECIPES:
        return Compose(found(mean=mean, std=std))
    if name == "normalise":
        found = found(mean, std)
    elif not isinstance(found, (Augmentation, Compose)) and callable(found):
        found = found()
    if isinstance(found, Augmentation):
        found = Compose([found])
    if not isinstance(found, Compose):
        raise PluginError(
            f"augmentation {name!r} is a {type(found).__name__}, expected an Augmentation or a Compose of them",
            fix="subclass clipfold.Augmentation",
        )
    return found
