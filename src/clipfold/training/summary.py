"""What a training came to, and how it says that it was interrupted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clipfold.errors import ClipfoldError

__all__ = ["Interrupted", "TrainSummary"]


class Interrupted(ClipfoldError):
    """Training stopped in order because of a signal; a checkpoint is there.

    ``signal`` is its number.
    """


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What a training came to.

    Args:
        out: Folder of the run.
        num_steps: Steps of the run so far, those before a resume included.
        num_epochs: Epochs that are complete.
        is_finished: False where ``max_steps`` ended it.
        loss: Mean training loss of the last stretch between two log lines.
        best_top1: Best evaluation, in [0, 1]; ``None`` without evaluation.
        last_top1: Last evaluation; ``None`` without.
        num_clips: Clips that this call trained on.
        seconds: Time of this call's steps.
        clips_per_second: Clips over seconds.
        wait_share: Share of that time spent waiting for data, in [0, 1].
        num_failures: Samples that could not be read.
        device: Where it ran.
    """

    out: str
    num_steps: int
    num_epochs: int
    is_finished: bool
    loss: float | None
    best_top1: float | None
    last_top1: float | None
    num_clips: int
    seconds: float
    clips_per_second: float
    wait_share: float
    num_failures: int
    device: str

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return asdict(self)

    def __str__(self) -> str:
        state = "finished" if self.is_finished else "stopped"
        lines = [
            f"{self.out}: {state} after {self.num_epochs} epochs, {self.num_steps:,} steps "
            f"({self.clips_per_second:,.1f} clips/s on {self.device}, {self.wait_share:.1%} of it waiting for data)"
        ]
        if self.last_top1 is not None and self.best_top1 is not None:
            lines.append(f"  top-1 {self.last_top1:.2%}, best {self.best_top1:.2%}")
        if self.num_failures:
            lines.append(f"  {self.num_failures} samples could not be read: {self.out}/faults.0.jsonl names them")
        return "\n".join(lines)
