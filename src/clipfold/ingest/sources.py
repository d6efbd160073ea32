"""What there is to read below a folder: video files and folders of numbered images, with label and split.

::

    SRC/walk/a.mp4               a video, label "walk"
    SRC/walk/seq_03/0001.png ... a sequence, name "walk/seq_03", label "walk"
    SRC/b.mp4, SRC/seq_04/*.png  directly under SRC: no label
    SRC/train/walk/...           a split as well, where the top folders have no other names than train, val, test

A folder that directly holds images is one sequence. An animated GIF, WebP or PNG is a video. In a folder that holds
videos and images, the images are ignored. Whatever is ignored is named, with the reason; hidden files are not.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from clipfold.errors import SourceError
from clipfold.ingest.animation import is_animation

__all__ = [
    "IMAGE_EXTENSIONS",
    "SPLITS",
    "VIDEO_EXTENSIONS",
    "Found",
    "Ignored",
    "Source",
    "find_sources",
    "natural_key",
]

SPLITS = ("train", "val", "test")
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


@dataclass(frozen=True, kw_only=True)
class Source:
    """One thing to read: a video file, or a folder whose images are its frames.

    Args:
        name: Unique POSIX path relative to the root: ``"walk/v_01.mp4"``, the folder ``"walk/seq_03"``, or ``"."``
            where the root itself is a sequence.
        path: Absolute path.
        kind: ``"video"`` or ``"frames"``.
        label: Class name, or ``None``.
        split: ``"train"``, ``"val"``, ``"test"`` where the top folders say so, or ``None``.
        group: Sources of one group always land in the same split; the name by default.
        num_bytes: Size of the file; for a folder the sum over its frames.
        mtime_ns: Time of the last change; for a folder the newest of its frames.
        frames: For ``"frames"``: file names in natural order.
    """

    name: str
    path: str
    kind: Literal["video", "frames"]
    label: str | None
    split: str | None
    group: str
    num_bytes: int
    mtime_ns: int
    frames: tuple[str, ...] = ()


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


def find_sources(
    root: str | Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    follow_outside: bool = False,
) -> Found:
    """List the videos and image sequences below a folder (or the one video file that ``root`` is).

    Links are followed once: a link to something that is listed already is ignored, so is one that leads back up.

    Args:
        root: The folder.
        include: Globs on the name (``*`` also matches ``/``); a source must match one of them, if there are any.
        exclude: Globs on the name; a source must match none.
        limit: At most so many sources, taken from the classes in turn so that a small number still shows every class.
        follow_outside: Whether to follow links that lead out of ``root``.

    Returns:
        At least one source.

    Raises:
        SourceError: ``root`` does not exist, cannot be listed, or nothing below it can be read or passes the globs.
        ValueError: ``limit`` below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: {limit}, expected at least 1 (leave it out to take everything)")
    top = Path(root).resolve()
    if not top.exists():
        raise SourceError(f"no such file or folder: {root}", fix="check the path", file=str(root))
    walk = _Walk(top=top, follow_outside=follow_outside)
    if top.is_file():
        walk.top = top.parent
        walk.add_file(top)
    else:
        walk.run()
    if not walk.sources:
        raise _nothing_there(top, walk.ignored)
    sources = sorted(walk.sources, key=lambda source: natural_key(source.name))
    chosen = [source for source in sources if _passes(source.name, include, exclude)]
    if not chosen:
        raise SourceError(
            f"none of the {len(sources)} sources passes include {list(include)} and exclude {list(exclude)}",
            fix=f"globs are matched against names such as {sources[0].name!r}",
            file=str(top),
        )
    if limit is not None:
        chosen = _first_of_each_class(chosen, limit)
    return Found(sources=chosen, ignored=sorted(walk.ignored, key=lambda ignored: natural_key(ignored.name)))


