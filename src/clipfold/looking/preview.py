"""A corpus, a shard, a folder of files or one file as a picture, an animation or a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any

from clipfold.errors import SourceError
from clipfold.files import Location, exists, is_url, join, write_whole
from clipfold.looking.animation import gallery_gif
from clipfold.looking.clips import Gallery
from clipfold.looking.corpus_clips import is_foreign_tar, pick_from_corpus, pick_from_shard
from clipfold.looking.page import gallery_page
from clipfold.looking.sheet import sheet_png
from clipfold.looking.source_clips import ClipShape, pick_from_sources
from clipfold.shards.manifest import MANIFEST_NAME

__all__ = ["PreviewSummary", "pick", "preview"]

_WRITERS: dict[str, Callable[[Gallery], bytes | str]] = {
    ".png": sheet_png,
    ".gif": gallery_gif,
    ".html": gallery_page,
    ".htm": gallery_page,
}


@dataclass(frozen=True, kw_only=True)
class PreviewSummary:
    """What was drawn.

    Args:
        out: The file.
        num_bytes: Its size.
        num_clips: Clips on it.
        classes: Their classes, in order.
        notes: What could not be shown.
    """

    out: str
    num_bytes: int
    num_clips: int
    classes: list[str]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return asdict(self)

    def __str__(self) -> str:
        of = f" of {len(self.classes)} classes" if self.classes else ""
        first = f"{self.out}: {self.num_clips} clips{of}, {self.num_bytes / 1e3:,.0f} kB"
        return "\n".join([first, *(f"  {note}" for note in self.notes)])


def preview(
    data: Location,
    *,
    out: str | Path,
    split: str | None = None,
    classes: Sequence[str] = (),
    clips_per_class: int = 2,
    max_clips: int = 12,
    shape: ClipShape | None = None,
    num_workers: int | None = None,
) -> PreviewSummary:
    """Draw some clips of whatever ``data`` is. The same data, the same picture: nothing is chosen by chance.

    Args:
        data: A corpus (folder or URL), one shard (``.tar``), a folder of videos and image folders, one image folder,
            or one video.
        out: ``.png`` for a contact sheet, ``.gif`` for clips that play side by side, ``.html`` for a page with both.
        split: ``None`` takes the first of a corpus, all of a folder.
        classes: Only these.
        clips_per_class: At most so many of each class.
        max_clips: At most so many in all; of more classes than that only some are shown.
        shape: How to cut clips out of files that are not converted yet; of no meaning for a corpus.
        num_workers: Processes that decode files; ``None`` is one a core.

    Raises:
        ValueError: Another extension of ``out``, a number below 1, an unknown split or class.
        SourceError: Nothing is there, or nothing of it can be shown.
        ShardError: A corpus or shard that is damaged or incomplete.
        OSError: ``out`` cannot be written.
    """
    extension = PurePath(out).suffix.lower()
    if extension not in _WRITERS:
        raise ValueError(f"out: {str(out)!r}, expected a name that ends in {', '.join(_WRITERS)}")
    gallery = pick(
        data,
        split=split,
        classes=classes,
        clips_per_class=clips_per_class,
        max_clips=max_clips,
        shape=shape,
        num_workers=num_workers,
    )
    content = _WRITERS[extension](gallery)
    content = content.encode() if isinstance(content, str) else content
    write_whole(out, content)
    return PreviewSummary(
        out=str(out),
        num_bytes=len(content),
        num_clips=len(gallery.clips),
        classes=[label for label in gallery.by_label() if label is not None],
        notes=list(gallery.notes),
    )


def pick(
    data: Location,
    *,
    split: str | None = None,
    classes: Sequence[str] = (),
    clips_per_class: int = 2,
    max_clips: int = 12,
    shape: ClipShape | None = None,
    num_workers: int | None = None,
) -> Gallery:
    """The clips that :func:`preview` draws; arguments and errors as there."""
    for name, value in (("clips_per_class", clips_per_class), ("max_clips", max_clips)):
        if value < 1:
            raise ValueError(f"{name}: {value}, expected at least 1")
    if is_url(data) or exists(join(data, MANIFEST_NAME)):
        return pick_from_corpus(
            data, split=split, classes=classes, clips_per_class=clips_per_class, max_clips=max_clips
        )
    if not exists(data):
        raise SourceError(f"no such file or folder: {data}", fix="check the path", file=str(data))
    if PurePath(data).suffix.lower() == ".tar" and not is_foreign_tar(str(data)):
        return pick_from_shard(str(data), classes=classes, clips_per_class=clips_per_class, max_clips=max_clips)
    return pick_from_sources(
        data,
        shape=shape or ClipShape(),
        split=split,
        classes=classes,
        clips_per_class=clips_per_class,
        max_clips=max_clips,
        num_workers=num_workers,
    )
