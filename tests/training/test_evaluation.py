from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from clipfold import ClipSpec, ClipStream, ResumeError, TrainConfig, TrainingError, evaluate, train
from clipfold.training.checkpoint import Dataset, build_model
from clipfold.training.evaluation import Evaluation, evaluate_stream


def test_every_clip_counts_once_whatever_the_batch_size(corpus: Path, config: Callable[..., TrainConfig]) -> None:
    results = []
    for batch_size in (1, 4, 16, 40):
        with ClipStream(corpus, split="test", batch_size=batch_size, num_threads=1) as stream:
            dataset = Dataset(spec=stream.spec, classes=stream.classes, mean=stream.mean, std=stream.std)
            model = build_model(config(), dataset).double()
            results.append(evaluate_stream(model, stream, autocast=nullcontext))
            assert model.training
    first = results[0]
    assert first.num_clips == 17
    assert sum(map(sum, first.confusion)) == 17
    assert [sum(row) for row in first.confusion] == [6, 6, 5]  # clips 57 to 73 by their number modulo 3
    for other in results[1:]:
        assert other.confusion == first.confusion
        # the same fp32 images in another order of summation: 24 bits, far less than 1e-4 of the loss
        assert other.loss == pytest.approx(first.loss, rel=1e-4)


def test_figures_equal_a_plain_loop(corpus: Path, config: Callable[..., TrainConfig]) -> None:
    with ClipStream(corpus, split="test", batch_size=5, num_threads=1) as stream:
        dataset = Dataset(spec=stream.spec, classes=stream.classes, mean=stream.mean, std=stream.std)
        model = build_model(config(), dataset)
        found = evaluate_stream(model, stream, autocast=nullcontext)
        model.eval()
        losses, right = [], []
        with torch.no_grad():
            for batch in stream:
                logits = model(batch.pixels_BSCHW)
                for slot in range(len(batch)):
                    if batch.valid[slot]:
                        losses.append(F.cross_entropy(logits[slot][None], batch.labels[slot][None]).item())
                        right.append(int(logits[slot].argmax()) == int(batch.labels[slot]))
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert found.top1 == sum(right) / len(right)
    assert found.top5 is None


def test_it_prints_a_confusion_matrix() -> None:
    evaluation = Evaluation(
        split="test", num_clips=3, num_unreadable=1, loss=0.5, top1=2 / 3, top5=None, classes=["a", "bb"],
        class_accuracy=[0.5, None], confusion=[[1, 1], [0, 0]],
    )  # fmt: skip
    text = str(evaluation)
    assert "top-1 66.67%" in text
    assert "1 clips could not be read" in text
    assert "0 a " in text


def test_a_run_is_evaluated_from_its_folder_or_checkpoint(
    config: Callable[..., TrainConfig], corpora: Callable[..., Path], tmp_path: Path
) -> None:
    train(config(epochs=1))
    run = tmp_path / "run"
    first = evaluate(run, show_progress=False)
    again = evaluate(run / "best.pt", split="test", batch_size=3, show_progress=False)
    assert first.confusion == again.confusion
    written = json.loads((run / "evaluation-test.json").read_text())
    assert written["num_clips"] == 17
    assert written["checkpoint"] == "best.pt"

    with pytest.raises(ValueError, match="expected one of"):
        evaluate(run, split="tset", show_progress=False)
    with pytest.raises(ResumeError, match="no checkpoint there"):
        evaluate(tmp_path / "nothing", show_progress=False)
    other = corpora(tmp_path / "other", {"test": 6}, spec=ClipSpec(num_frames=12, channels=3, height=8, width=20))
    with pytest.raises(TrainingError, match=r"W=20 uint8, expected .* W=24"):
        evaluate(run, str(other), show_progress=False)
    renamed = corpora(tmp_path / "renamed", {"test": 6}, classes=["left", "right", "wobble"])
    with pytest.raises(TrainingError, match=r"new \['wobble'\], missing \['still'\]"):
        evaluate(run, str(renamed), show_progress=False)


@pytest.mark.parametrize("damage", ["cut", "garbage", "other"])
def test_a_damaged_checkpoint_is_one_message(config: Callable[..., TrainConfig], tmp_path: Path, damage: str) -> None:
    train(config(epochs=1, eval_split="none"))
    path = tmp_path / "run" / "checkpoint.pt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "garbage":
        path.write_bytes(b"not a checkpoint")
    else:
        torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ResumeError, match=r"cannot read the checkpoint|not a checkpoint of clipfold"):
        evaluate(tmp_path / "run", show_progress=False)


def test_a_checkpoint_cannot_run_code(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "was_run",))  # type: ignore[return-value]

    train(config(epochs=1, eval_split="none"))
    torch.save({"format": 1, "model": Evil()}, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(ResumeError, match="cannot read the checkpoint"):
        evaluate(tmp_path / "run", show_progress=False)
    assert not (tmp_path / "was_run").exists()
