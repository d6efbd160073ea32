from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from clipfold import TrainConfig
from clipfold.cli import main
from clipfold.demo.media import make_media

NET = """
from torch import nn

def net(num_classes, in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "net_of_cli_tests.py").write_text(NET)
    sys.path.append(str(folder))
    media = make_media(folder / "media", num_sources=24, num_workers=2)
    words = ["--codec", "jpeg", "--height", "8", "--width", "24", "--num-frames", "20", "--split", "0.5/0.25/0.25"]
    assert main(["convert", str(media), "--out", str(folder / "corpus"), *words]) == 0
    return folder / "corpus"


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    value: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return value


def test_train_and_evaluate(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    net = ["--backbone", "net_of_cli_tests:net"]
    flags = ["--epochs", "2", "--batch-size", "8", "--cpu-threads", "1", "--no-fold", "--hidden", "4", *net]
    capsys.readouterr()
    assert main(["train", "--data", str(corpus), "--out", run, *flags, "--json"]) == 0
    summary = last_json(capsys)
    assert summary["is_finished"]
    assert summary["num_epochs"] == 2

    assert main(["evaluate", run, "--data", str(corpus), "--json", *net]) == 0
    evaluation = last_json(capsys)
    assert 0 <= float(str(evaluation["top1"])) <= 1
    assert evaluation["num_clips"] == sum(map(sum, evaluation["confusion"]))  # type: ignore[call-overload]
    assert main(["evaluate", run, "--split", "val", *net]) == 0
    assert "val: top-1" in capsys.readouterr().out

    # the same flags from the run's own file, but for what the line says
    other = str(tmp_path / "other")
    words = ["--config", f"{run}/config.json", "--out", other, "--epochs", "1", "--resume", "never"]
    assert main(["train", *words]) == 0
    config = TrainConfig.load(f"{other}/config.json")
    assert (config.epochs, config.hidden, config.fold, config.out) == (1, 4, False, other)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--reducer", "temporal_cnov"], 2, "did you mean 'temporal_conv'"),
        (["--backbone", "resnet81"], 2, "resnet18"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--batch-size", "500"], 2, "smaller batch"),
        (["--device", "cuda:7"], 2, "PyTorch sees"),
        (["--data", "/nowhere"], 1, "fix:"),
        (["--epochs", "many"], 2, "epochs"),
        (["--no-such-flag"], 2, "no-such-flag"),
    ],
)
def test_wrong_use_is_one_message(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    argv = ["train", "--data", str(corpus), "--out", str(tmp_path / "run"), *words]
    assert main(argv) == code
    err = capsys.readouterr().err
    assert text in err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_run_that_is_not_there(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path / "nothing"), "--data", str(corpus)]) == 1
    assert "fix:" in capsys.readouterr().err
