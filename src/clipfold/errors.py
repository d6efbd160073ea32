"""What goes wrong, as a tree.

::

    ClipfoldError
    ├── SourceError    the user's files: nothing there, unreadable, changed, of mixed sizes
    ├── DecodeError    one video or image that cannot be decoded
    ├── ShardError     a shard, index or manifest that is not what its checksums say
    ├── ResumeError    a state or checkpoint that does not fit what is there now
    ├── PluginError    a name that leads to no reducer, backbone, augmentation, decoder or codec
    └── TrainingError  training cannot go on: the loss is not a number, data and model do not fit

Wrong arguments are ``ValueError`` or ``TypeError`` at the public door.

Every message reads: what happened, where, what to do::

    ShardError: sample '00000170-0042' has 3,364,799 bytes, expected 3,364,800
      shard: train/train-000017.tar   offset: 41230848
      fix: the shard was cut short; run the same `clipfold convert` command again
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ClipfoldError",
    "DecodeError",
    "PluginError",
    "ResumeError",
    "ShardError",
    "SourceError",
    "TrainingError",
]


class ClipfoldError(Exception):
    """The root of all errors that clipfold raises on purpose.

    Args:
        what: ``<what happened>: <found>, expected <expected>``, without a full stop or a place.
        fix: What the user can do about it; ``""`` where nothing can be done.
        **where: Context by name (``file=``, ``key=``, ``shard=``, ``offset=``, ``frame=``); ``None`` is left out.
            Each is kept as an attribute of the exception, beside ``what`` and ``fix``.
    """

    def __init__(self, what: str, *, fix: str = "", **where: Any) -> None:
        self.what = what
        self.fix = fix
        self.where = {name: value for name, value in where.items() if value is not None}
        super().__init__(what)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name in self.__dict__.get("where", {}):
            return self.where[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append("  " + "   ".join(f"{name}: {value}" for name, value in self.where.items()))
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:  # keyword-only context survives the way out of a worker process
        return _rebuild, (type(self), self.what, self.fix, self.where)


def _rebuild(kind: type[ClipfoldError], what: str, fix: str, where: dict[str, Any]) -> ClipfoldError:
    return kind(what, fix=fix, **where)


class SourceError(ClipfoldError):
    """The user's files are not what was expected: none there, unreadable, changed since listed, of mixed sizes."""


class DecodeError(ClipfoldError):
    """One video or image cannot be decoded, or delivers another number of frames than it holds."""


class ShardError(ClipfoldError):
    """A shard, an index or a manifest is missing, cut short, or not what its checksum says."""


class ResumeError(ClipfoldError):
    """A saved state or checkpoint does not fit the data, the model or the configuration at hand."""


class PluginError(ClipfoldError):
    """A name leads to no member of its family, or what it leads to breaks the family's contract."""


class TrainingError(ClipfoldError):
    """Training or evaluation cannot go on: the loss is not finite, labels are out of range, data and model differ."""
