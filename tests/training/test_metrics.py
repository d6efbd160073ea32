from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipfold import TrainingError
from clipfold.training.metrics import MetricsLog, RunningLoss


def test_lines_behind_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    assert log.num_bytes == 0
    for step in (10, 20):
        log.append("train", step=step, loss=1 / step)
    num_bytes = log.num_bytes
    log.append("evaluation", step=20, top1=0.5)  # of the same step, but behind the checkpoint
    with open(path, "ab") as file:
        file.write(b'{"kind": "train", "ste')  # cut short by a power cut
    log = MetricsLog(path, num_bytes=num_bytes)
    log.append("evaluation", step=20, top1=0.5)
    log.append("train", step=30, loss=float("nan"))
    lines = MetricsLog.read(path)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 10),
        ("train", 20),
        ("evaluation", 20),
        ("train", 30),
    ]
    assert lines[0] == {"kind": "train", "step": 10, "loss": 0.1}
    assert lines[3]["loss"] is None


def test_a_file_that_somebody_shortened_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n{"kind": "tra')
    MetricsLog(path, num_bytes=1000)
    assert path.read_bytes() == b'{"kind": "train", "step": 1}\n'


def running() -> RunningLoss:
    return RunningLoss(torch.device("cpu"), num_kept=3)


def test_means_over_steps_of_several_micro_batches(tmp_path: Path) -> None:
    losses = running()
    for step, (first, second, norm) in enumerate([(1.0, 2.0, 0.5), (3.0, 4.0, 1.5)]):
        losses.add(torch.tensor(first), ["a", "b"])
        losses.add(torch.tensor(second), ["c", "d"])
        losses.end_step(step, torch.tensor(norm))
    losses.check(tmp_path)
    other = running()
    other.load_state_dict(losses.state_dict())
    assert losses.take() == other.take() == {"loss": 5.0, "gradient_norm": 1.0}
    assert losses.num_steps == 0


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_the_first_bad_step_is_named_with_its_clips(tmp_path: Path, loss: float, norm: float) -> None:
    losses = running()
    for step in range(4):
        losses.add(torch.tensor(loss if step == 2 else 1.0), [f"{step}-a", f"{step}-b"])
        losses.end_step(step, torch.tensor(norm if step == 2 else 1.0))
    with pytest.raises(TrainingError, match="not finite at step 2") as caught:
        losses.check(tmp_path)
    assert caught.value.where["keys"] == "2-a, 2-b"
