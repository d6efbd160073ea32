"""``clipfold train --data DIR --out RUN``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import tyro

from clipfold.training.config import TrainConfig
from clipfold.training.loop import train
from clipfold.training.summary import Interrupted

__all__ = ["Train"]


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig):
    """Train a clip classifier on a corpus.

    Writes RUN/config.json, metrics.jsonl, checkpoint.pt, best.pt and summary.json. Ctrl-C leaves a checkpoint; the same
    command with --resume auto goes on at the very next batch. --config RUN/config.json takes the flags of another run;
    flags on the line win over it.

    Example: clipfold train --data corpus --out run --hidden 16 --epochs 30
    """

    config: str | None = None
    """Read flags from a config.json; those on the line win."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the summary as one JSON object, the last line of the standard output."""

    @classmethod
    def parse(cls, words: Sequence[str], prog: str) -> Train:
        """The command that ``words`` describe, on top of the configuration that ``--config`` names."""
        path = _value_of("--config", words)
        if path is None:
            return tyro.cli(cls, args=words, prog=prog)
        loaded = TrainConfig.load(path)
        default = cls(config=path, **{field.name: getattr(loaded, field.name) for field in fields(TrainConfig)})
        return tyro.cli(cls, args=words, prog=prog, default=default)

    def run(self) -> int:
        """Train, and print the summary."""
        config = TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})
        try:
            summary = train(config)
        except Interrupted as stopped:
            print(stopped, file=sys.stderr)
            return 128 + int(stopped.signal)
        print(summary, file=sys.stderr if self.as_json else sys.stdout)
        if self.as_json:
            print(json.dumps(summary.to_json()))
        return 0


def _value_of(flag: str, words: Sequence[str]) -> str | None:
    """What follows a flag on the command line, as ``--flag value`` or ``--flag=value``; the last one counts."""
    found = None
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            found = words[place + 1]
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found
