"""A trained run, evaluated on a split of a corpus."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from clipfold.errors import PluginError, ResumeError
from clipfold.files import write_json
from clipfold.progress import Progress
from clipfold.shards.reader import Corpus
from clipfold.stream.loader import ClipStream
from clipfold.training.checkpoint import BEST_NAME, LAST_NAME, Dataset, build_model, load_checkpoint, load_weights
from clipfold.training.config import TrainConfig
from clipfold.training.devices import autocast, choose_device, move_model
from clipfold.training.evaluation import Evaluation, evaluate_stream
from clipfold.training.threads import torch_threads

__all__ = ["evaluate"]


def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    *,
    split: str = "test",
    checkpoint: Literal["best", "last"] = "best",
    reducer: str | None = None,
    backbone: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    num_threads: int | None = None,
    cpu_threads: int | None = None,
    show_progress: bool = True,
) -> Evaluation:
    """Evaluate a trained run: every clip of a split counts once.

    Args:
        run: Folder of the run, or one of its checkpoints.
        data: Corpus folder or URL; what the run was trained on where ``None``.
        split: Name of the split.
        checkpoint: ``"best"`` takes the best evaluation's where there is one, else the last.
        reducer: What to build in place of the reducer that the checkpoint names. Needed where that is
            ``my_package.module:MyReducer`` and that module is not imported yet: code is imported because you name
            it, never because a file does.
        backbone: Likewise.
        batch_size: Clips of a forward pass; as in training where ``None``. Does not change the result.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
        num_threads: Threads that read; one per core where ``None``.
        cpu_threads: Threads that compute, on CPU; as in training where ``None``.
        show_progress: Whether to show progress on the standard error.

    Returns:
        The evaluation, which ``RUN/evaluation-<split>.json`` holds as well. Clips that cannot be read are marked and
        count for nothing.

    Raises:
        ResumeError: No run or checkpoint there, a damaged one, or one of another reducer or backbone.
        PluginError: The checkpoint names code of the user's, and ``reducer`` or ``backbone`` does not.
        TrainingError: Data of another spec or with other classes than in training.
        ValueError: No such split, or an empty one; no such device.
        ShardError: No corpus there.
    """
    for name, value in (("batch_size", batch_size), ("num_threads", num_threads), ("cpu_threads", cpu_threads)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: {value}, expected at least 1, or left out (--{name.replace('_', '-')})")
    run = Path(run)
    path = run if run.is_file() else _checkpoint_of(run, checkpoint)
    saved = load_checkpoint(path)
    config = _config_of(saved, reducer=reducer, backbone=backbone)
    dataset = Dataset.from_json(saved["dataset"])
    target = choose_device(device)
    corpus = Corpus(config.data if data is None else data)
    found = Dataset(spec=corpus.spec, classes=list(corpus.classes), mean=dataset.mean, std=dataset.std)
    dataset.check_fits(found, data=str(corpus.root))
    model = build_model(config, dataset)
    load_weights(model, saved["model"], path=path)
    model = move_model(model, target)
    with (
        torch_threads(cpu_threads or config.cpu_threads if target.type == "cpu" else None),
        ClipStream(
            corpus,
            split=split,
            batch_size=batch_size or config.batch_size,
            shuffle=False,
            tail="pad",
            num_threads=num_threads,
            device=target,
            on_error="substitute",
        ) as stream,
        Progress(f"evaluating {split}", total=stream.num_samples, unit="clips", show=show_progress) as progress,
    ):
        evaluation = evaluate_stream(
            model,
            stream,
            autocast=partial(autocast, target, config.precision),
            on_batch=lambda batch: progress.advance(sum(map(bool, batch.keys))),
        )
    write_json(
        path.parent / f"evaluation-{split}.json",
        {**evaluation.to_json(), "checkpoint": path.name, "step": saved["step"], "data": str(corpus.root)},
    )
    return evaluation


def _checkpoint_of(run: Path, which: Literal["best", "last"]) -> Path:
    if which not in ("best", "last"):
        raise ValueError(f"checkpoint: {which!r}, expected best or last")
    if not run.is_dir():
        raise ResumeError(
            "no checkpoint there: no such folder", fix="give the folder that --out named in training", folder=str(run)
        )
    return run / (BEST_NAME if which == "best" and (run / BEST_NAME).exists() else LAST_NAME)


def _config_of(saved: dict[str, Any], *, reducer: str | None, backbone: str | None) -> TrainConfig:
    """The configuration of a checkpoint, without augmentation, and with the members that the user names.

    A file must not decide which code is imported. What is imported already was imported by the user's own program.
    """
    config = TrainConfig.from_json({**saved["config"], "augment": "none"})
    for part, given, saved_name in (("reducer", reducer, config.reducer), ("backbone", backbone, config.backbone)):
        if given is None and ":" in saved_name and saved_name.partition(":")[0] not in sys.modules:
            raise PluginError(
                f"the checkpoint's {part} is {saved_name!r}: code of yours, which is imported only if you name it",
                fix=f"--{part} {saved_name} (in Python: {part}=)",
            )
    return replace(config, reducer=reducer or config.reducer, backbone=backbone or config.backbone)
