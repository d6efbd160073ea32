"""Training: one straight loop over a stream, which can stop at any step and go on at the very next one.

::

    stream -> batch -> params (drawn by position) -> logits -> loss -> step -> metrics.jsonl
                                                         every epoch: evaluation, checkpoint.pt, best.pt
"""

from __future__ import annotations

import signal
import sys
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn import functional as F

from clipfold.clip import ClipBatch
from clipfold.errors import ResumeError, TrainingError
from clipfold.files import write_json
from clipfold.models.classifier import ClipClassifier
from clipfold.progress import Progress
from clipfold.shards.reader import Corpus
from clipfold.stream.loader import ClipStream
from clipfold.training.checkpoint import (
    BEST_NAME,
    LAST_NAME,
    Dataset,
    build_model,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from clipfold.training.clock import Clock
from clipfold.training.config import TrainConfig
from clipfold.training.devices import autocast, choose_device, move_model
from clipfold.training.evaluation import Evaluation, evaluate_stream
from clipfold.training.interrupts import Interrupts
from clipfold.training.metrics import MetricsLog
from clipfold.training.optimizer import make_optimizer, random_state, set_random_state
from clipfold.training.run_folder import CONFIG_NAME, METRICS_NAME, SUMMARY_NAME, RunFolder
from clipfold.training.schedule import learning_rate_factor
from clipfold.training.summary import Interrupted, TrainSummary
from clipfold.training.threads import choose_cpu_threads, torch_threads
from clipfold.world import World

__all__ = ["train"]


def train(config: TrainConfig) -> TrainSummary:
    """Train a classifier, or go on with an interrupted training.

    On a CPU the same configuration gives the same weights, bit for bit, however often it was interrupted, as long as
    the number of computing threads, the kind of machine and the version of PyTorch stay the same.

    Args:
        config: What to train, on what, and how.

    Returns:
        What came of it; ``RUN/summary.json`` holds the same.

    Raises:
        ValueError: A batch larger than the data, options that do not fit, no such device.
        PluginError: An unknown reducer, backbone or recipe.
        TrainingError: The data has no labels; the loss is not finite; the folder holds something else.
        ResumeError: The folder holds a run and ``resume`` is "never"; a checkpoint of another run, model or data.
        ShardError: A sample cannot be read and ``on_error`` is "raise".
        Interrupted: SIGINT or SIGTERM; a checkpoint was written.
    """
    if World.from_env().world_size > 1:
        raise ValueError("started by torchrun with several processes: this version trains with one, start it without")
    device = choose_device(config.device)
    with ExitStack() as stack:
        corpus = Corpus(config.data)
        dataset = _dataset(corpus, config)
        folder = stack.enter_context(RunFolder(config.out, resume=config.resume))
        saved = _saved_state(config, folder.path)
        model = build_model(config, dataset)
        threads = _cpu_threads(config, device, model, saved)
        stack.enter_context(torch_threads(threads))
        config = replace(config, cpu_threads=threads)
        open_stream = partial(_open_stream, corpus, config=config, device=device, ledger=folder.path)
        stream = stack.enter_context(open_stream(split=config.train_split, tail="cross"))
        eval_split = _eval_split(config, corpus)
        eval_stream = None if eval_split is None else stack.enter_context(open_stream(split=eval_split, tail="pad"))
        stack.enter_context(
            torch.random.fork_rng()
        )  # what backbones with dropout draw from; the caller's stays as it is
        torch.manual_seed(config.seed)
        run = _Run(config, folder.path, dataset, move_model(model, device), stream, eval_stream)
        if saved is not None:
            run.load(saved)
        write_json(folder.path / CONFIG_NAME, config.to_json())
        run.log = MetricsLog(folder.path / METRICS_NAME, up_to_step=run.step)
        interrupts = stack.enter_context(Interrupts())
        return run.go(interrupts)


class _Run:
    """A training under way: all that a checkpoint holds, and the loop."""

    log: MetricsLog

    def __init__(
        self,
        config: TrainConfig,
        path: Path,
        dataset: Dataset,
        model: ClipClassifier,
        stream: ClipStream,
        eval_stream: ClipStream | None,
    ) -> None:
        self.config, self.path, self.dataset = config, path, dataset
        self.model, self.stream, self.eval_stream = model, stream, eval_stream
        self.device = stream.device
        self.optimizer = make_optimizer(model, config)
        self.step = 0
        self.num_epochs = 0  # that have ended with their evaluation
        self.best_top1: float | None = None
        self.last_top1: float | None = None
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)  # since the last log line
        self.num_logged = 0  # steps in that sum
        self.last_loss: float | None = None
        self.num_samples = config.epochs * stream.num_samples  # of the whole run
        self._recent_keys: deque[list[str]] = deque(maxlen=config.log_every)
        self._clock = Clock(stream)

    def go(self, interrupts: Interrupts) -> TrainSummary:
        """The loop."""
        config, stream = self.config, self.stream
        left = max(self.num_samples - stream.position, 0)
        with Progress("training", total=left, unit="clips", show=config.show_progress) as progress:
            while self.num_epochs < config.epochs and not self._is_enough:
                epoch = self.num_epochs
                if stream.position < (epoch + 1) * stream.num_samples:  # else interrupted behind the last step
                    for micro, batch in enumerate(stream):
                        self._train_on(batch, is_first=micro % config.accumulate == 0)
                        if (micro + 1) % config.accumulate:
                            continue
                        self._update()
                        progress.advance(stream.global_batch_size, **self._shown(epoch))
                        if self.step % config.log_every == 0:
                            self._write_log(epoch)
                        if interrupts.wanted is not None:
                            self._stop(interrupts.wanted)
                        if self._is_enough:
                            self._save(LAST_NAME)
                            return self._summary(is_finished=False)
                        if config.checkpoint_every and self.step % config.checkpoint_every == 0:
                            self._save(LAST_NAME)
                self._end_epoch(epoch, interrupts)
        return self._summary(is_finished=self.num_epochs == config.epochs)

    @property
    def _is_enough(self) -> bool:
        return self.config.max_steps is not None and self.step >= self.config.max_steps

    def _train_on(self, batch: ClipBatch, *, is_first: bool) -> None:
        """Forward and backward of one micro-batch."""
        if is_first:
            done = (self.stream.position - self._samples_of_step()) / self.num_samples
            factor = learning_rate_factor(done, warmup=self.config.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * factor
            self.optimizer.zero_grad(set_to_none=True)
        self._recent_keys.append(list(batch.keys))
        params = self.model.draw_params(seed=self.config.seed, positions=batch.positions)
        with autocast(self.device, self.config.precision):
            logits = self.model(batch.pixels_BSCHW, params=params)
        # a clip without a label, or one that could not be read, weighs nothing
        labels = torch.where(batch.valid, batch.labels, -1)
        loss = F.cross_entropy(
            logits.float(), labels, ignore_index=-1, label_smoothing=self.config.label_smoothing, reduction="sum"
        )
        loss = loss / (len(batch) * self.config.accumulate)
        loss.backward()  # type: ignore[no-untyped-call]
        self.loss_sum += loss.detach()

    def _samples_of_step(self) -> int:
        """How far the position has moved since the step began: by all of it with the last micro-batch, else not."""
        return self.stream.global_batch_size if self.config.accumulate == 1 else 0

    def _update(self) -> None:
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        if self.device.type == "cpu":  # elsewhere looking would wait for the device: the log line looks
            self._check_finite()
        self.optimizer.step()
        self.step += 1
        self.num_logged += 1

    def _check_finite(self) -> None:
        if not torch.isfinite(self.loss_sum):
            keys = ", ".join(key for keys in list(self._recent_keys)[-self.config.accumulate :] for key in keys[:8])
            raise TrainingError(
                f"the loss is not finite at step {self.step}",
                fix="a lower --learning-rate, or --precision fp32; --resume auto goes on from the last checkpoint",
                keys=keys,
                run=str(self.path),
            )

    def _write_log(self, epoch: int) -> None:
        if not self.num_logged:
            return
        self._check_finite()
        self.last_loss = float(self.loss_sum) / self.num_logged
        self.log.append(
            "train",
            step=self.step,
            epoch=epoch,
            loss=self.last_loss,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            **self._clock.lap(self.num_logged * self.stream.global_batch_size),
        )
        self.loss_sum.zero_()
        self.num_logged = 0

    def _end_epoch(self, epoch: int, interrupts: Interrupts) -> None:
        self._write_log(epoch)
        is_last = epoch + 1 == self.config.epochs
        is_best = False
        if self.eval_stream is not None and (is_last or (epoch + 1) % self.config.eval_every == 0):
            evaluation = self._evaluate(self.eval_stream, interrupts)
            values = evaluation.to_json()
            del values["classes"]
            self.log.append("evaluation", step=self.step, epoch=epoch, **values)
            self.last_top1 = evaluation.top1
            is_best = self.best_top1 is None or evaluation.top1 > self.best_top1
            if is_best:
                self.best_top1 = evaluation.top1
            if self.config.show_progress:
                self._say(f"epoch {epoch + 1}: {evaluation.headline}")
        self.num_epochs = epoch + 1
        if is_best:
            self._save(BEST_NAME)
        self._save(LAST_NAME)
        self._clock.skip()

    def _evaluate(self, stream: ClipStream, interrupts: Interrupts) -> Evaluation:
        def look_for_interrupts(batch: ClipBatch) -> None:
            if interrupts.wanted is not None:
                self._stop(interrupts.wanted)

        return evaluate_stream(
            self.model,
            stream,
            autocast=partial(autocast, self.device, self.config.precision),
            on_batch=look_for_interrupts,
        )

    def _stop(self, wanted: signal.Signals) -> NoReturn:
        self._save(LAST_NAME)
        raise Interrupted(
            f"stopped by {wanted.name} after step {self.step}, in epoch {self.num_epochs + 1}; a checkpoint is there",
            fix="the same command with --resume auto goes on",
            run=str(self.path),
            signal=int(wanted),
        )

    def _shown(self, epoch: int) -> dict[str, object]:
        shown: dict[str, object] = {"epoch": f"{epoch + 1}/{self.config.epochs}", "waiting": f"{self._clock.share:.0%}"}
        if self.last_loss is not None:
            shown["loss"] = f"{self.last_loss:.3f}"
        return shown

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _save(self, name: str) -> None:
        save_checkpoint(
            self.path / name,
            {
                "config": self.config.to_json(),
                "dataset": self.dataset.to_json(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "stream": self.stream.state_dict(),
                "step": self.step,
                "num_epochs": self.num_epochs,
                "best_top1": self.best_top1,
                "last_top1": self.last_top1,
                "loss_sum": self.loss_sum,
                "num_logged": self.num_logged,
                "random": random_state(self.device),
                "versions": {name: version(name) for name in ("clipfold", "torch", "torchvision")},
            },
        )

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ResumeError: It belongs to another run, model or data.
        """
        path = self.path / LAST_NAME
        before = TrainConfig.from_json({**saved["config"], "data": self.config.data, "out": self.config.out})
        differences = self.config.differences(before)
        if differences:
            raise ResumeError(
                f"the run was started with another configuration: {'; '.join(differences)}",
                fix=f"give the flags that it was started with (--config {self.path / CONFIG_NAME}), or another --out",
                file=str(path),
            )
        load_weights(self.model, saved["model"], path=path)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.stream.load_state_dict(saved["stream"])
        self.step, self.num_epochs, self.num_logged = saved["step"], saved["num_epochs"], saved["num_logged"]
        self.best_top1, self.last_top1 = saved["best_top1"], saved["last_top1"]
        self.loss_sum.copy_(saved["loss_sum"])
        set_random_state(saved["random"], self.device)
        if self.config.show_progress:
            self._say(f"going on from {path}: epoch {self.stream.epoch + 1}, after step {self.step}")
            if before.batch_size * before.accumulate != self.stream.global_batch_size:
                self._say("another global batch size than before: no clip is missed or repeated, but batches differ")

    def _summary(self, *, is_finished: bool) -> TrainSummary:
        summary = TrainSummary(
            out=str(self.path),
            num_steps=self.step,
            num_epochs=self.num_epochs,
            is_finished=is_finished,
            loss=self.last_loss,
            best_top1=self.best_top1,
            last_top1=self.last_top1,
            num_clips=self._clock.num_clips,
            seconds=self._clock.seconds,
            clips_per_second=self._clock.num_clips / max(self._clock.seconds, 1e-9),
            wait_share=self._clock.share,
            num_failures=int(self.stream.stats()["num_failures"]),
            device=str(self.device),
        )
        write_json(self.path / SUMMARY_NAME, summary.to_json())
        return summary


def _dataset(corpus: Corpus, config: TrainConfig) -> Dataset:
    if not corpus.classes:
        raise TrainingError(
            "the data has no labels", fix="convert class folders, or a table with a label column", data=config.data
        )
    return Dataset(
        spec=corpus.spec,
        classes=list(corpus.classes),
        mean=list(corpus.manifest.mean),
        std=list(corpus.manifest.std),
    )


def _eval_split(config: TrainConfig, corpus: Corpus) -> str | None:
    if config.eval_split == "none":
        return None
    if config.eval_split != "auto":
        return config.eval_split  # the stream says what is wrong with it
    if "val" in corpus.splits and int(corpus.shard_table("val")["num_samples"].sum()):
        return "val"
    if config.show_progress:
        print("no val split: training without evaluation (--eval-split names another one)", file=sys.stderr)
    return None


def _saved_state(config: TrainConfig, path: Path) -> dict[str, Any] | None:
    if config.resume == "never":
        return None
    if config.resume != "auto":
        given = Path(config.resume)
        return load_checkpoint(given / LAST_NAME if given.is_dir() else given)
    return load_checkpoint(path / LAST_NAME) if (path / LAST_NAME).exists() else None


def _open_stream(
    corpus: Corpus, *, split: str, tail: Any, config: TrainConfig, device: torch.device, ledger: Path
) -> ClipStream:
    is_train = tail == "cross"
    return ClipStream(
        corpus,
        split=split,
        batch_size=config.batch_size,
        accumulate=config.accumulate if is_train else 1,
        seed=config.seed,
        shuffle=is_train,
        tail=tail,
        num_threads=config.num_threads,
        device=device,
        on_error=config.on_error,
        max_failures=config.max_failures,
        ledger=ledger if is_train else None,
        verify_checksums=config.verify_checksums,
    )


def _cpu_threads(
    config: TrainConfig, device: torch.device, model: ClipClassifier, saved: dict[str, Any] | None
) -> int | None:
    """Threads that compute: as given, as recorded, or as measured."""
    if device.type != "cpu" or config.cpu_threads is not None:
        return config.cpu_threads
    if saved is not None and saved["config"].get("cpu_threads"):
        return int(saved["config"]["cpu_threads"])
    return choose_cpu_threads(model, batch_size=config.batch_size)
