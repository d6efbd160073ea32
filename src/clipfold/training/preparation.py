"""What a training is made of, from its configuration: data, streams, device, threads, an earlier checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import torch

from clipfold.errors import TrainingError
from clipfold.models.classifier import ClipClassifier
from clipfold.shards.reader import Corpus
from clipfold.stream.loader import ClipStream
from clipfold.training.checkpoint import LAST_NAME, Dataset, load_checkpoint
from clipfold.training.config import TrainConfig
from clipfold.training.threads import choose_cpu_threads

__all__ = ["check_batch_size", "choose_eval_split", "choose_threads", "dataset_of", "earlier_checkpoint", "open_stream"]

_BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def dataset_of(corpus: Corpus) -> Dataset:
    """What the model has to know of the data.

    Raises:
        TrainingError: There are no classes.
    """
    if not corpus.classes:
        raise TrainingError(
            "the data has no labels, expected a class for every clip",
            fix="convert a folder of class folders",
            data=str(corpus.root),
        )
    return Dataset(
        spec=corpus.spec,
        classes=list(corpus.classes),
        mean=list(corpus.manifest.mean),
        std=list(corpus.manifest.std),
    )


def choose_eval_split(config: TrainConfig, corpus: Corpus) -> str | None:
    """The split to evaluate on while training; ``None`` for none, which is said.

    Never the test split unless asked for: the best checkpoint would be chosen on what it is later judged by.

    Raises:
        ValueError: No such split, or an empty one.
    """
    if config.eval_split == "none":
        return None
    if config.eval_split != "auto":
        return config.eval_split  # the stream says what is wrong with it
    if "val" in corpus.splits and int(corpus.shard_table("val")["num_samples"].sum()):
        return "val"
    if config.show_progress:
        print("no val split: training without evaluation (--eval-split names another split)", file=sys.stderr)
    return None


def check_batch_size(config: TrainConfig, model: ClipClassifier) -> None:
    """Say before training that batch norm has nothing to normalise over in a batch of one.

    Raises:
        ValueError: One clip a forward pass, and a backbone with batch norm.
    """
    if config.batch_size == 1 and any(isinstance(module, _BATCH_NORMS) for module in model.modules()):
        raise ValueError(
            f"batch_size: 1, expected at least 2: {config.backbone} normalises over the clips of a batch (--batch-size)"
        )


def earlier_checkpoint(config: TrainConfig, run: Path) -> dict[str, Any] | None:
    """The checkpoint to go on from, if there is one.

    Raises:
        ResumeError: It is missing where one was named, damaged, or no checkpoint.
    """
    if config.resume == "never":
        return None
    if config.resume == "auto":
        return load_checkpoint(run / LAST_NAME) if (run / LAST_NAME).exists() else None
    given = Path(config.resume)
    return load_checkpoint(given / LAST_NAME if given.is_dir() else given)


def open_stream(
    corpus: Corpus,
    config: TrainConfig,
    *,
    split: str,
    use: Literal["train", "evaluate"],
    device: torch.device,
    ledger: Path,
) -> ClipStream:
    """Full batches in random order without end to train on, or every clip once, front to back, to evaluate."""
    is_train = use == "train"
    return ClipStream(
        corpus,
        split=split,
        batch_size=config.batch_size,
        accumulate=config.accumulate if is_train else 1,
        seed=config.seed,
        shuffle=is_train,
        tail="cross" if is_train else "pad",
        num_threads=config.num_threads,
        device=device,
        on_error=config.on_error,
        max_failures=config.max_failures,
        ledger=ledger if is_train else None,
        verify_checksums=config.verify_checksums,
    )


def choose_threads(
    config: TrainConfig, device: torch.device, model: ClipClassifier, saved: dict[str, Any] | None
) -> int | None:
    """Threads that compute on the CPU: as given, as recorded by the run that goes on, or as measured."""
    if device.type != "cpu" or config.cpu_threads is not None:
        return config.cpu_threads
    if saved is not None and saved["config"].get("cpu_threads"):
        return int(saved["config"]["cpu_threads"])
    return choose_cpu_threads(model, batch_size=config.batch_size)
