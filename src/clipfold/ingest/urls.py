"""What there is to read below a URL: the rules of local folders, on what the file system lists.

Files are grouped by their folder, as on a disk. Of the images, only a GIF is looked into for whether it moves; WebP,
PNG and TIFF are frames. A server of plain http(s) can be listed where it shows its folders as pages of links.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote

from clipfold.files import name_of
from clipfold.ingest.listing import (
    ARRAY_EXTENSIONS,
    IMAGE_EXTENSIONS,
    TAR_EXTENSIONS,
    VIDEO_EXTENSIONS,
    Found,
    Ignored,
    Source,
    extension_of,
    natural_key,
)
from clipfold.ingest.places import stated, url_errors
from clipfold.ingest.placing import placed
from clipfold.ingest.tars import our_corpus, read_tar

__all__ = ["list_images", "walk_url"]

_NUM_THREADS = 16


def walk_url(url: str, *, passes: Callable[[str], bool]) -> Found:
    """List a folder behind a URL, or the one file that it is; ``passes`` as for :func:`clipfold.ingest.placing.placed`.

    Raises:
        SourceError: Nothing is there, the server cannot be asked or cannot list, or it is a corpus of clips.
    """
    import fsspec

    with url_errors(url):
        filesystem, top = fsspec.core.url_to_fs(url)
        filesystem.invalidate_cache()
        is_file = extension_of(url) in VIDEO_EXTENSIONS | ARRAY_EXTENSIONS | IMAGE_EXTENSIONS
        if is_file:
            entries = {top: filesystem.info(top)}
        else:
            entries = filesystem.find(top, detail=True)
            if not entries and not filesystem.exists(top):
                raise FileNotFoundError(top)
        entries = _with_sizes(filesystem, entries)
    folder = top.rpartition("/")[0] if is_file else top.rstrip("/")
    names = {_unquoted(path[len(folder) + 1 :], url): path for path in entries if not path.endswith("/")}
    if any(name_of(name) == "shards.npy" for name in names) and any(name.endswith(".index.npy") for name in names):
        raise our_corpus(url)
    walk = _UrlWalk(filesystem, {name: (path, entries[path]) for name, path in names.items()})
    with url_errors(url):
        walk.run()
    return Found(sources=placed(walk.sources, walk.tars, top=url, passes=passes), ignored=walk.ignored)


def list_images(url: str) -> list[tuple[str, int, int]]:
    """Name, size and stamp of the images directly in a folder, in natural order.

    Raises:
        SourceError: Nothing is there, or the server cannot be asked or cannot list.
    """
    import fsspec

    with url_errors(url):
        filesystem, top = fsspec.core.url_to_fs(url)
        entries = {entry["name"]: entry for entry in filesystem.ls(top, detail=True) if entry["type"] == "file"}
        images = {path: entry for path, entry in entries.items() if extension_of(path) in IMAGE_EXTENSIONS}
        found = [(name_of(path), *stated(entry)) for path, entry in _with_sizes(filesystem, images).items()]
    return sorted(found, key=lambda each: natural_key(each[0]))


class _UrlWalk:
    def __init__(self, filesystem: Any, files: dict[str, tuple[str, dict[str, Any]]]) -> None:
        self.sources: list[Source] = []
        self.ignored: list[Ignored] = []
        self._filesystem, self._files = filesystem, files
        self.tars: dict[str, str] = {}  # by sample

    def run(self) -> None:
        folders: dict[str, list[str]] = defaultdict(list)
        for name in self._files:
            if not any(part.startswith(".") for part in PurePosixPath(name).parts):
                folders[name.rpartition("/")[0]].append(name)
        for folder in sorted(folders, key=natural_key):
            self._folder(folder, sorted(folders[folder], key=natural_key))

    def _folder(self, folder: str, names: list[str]) -> None:
        images, num_before = [], len(self.sources)
        for name in names:
            extension = extension_of(name)
            if extension in IMAGE_EXTENSIONS and not self._moves(name, extension):
                images.append(name)
            elif extension in TAR_EXTENSIONS:
                found = read_tar(self._url(name), name=name, label=None, split=None)
                self.sources += found.sources
                self.tars.update((source.name, name) for source in found.sources)
                self.ignored += found.ignored
                num_before += len(found.sources)
            elif extension in VIDEO_EXTENSIONS | ARRAY_EXTENSIONS | {".gif"}:
                kind: Literal["video", "array"] = "array" if extension in ARRAY_EXTENSIONS else "video"
                self._add(name, self._url(name), kind, [name])
            else:
                self.ignored.append(Ignored(name=name, reason="no video or image by its name"))
        if images and len(self.sources) > num_before:
            self.ignored += [Ignored(name=name, reason="an image in a folder of videos") for name in images]
        elif images:
            self._add(folder or ".", self._url(images[0]).rpartition("/")[0], "frames", images)

    def _add(self, name: str, url: str, kind: Literal["video", "frames", "array"], files: list[str]) -> None:
        states = [stated(self._files[file][1]) for file in files]
        frames = tuple(self._url(file).rpartition("/")[2] for file in files) if kind == "frames" else ()
        self.sources.append(
            Source(
                name=name,
                path=url,
                kind=kind,
                label=None,
                split=None,
                group=name,
                num_bytes=sum(size for size, _ in states),
                mtime_ns=max(stamp for _, stamp in states),
                frames=frames,
            )
        )

    def _url(self, name: str) -> str:
        return str(self._filesystem.unstrip_protocol(self._files[name][0]))

    def _moves(self, name: str, extension: str) -> bool:
        if extension != ".gif":
            return False
        import io

        from PIL import Image

        try:
            with Image.open(io.BytesIO(self._filesystem.cat_file(self._files[name][0]))) as image:
                return bool(getattr(image, "is_animated", False))
        except Exception:  # a broken picture stays a frame; its decoder says what is wrong with it
            return False


def _with_sizes(filesystem: Any, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A listing of plain http has names alone: ask for each file."""
    bare = [path for path, entry in entries.items() if entry.get("size") is None and not path.endswith("/")]
    if not bare:
        return entries
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return {**entries, **dict(zip(bare, threads.map(filesystem.info, bare), strict=True))}


def _unquoted(name: str, url: str) -> str:
    return unquote(name) if url.startswith(("http://", "https://")) else name
