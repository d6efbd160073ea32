from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from clipfold import TrainConfig
from clipfold.training.config import FREE_FIELDS


def test_a_configuration_survives_json(tmp_path: Path) -> None:
    config = TrainConfig(data="d", out="o", hidden=4, reducer_options=("n=50", "mode=fast"), epochs=3)
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    assert TrainConfig.load(tmp_path / "config.json") == config
    assert config.options_of_reducer() == {"hidden": 4, "n": 50, "mode": "fast"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"warmup": 1.0},
        {"label_smoothing": -0.1},
        {"precision": "fp8"},
        {"on_error": "ignore"},
        {"seed": -1},
        {"max_steps": 0},
        {"reducer_options": ("hidden",)},
    ],
)
def test_a_wrong_value_is_named_with_its_flag(wrong: dict[str, object]) -> None:
    flag = next(iter(wrong)).replace("_", "-")
    with pytest.raises(ValueError, match=f"--{flag}"):
        TrainConfig(data="d", out="o", **wrong)  # type: ignore[arg-type]


def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text, message in [
        ("{", "expected JSON"),
        ("[]", "expected an object"),
        ('{"data": "d"}', "missing out"),
        ('{"data": "d", "out": "o", "lr": 1}', "unknown lr"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            TrainConfig.load(path)


def test_what_makes_another_run_is_named() -> None:
    config = TrainConfig(data="d", out="o")
    assert {field.name for field in fields(TrainConfig)} >= FREE_FIELDS
    assert config.differences(replace(config, data="e", out="p", num_threads=3, resume="auto", batch_size=64)) == []
    assert config.differences(replace(config, seed=1, epochs=2)) == ["epochs 20, expected 2", "seed 0, expected 1"]


def test_wrong_types_are_named_and_paths_are_welcome() -> None:
    with pytest.raises(TypeError, match=r"batch_size: '4' \(str\), expected int"):
        TrainConfig(data="d", out="o", batch_size="4")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="several texts"):
        TrainConfig(data="d", out="o", reducer_options="n=4")  # type: ignore[arg-type]
    assert TrainConfig(data=Path("d"), out=Path("o")).to_json()["data"] == "d"  # type: ignore[arg-type]
