"""The whole road on one machine: media -> shards -> training -> evaluation."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipfold.clip import ClipSpec
from clipfold.demo.media import make_media
from clipfold.demo.sizes import spec_for
from clipfold.errors import ClipfoldError
from clipfold.files import read_json, write_json
from clipfold.ingest.sources import find_sources
from clipfold.progress import Progress
from clipfold.shards.convert import convert
from clipfold.shards.reader import Corpus

__all__ = ["DemoSummary", "run_demo"]

SPEC = ClipSpec(num_frames=100, channels=3, height=32, width=96)
NUM_SOURCES = 536  # 134 of each of 4 classes: 80 to train on, 54 to test on
_SPLIT = "0.6/0/0.4"
_OPTIONS_NAME = "demo.json"


@dataclass(frozen=True, kw_only=True)
class DemoSummary:
    """Where everything is, and how well it went.

    Args:
        media: Folder of the videos and image folders.
        corpus: Folder of the shards.
        run: Folder of the training run.
        evaluation: File of the evaluation on sources that were not trained on.
        num_train_clips: Clips to train on.
        num_test_clips: Clips to test on.
        classes: Names of the classes.
        top1: Share of test clips whose class came first, in [0, 1].
        seconds: Time of each part.
    """

    media: str
    corpus: str
    run: str
    evaluation: str
    num_train_clips: int
    num_test_clips: int
    classes: list[str]
    top1: float
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return asdict(self)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.seconds.items())
        chance = 1 / max(len(self.classes), 1)
        return "\n".join(
            [
                f"top-1 {self.top1:.1%} on {self.num_test_clips} clips of sources that were not trained on "
                f"({len(self.classes)} classes, chance {chance:.0%}; trained on {self.num_train_clips})",
                f"  media       {self.media}",
                f"  shards      {self.corpus}",
                f"  checkpoint  {self.run}/checkpoint.pt",
                f"  metrics     {self.run}/metrics.jsonl",
                f"  evaluation  {self.evaluation}",
                f"  seconds     {sum(self.seconds.values()):.0f} ({parts})",
            ]
        )


def run_demo(
    out: str | Path,
    *,
    media: str | Path | None = None,
    seed: int = 0,
    epochs: int | None = None,
    num_sources: int = NUM_SOURCES,
    show_progress: bool = True,
) -> DemoSummary:
    """Make a small corpus, convert it, train on it, and evaluate on sources that were not trained on.

    The same call again does nothing twice: it goes on where an interrupted one stopped.

    Args:
        out: Folder for everything; new, empty, or left by the same call.
        media: The user's own class folders; a corpus is drawn (:mod:`clipfold.demo.media`) where ``None``.
        seed: Decides the drawn corpus, the initial weights and the order of reading.
        epochs: Times that every clip is trained on; where ``None`` what fits the number of clips.
        num_sources: Videos and image folders to draw.
        show_progress: Whether to show progress on the standard error.

    Raises:
        ClipfoldError: ``out`` holds something else; too few clips or classes; anything that conversion, training or
            evaluation raises.
    """
    out = Path(out)
    if media is not None:
        _check_media(Path(media))  # before anything is written
    _open_folder(out, {"media": None if media is None else str(Path(media).resolve()), "seed": seed})
    seconds: dict[str, float] = {}

    def say(text: str) -> None:
        if show_progress:
            print(text, file=sys.stderr, flush=True)

    source = out / "media" if media is None else Path(media)
    if media is None and not source.exists():
        say(f"drawing {num_sources} videos and image folders into {source}")
        with (
            _timed(seconds, "drawing"),
            Progress("drawing", total=num_sources, unit="sources", show=show_progress) as progress,
        ):
            make_media(source, num_sources=num_sources, seed=seed, on_source=progress.advance)
    spec = SPEC if media is None else spec_for(source)
    codec = "jpeg" if media is None else "lossless"  # nobody knows what lossy compression does to data of the user's
    say(f"converting {source} into shards of {spec} clips")
    with _timed(seconds, "converting"):
        convert(source, out=out / "corpus", spec=spec, codec=codec, split=_split(source), show_progress=show_progress)
    corpus = Corpus(out / "corpus")
    num_train, num_test = (_num_clips(corpus, split) for split in ("train", "test"))
    if len(corpus.classes) < 2 or num_train < 2 or num_test < 1:
        raise ClipfoldError(
            f"{len(corpus.classes)} classes, {num_train} clips to train on and {num_test} to test on, "
            "expected at least 2, 2 and 1",
            fix="give at least two class folders with several videos or image folders each",
            media=str(source),
        )
    from clipfold.training.config import TrainConfig  # torch takes seconds to import: nothing above needs it
    from clipfold.training.evaluate import evaluate
    from clipfold.training.loop import train

    say(f"training on {num_train} clips")
    with _timed(seconds, "training"):
        train(
            TrainConfig(
                data=str(out / "corpus"),
                out=str(out / "run"),
                epochs=epochs or _epochs(num_train),
                batch_size=min(16, num_train),
                eval_split="none",
                augment="column_roll" if media is None else "light",  # the drawn pictures wrap round
                seed=seed,
                resume="auto",
                show_progress=show_progress,
            )
        )
    with _timed(seconds, "evaluating"):
        evaluation = evaluate(out / "run", str(out / "corpus"), split="test", show_progress=show_progress)
    say(str(evaluation))
    summary = DemoSummary(
        media=str(source),
        corpus=str(out / "corpus"),
        run=str(out / "run"),
        evaluation=str(out / "run" / "evaluation-test.json"),
        num_train_clips=num_train,
        num_test_clips=evaluation.num_clips,
        classes=list(corpus.classes),
        top1=evaluation.top1,
        seconds=seconds,
    )
    write_json(out / "summary.json", summary.to_json())
    return summary


def _check_media(media: Path) -> None:
    classes = {source.label for source in find_sources(media).sources} - {None}
    if len(classes) < 2:
        raise ClipfoldError(
            f"{len(classes)} class folders with videos or images, expected at least two class folders",
            fix="put the videos and image folders of each class into a folder of its own",
            media=str(media),
        )


def _open_folder(out: Path, options: dict[str, Any]) -> None:
    """Make ``out``, or make sure that it was left by a call with the same options."""
    out.mkdir(parents=True, exist_ok=True)
    mark = out / _OPTIONS_NAME
    if mark.exists():
        if read_json(mark) != options:
            raise ClipfoldError(
                "the folder holds a demo with other options", fix="choose another --out, or remove it", folder=str(out)
            )
    elif os.listdir(out):
        raise ClipfoldError("the folder holds something else", fix="choose another --out", folder=str(out))
    write_json(mark, options)


def _split(source: Path) -> str | None:
    """Shares by source, unless the user's folders say which source is for what."""
    return None if {"train", "test"} <= set(os.listdir(source)) else _SPLIT


def _num_clips(corpus: Corpus, split: str) -> int:
    return int(corpus.shard_table(split)["num_samples"].sum()) if split in corpus.splits else 0


def _epochs(num_clips: int) -> int:
    """About as many steps for a few clips as for a few hundred, at most 30 epochs."""
    return max(4, min(30, 9 * 320 // num_clips))


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
