"""What there is to read: a folder, a file, a table, existing WebDataset shards, or a URL of any of these.

::

    SRC/walk/a.mp4               a video, label "walk"
    SRC/walk/seq_03/0001.png ... a sequence, name "walk/seq_03", label "walk"
    SRC/walk/a.npy               an array (S, C, H, W), (S, H, W, C) or (S, H, W), one sequence
    SRC/b.mp4, SRC/seq_04/*.png  directly under SRC: no label
    SRC/train/walk/...           a split as well, where no top folder with sources has another name than train, val,
                                 test; train and val or test beside others are an error
    SRC/walk/shard-000.tar       a WebDataset shard: each sample that holds a video, an array or images
    videos.csv                   a table of sources with labels, parts and splits: clipfold/ingest/tables.py
    shards/{000..017}.tar        such shards by a brace pattern
    https://host/videos/         all of these behind a URL that fsspec can list; a table or a tar behind any URL

A folder that directly holds images is one sequence. An animated GIF, WebP or PNG and a TIFF of several pages is a
video. In a folder that holds videos or arrays beside images, the images are ignored. Whatever is ignored is named,
with the reason; hidden files are not. Nothing is ever unpacked: a sample is where its bytes lie in the tar.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clipfold.errors import SourceError
from clipfold.files import is_url, name_of
from clipfold.ingest.columns import unify
from clipfold.ingest.folders import FolderWalk
from clipfold.ingest.listing import (
    ARRAY_EXTENSIONS,
    IMAGE_EXTENSIONS,
    SPLITS,
    TABLE_EXTENSIONS,
    TAR_EXTENSIONS,
    VIDEO_EXTENSIONS,
    Found,
    Ignored,
    Member,
    Source,
    extension_of,
    natural_key,
)
from clipfold.ingest.patterns import expand_braces
from clipfold.ingest.tables import read_table
from clipfold.ingest.tars import read_tar
from clipfold.ingest.urls import walk_url

__all__ = [
    "ARRAY_EXTENSIONS",
    "IMAGE_EXTENSIONS",
    "SPLITS",
    "VIDEO_EXTENSIONS",
    "Found",
    "Ignored",
    "Member",
    "Source",
    "find_sources",
    "natural_key",
]


def find_sources(
    root: str | Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    follow_outside: bool = False,
    media_root: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Found:
    """List what there is to read below a folder, in a table or in shards (or the one file that ``root`` is).

    Links are followed once: a link to something that is listed already is ignored, so is one that leads back up.

    Args:
        root: A local path, a brace pattern of tars, or an fsspec URL.
        include: Globs on the name (``*`` also matches ``/``); a source must match one of them, if there are any.
        exclude: Globs on the name; a source must match none.
        limit: At most so many sources, taken from the classes in turn so that a small number still shows every class.
        follow_outside: Whether to follow links that lead out of ``root``.
        media_root: Of a table: what its relative paths start from, in place of its own folder.
        columns: Of a table: the column of a role, where its name is not one that is known: ``{"path": "clip id"}``.

    Returns:
        At least one source.

    Raises:
        SourceError: ``root`` does not exist, cannot be listed, or nothing in it can be read or passes the globs; a
            table without the columns needed; a tar that is damaged; a corpus of clips, or a shard of one;
            top folders of which some look like splits and others do not.
        ValueError: ``limit`` below 1; ``media_root`` or ``columns`` for what is no table.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: {limit}, expected at least 1 (leave it out to take everything)")
    location = _checked(str(root))
    is_table = extension_of(location) in TABLE_EXTENSIONS
    if not is_table and (media_root is not None or columns is not None):
        raise ValueError(f"media_root and columns are for tables, and {root} is none")
    if is_table:
        base = None if media_root is None else _checked(str(media_root))
        found = read_table(location, media_root=base, columns=columns or {})
    else:
        found = _find(location, follow_outside=follow_outside, passes=lambda name: _passes(name, include, exclude))
    if not found.sources:
        raise _nothing_there(location, found.ignored)
    if twice := [name for name, count in Counter(source.name for source in found.sources).items() if count > 1]:
        raise SourceError(f"two sources have the name {twice[0]!r}", fix="rename one of them", file=location)
    sources = sorted(found.sources, key=lambda source: natural_key(source.name))
    chosen = [source for source in sources if _passes(source.name, include, exclude)]
    if not chosen:
        raise SourceError(
            f"none of the {len(sources)} sources passes include {list(include)} and exclude {list(exclude)}",
            fix=f"globs are matched against names such as {sources[0].name!r}",
            file=location,
        )
    if limit is not None:
        chosen = _first_of_each_class(chosen, limit)
    return Found(sources=unify(chosen), ignored=sorted(found.ignored, key=lambda ignored: natural_key(ignored.name)))


def _checked(location: str) -> str:
    """The location with ``file://`` taken away.

    Raises:
        SourceError: It is a command to run: nothing that is read may start programs.
    """
    if location.startswith("pipe:"):
        raise SourceError(
            f"a pipe is refused: {location!r} would run a program",
            fix="give a path or a URL; fsspec knows s3://, gs://, az://, https:// and more",
        )
    if location.startswith("file://"):
        return unquote(urlsplit(location).path)
    return location


def _find(location: str, *, follow_outside: bool, passes: Callable[[str], bool]) -> Found:
    if not is_url(location) and Path(location).exists():
        return _find_local(Path(location).resolve(), follow_outside=follow_outside, passes=passes)
    locations = expand_braces(location)
    if locations == [location] and not is_url(location):
        raise SourceError(f"no such file or folder: {location}", fix="check the path", file=location)
    if any(extension_of(each) not in TAR_EXTENSIONS for each in locations):
        if len(locations) > 1:
            raise SourceError("a brace pattern of what are no tars", fix="name the folder, or a table", file=location)
        return walk_url(location, passes=passes)
    found = Found(sources=[], ignored=[])
    common = len(commonprefix(locations).rpartition("/")[0]) + 1 if len(locations) > 1 else 0  # noqa: RUF071
    for each in locations:
        path = each if is_url(each) else str(Path(each).resolve())
        part = read_tar(path, name=each[common:] if common > 1 else name_of(each), label=None, split=None)
        found.sources.extend(part.sources)
        found.ignored.extend(part.ignored)
    return found


def _find_local(top: Path, *, follow_outside: bool, passes: Callable[[str], bool]) -> Found:
    walk = FolderWalk(top=top, follow_outside=follow_outside)
    if top.is_file():
        walk.top = top.parent
        walk.add_file(top)
    else:
        walk.run(passes)
    return Found(sources=walk.sources, ignored=walk.ignored)


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


def _nothing_there(location: str, ignored: list[Ignored]) -> SourceError:
    seen = "; ".join(f"{entry.name}: {entry.reason}" for entry in ignored[:3])
    more = f" (and {len(ignored) - 3} more)" if len(ignored) > 3 else ""
    return SourceError(
        f"nothing to read: {f'{seen}{more}' if ignored else 'the folder is empty'}, expected videos or images",
        fix="put videos or folders of numbered images below it, in one folder a class",
        file=location,
    )
