"""All that a checkpoint holds, beside the parts of the run that it is taken from and put back into."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clipfold.errors import ResumeError
from clipfold.models.classifier import ClipClassifier
from clipfold.stream.loader import ClipStream
from clipfold.training.checkpoint import LAST_NAME, Dataset, load_weights, save_checkpoint
from clipfold.training.config import TrainConfig
from clipfold.training.metrics import RunningLoss
from clipfold.training.optimizer import make_optimizer, random_state, set_random_state
from clipfold.training.run_folder import CONFIG_NAME

__all__ = ["TrainingState"]


class TrainingState:
    """Where a training stands: weights, optimiser, place in the data, counts.

    The learning rate is no part of it: it follows from the place in the data.

    Args:
        config: Of the run, with the number of computing threads filled in.
        dataset: What the model knows of the data.
        model: On its device.
        stream: That is trained on.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, model: ClipClassifier, stream: ClipStream) -> None:
        self.config, self.dataset, self.model, self.stream = config, dataset, model, stream
        self.device = stream.device
        self.optimizer = make_optimizer(model, config)
        self.running = RunningLoss(self.device, num_kept=config.log_every)
        self.step = 0  # steps made
        self.num_epochs = 0  # epochs that have ended, with their evaluation
        self.best_top1: float | None = None
        self.last_top1: float | None = None
        self.last_loss: float | None = None  # of the last log line

    def save(self, path: Path, *, metrics_num_bytes: int) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            OSError: The disk is full.
        """
        save_checkpoint(
            path,
            {
                "config": self.config.to_json(),
                "dataset": self.dataset.to_json(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "stream": self.stream.state_dict(),
                "running": self.running.state_dict(),
                "step": self.step,
                "num_epochs": self.num_epochs,
                "best_top1": self.best_top1,
                "last_top1": self.last_top1,
                "last_loss": self.last_loss,
                "metrics_num_bytes": metrics_num_bytes,
                "random": random_state(self.device),
                "versions": {name: _version(name) for name in ("clipfold", "torch", "torchvision")},
            },
        )

    def load(self, saved: Mapping[str, Any]) -> int:
        """Go on from a checkpoint.

        Returns:
            The size that ``metrics.jsonl`` had when it was written.

        Raises:
            ResumeError: It belongs to another run, model or data.
        """
        path = Path(self.config.out) / LAST_NAME if self.config.resume == "auto" else Path(self.config.resume)
        before = TrainConfig.from_json({**saved["config"], "data": self.config.data, "out": self.config.out})
        differences = self.config.differences(before)
        if differences:
            raise ResumeError(
                f"the run was started with another configuration: {'; '.join(differences)}",
                fix=f"give the flags that it was started with (--config {path.parent / CONFIG_NAME}), or another --out",
                file=str(path),
            )
        load_weights(self.model, saved["model"], path=path)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.stream.load_state_dict(saved["stream"])
        self.running.load_state_dict(saved["running"])
        self.step, self.num_epochs = saved["step"], saved["num_epochs"]
        self.best_top1, self.last_top1, self.last_loss = (
            saved[name] for name in ("best_top1", "last_top1", "last_loss")
        )
        set_random_state(saved["random"], self.device)
        if self.config.show_progress:
            print(f"going on from {path}: epoch {self.stream.epoch + 1}, after step {self.step}", file=sys.stderr)
            if before.batch_size * before.accumulate != self.stream.global_batch_size:
                print("another global batch size: no clip is missed or repeated, but batches differ", file=sys.stderr)
        return int(saved["metrics_num_bytes"])

    def adopt(self, run: Path, *, metrics_num_bytes: int) -> int:
        """Make a checkpoint that was loaded from elsewhere the one that this run goes on from.

        Returns:
            The size to which the run's ``metrics.jsonl`` is cut: 0 in a run of its own.
        """
        if Path(self.config.resume).resolve() not in (run.resolve(), *(path.resolve() for path in run.glob("*.pt"))):
            metrics_num_bytes = 0
            self.best_top1 = None  # of a checkpoint that is not here
        self.save(run / LAST_NAME, metrics_num_bytes=metrics_num_bytes)
        return metrics_num_bytes


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
