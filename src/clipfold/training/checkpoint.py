"""Checkpoints: tensors, numbers and strings, written whole or not at all, and read without running code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from clipfold.clip import ClipSpec
from clipfold.errors import ResumeError, TrainingError
from clipfold.files import writing_whole
from clipfold.models.classifier import ClipClassifier, build_classifier
from clipfold.training.config import TrainConfig

__all__ = ["BEST_NAME", "LAST_NAME", "Dataset", "build_model", "load_checkpoint", "load_weights", "save_checkpoint"]

LAST_NAME = "checkpoint.pt"
BEST_NAME = "best.pt"

_FORMAT = 1
_PARTS = frozenset(
    (
        *("format", "config", "dataset", "model", "optimizer", "stream", "running", "step", "num_epochs"),
        *("best_top1", "last_top1", "last_loss", "metrics_num_bytes", "random", "versions"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a model has to know of the data that it was trained on: all that a new picture needs to be classified.

    Args:
        spec: Of the clips.
        classes: Names in the order of the logits.
        mean: Of each channel, in units of full scale.
        std: Of each channel, likewise.
    """

    spec: ClipSpec
    classes: list[str]
    mean: list[float]
    std: list[float]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return {"spec": self.spec.to_json(), "classes": self.classes, "mean": self.mean, "std": self.std}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Dataset:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: A spec that is none.
            KeyError: Something is missing.
        """
        spec = ClipSpec.from_json(value["spec"])
        return cls(spec=spec, classes=list(value["classes"]), mean=list(value["mean"]), std=list(value["std"]))

    def check_fits(self, found: Dataset, *, data: str) -> None:
        """Make sure that ``found``, the data at hand, is what the model was trained on.

        Raises:
            TrainingError: Another spec, or other classes; the message names the difference.
        """
        fix = "give the data that the run was trained on, or data converted with the same options and classes"
        if found.spec != self.spec:
            raise TrainingError(
                f"clips of the data: {found.spec}, expected {self.spec} as in training", fix=fix, data=data
            )
        if found.classes != self.classes:
            new, gone = (
                sorted(set(a) - set(b)) for a, b in ((found.classes, self.classes), (self.classes, found.classes))
            )
            how = f"new {new}, missing {gone}" if new or gone else "the same names in another order"
            raise TrainingError(
                f"classes of the data: {len(found.classes)}, expected the {len(self.classes)} of training ({how})",
                fix=fix,
                data=data,
            )


def build_model(config: TrainConfig, dataset: Dataset) -> ClipClassifier:
    """The model that a configuration names, with weights drawn from its seed on the CPU.

    Raises:
        PluginError: A name that leads nowhere.
        ValueError: Options that do not fit the clips.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_classifier(
            num_classes=len(dataset.classes),
            spec=dataset.spec,
            reducer=config.reducer,
            reducer_options=config.options_of_reducer(),
            backbone=config.backbone,
            mean=dataset.mean,
            std=dataset.std,
            augment=config.augment,
            fold=config.fold,
        )


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        TrainingError: The disk is full, or the folder cannot be written.
    """
    file: _Noting | None = None
    try:
        with writing_whole(path) as whole:
            file = _Noting(whole)
            torch.save({"format": _FORMAT, **state}, file)  # type: ignore[arg-type]
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else file.error if file is not None else None
        if cause is None:
            raise
        raise TrainingError(
            f"cannot write the checkpoint: {cause.strerror}",
            fix="make room, then --resume auto goes on from the checkpoint before, if there is one",
            file=str(path),
        ) from error


class _Noting:
    """A file for ``torch.save``, which tells of a failed write without saying why."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory. Nothing in it can run code.

    Raises:
        ResumeError: It is missing, damaged, no checkpoint of ours, or of a newer format.
    """
    fix = "give the folder of a run, or one of its .pt files"
    if not path.is_file():
        raise ResumeError("no checkpoint there", fix=fix, file=str(path))
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare the checksums that it writes
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is not what its checksum says")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ResumeError(
            f"cannot read the checkpoint: {reason}",
            fix=f"{fix}; a damaged one may have a sound {BEST_NAME} beside it (--resume takes its path)",
            file=str(path),
        ) from error
    missing = [name for name in sorted(_PARTS) if not isinstance(state, dict) or name not in state]
    if missing:
        raise ResumeError(f"not a checkpoint of clipfold: no {', '.join(missing)}", fix=fix, file=str(path))
    if state["format"] > _FORMAT:
        raise ResumeError(
            f"format of the checkpoint: {state['format']}, expected at most {_FORMAT}",
            fix=f"use clipfold {state['versions'].get('clipfold', 'newer than this')}, which wrote it",
            file=str(path),
        )
    return dict(state)


def load_weights(model: ClipClassifier, weights: Mapping[str, torch.Tensor], *, path: Path) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        ResumeError: They are those of another model; the message names the first differences.
    """
    own = model.state_dict()
    differ = [f"{name}: missing" for name in own if name not in weights]
    differ += [f"{name}: not in the model" for name in weights if name not in own]
    differ += [
        f"{name}: {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if differ:
        more = f" (and {len(differ) - 3} more)" if len(differ) > 3 else ""
        raise ResumeError(
            f"weights of another model: {'; '.join(differ[:3])}{more}",
            fix="use the reducer, its options and the backbone of the run that wrote the checkpoint",
            file=str(path),
        )
    model.load_state_dict(weights)
