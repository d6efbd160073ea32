from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipfold import ClipSpec, PluginError, ResumeError, TrainConfig, TrainingError, train
from clipfold.training.checkpoint import load_checkpoint
from clipfold.training.metrics import MetricsLog


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(run / "checkpoint.pt")["model"]
    return state


def assert_same_weights(run: Path, other: Path) -> None:
    first, second = weights(run), weights(other)
    assert list(first) == list(second)
    for name in first:
        assert torch.equal(first[name], second[name]), name


def lines(run: Path) -> list[dict[str, Any]]:
    """The metrics without what depends on the clock."""
    return [
        {name: value for name, value in line.items() if name not in ("clips_per_second", "wait_share")}
        for line in MetricsLog.read(run / "metrics.jsonl")
    ]


def test_it_learns_and_says_so(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    summary = train(config(epochs=30, learning_rate=1e-2, augment="none"))
    assert summary.is_finished
    assert summary.last_top1 is not None
    assert summary.last_top1 >= 0.75  # 12 clips, chance 1/3: at least 9 right by chance happens once in 2,600 runs
    assert summary.num_clips == summary.num_steps * 8
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {
        ".lock", "config.json", "metrics.jsonl", "checkpoint.pt", "best.pt", "summary.json",
    }  # fmt: skip
    assert json.loads((run / "summary.json").read_text())["num_epochs"] == 30
    written = MetricsLog.read(run / "metrics.jsonl")
    assert [line["epoch"] for line in written if line["kind"] == "evaluation"] == list(range(30))
    assert TrainConfig.load(run / "config.json").cpu_threads == 1


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(config(out=str(tmp_path / name), seed=seed, num_threads=1 if name == "b" else 3))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert not torch.equal(weights(tmp_path / "a")["backbone.0.weight"], weights(tmp_path / "c")["backbone.0.weight"])


@pytest.mark.parametrize("backbone", ["small", "with_dropout"])
@pytest.mark.parametrize("stop", [1, 6, 11, 17])  # 45 clips, batches of 8: epochs end after steps 6, 12 and 17
def test_stopped_and_resumed_is_the_same_run(
    config: Callable[..., TrainConfig], tmp_path: Path, stop: int, backbone: str
) -> None:
    changes = {"backbone": f"small_net_of_tests:{backbone}", "augment": "light"}
    train(config(out=str(tmp_path / "whole"), **changes))
    part = train(config(out=str(tmp_path / "parts"), max_steps=stop, **changes))
    assert part.num_steps == stop
    assert not part.is_finished
    train(config(out=str(tmp_path / "parts"), resume="auto", num_threads=1, **changes))
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


def test_accumulation_sees_the_same_global_batches(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Without batch norm the gradient of a step is the sum over its micro-batches: equal up to fp32 rounding."""
    changes = {"backbone": "small_net_of_tests:with_dropout", "epochs": 2, "augment": "none"}
    for name, batch, accumulate in (("a", 8, 1), ("b", 4, 2), ("c", 2, 4)):
        train(config(out=str(tmp_path / name), batch_size=batch, accumulate=accumulate, max_steps=1, **changes))
    steps = {name: load_checkpoint(tmp_path / name / "checkpoint.pt")["stream"]["position"] for name in "abc"}
    assert steps == {"a": 8, "b": 8, "c": 8}


SCRIPT = """
import json, sys
sys.path.append(sys.argv[2])
from clipfold import TrainConfig, train
train(TrainConfig.from_json(json.loads(sys.argv[1])))
"""


def start(config: TrainConfig, small_net: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SCRIPT, json.dumps(config.to_json()), str(small_net)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never appeared")


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_it_ends_with_the_same_weights(
    config: Callable[..., TrainConfig], small_net: Path, tmp_path: Path
) -> None:
    changes = {"epochs": 60, "checkpoint_every": 4, "augment": "light"}
    train(config(out=str(tmp_path / "whole"), **changes))
    killed = config(out=str(tmp_path / "killed"), resume="auto", **changes)
    num_killed = 0
    for _ in range(4):
        process = start(killed, small_net)
        before = (tmp_path / "killed" / "checkpoint.pt").stat().st_ino if num_killed else None
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:  # until it has written a checkpoint of its own
            path = tmp_path / "killed" / "checkpoint.pt"
            if path.exists() and path.stat().st_ino != before:
                break
            time.sleep(0.02)
        time.sleep(0.05 * num_killed)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            num_killed += 1
        process.communicate()
    assert num_killed >= 2
    assert load_checkpoint(tmp_path / "killed" / "checkpoint.pt")["step"] < 337  # ceil(45 * 60 / 8) and the rest
    train(killed)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert lines(tmp_path / "whole") == lines(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint(corpus: Path, small_net: Path, tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    words = ["train", "--data", str(corpus), "--out", str(run), "--backbone", "small_net_of_tests:small"]
    words += ["--epochs", "100000", "--batch-size", "8", "--cpu-threads", "1", "--checkpoint-every", "3"]
    env = {**os.environ, "PYTHONPATH": str(small_net)}
    process = subprocess.Popen(
        [sys.executable, "-m", "clipfold", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    wait_for(run / "checkpoint.pt", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert f"stopped by {number.name}" in err
    assert "--resume auto" in err
    assert "Traceback" not in err
    assert load_checkpoint(run / "checkpoint.pt")["step"] > 0


def test_wrong_use_is_one_message(
    config: Callable[..., TrainConfig], corpora: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match="temporal_conv"):
        train(config(reducer="temporal_cnov", out=str(tmp_path / "a")))
    with pytest.raises(PluginError, match="resnet18"):
        train(config(backbone="resnet81", out=str(tmp_path / "b")))
    with pytest.raises(PluginError, match="light"):
        train(config(augment="lihgt", out=str(tmp_path / "c")))
    with pytest.raises(ValueError, match="options of reducer"):
        train(config(reducer_options=("depth=3",), out=str(tmp_path / "d")))
    with pytest.raises(ValueError, match="smaller batch"):
        train(config(batch_size=46, out=str(tmp_path / "e")))
    with pytest.raises(ValueError, match="expected one of"):
        train(config(eval_split="vall", out=str(tmp_path / "f")))
    with pytest.raises(ValueError, match="PyTorch sees"):
        train(config(device="cuda:99", out=str(tmp_path / "g")))
    unlabelled = corpora(tmp_path / "unlabelled", {"train": 9}, classes=[])
    with pytest.raises(TrainingError, match="no labels"):
        train(config(data=str(unlabelled), out=str(tmp_path / "h")))
    assert not (tmp_path / "h").exists()


def test_a_folder_that_is_in_use_is_refused(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"something else than a run: thesis.txt"):
        train(config(out=str(tmp_path / "other")))
    train(config(max_steps=1))
    with pytest.raises(ResumeError, match="--resume auto"):
        train(config())


def test_a_resume_that_does_not_fit_says_what_differs(
    config: Callable[..., TrainConfig], corpora: Callable[..., Path], tmp_path: Path
) -> None:
    train(config(max_steps=3))
    with pytest.raises(ResumeError, match=r"learning_rate 0.5, expected 0.002"):
        train(config(resume="auto", learning_rate=0.5))
    other = corpora(tmp_path / "other", {"train": 44, "val": 3})
    with pytest.raises(ResumeError, match="num_samples"):
        train(config(resume="auto", data=str(other)))
    wide = corpora(tmp_path / "wide", {"train": 45}, spec=ClipSpec(num_frames=10, channels=3, height=8, width=24))
    with pytest.raises(
        ResumeError, match=r"weights of another model: reducer.*\(8, 3, 12, 1, 1\), expected \(8, 3, 10"
    ):
        train(config(resume="auto", data=str(wide)))


def test_a_loss_that_is_no_number_names_the_clips(config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(TrainingError, match=r"not finite at step 0") as caught:
        train(config(backbone="small_net_of_tests:not_a_number"))
    assert "-0000" in caught.value.keys
    assert "--learning-rate" in caught.value.fix


def test_a_sample_that_cannot_be_read_stops_or_is_replaced(
    config: Callable[..., TrainConfig], corpora: Callable[..., Path], tmp_path: Path
) -> None:
    broken = corpora(tmp_path / "broken", {"train": 45})
    tar = broken / "train" / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[5000] ^= 1  # within the pixels of its first sample
    tar.write_bytes(data)
    with pytest.raises(Exception, match=r"checksum|xxh3"):
        train(config(data=str(broken), out=str(tmp_path / "stops")))
    summary = train(config(data=str(broken), out=str(tmp_path / "goes_on"), on_error="substitute"))
    assert summary.is_finished
    assert summary.num_failures == 3  # once an epoch
    assert len((tmp_path / "goes_on" / "faults.0.jsonl").read_text().splitlines()) == 3


def test_several_processes_are_refused(config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="several processes"):
        train(config())


def test_a_global_batch_is_shared_out(config: Callable[..., TrainConfig]) -> None:
    assert (config(global_batch_size=32).batch_size, config(global_batch_size=32).accumulate) == (8, 4)
    assert (config(global_batch_size=6).batch_size, config(global_batch_size=6).accumulate) == (6, 1)
    with pytest.raises(ValueError, match="a multiple of batch_size 8, such as 16 or 24"):
        config(global_batch_size=20)
    with pytest.raises(ValueError, match="accumulate: 3, expected 2"):
        config(global_batch_size=16, accumulate=3)


def test_going_on_from_another_runs_checkpoint(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    first = str(tmp_path / "first" / "checkpoint.pt")
    train(config(out=str(tmp_path / "whole")))
    train(config(out=str(tmp_path / "first"), max_steps=8))
    train(config(out=str(tmp_path / "second"), resume=first, max_steps=9))
    assert load_checkpoint(tmp_path / "second" / "checkpoint.pt")["step"] == 9
    train(config(out=str(tmp_path / "second"), resume="auto"))
    assert_same_weights(tmp_path / "whole", tmp_path / "second")
    assert [line["step"] for line in lines(tmp_path / "second")] == [10, 12, 12, 16, 17, 17]
    train(config(out=str(tmp_path / "third"), resume=str(tmp_path / "whole")))  # finished: nothing is left to do
    assert load_checkpoint(tmp_path / "third" / "checkpoint.pt")["step"] == 17


def test_a_run_without_a_checkpoint_starts_anew(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 4, "loss": 1}\n{"kind": "tr')
    (run / ".config.json.999-00aa.tmp").write_text("{")
    (run / ".checkpoint.pt.999-00aa.tmp").write_text("half")
    train(config(max_steps=4))
    assert [line["step"] for line in lines(run)] == [4]
    assert not list(run.glob("*.tmp"))
    assert not list(run.glob(".*.tmp"))


def test_a_short_call_is_counted_and_a_finished_run_stays(config: Callable[..., TrainConfig]) -> None:
    short = train(config(max_steps=1))
    assert (short.num_clips, short.num_steps) == (8, 1)
    assert short.loss is not None
    assert short.clips_per_second > 0
    done = train(config(resume="auto"))
    assert done.num_clips == 16 * 8
    assert train(config(resume="auto")) == done


def test_batch_norm_needs_two_clips(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least 2: .*--batch-size"):
        train(config(batch_size=1))
    assert not (tmp_path / "run").exists()


def test_a_flipped_bit_in_a_checkpoint_is_found(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    train(config(max_steps=1))
    path = tmp_path / "run" / "checkpoint.pt"
    weight = load_checkpoint(path)["model"]["backbone.0.weight"].numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(weight) + 5] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(ResumeError, match="checksum"):
        train(config(resume="auto"))


@pytest.mark.slow
def test_a_full_disk_is_one_message(corpus: Path, small_net: Path, tmp_path: Path) -> None:
    words = ["train", "--data", str(corpus), "--out", str(tmp_path / "run"), "--epochs", "1", "--cpu-threads", "1"]
    command = f"ulimit -f 40; exec {sys.executable} -m clipfold {' '.join(words)} --backbone small_net_of_tests:small"
    env = {**os.environ, "PYTHONPATH": str(small_net)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert "cannot write the checkpoint: File too large" in done.stderr
    assert "fix: make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_folder_of_others_is_left_as_it_was(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("")
    with pytest.raises(TrainingError, match="something else than a run"):
        train(config(out=str(tmp_path / "videos")))
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_dtypes_train_too(
    config: Callable[..., TrainConfig], corpora: Callable[..., Path], tmp_path: Path, dtype: Any
) -> None:
    spec = ClipSpec(num_frames=12, channels=3, height=8, width=24, dtype=dtype)
    data = corpora(tmp_path / "data", {"train": 24, "val": 6}, spec=spec, codec="lossless")
    summary = train(config(data=str(data), epochs=2))
    assert summary.is_finished
    assert summary.loss is not None
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["dataset"]["spec"]["dtype"] == dtype
