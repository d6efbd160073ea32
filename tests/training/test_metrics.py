from __future__ import annotations

from pathlib import Path

from clipfold.training.metrics import MetricsLog


def test_lines_behind_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (10, 20, 30):
        log.append("train", step=step, loss=1 / step)
    with open(path, "ab") as file:
        file.write(b'{"kind": "train", "ste')  # cut short by a power cut
    log = MetricsLog(path, up_to_step=20)
    log.append("train", step=30, loss=float("nan"))
    lines = MetricsLog.read(path)
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[0] == {"kind": "train", "step": 10, "loss": 0.1}
    assert lines[2]["loss"] is None
