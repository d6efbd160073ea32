"""Tables of sources: ``.csv`` (or ``;``), ``.tsv``, ``.jsonl`` and ``.parquet``, a row a source.

A row names a video, a folder of images or an array by a path relative to the table's own folder (or ``media_root``),
absolute, or by a URL. Rows may have a label, a split, a group, and a part of the video in seconds (half-open: the
frames whose time t from the first frame has start <= t < stop). :mod:`clipfold.ingest.columns` lists the names of
columns that are understood, among them those of Kinetics-style annotations; all other columns are the user's own.

The parts of one video are one group unless a column says otherwise, so that no split tears them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from clipfold.errors import SourceError
from clipfold.files import is_url, join
from clipfold.ingest.animation import is_animation
from clipfold.ingest.columns import ROLES, own_columns, parse_split_name, parse_text, roles_of
from clipfold.ingest.listing import (
    ARRAY_EXTENSIONS,
    IMAGE_EXTENSIONS,
    TABLE_EXTENSIONS,
    TAR_EXTENSIONS,
    Found,
    Ignored,
    Source,
    extension_of,
    natural_key,
)
from clipfold.ingest.places import Place, state_of
from clipfold.ingest.urls import list_images

__all__ = ["read_table"]

_NUM_THREADS = 16  # that ask a server about the files of a table
_MAX_FIELD_BYTES = 1 << 24


@dataclass(frozen=True)
class _Row:
    number: int  # as an editor counts the lines of a text table
    values: Mapping[str, Any]
    texts: Mapping[str, str] | None  # of text tables: the values as they are written


@dataclass(frozen=True)
class _Entry:
    """What lies at a path, once for all its rows; ``reason`` where it cannot be read."""

    kind: Literal["video", "frames", "array"] = "video"
    num_bytes: int = 0
    mtime_ns: int = 0
    frames: tuple[str, ...] = ()
    reason: str = ""


def read_table(table: str, *, media_root: str | None, columns: Mapping[str, str]) -> Found:
    """The sources that a table lists; rows whose file is missing are ignored, by name.

    Args:
        table: Path or URL.
        media_root: What relative paths start from; ``None`` is the table's folder.
        columns: The column of a role, where its name is not one that is known.

    Raises:
        SourceError: It cannot be read, has no rows or no column of paths, or a value is not what it should be.
    """
    rows = _read_rows(table)
    if not rows:
        raise SourceError("the table has no rows", fix="a header, then one row a source", file=table)
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    try:
        roles = roles_of(names, columns)
    except ValueError as error:
        raise SourceError(str(error), file=table) from error
    if "path" not in roles:
        raise SourceError(
            f"no column of paths: found {', '.join(map(repr, names[:20]))}, expected one of {', '.join(ROLES['path'])}",
            fix="rename the column, or name it: columns={'path': ...}; the first line of a text table is its header",
            file=table,
        )
    base = media_root if media_root is not None else (table.rpartition("/")[0] or ".")
    reading = _TableReading(table=table, base=base if is_url(base) else os.path.abspath(base), roles=roles)
    return reading.run(rows)


@dataclass
class _TableReading:
    table: str
    base: str
    roles: Mapping[str, str]

    def run(self, rows: Sequence[_Row]) -> Found:
        found = Found(sources=[], ignored=[])
        paths = [self._path(row) for row in rows]
        entries = _look_at([path for path in dict.fromkeys(paths) if path])
        first_row: dict[str, int] = {}
        for row, path in zip(rows, paths, strict=True):
            entry = entries[path] if path else _Entry(reason="no path in this row")
            name = self._name(path) if path else "(nothing)"
            start, stop = self._seconds(row, "start"), self._seconds(row, "stop")
            if (start or 0.0) < 0 or (stop is not None and stop <= (start or 0.0)):
                raise self._wrong(row, f"a part from {start} to {stop} seconds, expected 0 <= start < stop")
            part = "" if start is None and stop is None else f"@{start or 0.0:g}-{'' if stop is None else f'{stop:g}'}"
            if entry.reason:
                found.ignored.append(Ignored(name=name, reason=f"row {row.number}: {entry.reason}"))
                continue
            if name + part in first_row:
                reason = f"row {row.number}: listed already in row {first_row[name + part]}"
                found.ignored.append(Ignored(name=name + part, reason=reason))
                continue
            first_row[name + part] = row.number
            source = Source(
                name=name + part,
                path=path,
                kind=entry.kind,
                label=self._text(row, "label"),
                split=self._split(row),
                group=self._text(row, "group") or name,
                num_bytes=entry.num_bytes,
                mtime_ns=entry.mtime_ns,
                frames=entry.frames,
                start_seconds=start,
                stop_seconds=stop,
                columns=own_columns(row.values, self.roles.values(), row.texts),
            )
            found.sources.append(source)
        if "group" in self.roles:
            self._check_groups(found.sources)
        return found

    def _path(self, row: _Row) -> str:
        text = self._text(row, "path") or ""
        if text.startswith("pipe:"):
            raise self._wrong(row, f"a pipe is refused: {text!r} would run a program")
        if not text or is_url(text):
            return text
        if is_url(self.base):
            return join(self.base, posixpath.normpath(text))
        return os.path.normpath(os.path.join(self.base, text))

    def _name(self, path: str) -> str:
        if path.startswith(self.base.rstrip("/") + "/"):
            return path[len(self.base.rstrip("/")) + 1 :]
        return (urlsplit(path).path if is_url(path) else path).lstrip("/")

    def _text(self, row: _Row, role: str) -> str | None:
        name = self.roles.get(role)
        value = None if name is None else row.values.get(name)
        if value is None:
            return None
        text = row.texts[str(name)] if row.texts is not None else value
        return str(text).strip() or None

    def _seconds(self, row: _Row, role: str) -> float | None:
        text = self._text(row, role)
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.inf
        if not math.isfinite(seconds):
            raise self._wrong(row, f"{self.roles[role]} is {text!r}, expected seconds such as 12.5")
        return seconds

    def _split(self, row: _Row) -> str | None:
        try:
            return parse_split_name(self._text(row, "split"))
        except ValueError as error:
            raise self._wrong(row, str(error)) from error

    def _wrong(self, row: _Row, what: str) -> SourceError:
        return SourceError(f"row {row.number}: {what}", fix="correct the table", file=self.table)

    def _check_groups(self, sources: Sequence[Source]) -> None:
        splits: dict[str, str | None] = {}
        for source in sources:
            if splits.setdefault(source.group, source.split) != source.split:
                raise SourceError(
                    f"group {source.group!r} lies in {splits[source.group] or 'no split'} and in "
                    f"{source.split or 'no split'}: a group is never torn",
                    fix="give all its rows one split",
                    file=self.table,
                )


def _look_at(paths: Sequence[str]) -> dict[str, _Entry]:
    remote = [path for path in paths if is_url(path)]
    entries = {path: _entry(path) for path in paths if not is_url(path)}
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        entries.update(zip(remote, threads.map(_entry, remote), strict=True))
    return entries


def _entry(path: str) -> _Entry:
    if not is_url(path) and os.path.isdir(path):
        return _folder_entry(path)
    if is_url(path) and not extension_of(path):
        return _url_folder_entry(path)
    extension = extension_of(path)
    if extension in TAR_EXTENSIONS | TABLE_EXTENSIONS:
        return _Entry(reason="a tar or a table inside a table: name it itself")
    try:
        state = state_of(path)
    except (OSError, SourceError) as error:
        return _Entry(reason=f"cannot be read: {getattr(error, 'what', error)}")
    if state is None:
        return _Entry(reason="no such file or folder")
    still = extension in IMAGE_EXTENSIONS and not _moves(path, extension)
    if still:
        return _Entry(reason="a single image: give its folder")
    return _Entry("array" if extension in ARRAY_EXTENSIONS else "video", *state)


def _moves(path: str, extension: str) -> bool:
    return extension in (".gif", ".webp") if is_url(path) else is_animation(Path(path))


def _folder_entry(path: str) -> _Entry:
    names = [name for name in os.listdir(path) if extension_of(name) in IMAGE_EXTENSIONS and name[0] != "."]
    if not names:
        return _Entry(reason="a folder without images")
    states = [os.stat(os.path.join(path, name)) for name in names]
    return _Entry(
        "frames",
        sum(state.st_size for state in states),
        max(state.st_mtime_ns for state in states),
        tuple(sorted(names, key=natural_key)),
    )


def _url_folder_entry(url: str) -> _Entry:
    """Behind a URL, a name without extension is a folder: asking costs a request a row."""
    try:
        images = list_images(url)
    except SourceError as error:
        return _Entry(reason=f"cannot be read: {error.what}")
    if not images:
        return _Entry(reason="a folder without images")
    return _Entry(
        "frames", sum(size for _, size, _ in images), max(s for _, _, s in images), tuple(name for name, _, _ in images)
    )


def _read_rows(table: str) -> list[_Row]:
    extension = extension_of(table)
    try:
        data = Place(table).read()
        if extension == ".parquet":
            return _parquet_rows(data, table)
        text = data.decode("utf-8-sig")
        return list(_json_rows(text) if extension == ".jsonl" else _text_rows(text, extension))
    except (UnicodeDecodeError, ValueError, csv.Error, RecursionError) as error:
        raise SourceError(
            f"cannot be read as a table: {error}", fix="save it as UTF-8; .jsonl has one object a line", file=table
        ) from error


def _text_rows(text: str, extension: str) -> Iterator[_Row]:
    head = text.partition("\n")[0]
    delimiter = "\t" if extension == ".tsv" else ";" if ";" in head and "," not in head else ","
    csv.field_size_limit(_MAX_FIELD_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = next(reader, [])
    if len(set(header)) < len(header):
        raise ValueError(f"two columns of one name: {', '.join(map(repr, header))}")
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) > len(header):
            raise ValueError(f"line {reader.line_num} has {len(fields)} fields, the header {len(header)}")
        texts = dict(zip(header, fields + [""] * (len(header) - len(fields)), strict=True))
        yield _Row(reader.line_num, {name: parse_text(field) for name, field in texts.items()}, texts)


def _json_rows(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError(f"line {number} is {str(value)[:50]!r}, expected an object")
            yield _Row(number, value, None)


def _parquet_rows(data: bytes, table: str) -> list[_Row]:
    try:
        from pyarrow import ArrowException, BufferReader, parquet
    except ImportError as error:
        raise SourceError(
            "pyarrow is not installed, which reads .parquet", fix="pip install 'clipfold[parquet]'", file=table
        ) from error
    try:
        rows = parquet.read_table(BufferReader(data)).to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return [_Row(number, value, None) for number, value in enumerate(rows, 1)]
