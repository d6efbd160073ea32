"""``clipfold preview DATA --out x.png``: look at clips."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from clipfold.looking.preview import preview
from clipfold.looking.source_clips import ClipShape

__all__ = ["Preview"]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Draw a few clips of each class: frames in time order, and one row of pixels over time, which shows motion.

    DATA is a corpus, one of its shards (.tar), a folder of videos and image folders that are not converted yet, or one
    video or image folder. Nothing is chosen by chance: the same data gives the same picture.

    Example: clipfold preview corpus --out corpus.html
    """

    data: tyro.conf.Positional[str]
    """Corpus folder or URL, shard, folder of sources, video, or image folder."""

    out: str
    """File to write: .png is a contact sheet, .gif plays the clips side by side, .html is a page with everything."""

    split: str | None = None
    """Split of a corpus (by default its first), or split folder."""

    classes: tuple[str, ...] = ()
    """Only these classes."""

    clips_per_class: int = 2
    """At most so many clips of each class."""

    max_clips: int = 12
    """At most so many clips in all."""

    num_frames: int = 100
    """Frames of a clip, of files that are not converted."""

    height: int | None = None
    """Rows to scale files to that are not converted, with --width; about native size by default."""

    width: int | None = None
    """Columns, with --height."""

    frame_step: int = 1
    """Take every so many-th frame of files that are not converted."""

    resize: Literal["stretch", "letterbox", "center_crop"] = "stretch"
    """How frames come to --height x --width."""

    num_workers: int | None = None
    """Processes that decode files; one per CPU core by default."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the summary as one JSON object, the last line of the standard output."""

    def run(self) -> int:
        """Draw, and say what was drawn."""
        summary = preview(
            self.data,
            out=self.out,
            split=self.split,
            classes=self.classes,
            clips_per_class=self.clips_per_class,
            max_clips=self.max_clips,
            shape=ClipShape(
                num_frames=self.num_frames,
                height=self.height,
                width=self.width,
                frame_step=self.frame_step,
                resize=self.resize,
            ),
            num_workers=self.num_workers,
        )
        print(summary, file=sys.stderr if self.as_json else sys.stdout)
        if self.as_json:
            print(json.dumps(summary.to_json(), ensure_ascii=False))
        return 0
