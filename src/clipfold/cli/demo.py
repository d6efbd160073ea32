"""``clipfold demo``: the whole road with one command."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from clipfold.demo.road import run_demo

__all__ = ["Demo"]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Make a small corpus of videos and image folders, convert it, train on it, evaluate: the whole road.

    The four classes of the drawn corpus differ only by motion: a single frame does not tell them apart. Run the same
    command again to go on after an interruption.

    Example: clipfold demo --media my_class_folders --out demo
    """

    out: str = "demo"
    """Folder for everything: media, corpus, run."""

    media: str | None = None
    """Your own class folders of videos and image folders, in place of a drawn corpus."""

    seed: int = 0
    """Decides the drawn corpus, the initial weights and the order of reading."""

    epochs: int | None = None
    """Times that every clip is trained on; what fits the number of clips if left out."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the summary as one JSON object, the last line of the standard output."""

    def run(self) -> int:
        """Run the demo, and print where everything is."""
        from clipfold.training.summary import Interrupted

        try:
            summary = run_demo(self.out, media=self.media, seed=self.seed, epochs=self.epochs)
        except Interrupted as stopped:
            print(f"{stopped.what}; the same command goes on", file=sys.stderr)
            return 128 + int(stopped.signal)
        print(summary, file=sys.stderr if self.as_json else sys.stdout)
        if self.as_json:
            print(json.dumps(summary.to_json(), ensure_ascii=False))
        return 0
