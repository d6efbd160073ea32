from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipfold import ClipfoldError, TrainConfig, evaluate, train
from clipfold.cli import main
from clipfold.demo.media import CLASSES, make_media, source_frames
from clipfold.demo.road import run_demo

ONE_FRAME = """
from clipfold import TemporalReducer

class OneFrame(TemporalReducer):
    def __init__(self, spec):
        super().__init__(spec, out_channels=spec.channels)

    def forward(self, pixels_BSCHW):
        return pixels_BSCHW[:, self.spec.num_frames // 2]
"""


@pytest.mark.slow
def test_the_demo_learns_what_a_single_frame_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "demo"
    words = [sys.executable, "-m", "clipfold", "demo", "--out", str(out), "--json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["num_train_clips"] >= 300
    assert summary["num_test_clips"] >= 200
    assert summary["top1"] >= 0.93
    for name in ("run/metrics.jsonl", "run/checkpoint.pt", "run/evaluation-test.json", "corpus/dataset.json"):
        assert (out / name).exists()

    # The same training on the middle frame alone. Chance is 0.25; its standard deviation over 200 clips 0.03.
    (tmp_path / "one_frame_of_tests.py").write_text(ONE_FRAME)
    monkeypatch.syspath_prepend(str(tmp_path))
    reducer = "one_frame_of_tests:OneFrame"
    demo = TrainConfig.load(out / "run" / "config.json").to_json()
    config = {**demo, "out": str(tmp_path / "run"), "reducer": reducer, "resume": "never", "show_progress": False}
    train(TrainConfig.from_json(config))
    alone = evaluate(tmp_path / "run", split="test", reducer=reducer, show_progress=False)
    assert alone.num_clips == summary["num_test_clips"]
    assert alone.top1 <= 0.25 + 5 * 0.03


@pytest.mark.slow
def test_own_media_take_the_same_road(tmp_path: Path) -> None:
    media = make_media(tmp_path / "own", num_sources=16, seed=5, num_workers=2)
    first = run_demo(tmp_path / "out", media=media, epochs=1, show_progress=False)
    assert first.num_train_clips + first.num_test_clips == 16
    assert first.classes == sorted(CLASSES)
    again = run_demo(tmp_path / "out", media=media, epochs=1, show_progress=False)  # nothing is done twice
    assert again.top1 == first.top1
    with pytest.raises(ClipfoldError, match="other options"):
        run_demo(tmp_path / "out", media=media, seed=3, show_progress=False)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_media_that_cannot_be_trained_on_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "a"), "--media", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err
    media = make_media(tmp_path / "own", num_sources=4, num_workers=1)
    for name in CLASSES[1:]:
        (media / name).rename(tmp_path / name)
    assert main(["demo", "--out", str(tmp_path / "b"), "--media", str(media)]) == 1
    assert "at least two class folders" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_single_frames_look_alike_in_all_classes() -> None:
    """Brightness and contrast of single frames do not differ by class by more than sources differ by chance."""
    figures: dict[int, list[tuple[float, float]]] = {label: [] for label in range(len(CLASSES))}
    for number in range(160):
        frame = source_frames(11, number)[35].astype(float)
        figures[number % len(CLASSES)].append((frame.mean(), frame.std()))
    values = np.array([figures[label] for label in figures])  # (4 classes, 40 sources, 2 figures)
    spread = values.std((0, 1)) / np.sqrt(values.shape[1])
    assert (np.abs(values.mean(1) - values.mean((0, 1))) < 4 * spread).all()


def test_the_same_seed_draws_the_same_media(tmp_path: Path) -> None:
    first = make_media(tmp_path / "a", num_sources=8, seed=1, num_workers=1)
    second = make_media(tmp_path / "b", num_sources=8, seed=1, num_workers=2)
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(second)) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert {Path(name).suffix for name in names} == {".mp4", ".jpg"}
