"""Columns of a table, fields of a sample's ``.json``: which of them clipfold understands, and the types of the others.

==========  =======================================================================================================
role        names, in any case, in this order of preference
==========  =======================================================================================================
``path``    path, file, filename, file_name, filepath, file_path, video, video_path, video_name, clip, clip_path,
            folder, folder_path, frames_path, array, url
``label``   label, class, class_name, label_name, category, action, target
``start``   start, start_seconds, start_time, time_start, t_start, begin                              (seconds)
``stop``    stop, stop_seconds, end, end_seconds, end_time, stop_time, time_end, t_end                (seconds)
``split``   split, subset, fold_name: train, training; val, valid, validate, validation, dev; test, testing
``group``   group, group_id, group_name
==========  =======================================================================================================

The first name that is there has the role. Every other column is the user's own and goes with each of its clips. A
column of the user's with a name that a sample's ``.json`` has already (``source``, ``fps``, ...) gets ``user_`` in
front. A column has one type in the whole list: whole number, number, true/false, else text; in text tables numbers
with leading zeros are text. Where a value is missing (nothing, null, NaN) it is 0, 0.0, false or "". Lists and tables
inside a column are kept as JSON text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clipfold.ingest.listing import Column, Source

__all__ = ["ROLES", "TAKEN_NAMES", "own_columns", "parse_split_name", "parse_text", "roles_of", "unify"]

# fmt: off
ROLES: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "video_name",
             "clip", "clip_path", "folder", "folder_path", "frames_path", "array", "url"),
    "label": ("label", "class", "class_name", "label_name", "category", "action", "target"),
    "start": ("start", "start_seconds", "start_time", "time_start", "t_start", "begin"),
    "stop": ("stop", "stop_seconds", "end", "end_seconds", "end_time", "stop_time", "time_end", "t_end"),
    "split": ("split", "subset", "fold_name"),
    "group": ("group", "group_id", "group_name"),
}
_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}
# fmt: on
TAKEN_NAMES = frozenset(
    ["source", "label", "start", "step", "count", "indices", "num_valid_frames", "fps", "height", "width"]
)
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DEFAULTS: dict[type, Column] = {int: 0, float: 0.0, bool: False, str: ""}


def roles_of(names: Sequence[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Which column has which role, by its name or as ``given``.

    Raises:
        ValueError: ``given`` names a role that there is not, or a column that is not there.
    """
    by_name = {name.strip().lower(): name for name in reversed(names)}
    roles = {}
    for role, known in ROLES.items():
        found = next((by_name[name] for name in known if name in by_name), None)
        if found is not None:
            roles[role] = found
    for role, name in (given or {}).items():
        if role not in ROLES or name not in names:
            raise ValueError(
                f"columns: {role!r} is to be {name!r}, expected a role ({', '.join(ROLES)}) and one of the columns "
                f"found: {', '.join(names)}"
            )
        roles = {key: value for key, value in roles.items() if value != name}
        roles[role] = name
    return roles


def parse_split_name(value: Any) -> str | None:
    """``"train"``, ``"val"``, ``"test"``, or ``None`` where nothing is written.

    Raises:
        ValueError: Another word.
    """
    text = str(value if value is not None else "").strip().lower()
    if text and text not in _SPLITS:
        raise ValueError(f"split {value!r}, expected one of {', '.join(_SPLITS)}")
    return _SPLITS.get(text)


def parse_text(text: str | None) -> Any:
    """A value of a text table; ``None`` where the field is empty. ``007`` stays text."""
    if text is None or not (stripped := text.strip()):
        return None
    if _WHOLE.fullmatch(stripped):
        return int(stripped)
    if _NUMBER.fullmatch(stripped) and not re.match(r"[+-]?0\d", stripped):
        return float(stripped)
    lower = stripped.lower()
    return {"true": True, "false": False, "nan": None}.get(lower, text)


def own_columns(row: Mapping[str, Any], used: Iterable[str], texts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The user's own columns of one row, not yet of one type: null values stay in, as ``None``.

    Args:
        row: Values by name.
        used: Columns that have a role.
        texts: How a value was written where it was text, so that a column with one word in it keeps its numbers'.
    """
    out: dict[str, Any] = {}
    for name, value in row.items():
        if name in used:
            continue
        plain = _plain(value)
        if texts is not None and plain is not None and not isinstance(plain, str):
            plain = _Written(plain, texts[name])
        out[f"user_{name}" if name in TAKEN_NAMES else name] = plain
    return out


class _Written:
    """A value and how it was written."""

    def __init__(self, value: Column, text: str) -> None:
        self.value, self.text = value, text


def unify(sources: list[Source]) -> list[Source]:
    """The same sources, each with the same columns of the same types.

    Sources without any column (in a folder, say) get them too, all missing, if others have some.
    """
    types: dict[str, set[type]] = {}
    for source in sources:
        for name, value in source.columns.items():
            kinds = types.setdefault(name, set())
            if value is not None:
                kinds.add(type(_value(value)))
    if not types:
        return sources
    chosen = {name: _one_type(types[name]) for name in sorted(types)}
    return [
        replace(source, columns={name: _as(source.columns.get(name), kind) for name, kind in chosen.items()})
        for source in sources
    ]


def _one_type(kinds: set[type]) -> type:
    if kinds <= {int}:
        return int if kinds else str
    if kinds <= {int, float}:
        return float
    return bool if kinds == {bool} else str


def _as(value: Any, kind: type) -> Column:
    if value is None:
        return _DEFAULTS[kind]
    if kind is str:
        return value.text if isinstance(value, _Written) else _text(value)
    converted: Column = kind(_value(value))
    return converted


def _value(value: Any) -> Any:
    return value.value if isinstance(value, _Written) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> Any:
    """A JSON scalar; ``None`` for what is missing or no finite number; anything else as text."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
