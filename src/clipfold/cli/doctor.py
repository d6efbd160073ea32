"""``clipfold doctor [PATH]``: look at files before converting them; without PATH, at this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from clipfold.clip import ClipSpec
from clipfold.ingest.reader import ReadOptions
from clipfold.ingest.sampling import Sampling
from clipfold.looking.environment import environment_tables, look_at_environment
from clipfold.looking.survey import survey
from clipfold.looking.survey_text import survey_tables
from clipfold.looking.tables import show

__all__ = ["Doctor"]


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Look at videos and image folders before converting them: what they are, what is broken, what it would cost.

    Every frame is decoded, in processes that may crash; --quick reads headers only. Nothing is written. Without PATH:
    what is installed on this machine, and whether it really loads.

    Example: clipfold doctor videos --height 64 --width 64
    """

    path: tyro.conf.Positional[str | None] = None
    """Folder of videos and image folders, or one video; nothing for a report on this machine."""

    quick: bool = False
    """Headers and first frames only: no search for damage, duplicates and variable frame rates."""

    num_frames: int = 100
    """Frames of a clip."""

    height: int = 16
    """Rows of a clip."""

    width: int = 701
    """Columns of a clip."""

    channels: int = 3
    """1 is grey, 3 is RGB."""

    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    """Type of a pixel."""

    resize: Literal["stretch", "letterbox", "center_crop"] = "stretch"
    """How frames come to height x width."""

    frame_step: int = 1
    """Take every so many-th frame."""

    clip_stride: int | None = None
    """Frames from one clip's start to the next; side by side by default."""

    short: Literal["repeat_last", "wrap", "zero", "drop", "error"] = "repeat_last"
    """What to do with a source that is shorter than a clip."""

    include: tuple[str, ...] = ()
    """Globs on the sources' names (walk/*): only these."""

    exclude: tuple[str, ...] = ()
    """Globs on the sources' names: not these."""

    limit: int | None = None
    """At most so many sources, of each class in turn."""

    num_workers: int | None = None
    """Processes; one per CPU core by default."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print everything as one JSON object, the last line of the standard output; the tables go to standard error."""

    def run(self) -> int:
        """Look, and print what was found. Exit code 0 however bad it is: nothing has failed."""
        value: dict[str, Any]
        if self.path is None:
            machine = look_at_environment()
            tables, value = environment_tables(machine), machine.to_json()
        else:
            report = survey(
                self.path,
                options=self._options(),
                is_quick=self.quick,
                include=self.include,
                exclude=self.exclude,
                limit=self.limit,
                num_workers=self.num_workers,
            )
            tables, value = survey_tables(report), report.to_json()
        show(tables, to_stderr=self.as_json)
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False))
        return 0

    def _options(self) -> ReadOptions:
        return ReadOptions(
            spec=ClipSpec(
                num_frames=self.num_frames,
                channels=self.channels,
                height=self.height,
                width=self.width,
                dtype=self.dtype,
            ),
            sampling=Sampling(frame_step=self.frame_step, clip_stride=self.clip_stride, short=self.short),
            resize=self.resize,
        )
