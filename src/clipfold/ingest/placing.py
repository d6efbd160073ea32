"""What the folders say about sources: their classes, and whether the top folders are splits.

The top folders are splits where those with sources in them have no other names than ``train``, ``val`` and ``test``;
empty ones do not count. ``train`` with ``val`` or ``test`` beside other folders may be meant either way: an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from clipfold.errors import SourceError
from clipfold.ingest.listing import SPLITS, Source

__all__ = ["label_and_split", "placed"]


def label_and_split(name: str, *, has_splits: bool) -> tuple[str | None, str | None]:
    """What the folders in a source's name say: ``"train/walk/a.mp4"`` -> ``("walk", "train")``."""
    parts = PurePosixPath(name).parts
    split = parts[0] if has_splits and parts and parts[0] in SPLITS else None
    below = parts[1:] if split is not None else parts
    return below[0] if len(below) > 1 else None, split


def placed(
    sources: Sequence[Source], tars: Mapping[str, str], *, top: str, passes: Callable[[str], bool]
) -> list[Source]:
    """The sources with the labels and splits of their folders; what a sample says itself goes first.

    Args:
        sources: Without what folders say.
        tars: Name of the tar for the name of each sample.
        top: The folder, for messages.
        passes: Whether a source of this name is wanted. It matters where the folders may be meant either way.

    Raises:
        SourceError: Some top folders look like splits and others do not.
    """
    has_splits = _has_splits(sources, top=top, passes=passes)
    found = []
    for source in sources:
        label, split = label_and_split(tars.get(source.name, source.name), has_splits=has_splits)
        found.append(replace(source, label=source.label or label, split=source.split or split))
    return found


def _has_splits(sources: Sequence[Source], *, top: str, passes: Callable[[str], bool]) -> bool:
    tops = _top_folders(sources)
    if tops <= set(SPLITS):
        return bool(tops)
    if "train" not in tops or not tops & {"val", "test"}:
        return False
    tops = _top_folders(source for source in sources if passes(source.name))
    others = sorted(tops - set(SPLITS))
    if others and tops & set(SPLITS):
        shown = ", ".join(f"{name}/" for name in [*others[:5], *(["..."] if len(others) > 5 else [])])
        raise SourceError(
            f"{', '.join(f'{name}/' for name in SPLITS if name in tops)} look like splits, but beside them lie {shown}",
            fix="move them, exclude them with --exclude, or rename train/ if it really is a class",
            file=top,
        )
    return bool(tops) and not others


def _top_folders(sources: Iterable[Source]) -> set[str]:
    """A sequence is a folder itself."""
    names = [source.name if source.kind != "frames" else f"{source.name}/" for source in sources]
    return {name.partition("/")[0] for name in names if "/" in name} - {"."}
