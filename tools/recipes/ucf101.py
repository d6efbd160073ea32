"""UCF101 with its official splits.

    tools/dev run python tools/recipes/ucf101.py UCF-101 --lists ucfTrainTestlist --fold 1 --out corpus --codec jpeg

SRC holds ``ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi`` and so on. The clips g01 of a class are cut from one video,
so they are one group: a validation share never holds a part of what is trained on.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from official_lists import Listing, OfficialConvert, Row, check_labels, cut_validation, read_lines, run_recipe

from clipfold import SourceError

_ENTRY = re.compile(r"(?P<path>(?P<label>[^/]+)/\S+_g(?P<group>\d+)_c\d+\.avi)(?: (?P<number>\d+))?")


@dataclass(frozen=True, kw_only=True)
class Ucf101(OfficialConvert):
    """UCF101 (https://www.crcv.ucf.edu/data/UCF101.php) into shards, with its official splits.

    SRC is the folder UCF-101 with one folder a class. All other flags are those of `clipfold convert`.
    """

    lists: str
    """Folder with classInd.txt, trainlist01.txt, testlist01.txt, ..."""

    fold: Literal[1, 2, 3] = 1
    """Which of the three official splits."""

    val_share: float = 0.0
    """Share of the groups of train that become val; the official splits have none."""

    def listing(self) -> Listing:
        lists = Path(self.lists)
        classes = [line.partition(" ")[2].strip() for line in read_lines(lists / "classInd.txt")]
        rows = []
        for split in ("train", "test"):
            file = lists / f"{split}list0{self.fold}.txt"
            rows += [self._row(line, split, file) for line in read_lines(file)]
        check_labels(rows, classes, file=self.lists)
        return Listing(rows=cut_validation(rows, self.val_share), classes=classes)

    def _row(self, line: str, split: str, file: Path) -> Row:
        found = _ENTRY.fullmatch(line)
        if found is None:
            raise SourceError(
                f"a line {line!r}, expected one like 'ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1'",
                fix="take the official list as it is",
                file=str(file),
            )
        return Row(
            path=found["path"],
            label=found["label"],
            split=split,
            group=f"{found['label']}/g{found['group']}",
            is_missing=not (Path(self.src) / found["path"]).is_file(),
        )


if __name__ == "__main__":
    sys.exit(run_recipe(Ucf101))
