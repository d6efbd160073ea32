"""What a survey found."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clipfold.clip import ClipSpec

__all__ = ["Broken", "ClassCount", "CodecEstimate", "Spread", "Survey"]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Least, middle and largest of some numbers, and their sum."""

    least: float
    median: float
    most: float
    total: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """``None`` where there are no values."""
        if not values:
            return None
        return cls(least=min(values), median=statistics.median(values), most=max(values), total=sum(values))


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A source that cannot be converted: its name, a code (``"decode"``, ``"crash"``, ...), and what happened."""

    name: str
    reason: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """A class: its sources that can be read, their frames, and the clips they would give."""

    num_sources: int
    num_frames: int
    num_clips: int


@dataclass(frozen=True, kw_only=True)
class CodecEstimate:
    """What one codec would make of the corpus.

    Args:
        codec: Its name.
        fits: Whether it can hold such clips; ``why_not`` where it cannot.
        exact: Whether it keeps every value.
        clip_bytes: Mean of the samples.
        encode_ms: Mean of the samples, one process.
        num_bytes: Of all clips.
        seconds: Of the whole conversion, decoding included, with as many processes as the survey had.
    """

    codec: str
    fits: bool = True
    why_not: str = ""
    exact: bool = False
    clip_bytes: float = 0.0
    encode_ms: float = 0.0
    num_bytes: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class Survey:
    """Everything that a look at some sources told.

    Args:
        root: Where they are.
        is_quick: Only headers and first frames were read: counts of frames are estimates, damage behind the first
            frame, duplicates and variable frame rates were not looked for.
        spec: Clips that the estimates are about.
        num_sources, num_bytes: All of them, broken ones included.
        num_workers: Processes.
        kinds, containers, codecs, pixel_formats, sizes, frame_rates, splits: Sources by value. Sizes read
            ``"640x360"``, width first, upright; frame rates ``"29.97"``, ``"unknown"`` without one.
        dtypes: What clips would have to be to keep the values; colour films of more than 8 bits count as uint8.
        num_frames, duration_seconds: Of those that can be read.
        num_clips: Clips in all.
        classes: By name; ``""`` without a label.
        too_short: Names of sources shorter than a clip.
        broken: Sources that cannot be converted.
        duplicates: Groups of names with the same content.
        crossing_duplicates: Those of them whose labels or splits differ.
        variable_rate, rotated, interlaced, several_streams, hidden_frames, grey: Names of sources.
        ignored: Names of files that are no sources, by reason.
        estimates: By codec, in the order of the table of codecs.
        num_samples: Clips that were encoded for the estimates.
        read_ms_per_frame: Decoding and scaling, one process.
        zero_share: Mean share of pixels that are exactly 0, in the samples.
        advice: What to do about all this.
        seconds: What the survey took.
    """

    root: str
    is_quick: bool
    spec: ClipSpec
    num_sources: int
    num_bytes: int
    num_workers: int
    kinds: dict[str, int] = field(default_factory=dict)
    containers: dict[str, int] = field(default_factory=dict)
    codecs: dict[str, int] = field(default_factory=dict)
    pixel_formats: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    frame_rates: dict[str, int] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    num_frames: Spread | None = None
    duration_seconds: Spread | None = None
    num_clips: int = 0
    classes: dict[str, ClassCount] = field(default_factory=dict)
    too_short: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    crossing_duplicates: list[list[str]] = field(default_factory=list)
    variable_rate: list[str] = field(default_factory=list)
    rotated: list[str] = field(default_factory=list)
    interlaced: list[str] = field(default_factory=list)
    several_streams: list[str] = field(default_factory=list)
    hidden_frames: list[str] = field(default_factory=list)
    grey: list[str] = field(default_factory=list)
    ignored: dict[str, list[str]] = field(default_factory=dict)
    estimates: list[CodecEstimate] = field(default_factory=list)
    num_samples: int = 0
    read_ms_per_frame: float = 0.0
    zero_share: float = 0.0
    advice: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def num_readable(self) -> int:
        """Sources that are not broken."""
        return self.num_sources - len(self.broken)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)
