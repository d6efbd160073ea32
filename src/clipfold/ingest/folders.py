"""Videos, image sequences, arrays and tars below a local folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clipfold.errors import SourceError
from clipfold.ingest.animation import is_animation
from clipfold.ingest.listing import (
    ARRAY_EXTENSIONS,
    IMAGE_EXTENSIONS,
    TAR_EXTENSIONS,
    VIDEO_EXTENSIONS,
    Ignored,
    Source,
    natural_key,
)
from clipfold.ingest.placing import placed
from clipfold.ingest.tars import our_corpus, read_tar

__all__ = ["FolderWalk"]


@dataclass
class FolderWalk:
    """One pass over the tree. Real entries come before links, so that a link never takes the place of its target."""

    top: Path
    follow_outside: bool
    sources: list[Source] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _links: list[Path] = field(default_factory=list)
    _tars: dict[str, str] = field(default_factory=dict)  # by sample

    def run(self, passes: Callable[[str], bool]) -> None:
        """All below ``top``; ``passes`` is as for :func:`clipfold.ingest.placing.placed`."""
        folders = [path for path in self._children(self.top) if path.is_dir()]
        self._folder(self.top)
        while self._links:
            self._links.sort(key=lambda path: natural_key(str(path)), reverse=True)
            self._link(self._links.pop())
        self.sources = placed(self.sources, self._tars, top=str(self.top), passes=passes)
        if any(source.split is not None for source in self.sources):
            folders += [path for folder in folders for path in self._children(folder) if path.is_dir()]
        self._name_empty_folders(folders)

    def add_file(self, path: Path) -> None:
        """A file that is no frame of a sequence: a video, an array, a tar of samples, or something to ignore."""
        real = os.path.realpath(path)
        if real in self._seen:
            self._ignore(path, "a link to a file that is listed already")
            return
        self._seen.add(real)
        extension = path.suffix.lower()
        if extension in TAR_EXTENSIONS:
            self._add_tar(path)
            return
        if extension not in VIDEO_EXTENSIONS | ARRAY_EXTENSIONS and not is_animation(path):
            still = extension in IMAGE_EXTENSIONS
            self._ignore(path, "a single image: give its folder" if still else "no video or image by its name")
            return
        status = path.stat()
        kind: Literal["video", "array"] = "array" if extension in ARRAY_EXTENSIONS else "video"
        self._add(path, kind, status.st_size, status.st_mtime_ns)

    def _add_tar(self, path: Path) -> None:
        name = self._name(path)
        found = read_tar(str(path), name=name, label=None, split=None)
        self.sources += found.sources
        self._tars.update((source.name, name) for source in found.sources)
        self.ignored += found.ignored

    def _folder(self, folder: Path) -> None:
        if (folder / "shards.npy").is_file() and any(folder.glob("*.index.npy")):
            raise our_corpus(str(folder))
        if (folder / "dataset.json").is_file() and any(folder.glob("*/shards.npy")):
            raise our_corpus(str(folder))
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
            elif path.is_symlink() and path.suffix.lower() in VIDEO_EXTENSIONS | ARRAY_EXTENSIONS:
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
            self._ignore(link, f"a link that leads out of {self.top} (--follow-outside follows it)")
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
        self,
        path: Path,
        kind: Literal["video", "frames", "array"],
        num_bytes: int,
        mtime_ns: int,
        frames: tuple[str, ...] = (),
    ) -> None:
        name = self._name(path)
        self.sources.append(
            Source(
                name=name,
                path=str(path),
                kind=kind,
                label=None,
                split=None,
                group=name,
                num_bytes=num_bytes,
                mtime_ns=mtime_ns,
                frames=frames,
            )
        )

    def _name_empty_folders(self, folders: Sequence[Path]) -> None:
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
