"""The user's own columns: the same names and types in every sample, whatever a table leaves out.

A reader such as Hugging Face ``datasets`` takes names and types of the first samples for all of them, so both are
settled when the list of sources is frozen: what is missing becomes ``""``, 0, 0.0 or False.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from clipfold.shards.meta import META_NAMES

__all__ = ["Column", "column_kinds", "conform"]

Column = str | int | float | bool

_DEFAULTS: dict[type, Column] = {str: "", int: 0, float: 0.0, bool: False}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def column_kinds(rows: Iterable[Mapping[str, Column | None]]) -> dict[str, type]:
    """The type of every column: the one that all its values have; ``float`` for whole and other numbers, else ``str``.

    Raises:
        ValueError: A column has a name of ours, or a value of another kind.

    Example:
        >>> column_kinds([{"age": 3, "place": "inside"}, {"age": 2.5}, {"place": 7}])
        {'age': <class 'float'>, 'place': <class 'str'>}
    """
    found: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            kinds = found.setdefault(name, set())
            if not _is_missing(value):
                kinds.add(type(value))
    if taken := sorted(META_NAMES & set(found)):
        raise ValueError(f"columns {', '.join(taken)}: every sample has a field of this name already; rename them")
    for name, kinds in found.items():
        if not kinds <= set(_DEFAULTS):
            other = ", ".join(sorted(kind.__name__ for kind in kinds - set(_DEFAULTS)))
            raise ValueError(f"column {name!r} holds {other}; expected text, numbers, true or false")
    return {name: _one_type(kinds) for name, kinds in sorted(found.items())}


def _one_type(kinds: set[type]) -> type:
    if len(kinds) == 1:
        return next(iter(kinds))
    return float if kinds == {int, float} else str


def conform(row: Mapping[str, Column | None], kinds: Mapping[str, type], *, name: str) -> dict[str, Column]:
    """One source's columns with exactly these names and types.

    Args:
        row: Its columns.
        kinds: Types by name.
        name: Of the source, for messages.

    Raises:
        ValueError: It has a column that the others do not have, or a value of another type.
    """
    if unknown := sorted(set(row) - set(kinds)):
        raise ValueError(f"columns {', '.join(unknown)} of {name}: the corpus has {', '.join(kinds) or 'no columns'}")
    conformed: dict[str, Column] = {}
    for column, kind in kinds.items():
        value = row.get(column)
        if value is None or _is_missing(value):
            conformed[column] = _DEFAULTS[kind]
        elif type(value) is kind:
            conformed[column] = value
        elif kind is str or (kind is float and type(value) is int):
            conformed[column] = kind(value)
        else:
            raise ValueError(f"column {column!r} of {name}: {value!r}, expected {_WORDS[kind]}")
        if isinstance(conformed[column], float) and not math.isfinite(conformed[column]):  # type: ignore[arg-type]
            raise ValueError(f"column {column!r} of {name}: {value!r}, expected a finite number")
    return conformed


def _is_missing(value: Column | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
