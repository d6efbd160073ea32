"""``clipfold status DIR``: how far a conversion is."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from clipfold.shards.status import status

__all__ = ["Status"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a conversion is, also while it runs: sources, clips, bytes, rate, time left. Changes nothing."""

    data: tyro.conf.Positional[str]
    """Corpus folder or URL."""

    staging: str | None = None
    """With a URL: the --staging folder of the conversion, if one was named."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object, the last line of the standard output."""

    def run(self) -> int:
        """Print how far it is."""
        found = status(self.data, staging=self.staging)
        print(found, file=sys.stderr if self.as_json else sys.stdout)
        if self.as_json:
            print(json.dumps(found.to_json(), ensure_ascii=False))
        return 0
