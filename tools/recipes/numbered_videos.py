"""Lists of numbered videos, as Jester and Something-Something have them: a csv ``id;label`` for each split."""

from __future__ import annotations

from pathlib import Path

from official_lists import Row, read_csv

from clipfold import SourceError

__all__ = ["place_of_video", "read_numbered"]

_EXTENSIONS = (".webm", ".mp4")


def read_numbered(file: str, split: str, *, src: str) -> list[Row]:
    """The rows of a list ``id;label``, or only ``id`` where the labels are kept back.

    Raises:
        SourceError: It cannot be read, or is no such list.
    """
    rows = []
    for entry in read_csv(Path(file), delimiter=";"):
        if len(entry) > 2 or not entry[0].isdecimal():
            raise SourceError(
                f"an entry {';'.join(entry)!r}, expected 'id;label', or 'id' in a test list",
                fix="take the official list as it is",
                file=file,
            )
        path, is_missing = place_of_video(src, entry[0])
        label = entry[1] if len(entry) == 2 else None
        rows.append(
            Row(path=path, label=label or None, split=split, columns={"video_id": entry[0]}, is_missing=is_missing)
        )
    return rows


def place_of_video(src: str, number: str) -> tuple[str, bool]:
    """Where video ``number`` is below ``src`` (a folder of frames, or a file), and whether it is missing."""
    if (Path(src) / number).is_dir():
        return number, False
    for extension in _EXTENSIONS:
        if (Path(src) / f"{number}{extension}").is_file():
            return f"{number}{extension}", False
    return number, True
