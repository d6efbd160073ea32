"""Training: one straight loop over a stream, which can stop at any step and go on at the very next one.

::

    stream -> batch -> params (drawn by position) -> logits -> loss -> step -> metrics.jsonl
                                                         every epoch: evaluation, best.pt, checkpoint.pt
"""

from __future__ import annotations

import math
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import NoReturn

import torch
from torch import nn
from torch.nn import functional as F

from clipfold.clip import ClipBatch
from clipfold.files import read_json, write_json
from clipfold.progress import Progress
from clipfold.shards.reader import Corpus
from clipfold.stream.loader import ClipStream
from clipfold.training.checkpoint import BEST_NAME, LAST_NAME, build_model
from clipfold.training.clock import Clock
from clipfold.training.config import TrainConfig
from clipfold.training.devices import autocast, choose_device, move_model
from clipfold.training.evaluation import Evaluation, evaluate_stream
from clipfold.training.interrupts import Interrupts
from clipfold.training.metrics import MetricsLog
from clipfold.training.preparation import (
    check_batch_size,
    choose_eval_split,
    choose_threads,
    dataset_of,
    earlier_checkpoint,
    open_stream,
)
from clipfold.training.run_folder import CONFIG_NAME, METRICS_NAME, SUMMARY_NAME, RunFolder
from clipfold.training.schedule import learning_rate_factor
from clipfold.training.state import TrainingState
from clipfold.training.summary import Interrupted, TrainSummary
from clipfold.training.threads import torch_threads
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
        dataset = dataset_of(corpus)
        folder = stack.enter_context(RunFolder(config.out, resume=config.resume))
        saved = earlier_checkpoint(config, folder.path)
        model = build_model(config, dataset)
        check_batch_size(config, model)
        config = replace(config, cpu_threads=choose_threads(config, device, model, saved))
        stack.enter_context(torch_threads(config.cpu_threads))
        open_split = partial(open_stream, corpus, config, device=device, ledger=folder.path)
        stream = stack.enter_context(open_split(split=config.train_split, use="train"))
        eval_split = choose_eval_split(config, corpus)
        eval_stream = None if eval_split is None else stack.enter_context(open_split(split=eval_split, use="evaluate"))
        # backbones with dropout draw from torch's own numbers; the caller's stay as they are
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        torch.manual_seed(config.seed)
        state = TrainingState(config, dataset, move_model(model, device), stream)
        num_bytes = 0 if saved is None else state.load(saved)
        if saved is not None and config.resume != "auto":  # a checkpoint of another place: from now on it is ours
            num_bytes = state.adopt(folder.path, metrics_num_bytes=num_bytes)
        log = MetricsLog(folder.path / METRICS_NAME, num_bytes=num_bytes)
        write_json(folder.path / CONFIG_NAME, config.to_json())
        if state.num_epochs == config.epochs and (folder.path / SUMMARY_NAME).exists():
            return TrainSummary(**read_json(folder.path / SUMMARY_NAME))  # nothing is left to do
        interrupts = stack.enter_context(Interrupts())
        return _Training(config, state, stream, eval_stream, log, interrupts).run()


