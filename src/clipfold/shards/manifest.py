"""``dataset.json``: what a corpus is, written last, so that where it is there the corpus is complete."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.files import Location, exists, join, read_bytes, write_whole

__all__ = ["FORMAT", "MANIFEST_NAME", "Manifest", "SplitTotals", "check_split_name"]

FORMAT = 1  # raise it with every change that an older clipfold would misread
MANIFEST_NAME = "dataset.json"

_SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_NO_HASH = "0" * 64
_FIX = "the file is damaged or was edited by hand; run the same `clipfold convert` command again, or copy it again"


@dataclass(frozen=True, kw_only=True)
class SplitTotals:
    """What a split adds up to.

    Args:
        num_shards: Rows of its ``shards.npy``.
        num_samples: Samples in all its shards.
        num_bytes: Bytes of all its tars.
        shards_sha256: Of its ``shards.npy``, in hexadecimal.
    """

    num_shards: int
    num_samples: int
    num_bytes: int
    shards_sha256: str

    @classmethod
    def of(cls, table: NDArray[Any], shards_sha256: bytes) -> SplitTotals:
        """The totals of a table of shards (SHARD_DTYPE) whose file has this sha256 (32 bytes)."""
        return cls(
            num_shards=len(table),
            num_samples=int(table["num_samples"].sum()),
            num_bytes=int(table["num_bytes"].sum()),
            shards_sha256=shards_sha256.hex(),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``dataset.json``.

    Args:
        spec: Shape and dtype of every clip.
        codec: Name of the codec.
        codec_settings: Its settings.
        classes: Names of the classes; a label is a position in this list. Empty without labels.
        splits: Totals by name of the split.
        mean: Per channel, over the valid frames of the train split, in the units in which a model sees them (pixels
            divided by the spec's full scale).
        std: Standard deviation per channel, likewise.
        provenance: How the corpus was made: plain JSON values; ``"version"`` is the clipfold that wrote it.
        file_sha256: sha256, in hexadecimal, of further files of the corpus' root (``sources.jsonl``), by name.
        format: Number of the format on disk.

    Raises:
        ValueError: ``mean`` or ``std`` is not one finite number per channel, a class is named twice, or a split has a
            name that makes no folder.
    """

    spec: ClipSpec
    codec: str
    codec_settings: Mapping[str, Any]
    classes: Sequence[str]
    splits: Mapping[str, SplitTotals]
    mean: Sequence[float]
    std: Sequence[float]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    file_sha256: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.spec.channels or not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name}: {list(values)}, expected {self.spec.channels} finite numbers")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: {list(self.classes)}, expected every name once")
        for split in self.splits:
            check_split_name(split)

    def save(self, root: Location) -> None:
        """Write ``dataset.json`` into a local folder, whole or not at all. The last step of making a corpus.

        Raises:
            OSError: The disk is full, or the folder is missing or read-only.
            ValueError: A number is not finite.
        """
        value = self.to_json()
        sha256 = _hash(_text(value | {"sha256": _NO_HASH}))
        write_whole(Path(root) / MANIFEST_NAME, _text(value | {"sha256": sha256}))

    @classmethod
    def load(cls, root: Location) -> Manifest:
        """Read the ``dataset.json`` of a corpus folder or URL.

        Raises:
            ShardError: Missing, damaged, edited by hand, or of a newer format than this clipfold knows.
        """
        location = join(root, MANIFEST_NAME)
        try:
            data = read_bytes(location)
        except OSError as error:
            raise _missing(root, error) from error
        try:
            value = json.loads(data)
            if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] > FORMAT:
                raise _newer(value, location)
            return cls.from_json(_verified(value, data))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ShardError(f"{MANIFEST_NAME} is not what clipfold wrote: {error}", fix=_FIX, file=location) from error

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "format": self.format,
            "spec": self.spec.to_json(),
            "codec": self.codec,
            "codec_settings": dict(self.codec_settings),
            "classes": list(self.classes),
            "splits": {name: dict(vars(totals)) for name, totals in self.splits.items()},
            "mean": list(self.mean),
            "std": list(self.std),
            "file_sha256": dict(self.file_sha256),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """The manifest that :meth:`to_json` wrote.

        Raises:
            ValueError: A field is missing, unknown, or not of its type.
        """
        known: dict[str, Callable[[Any], bool]] = {
            "format": lambda item: type(item) is int and item >= 1,
            "spec": lambda item: isinstance(item, dict),
            "codec": lambda item: isinstance(item, str),
            "codec_settings": lambda item: isinstance(item, dict),
            "classes": lambda item: isinstance(item, list) and all(isinstance(name, str) for name in item),
            "splits": lambda item: isinstance(item, dict) and all(map(_is_totals, item.values())),
            "mean": _is_numbers,
            "std": _is_numbers,
            "file_sha256": lambda item: isinstance(item, dict) and all(map(_is_hash, item.values())),
            "provenance": lambda item: isinstance(item, dict),
        }
        if set(value) != set(known):
            raise ValueError(f"fields {sorted(value)}, expected {sorted(known)}")
        for name, fits in known.items():
            if not fits(value[name]):
                raise ValueError(f"field {name!r} is {str(value[name])[:200]}")
        splits = {name: SplitTotals(**totals) for name, totals in value["splits"].items()}
        return cls(**{**value, "spec": ClipSpec.from_json(value["spec"]), "splits": splits})


def check_split_name(split: str) -> None:
    """Raise ``ValueError`` where a split's name is not plain letters, digits, ``_`` and ``-``: it names a folder."""
    if not _SPLIT_NAME.fullmatch(split):
        raise ValueError(f"name of a split: {split!r}, expected letters, digits, _ and - such as 'train'")


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _verified(value: Any, data: bytes) -> dict[str, Any]:
    """The fields without their own hash, which was taken over the file with zeros in the hash's place."""
    if not isinstance(value, dict) or not _is_hash(value.get("sha256")):
        raise ValueError("it has no sha256 of its own")
    found = value.pop("sha256")
    if _hash(_text(value | {"sha256": _NO_HASH})) != found or _text(value | {"sha256": found}).encode() != data:
        raise ValueError(f"its content does not have the sha256 that it says, {found[:16]}...")
    return value


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) in (int, float) for item in value)


def _is_totals(value: Any) -> bool:
    counts = ("num_shards", "num_samples", "num_bytes")
    return (
        isinstance(value, dict)
        and set(value) == {*counts, "shards_sha256"}
        and all(type(value[name]) is int and value[name] >= 0 for name in counts)
        and _is_hash(value["shards_sha256"])
    )


def _missing(root: Location, error: OSError) -> ShardError:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return ShardError(f"{MANIFEST_NAME} cannot be read: {error}", file=str(root))
    try:
        unfinished = exists(join(root, "sources.jsonl"))
    except OSError:
        unfinished = False
    if unfinished:
        fix = "its conversion did not end: run the same `clipfold convert` command again, it goes on where it stopped"
    else:
        fix = "name the folder that `clipfold convert SRC --out FOLDER` wrote"
    return ShardError(f"no corpus here: {MANIFEST_NAME} is missing", fix=fix, file=str(root))


def _newer(value: Mapping[str, Any], location: str) -> ShardError:
    provenance = value.get("provenance")
    version = provenance.get("version") if isinstance(provenance, dict) else None
    wanted = f"clipfold {version}" if isinstance(version, str) else "a newer clipfold"
    return ShardError(
        f"the corpus has format {value['format']}, this clipfold reads up to {FORMAT}",
        fix=f"it was written by {wanted}: install that or a later one (pip install --upgrade clipfold)",
        file=location,
    )
