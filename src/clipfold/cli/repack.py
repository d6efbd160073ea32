"""``clipfold repack IN [IN2 ...] --out OUT``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from clipfold.cli.convert import parse_size
from clipfold.shards.repack import repack

__all__ = ["Repack"]


@dataclass(frozen=True, kw_only=True)
class Repack:
    """Make a corpus from corpora: another codec, shard size or split; several merged into one; a part of one.

    The videos are not needed. Clips whose codec stays the same are copied byte for byte. Run the same command again to
    go on after an interruption.

    Example: clipfold repack corpus --out small --codec lowrank --where 'fps >= 24 and label != "noise"'
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Corpora with clips of one shape. Several are merged: classes by name, sources under new numbers."""

    out: str
    """Folder of the new corpus: new, empty, or left by the same command."""

    codec: str | None = None
    """raw, lossless, jpeg, mp4, lowrank, auto, or my_package.module:MyCodec; by default as they are."""

    quality: int | None = None
    """Of codecs that have one (jpeg: 1 to 100, 90 by default)."""

    codec_settings: str | None = None
    """All the codec's settings as JSON, such as '{"crf": 20}'."""

    target: Literal["speed", "balanced", "size"] = "balanced"
    """What --codec auto chooses for."""

    min_psnr: float = 38.0
    """Lossy codecs below this PSNR (dB) are not chosen by --codec auto."""

    split: str | None = None
    """Shares of train/val/test by source within each class, such as 0.8/0.1/0.1; by default as they are."""

    shard_bytes: str = "1GiB"
    """Largest shard, such as 512MB or 1GiB."""

    shard_clips: int = 10_000
    """Most clips of a shard."""

    classes: tuple[str, ...] = ()
    """Keep only these classes: a,b or a b."""

    keys: str | None = None
    """File with a sample key a line (00000123-0004): keep only these."""

    where: str = ""
    """Keep only samples that fulfil this condition on the columns of their .json, on split and on key: comparisons,
    in, and, or, not, such as 'width >= 320 and not label in ["a", "b"] and "cam2" in source'."""

    num_workers: int | None = None
    """Processes that decode; one per CPU core by default. The result does not depend on it."""

    engine: str = "local"
    """Where the work is done."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the summary as one JSON object, the last line of the standard output."""

    def run(self) -> int:
        """Repack, and print the summary."""
        try:
            summary = repack(
                self.inputs,
                out=self.out,
                codec=self.codec,
                codec_settings=self._settings(),
                target=self.target,
                min_psnr=self.min_psnr,
                split=self.split,
                shard_bytes=parse_size(self.shard_bytes),
                shard_clips=self.shard_clips,
                classes=[name for text in self.classes for name in text.split(",") if name],
                keys=None if self.keys is None else _read_keys(self.keys),
                where=self.where,
                num_workers=self.num_workers,
                engine=self.engine,
            )
        except KeyboardInterrupt:
            print(f"stopped; the same command goes on with {self.out}", file=sys.stderr)
            raise
        print(summary, file=sys.stderr if self.as_json else sys.stdout)
        if self.as_json:
            print(json.dumps(summary.to_json(), ensure_ascii=False))
        return 0

    def _settings(self) -> dict[str, Any] | None:
        if self.codec_settings is None:
            return None if self.quality is None else {"quality": self.quality}
        if self.quality is not None:
            raise ValueError("--quality and --codec-settings: expected one of them")
        try:
            found = json.loads(self.codec_settings)
        except ValueError as error:
            raise ValueError(f"--codec-settings: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"--codec-settings: {self.codec_settings}, expected an object such as '{{\"crf\": 20}}'")
        return found


def _read_keys(path: str) -> list[str]:
    """The keys in a file, one a line; empty lines do not count."""
    return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
