"""20BN Something-Something, version 2 (json lists) and version 1 (csv lists, as Jester).

    tools/dev run python tools/recipes/something_something.py 20bn-something-something-v2 --labels labels.json \
        --train train.json --val validation.json --out corpus --codec jpeg

SRC holds ``1.webm``, ``2.webm``, ... or folders of frames ``1/``, ``2/``, ... A class is a template with the brackets
taken away (``Holding [something] next to [something]``); what was held is kept as the columns ``caption`` and
``placeholders`` of each clip. Classes have the numbers of labels.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numbered_videos import place_of_video, read_numbered
from official_lists import Listing, OfficialConvert, Row, check_labels, read_lines, run_recipe

from clipfold import SourceError


@dataclass(frozen=True, kw_only=True)
class SomethingSomething(OfficialConvert):
    """Something-Something (V1 and V2) into shards, with its official splits.

    SRC is the folder that holds the videos 1.webm, 2.webm, ... or folders of frames 1/, 2/, ... All other flags are
    those of `clipfold convert`.
    """

    labels: str
    """labels.json: {class: number}; or the csv of version 1: the classes, a line each."""

    train: str | None = None
    """train.json, or the csv of version 1."""

    val: str | None = None
    """validation.json, or the csv of version 1."""

    test: str | None = None
    """test.json (or csv), which has no labels; best converted into a corpus of its own."""

    def listing(self) -> Listing:
        classes = self._classes()
        lists = {"train": self.train, "val": self.val, "test": self.test}
        if not any(lists.values()):
            raise ValueError("no list: give --train, --val or --test")
        rows: list[Row] = []
        for split, file in lists.items():
            if file:
                is_json = Path(file).suffix == ".json"
                rows += self._rows(file, split) if is_json else read_numbered(file, split, src=self.src)
        check_labels(rows, classes, file=self.labels)
        return Listing(rows=rows, classes=classes)

    def _classes(self) -> list[str]:
        if Path(self.labels).suffix != ".json":
            return read_lines(Path(self.labels))
        try:
            numbers = {name: int(number) for name, number in _load(self.labels).items()}
            if sorted(numbers.values()) != list(range(len(numbers))):
                raise ValueError("the numbers are not 0, 1, 2, ...")
        except (AttributeError, TypeError, ValueError) as error:
            raise _wrong(f"expected {{class: number}}: {error}", self.labels) from error
        return sorted(numbers, key=lambda name: numbers[name])

    def _rows(self, file: str, split: str) -> list[Row]:
        rows = []
        for entry in _load(file):
            try:
                number = str(entry["id"])
                template = entry.get("template")
                placeholders = json.dumps(entry.get("placeholders", []), ensure_ascii=False)
            except (AttributeError, KeyError, TypeError) as error:
                raise _wrong(
                    f"an entry {str(entry)[:100]}, expected id, label, template, placeholders", file
                ) from error
            path, is_missing = place_of_video(self.src, number)
            label = None if template is None else str(template).replace("[", "").replace("]", "")
            columns = {"video_id": number, "caption": str(entry.get("label", "")), "placeholders": placeholders}
            rows.append(Row(path=path, label=label, split=split, columns=columns, is_missing=is_missing))
        return rows


def _load(file: str) -> Any:
    try:
        return json.loads("\n".join(read_lines(Path(file))))
    except ValueError as error:
        raise _wrong(f"no JSON: {error}", file) from error


def _wrong(what: str, file: str) -> SourceError:
    return SourceError(what, fix="take the official list as it is", file=file)


if __name__ == "__main__":
    sys.exit(run_recipe(SomethingSomething))
