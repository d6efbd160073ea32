"""The options that decide about a corpus' bytes: kept with the corpus, and compared before a conversion goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from clipfold.errors import ClipfoldError
from clipfold.ingest.reader import ReadOptions
from clipfold.shards.class_map import ClassMap
from clipfold.shards.codecs import get_codec
from clipfold.shards.source_list import parse_split

__all__ = ["Recipe", "differences"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What together with the sources determines every byte of a corpus.

    Args:
        read: How sources become clips.
        codec: Name of the codec.
        codec_settings: All its settings, defaults included.
        chosen_for: What codec ``"auto"`` was to be good for; ``None`` where the codec was named.
        split: Shares, or ``None`` for the folders' own splits.
        shard_bytes: Largest shard.
        shard_clips: Most clips of a shard.
        include: Globs of the sources' names.
        exclude: Globs of the sources' names.
        limit: Most sources.
        follow_outside: Whether links out of the folder of the sources count.
        classes: What the sources' classes become.

    Raises:
        ValueError: The codec cannot hold such clips, or an option is out of range.
        PluginError: There is no such codec.
    """

    read: ReadOptions
    codec: str
    codec_settings: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    shard_bytes: int = 1 << 30
    shard_clips: int = 10_000
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    follow_outside: bool = False
    classes: ClassMap = field(default_factory=ClassMap)
    chosen_for: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        codec = get_codec(self.codec, self.codec_settings)
        codec.check(self.read.spec)
        object.__setattr__(self, "codec_settings", codec.settings())
        if self.split is not None:
            parse_split(self.split)
        for name in ("shard_bytes", "shard_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, expected at least 1")

    def to_json(self) -> dict[str, Any]:
        """The options by name, as plain JSON values."""
        options = {**asdict(self), **self.read.to_json()}
        del options["read"]
        if not self.follow_outside:  # corpora without the option were made like this
            del options["follow_outside"]
        options["classes"] = self.classes.pairs
        value: dict[str, Any] = json.loads(json.dumps(options))
        return value


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two sets of options differ in, a line each: ``codec: 'raw' there, 'jpeg' here``."""
    found = []
    for name in sorted({*then, *now}):
        before, after = then.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += [f"{name}.{line}" for line in differences(before, after)]
        elif before != after:
            found.append(f"{name}: {before!r} there, {after!r} here")
    return found


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], *, out: str, state: str) -> None:
    """Refuse to go on with other options.

    Raises:
        ClipfoldError: The options differ; the message names them all.
    """
    if found := differences(then, now):
        raise ClipfoldError(
            f"the output folder holds {state} with other options ({'; '.join(found)})",
            fix="use the same options, or another output folder",
            file=out,
        )