def _passes(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    wanted = not include or any(fnmatch.fnmatchcase(name, glob) for glob in include)
    return wanted and not any(fnmatch.fnmatchcase(name, glob) for glob in exclude)


def _first_of_each_class(sources: list[Source], limit: int) -> list[Source]:
    rank_in_class: dict[tuple[str | None, str | None], int] = {}
    ranks = []
    for place, source in enumerate(sources):
        rank = rank_in_class[source.split, source.label] = rank_in_class.get((source.split, source.label), -1) + 1
        ranks.append((rank, place))
    return [sources[place] for place in sorted(place for _, place in sorted(ranks)[:limit])]


def _nothing_there(top: Path, ignored: list[Ignored]) -> SourceError:
    seen = "; ".join(f"{entry.name}: {entry.reason}" for entry in ignored[:3])
    more = f" (and {len(ignored) - 3} more)" if len(ignored) > 3 else ""
    return SourceError(
        f"nothing to read: {f'{seen}{more}' if ignored else 'the folder is empty'}, expected videos or images",
        fix="put videos or folders of numbered images below it, in one folder a class",
        file=str(top),
    )


@dataclass
class _Walk:
    """One pass over the tree. Real entries come before links, so that a link never takes the place of its target."""

    top: Path
    follow_outside: bool
    sources: list[Source] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _links: list[Path] = field(default_factory=list)
    _has_splits: bool = False

    def run(self) -> None:
        folders = [path for path in self._children(self.top) if path.is_dir()]
        self._has_splits = bool(folders) and all(path.name in SPLITS for path in folders)
        self._folder(self.top)
        while self._links:
            self._links.sort(key=lambda path: natural_key(str(path)), reverse=True)
            self._link(self._links.pop())
        self._name_empty_classes(folders)

    def add_file(self, path: Path) -> None:
        """A file that is no frame of a sequence: a video, or something to ignore."""
        real = os.path.realpath(path)
        if real in self._seen:
            self._ignore(path, "a link to a file that is listed already")
            return
        self._seen.add(real)
        extension = path.suffix.lower()
        if extension not in VIDEO_EXTENSIONS and not is_animation(path):
            still = extension in IMAGE_EXTENSIONS
            self._ignore(path, "a single image: give its folder" if still else "no video or image by its name")
            return
        status = path.stat()
        self._add(path, "video", status.st_size, status.st_mtime_ns)

    def _folder(self, folder: Path) -> None:
        self._seen.add(os.path.realpath(folder))
        videos: list[Path] = []
        images: list[Path] = []
        folders: list[Path] = []
        for path in self._children(folder):
            if path.is_symlink() and not self._may_follow(path):
                continue
            if path.is_dir():
                (self._links if path.is_symlink() else folders).append(path)
            elif not path.is_file():
                self._ignore(path, "neither a file nor a folder")
            elif path.suffix.lower() in IMAGE_EXTENSIONS and not is_animation(path):
                images.append(path)
            elif path.is_symlink() and path.suffix.lower() in VIDEO_EXTENSIONS:
                self._links.append(path)
                videos.append(path)
            else:
                before = len(self.sources)
                self.add_file(path)
                videos += [path] * (len(self.sources) - before)
        if videos:
            for path in images:
                self._ignore(path, "an image in a folder of videos")
        elif images:
            self._add_sequence(folder, images)
        for path in folders:
            self._folder(path)

    def _link(self, path: Path) -> None:
        real = os.path.realpath(path)
        if real in self._seen:
            self._ignore(path, "a link to something that is listed already")
        elif path.is_dir():
            self._folder(path)
        else:
            self.add_file(path)

    def _may_follow(self, link: Path) -> bool:
        real = Path(os.path.realpath(link))
        if not real.exists():
            self._ignore(link, "a link that leads nowhere")
            return False
        if not self.follow_outside and not real.is_relative_to(self.top):
            self._ignore(link, f"a link that leads out of {self.top} (follow_outside follows it)")
            return False
        return True

    def _children(self, folder: Path) -> Iterator[Path]:
        try:
            names = sorted(os.listdir(folder), key=natural_key)
        except OSError as error:
            if folder == self.top:
                raise SourceError(f"cannot list the folder: {error.strerror}", file=str(folder)) from error
            self._ignore(folder, f"cannot be listed: {error.strerror}")
            return
        for name in names:
            if name.startswith("."):
                continue
            try:
                name.encode()
            except UnicodeEncodeError:
                self._ignore(folder / ascii(name), "a name that is not UTF-8")
                continue
            yield folder / name

    def _add_sequence(self, folder: Path, images: Iterable[Path]) -> None:
        status = [(path.name, path.stat()) for path in images]
        self._add(
            folder,
            "frames",
            sum(entry.st_size for _, entry in status),
            max(entry.st_mtime_ns for _, entry in status),
            tuple(sorted((name for name, _ in status), key=natural_key)),
        )

    def _add(
        self, path: Path, kind: Literal["video", "frames"], num_bytes: int, mtime_ns: int, frames: tuple[str, ...] = ()
    ) -> None:
        name = self._name(path)
        parts = PurePosixPath(name).parts
        split = parts[0] if self._has_splits and parts and parts[0] in SPLITS else None
        below = parts[1:] if split is not None else parts
        self.sources.append(
            Source(
                name=name,
                path=str(path),
                kind=kind,
                label=below[0] if len(below) > 1 else None,
                split=split,
                group=name,
                num_bytes=num_bytes,
                mtime_ns=mtime_ns,
                frames=frames,
            )
        )

    def _name_empty_classes(self, folders: Sequence[Path]) -> None:
        if self._has_splits:
            folders = [*folders, *(path for split in folders for path in self._children(split) if path.is_dir())]
        names = [source.name for source in self.sources]
        ignored = {entry.name for entry in self.ignored}
        for folder in folders:
            own = self._name(folder)
            if own not in ignored and not any(name == own or name.startswith(f"{own}/") for name in names):
                self._ignore(folder, "a folder without videos or images")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.top).as_posix()

    def _ignore(self, path: Path, reason: str) -> None:
        self.ignored.append(Ignored(name=self._name(path), reason=reason))