class _Training:
    """The loop, over parts that are ready."""

    def __init__(
        self,
        config: TrainConfig,
        state: TrainingState,
        stream: ClipStream,
        eval_stream: ClipStream | None,
        log: MetricsLog,
        interrupts: Interrupts,
    ) -> None:
        self.config, self.state, self.stream, self.eval_stream = config, state, stream, eval_stream
        self.log, self.interrupts = log, interrupts
        self.path = log.path.parent
        self.clock = Clock(stream)
        self.num_samples = config.epochs * stream.num_samples  # of the whole run

    def run(self) -> TrainSummary:
        """Train to the end, or until ``max_steps`` or a signal."""
        config, state, stream = self.config, self.state, self.stream
        left = max(self.num_samples - stream.position, 0)
        with Progress("training", total=left, unit="clips", show=config.show_progress) as progress:
            while state.num_epochs < config.epochs and not self._is_enough():
                border = (state.num_epochs + 1) * stream.num_samples
                if stream.position < border:  # else interrupted between an epoch's last step and its evaluation
                    for micro, batch in enumerate(stream):
                        self._forward_backward(batch, is_first=micro % config.accumulate == 0)
                        if (micro + 1) % config.accumulate:
                            continue
                        self._update()
                        progress.advance(stream.global_batch_size, **self._shown())
                        if self._ends_at_this_step():
                            return self._summary(is_finished=False)
                self._end_epoch()
        return self._summary(is_finished=state.num_epochs == config.epochs)

    def _forward_backward(self, batch: ClipBatch, *, is_first: bool) -> None:
        config, state = self.config, self.state
        if is_first:
            state.optimizer.zero_grad(set_to_none=True)
        params = state.model.draw_params(seed=config.seed, positions=batch.positions)
        with autocast(state.device, config.precision):
            logits = state.model(batch.pixels_BSCHW, params=params)
        # a clip without a label, or one that could not be read, weighs nothing
        labels = torch.where(batch.valid, batch.labels, -1)
        loss = F.cross_entropy(
            logits.float(), labels, ignore_index=-1, label_smoothing=config.label_smoothing, reduction="sum"
        )
        loss = loss / (len(batch) * config.accumulate)
        loss.backward()  # type: ignore[no-untyped-call]
        state.running.add(loss, batch.keys)

    def _update(self) -> None:
        config, state = self.config, self.state
        done = (self.stream.position - self.stream.global_batch_size) / self.num_samples  # before this step
        learning_rate = config.learning_rate * learning_rate_factor(done, warmup=config.warmup)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.grad_clip or math.inf)
        state.running.end_step(state.step, norm)
        if state.device.type == "cpu":  # elsewhere looking would wait for the device: log lines and checkpoints look
            state.running.check(self.path)
        state.optimizer.step()
        state.step += 1
        self.clock.count(self.stream.global_batch_size)
        if state.running.num_steps == config.log_every:
            self._write_log()

    def _ends_at_this_step(self) -> bool:
        """Save where it is time to; whether enough steps were made. A signal ends training here."""
        if self.interrupts.wanted is not None:
            self._stop(self.interrupts.wanted)
        every = self.config.checkpoint_every
        if self._is_enough() or (every and self.state.step % every == 0):
            self._save(LAST_NAME)
        return self._is_enough()

    def _is_enough(self) -> bool:
        return self.config.max_steps is not None and self.state.step >= self.config.max_steps

    def _end_epoch(self) -> None:
        state, config = self.state, self.config
        self._write_log()
        epoch, num_epochs = state.num_epochs, state.num_epochs + 1
        is_best = False
        if self.eval_stream is not None and (num_epochs == config.epochs or num_epochs % config.eval_every == 0):
            evaluation = self._evaluate(self.eval_stream)
            values = evaluation.to_json()
            del values["classes"]
            self.log.append("evaluation", step=state.step, epoch=epoch, **values)
            is_best = state.best_top1 is None or evaluation.top1 > state.best_top1
            state.last_top1 = evaluation.top1
            state.best_top1 = evaluation.top1 if is_best else state.best_top1
            if config.show_progress:
                print(f"epoch {num_epochs}: {evaluation.headline}", file=sys.stderr, flush=True)
        state.num_epochs = num_epochs
        if is_best:
            self._save(BEST_NAME)
        self._save(LAST_NAME)
        self.clock.skip()

    def _evaluate(self, stream: ClipStream) -> Evaluation:
        def look_for_signals(batch: ClipBatch) -> None:
            if self.interrupts.wanted is not None:
                self._stop(self.interrupts.wanted)

        context = partial(autocast, self.state.device, self.config.precision)
        return evaluate_stream(self.state.model, stream, autocast=context, on_batch=look_for_signals)

    def _write_log(self) -> None:
        state = self.state
        if not state.running.num_steps:
            return
        state.running.check(self.path)
        values = state.running.take()
        state.last_loss = values["loss"]
        learning_rate = state.optimizer.param_groups[0]["lr"]
        speed = self.clock.lap()
        self.log.append(
            "train", step=state.step, epoch=state.num_epochs, **values, learning_rate=learning_rate, **speed
        )

    def _save(self, name: str) -> None:
        self.state.running.check(self.path)  # never leave a checkpoint of weights that are no numbers
        self.state.save(self.path / name, metrics_num_bytes=self.log.num_bytes)

    def _stop(self, wanted: signal.Signals) -> NoReturn:
        self._save(LAST_NAME)
        raise Interrupted(
            f"stopped by {wanted.name} after step {self.state.step}, in epoch {self.state.num_epochs + 1}; "
            "a checkpoint is there",
            fix="the same command with --resume auto goes on",
            run=str(self.path),
            signal=int(wanted),
        )

    def _shown(self) -> dict[str, object]:
        shown: dict[str, object] = {
            "epoch": f"{self.state.num_epochs + 1}/{self.config.epochs}",
            "waiting": f"{self.clock.share:.0%}",
        }
        return shown if self.state.last_loss is None else {**shown, "loss": f"{self.state.last_loss:.3f}"}

    def _summary(self, *, is_finished: bool) -> TrainSummary:
        state, clock = self.state, self.clock
        clock.lap()  # what the last log line did not hold
        summary = TrainSummary(
            out=str(self.path),
            num_steps=state.step,
            num_epochs=state.num_epochs,
            is_finished=is_finished,
            loss=state.running.mean_loss if state.last_loss is None else state.last_loss,
            best_top1=state.best_top1,
            last_top1=state.last_top1,
            num_clips=clock.num_clips,
            seconds=clock.seconds,
            clips_per_second=clock.num_clips / max(clock.seconds, 1e-9),
            wait_share=clock.share,
            num_failures=int(self.stream.stats()["num_failures"]),
            device=str(state.device),
        )
        write_json(self.path / SUMMARY_NAME, summary.to_json())
        return summary
