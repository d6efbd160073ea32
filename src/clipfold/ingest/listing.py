"""What a list of sources is made of: the words that folders, tables, tars and URLs all use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from clipfold.files import is_url

__all__ = [
    "ARRAY_EXTENSIONS",
    "IMAGE_EXTENSIONS",
    "SPLITS",
    "TABLE_EXTENSIONS",
    "TAR_EXTENSIONS",
    "VIDEO_EXTENSIONS",
    "Column",
    "Found",
    "Ignored",
    "Kind",
    "Member",
    "Source",
    "extension_of",
    "natural_key",
]

Kind = Literal["video", "frames", "array", "sample"]
Column = str | int | float | bool

SPLITS = ("train", "val", "test")
ARRAY_EXTENSIONS = frozenset([".npy", ".npz"])
TABLE_EXTENSIONS = frozenset([".csv", ".tsv", ".jsonl", ".parquet"])
TAR_EXTENSIONS = frozenset([".tar"])
IMAGE_EXTENSIONS = frozenset(
    [".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"]
)
# fmt: off
VIDEO_EXTENSIONS = frozenset([
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".flv", ".f4v", ".swf",
    ".mpg", ".mpeg", ".m1v", ".m2v", ".mpv", ".ts", ".mts", ".m2ts", ".vob", ".wmv", ".asf", ".ogv", ".ogg",
    ".mjpg", ".mjpeg", ".h264", ".264", ".h265", ".265", ".hevc", ".av1", ".ivf", ".obu", ".y4m", ".mxf", ".nut",
    ".rm", ".rmvb", ".dv",
])
# fmt: on


@dataclass(frozen=True)
class Member:
    """One file inside a tar: its name (without the sample's key), where its data starts, and how many bytes it has."""

    name: str
    offset: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """One thing to read: a video, a folder whose images are its frames, an array, or a sample of a tar.

    Args:
        name: Unique POSIX path relative to the root: ``"walk/v_01.mp4"``, the folder ``"walk/seq_03"``, or ``"."``
            where the root itself is a sequence. Of a sample ``"<tar>/<key>"``; of a part of a video
            ``"<path>@<start>-<stop>"``.
        path: Absolute path or URL; of a sample, of its tar.
        kind: ``"video"``, ``"frames"``, ``"array"`` or ``"sample"``.
        label: Class name, or ``None``.
        split: ``"train"``, ``"val"``, ``"test"`` where the top folders or a table say so, or ``None``.
        group: Sources of one group always land in the same split; the name by default, the file for its parts.
        num_bytes: Size of the file; for a folder or a sample the sum over its frames; 0 where a server does not say.
        mtime_ns: What changes when the file does: time of the last change (for a folder the newest of its frames), or
            63 bits of a hash of the ETag where a server gives one; 0 where it gives neither.
        frames: For ``"frames"``: file names in natural order.
        members: For ``"sample"``: what is read: one video, one array, or images in natural order.
        start_seconds, stop_seconds: The part of a video that is read, half-open; ``None`` is its start, or its end.
        columns: The user's own columns, each of one type in all sources of a list.
    """

    name: str
    path: str
    kind: Kind
    label: str | None
    split: str | None
    group: str
    num_bytes: int
    mtime_ns: int
    frames: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    start_seconds: float | None = None
    stop_seconds: float | None = None
    columns: Mapping[str, Column] = field(default_factory=dict, hash=False)

    @property
    def content(self) -> Literal["video", "frames", "array"]:
        """What is decoded: for a sample, what its members are."""
        if self.kind != "sample":
            return self.kind
        extension = extension_of(f".{self.members[0].name}")
        if extension in ARRAY_EXTENSIONS:
            return "array"
        return "video" if extension in VIDEO_EXTENSIONS else "frames"

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values; :meth:`from_json` gives back the very same source."""
        return {**asdict(self), "frames": list(self.frames), "members": [[*asdict(m).values()] for m in self.members]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Source:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: A missing or unknown name, or a kind that there is not.
        """
        names = {entry.name for entry in fields(cls)}
        if set(value) != names or value["kind"] not in get_args(Kind):
            raise ValueError(f"fields of a source: {sorted(value)}, expected {sorted(names)}")
        members = tuple(Member(*member) for member in value["members"])
        return cls(**{**value, "frames": tuple(value["frames"]), "members": members})


@dataclass(frozen=True, kw_only=True)
class Ignored:
    """A file or folder that is not read, by its path relative to the root, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """All sources in natural order of their names, and all that was ignored."""

    sources: list[Source]
    ignored: list[Ignored]


def natural_key(name: str) -> tuple[object, ...]:
    """Sorts ``frame_2`` before ``frame_10``; equal numbers (``1``, ``01``) fall back to the text itself."""
    parts = re.split(r"(\d+)", name)
    return (*((int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)), (-1, name))


def extension_of(location: str) -> str:
    """The last extension in lower case, with its dot; of a URL that of its path; ``""`` where there is none."""
    path = urlsplit(location).path if is_url(location) else location
    name = PurePosixPath(path).name
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""
