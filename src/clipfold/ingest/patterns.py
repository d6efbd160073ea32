"""Brace patterns of file names, as WebDataset has them: ``shard-{000..017}.tar``, ``{train,val}-{0..9}.tar``."""

from __future__ import annotations

import re

from clipfold.errors import SourceError

__all__ = ["expand_braces"]

_MAX_NAMES = 10_000_000


def expand_braces(pattern: str) -> list[str]:
    """All names that a pattern stands for, in order; numbers keep the width of the first, as in bash.

    Raises:
        SourceError: More than ten million names.

    Example:
        >>> expand_braces("{a,b}-{08..10}.tar")
        ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    names = [""]
    for piece in re.split(r"(\{[^{}]*\})", pattern):
        choices = _choices(piece)
        if len(names) * len(choices) > _MAX_NAMES:
            raise SourceError(f"the pattern {pattern!r} stands for more than {_MAX_NAMES:,} names")
        names = [name + choice for name in names for choice in choices]
    return names


def _choices(piece: str) -> list[str]:
    if numbers := re.fullmatch(r"\{(\d+)\.\.(\d+)\}", piece):
        first, last = numbers[1], numbers[2]
        if abs(int(last) - int(first)) >= _MAX_NAMES:
            raise SourceError(f"the pattern {piece!r} stands for more than {_MAX_NAMES:,} names")
        step = 1 if int(last) >= int(first) else -1
        return [str(number).zfill(len(first)) for number in range(int(first), int(last) + step, step)]
    if piece.startswith("{") and "," in piece:
        return piece[1:-1].split(",")
    return [piece]
