"""One clip of each of a few sources that are not converted yet, read in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipfold.clip import ClipSpec
from clipfold.errors import SourceError
from clipfold.ingest.decoders.probe import probe
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.resize import Mode
from clipfold.ingest.sampling import Sampling
from clipfold.ingest.sources import Source, find_sources
from clipfold.looking.clips import Gallery, ShownClip, choose
from clipfold.pool import Limits, Pool

__all__ = ["ClipShape", "pick_from_sources", "read_shown"]

_MOST_PIXELS = 240 * 320  # of a frame whose size nobody asked for
_MOST_WIDTH = 1024
_MOST_RATIO = 4  # beyond, a frame is a strip


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """How clips are cut out of sources for looking at them; ``None`` is what each source has.

    Args:
        num_frames: S.
        height, width: Both or neither. Without them native size, made smaller where it is larger than a picture needs.
        frame_step: Take every so many-th frame.
        resize: How frames come to ``height`` x ``width``.

    Raises:
        ValueError: One of ``height`` and ``width`` only; a number below 1.
    """

    num_frames: int = 100
    height: int | None = None
    width: int | None = None
    frame_step: int = 1
    resize: Mode = "stretch"

    def __post_init__(self) -> None:
        if (self.height is None) != (self.width is None):
            raise ValueError(f"height {self.height} and width {self.width}: give both or neither")
        ClipSpec(num_frames=self.num_frames, height=self.height or 1, width=self.width or 1)
        Sampling(frame_step=self.frame_step)


@dataclass(frozen=True, kw_only=True)
class _Job:
    source: Source
    shape: ClipShape


def pick_from_sources(
    root: str | Path,
    *,
    shape: ClipShape,
    split: str | None = None,
    classes: Sequence[str] = (),
    clips_per_class: int,
    max_clips: int,
    num_workers: int | None = None,
) -> Gallery:
    """The middle clip of some sources of each class, as they would be converted.

    Args:
        root: A folder of sources, an image folder, or one video.
        shape: How to cut them.
        split: Only sources of this split folder.
        classes: Only these; none means all.
        clips_per_class: At most so many sources of each.
        max_clips: At most so many in all.
        num_workers: Processes; ``None`` is one a core.

    Raises:
        SourceError: Nothing to read, or none of what was chosen can be read.
        ValueError: No such class or split, or ``num_workers`` below 1.
    """
    found = find_sources(root)
    groups: dict[str | None, list[Source]] = {}
    for source in found.sources:
        if split in (None, source.split):
            groups.setdefault(source.label, []).append(source)
    if not groups:
        raise ValueError(f"split: {split!r}, expected one of the folders train, val, test in {root}")
    if unknown := [name for name in classes if name not in groups]:
        raise ValueError(f"class: {unknown[0]!r}, expected one of {', '.join(map(str, groups))}")
    groups = {label: groups[label] for label in classes or groups}
    chosen = choose(groups, clips_per_class=clips_per_class, max_clips=max_clips)
    shown, notes = [], []
    num_workers = min(len(chosen), num_workers) if num_workers else num_workers
    with Pool(num_workers) as pool:
        jobs = [_Job(source=source, shape=shape) for source in chosen]
        limits = Limits(cpu_seconds=300, wall_seconds=1200)
        for source, outcome in zip(chosen, pool.map(read_shown, jobs, limits=lambda _: limits), strict=True):
            if outcome.error is None:
                shown.append(outcome.value)
            else:
                notes.append(f"{source.name} cannot be shown: {outcome.error.what}")
    if not shown:
        raise SourceError(f"nothing can be shown: {'; '.join(notes)}", fix="`clipfold doctor` looks at every file")
    num_classes = len([label for label in groups if label is not None])
    facts = {
        "sources": f"{len(found.sources):,}",
        "classes": str(num_classes) if num_classes else "none",
        "shown": f"the middle {shape.num_frames} frames of {len(shown)} of them"
        + (f", every {shape.frame_step}. frame" if shape.frame_step > 1 else ""),
        "size": f"{shape.width} x {shape.height} ({shape.resize})"
        if shape.width
        else "native, large ones made smaller",
    }
    return Gallery(title=Path(root).resolve().name, facts=facts, clips=shown, notes=notes)


def read_shown(job: _Job) -> ShownClip:
    """The middle clip of one source. Runs in a worker process.

    Raises:
        DecodeError: It cannot be decoded.
        SourceError: It has gone, or its frames differ in size.
    """
    found = probe(job.source)
    height, width = (job.shape.height, job.shape.width) if job.shape.height else _screen_size(found.height, found.width)
    spec = ClipSpec(
        num_frames=job.shape.num_frames,
        channels=1 if found.is_grey else 3,
        height=height or 1,
        width=width or 1,
        dtype=found.dtype if found.is_grey or found.container == "images" else "uint8",  # 10-bit films are films
    )
    options = ReadOptions(
        spec=spec,
        sampling=Sampling(clips="equal", frame_step=job.shape.frame_step),
        resize=job.shape.resize,
        keep_partial=True,
    )
    with read_clips(job.source, options) as reader:
        clip = next(reader)
    valid = clip.indices[: clip.num_valid_frames]
    return ShownClip(
        key=job.source.name if job.source.name != "." else Path(job.source.path).name,
        label=job.source.label,
        pixels_SHWC=clip.pixels_SHWC,
        num_valid_frames=clip.num_valid_frames,
        frames=f"{valid[0]} to {valid[-1]} of {reader.num_frames}",
        fps=clip.fps / job.shape.frame_step,
        facts={
            "original size": f"{clip.width} x {clip.height}",
            "container": found.container,
            "codec": f"{found.codec} {found.pixel_format}",
            "decoder": " ".join(clip.decoder),
        },
    )


def _screen_size(height: int, width: int) -> tuple[int, int]:
    """Native size, or as much smaller as a picture of several frames can show anyway."""
    is_strip = max(height, width) >= _MOST_RATIO * min(height, width)
    if is_strip:
        ratio = min(1.0, _MOST_WIDTH / max(height, width))
    else:
        ratio = min(1.0, (_MOST_PIXELS / (height * width)) ** 0.5)
    return max(1, round(height * ratio)), max(1, round(width * ratio))
