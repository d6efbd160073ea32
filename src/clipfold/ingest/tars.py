"""Existing WebDataset shards: where in a tar the video, the array or the images of each sample lie.

A sample is what has one name up to the first dot (``<key>.mp4``, ``<key>.json``, ``<key>.txt``; numbered frames are
``<key>.000001.jpg`` ...). Read are, in this order of preference, its first video, its images, its first array. Its
label is that of ``.json`` (a field ``label``, ``class``, ...; see :mod:`clipfold.ingest.columns`), else the text of
``.cls``, else the folder that the tar lies in; ``.json`` may also have split and group. ``.txt`` (a caption) becomes
the column ``txt``, the other fields of ``.json`` become columns.

Nothing is unpacked and no name in a tar is ever a path of ours. A member that is no plain file, reaches beyond the
tar's end or has a name with ``..`` or a root in it is ignored and named; a damaged header is an error.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from clipfold.errors import SourceError
from clipfold.ingest.columns import own_columns, parse_split_name, roles_of
from clipfold.ingest.listing import (
    ARRAY_EXTENSIONS,
    IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    Found,
    Ignored,
    Member,
    Source,
    extension_of,
    natural_key,
)
from clipfold.ingest.places import OpenPlace, Place, state_of

__all__ = ["our_corpus", "read_tar"]

_BLOCK_BYTES = 512
_MAX_TEXT_BYTES = 1 << 20  # of a .json, .cls or .txt
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_TEXTS = frozenset(["json", "cls", "txt"])
_OUR_FIELDS = frozenset(["source", "start", "step", "count", "indices", "num_valid_frames"])


def our_corpus(location: str) -> SourceError:
    """What to say where clips are given in place of what they are made of: their indexes are arrays by their names."""
    return SourceError(
        "this is a clipfold corpus, expected videos or images",
        fix="clipfold repack IN --out OUT changes it",
        file=location,
    )


@dataclass
class _Sample:
    videos: list[Member] = field(default_factory=list)
    images: list[Member] = field(default_factory=list)
    arrays: list[Member] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def add(self, member: Member) -> None:
        extension = extension_of(f".{member.name}")
        if extension in VIDEO_EXTENSIONS:
            self.videos.append(member)
        elif extension in IMAGE_EXTENSIONS:
            self.images.append(member)
        elif extension in ARRAY_EXTENSIONS:
            self.arrays.append(member)

    def read(self) -> tuple[Member, ...]:
        if not self.videos and self.images:
            return tuple(sorted(self.images, key=lambda member: natural_key(member.name)))
        return tuple((self.videos or self.arrays)[:1])


def read_tar(path: str, *, name: str, label: str | None, split: str | None) -> Found:
    """The samples of one tar that hold something to read.

    Args:
        path: Absolute path or URL.
        name: Of the tar, relative to the root: the first part of its samples' names.
        label, split: Of the folder that it lies in.

    Raises:
        SourceError: It has gone, is no tar, is damaged or cut short, is compressed, or is a shard of a corpus.
    """
    state = state_of(path)
    if state is None:
        raise SourceError("the tar is not there", fix="check the path or the pattern", file=path)
    found = Found(sources=[], ignored=[])
    samples: dict[str, _Sample] = {}
    with closing(OpenPlace(Place(path))) as place, place.open() as file:
        try:
            for member in _members(file, place.num_bytes, found, name):
                _take(member, file, samples, found, name)
        except tarfile.TarError as error:
            raise SourceError(
                f"cannot be read as a tar: {error}",
                fix="samples are read where they lie: unpack a compressed tar (gunzip), copy a damaged one again",
                file=path,
            ) from error
    for key, sample in samples.items():
        if _is_ours(sample):
            raise our_corpus(path)
        members = sample.read()
        if not members:
            if sample.names - _TEXTS:
                what = ", ".join(sorted(sample.names))
                found.ignored.append(Ignored(name=f"{name}/{key}", reason=f"no video, image or array among: {what}"))
            continue
        for extra in sample.videos[1:] or ([] if sample.videos or sample.images else sample.arrays[1:]):
            reason = f"a second one in its sample: {members[0].name} is read"
            found.ignored.append(Ignored(name=f"{name}/{key}.{extra.name}", reason=reason))
        try:
            source = _source(f"{name}/{key}", path, sample, members, state[1], label=label, split=split)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"sample {key!r}: {error}", fix="correct its .json or .cls", file=path) from error
        found.sources.append(source)
    return found


def _is_ours(sample: _Sample) -> bool:
    try:
        values = json.loads(sample.texts.get("json", b"{}"))
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and set(values) >= _OUR_FIELDS


def _source(
    name: str,
    path: str,
    sample: _Sample,
    members: tuple[Member, ...],
    stamp: int,
    *,
    label: str | None,
    split: str | None,
) -> Source:
    values: Any = json.loads(sample.texts["json"]) if "json" in sample.texts else {}
    if not isinstance(values, dict):
        values = {"json": values}
    roles = roles_of(list(values))
    named: dict[str, Any] = {role: values.get(roles[role]) for role in ("label", "split", "group") if role in roles}
    used = [roles[role] for role in ("label", "split", "group") if role in roles]
    if isinstance(named.get("label"), (list, dict)):
        used.remove(roles["label"])
        del named["label"]
    columns: Mapping[str, Any] = own_columns(values, used)
    if "txt" in sample.texts:
        columns = {**columns, "txt": sample.texts["txt"].decode("utf-8", "replace").strip()}
    own_label = _text(named.get("label")) or sample.texts.get("cls", b"").decode().strip()
    return Source(
        name=name,
        path=path,
        kind="sample",
        label=own_label or label,
        split=parse_split_name(named.get("split")) or split,
        group=_text(named.get("group")) or name,
        num_bytes=sum(member.num_bytes for member in members),
        mtime_ns=stamp,
        members=members,
        columns=columns,
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _members(file: BinaryIO, num_bytes: int, found: Found, tar_name: str) -> Any:
    """The plain files of a tar with harmless names, in order."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for entry in archive:
            reason = ""
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse():
                reason = f"no plain file (type {entry.type!r})"
            elif entry.name.startswith("/") or ".." in entry.name.split("/") or "\0" in entry.name:
                reason = "a name that leads out of the tar"
            elif not 0 <= entry.size <= num_bytes - entry.offset_data:
                raise tarfile.ReadError(f"cut short within {entry.name!r}")
            if reason:
                found.ignored.append(Ignored(name=f"{tar_name}/{entry.name.lstrip('/')}", reason=reason))
            else:
                yield entry
        # tarfile takes a header that it cannot read for the end
        file.seek(archive.offset)
        rest = file.read(_BLOCK_BYTES)
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"damaged header at byte {archive.offset:,}")
        if len(rest) < _BLOCK_BYTES:
            raise tarfile.ReadError("it ends without an end-of-archive mark: it is cut short")


def _take(entry: tarfile.TarInfo, file: BinaryIO, samples: dict[str, _Sample], found: Found, tar_name: str) -> None:
    entry_name = entry.name.removeprefix("./")
    parts = _NAME.fullmatch(entry_name)
    reason = ""
    if parts is None:
        reason = "a name without key and extension"
    else:
        key, rest = parts[1], parts[2].lower()
        sample = samples.setdefault(key, _Sample())
        if rest in sample.names:
            reason = "the second one of this name"
        elif rest in _TEXTS and entry.size > _MAX_TEXT_BYTES:
            reason = f"{entry.size:,} bytes of text, expected at most {_MAX_TEXT_BYTES:,}"
    if reason:
        found.ignored.append(Ignored(name=f"{tar_name}/{entry_name}", reason=reason))
        return
    sample.names.add(rest)
    if rest in _TEXTS:
        here = file.tell()
        file.seek(entry.offset_data)
        sample.texts[rest] = file.read(entry.size)
        file.seek(here)
    else:
        sample.add(Member(parts[2] if parts else "", entry.offset_data, entry.size))
