"""Kinetics (400, 600, 700) from its csv lists.

    tools/dev run python tools/recipes/kinetics.py videos --lists train.csv validate.csv --out corpus --codec jpeg

A list has the columns label (absent or empty in some test lists), youtube_id, time_start, time_end, split. Below SRC,
in any folders, lie the cut parts as ``<youtube_id>_<start>_<end>.mp4`` (six digits each), or whole videos as
``<youtube_id>.mp4``, of which the part from time_start to time_end is read. Part of Kinetics is no longer online: what
is missing is counted, and named beside the corpus. Parts of one video are one group.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from official_lists import Listing, OfficialConvert, Row, read_csv, run_recipe

from clipfold import SourceError
from clipfold.ingest.columns import parse_split_name
from clipfold.ingest.sources import VIDEO_EXTENSIONS

_NEEDED = ("youtube_id", "time_start", "time_end", "split")


@dataclass(frozen=True, kw_only=True)
class Kinetics(OfficialConvert):
    """Kinetics (https://github.com/cvdfoundation/kinetics-dataset) into shards, with its official splits.

    SRC is a folder with the videos, in any folders below it. All other flags are those of `clipfold convert`.
    """

    lists: tuple[str, ...]
    """The csv files to convert, such as train.csv validate.csv."""

    def listing(self) -> Listing:
        videos = self._videos()
        rows = [row for file in self.lists for row in self._rows(Path(file), videos)]
        return Listing(rows=rows, classes=sorted({row.label for row in rows if row.label is not None}))

    def _videos(self) -> dict[str, str]:
        """Paths below SRC by file name without its extension; the first one in the order of names."""
        videos: dict[str, str] = {}
        for folder, folders, names in os.walk(self.src):
            folders.sort()
            for name in sorted(names):
                stem, extension = os.path.splitext(name)
                if extension.lower() in VIDEO_EXTENSIONS:
                    videos.setdefault(stem, os.path.relpath(os.path.join(folder, name), self.src))
        return videos

    def _rows(self, file: Path, videos: dict[str, str]) -> list[Row]:
        header, *entries = read_csv(file) or [[]]
        if any(name not in header for name in _NEEDED):
            raise SourceError(
                f"columns {', '.join(header)}, expected label, {', '.join(_NEEDED)}",
                fix="take the official list as it is",
                file=str(file),
            )
        rows = []
        for number, entry in enumerate(entries, 2):
            value = dict(zip(header, entry, strict=False))
            try:
                rows.append(_row(value, videos))
            except (ValueError, KeyError) as error:
                raise SourceError(
                    f"entry {number}: {error}", fix="take the official list as it is", file=str(file)
                ) from (error)
        return rows


def _row(value: dict[str, str], videos: dict[str, str]) -> Row:
    name, start, stop = value["youtube_id"], float(value["time_start"]), float(value["time_end"])
    if not 0 <= start < stop:
        raise ValueError(f"a part from {start} to {stop} seconds")
    cut = f"{name}_{round(start):06d}_{round(stop):06d}"
    is_cut = cut in videos
    return Row(
        path=videos.get(cut) or videos.get(name) or cut,
        label=value.get("label") or None,
        split=parse_split_name(value["split"]) or "train",
        group=name,
        start=None if is_cut else start,
        stop=None if is_cut else stop,
        columns={"youtube_id": name, "time_start": start, "time_end": stop},
        is_missing=not is_cut and name not in videos,
    )


if __name__ == "__main__":
    sys.exit(run_recipe(Kinetics))
