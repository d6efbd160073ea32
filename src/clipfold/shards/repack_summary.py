"""What a repacking did, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clipfold.shards.codecs import get_codec
from clipfold.shards.repack_inputs import Input
from clipfold.shards.repack_plan import Unit
from clipfold.shards.summary import size_text

__all__ = ["RepackSummary", "clips_of", "loss_notes", "origin"]


@dataclass(frozen=True, kw_only=True)
class RepackSummary:
    """What a repacking did.

    Args:
        out: The new corpus.
        was_finished: It was complete before; nothing was done.
        num_inputs: Corpora that it was made from.
        codec, codec_settings: How its clips are stored.
        num_clips: Clips in all splits.
        num_copied: Clips whose bytes were copied; the others were decoded and encoded again.
        num_left_out: Clips of the inputs that were not selected.
        num_bytes: Bytes of all its shards.
        clips: Clips by split and class (``""`` without a label).
        notes: What should be known: lossy codecs one after the other, groups in several splits.
        seconds: What this run took.
    """

    out: str
    was_finished: bool = False
    num_inputs: int
    codec: str
    codec_settings: Mapping[str, Any]
    num_clips: int
    num_copied: int
    num_left_out: int
    num_bytes: int
    clips: Mapping[str, Mapping[str, int]]
    notes: Sequence[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        amount = f"{self.num_clips:,} clips, {size_text(self.num_bytes)}, codec {self.codec}"
        if self.was_finished:
            first = f"nothing to do: {self.out} is complete, {amount}"
        else:
            first = f"{self.out}: {amount}, {self.num_copied:,} of them copied as they were, {self.seconds:.1f} s"
        lines = [first]
        for split, classes in self.clips.items():
            each = ", ".join(f"{label or '(no label)'} {num:,}" for label, num in list(classes.items())[:20])
            more = f", and {len(classes) - 20} classes more" if len(classes) > 20 else ""
            lines.append(f"  {split}: {sum(classes.values()):,} clips ({each}{more})")
        if self.num_left_out:
            lines.append(f"  {self.num_left_out:,} clips were not selected")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def origin(each: Input) -> dict[str, Any]:
    """What is kept about an input: what it was, and all that it said about its own making."""
    manifest = each.manifest
    return {
        "fingerprint": each.fingerprint,
        "codec": manifest.codec,
        "codec_settings": dict(manifest.codec_settings),
        "num_samples": sum(totals.num_samples for totals in manifest.splits.values()),
        "provenance": dict(manifest.provenance),
    }


def clips_of(units: Sequence[Unit]) -> dict[str, dict[str, int]]:
    """Clips by split and class."""
    clips: dict[str, dict[str, int]] = {}
    for unit in units:
        of_split = clips.setdefault(unit.listed.split, {})
        label = unit.listed.label or ""
        of_split[label] = of_split.get(label, 0) + len(unit.rows)
    order = {"train": 0, "val": 1, "test": 2}
    splits = sorted(clips, key=lambda name: (order.get(name, 3), name))
    return {split: dict(sorted(clips[split].items())) for split in splits}


def loss_notes(inputs: Sequence[Input], codec: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Say where clips that a lossy codec has changed are encoded again."""
    to = get_codec(codec, settings)
    lossy = {
        each.manifest.codec for each in inputs if not each.corpus.codec.exact and not each.is_stored_as(codec, settings)
    }
    for name in sorted(lossy):
        if to.exact:
            yield f"what {name} lost stays lost: {codec} holds exactly what {name} had made of the clips"
        else:
            yield (
                f"clips that {name} had changed were encoded again as {codec}, which adds its own loss: "
                "converting the videos again gives better pictures"
            )
