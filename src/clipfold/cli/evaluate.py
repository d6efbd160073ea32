"""``clipfold evaluate RUN --data DIR``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from clipfold.training.evaluate import evaluate

__all__ = ["Evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a trained run on a split of a corpus; every clip counts once.

    Writes RUN/evaluation-<split>.json.

    Example: clipfold evaluate run --data corpus --split test
    """

    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or one of its checkpoints."""

    data: str | None = None
    """Corpus folder or URL; what the run was trained on if left out."""

    split: str = "test"
    """Split to evaluate on."""

    checkpoint: Literal["best", "last"] = "best"
    """best takes the best evaluation's checkpoint where there is one, else the last."""

    reducer: str | None = None
    """The run's reducer, where it is my_package.module:MyReducer: code is imported because you name it."""

    backbone: str | None = None
    """The run's backbone, likewise."""

    batch_size: int | None = None
    """Clips of a forward pass; as in training if left out."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""

    num_threads: int | None = None
    """Threads that read and decode; one per core if left out."""

    cpu_threads: int | None = None
    """Threads that compute, on CPU; as in training if left out."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the evaluation as one JSON object, the last line of the standard output."""

    def run(self) -> int:
        """Evaluate, and print the result."""
        evaluation = evaluate(
            self.path,
            self.data,
            split=self.split,
            checkpoint=self.checkpoint,
            reducer=self.reducer,
            backbone=self.backbone,
            batch_size=self.batch_size,
            device=self.device,
            num_threads=self.num_threads,
            cpu_threads=self.cpu_threads,
        )
        print(evaluation, file=sys.stderr if self.as_json else sys.stdout)
        if self.as_json:
            print(json.dumps(evaluation.to_json(), ensure_ascii=False))
        return 0
