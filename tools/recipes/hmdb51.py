"""HMDB51 with its official splits.

    tools/dev run python tools/recipes/hmdb51.py hmdb51 --lists testTrainMulti_7030_splits --fold 1 --out corpus

SRC holds ``brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi`` and so on; each class has a list
``brush_hair_test_split1.txt`` of lines ``<video> <0, 1 or 2>``: unused, train, test. What stands before the class in a
name is the film that a clip is cut from: clips of one film and class are one group.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from official_lists import Listing, OfficialConvert, Row, cut_validation, read_lines, run_recipe

from clipfold import SourceError

_SPLITS = {"1": "train", "2": "test"}
# body parts, camera motion, people, direction, quality, number
_TAIL = re.compile(r"_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+$")


@dataclass(frozen=True, kw_only=True)
class Hmdb51(OfficialConvert):
    """HMDB51 (https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database) into shards.

    SRC is the folder with one folder a class, unpacked. All other flags are those of `clipfold convert`.
    """

    lists: str
    """Folder with brush_hair_test_split1.txt and so on."""

    fold: Literal[1, 2, 3] = 1
    """Which of the three official splits."""

    val_share: float = 0.0
    """Share of the groups of train that become val; the official splits have none."""

    def listing(self) -> Listing:
        ending = f"_test_split{self.fold}.txt"
        files = sorted(Path(self.lists).glob(f"*{ending}"))
        if not files:
            raise SourceError(
                f"no list of a class is there, expected files like brush_hair{ending}",
                fix="--lists is the folder of the official splits",
                file=self.lists,
            )
        rows = [row for file in files for row in self._rows(file, file.name.removesuffix(ending))]
        return Listing(
            rows=cut_validation(rows, self.val_share), classes=[file.name.removesuffix(ending) for file in files]
        )

    def _rows(self, file: Path, label: str) -> list[Row]:
        rows = []
        for line in read_lines(file):
            name, _, number = line.rpartition(" ")
            name = name.strip()
            if number not in ("0", "1", "2") or not name:
                raise SourceError(
                    f"a line {line!r}, expected a video and 0, 1 or 2",
                    fix="take the official list as it is",
                    file=str(file),
                )
            if number == "0":
                continue
            film = _TAIL.sub("", Path(name).stem).removesuffix(f"_{label}")
            path = f"{label}/{name}"
            is_missing = not (Path(self.src) / path).is_file()
            rows.append(
                Row(path=path, label=label, split=_SPLITS[number], group=f"{label}/{film}", is_missing=is_missing)
            )
        return rows


if __name__ == "__main__":
    sys.exit(run_recipe(Hmdb51))
