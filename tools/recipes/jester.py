"""20BN Jester: folders of frames, and csv lists.

    tools/dev run python tools/recipes/jester.py 20bn-jester-v1 --labels jester-v1-labels.csv \
        --train jester-v1-train.csv --val jester-v1-validation.csv --num-frames 32 --out corpus

SRC holds the folders ``1/``, ``2/``, ... with ``00001.jpg`` and so on; the lists say ``id;label``, the test list only
``id``. Classes are numbered in the order of the list of labels.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from numbered_videos import read_numbered
from official_lists import Listing, OfficialConvert, check_labels, read_lines, run_recipe


@dataclass(frozen=True, kw_only=True)
class Jester(OfficialConvert):
    """20BN Jester (folders of frames) into shards, with its official splits.

    SRC is the folder that holds 1/, 2/, 3/, ... All other flags are those of `clipfold convert`.
    """

    labels: str
    """jester-v1-labels.csv: the classes, a line each, in the order of their numbers."""

    train: str | None = None
    """jester-v1-train.csv."""

    val: str | None = None
    """jester-v1-validation.csv."""

    test: str | None = None
    """jester-v1-test.csv, which has no labels; best converted into a corpus of its own."""

    def listing(self) -> Listing:
        classes = read_lines(Path(self.labels))
        lists = {"train": self.train, "val": self.val, "test": self.test}
        if not any(lists.values()):
            raise ValueError("no list: give --train, --val or --test")
        rows = [row for split, file in lists.items() if file for row in read_numbered(file, split, src=self.src)]
        check_labels(rows, classes, file=self.labels)
        return Listing(rows=rows, classes=classes)


if __name__ == "__main__":
    sys.exit(run_recipe(Jester))
