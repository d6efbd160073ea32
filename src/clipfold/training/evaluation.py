"""Every clip of a split once: accuracy, loss, and which class was taken for which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional as F

from clipfold.clip import ClipBatch
from clipfold.models.classifier import ClipClassifier
from clipfold.stream.loader import ClipStream

__all__ = ["Evaluation", "evaluate_stream"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model makes of a split.

    Args:
        split: Its name.
        num_clips: Clips that counted.
        num_unreadable: Clips that could not be read, or have no label; they weigh nothing.
        loss: Mean cross-entropy in nats, without label smoothing.
        top1: Share of clips whose class came first, in [0, 1].
        top5: Share of clips whose class came among the first five; ``None`` with fewer than five classes.
        classes: Names, in the order of the confusion matrix.
        class_accuracy: Share of each class's clips that were right; ``None`` for a class without clips.
        confusion: Clips of true class (row) that were taken for class (column).
    """

    split: str
    num_clips: int
    num_unreadable: int
    loss: float
    top1: float
    top5: float | None
    classes: list[str]
    class_accuracy: list[float | None]
    confusion: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return asdict(self)

    @property
    def headline(self) -> str:
        """The most important figures in one line."""
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.2%}"
        return f"{self.split}: top-1 {self.top1:.2%}{top5}, loss {self.loss:.4f}, {self.num_clips:,} clips"

    def __str__(self) -> str:
        lines = [self.headline]
        if self.num_unreadable:
            lines.append(f"  {self.num_unreadable:,} clips could not be read or have no label, and count for nothing")
        if len(self.classes) <= 30:
            lines += _table(self.classes, self.class_accuracy, self.confusion)
        return "\n".join(lines)


def evaluate_stream(
    model: ClipClassifier,
    stream: ClipStream,
    *,
    autocast: Callable[[], Any],
    on_batch: Callable[[ClipBatch], object] = lambda batch: None,
) -> Evaluation:
    """Evaluate on one epoch of a stream, whose padded tail weighs nothing.

    Args:
        model: Is put into evaluation mode, and back into the mode that it was in.
        stream: Unshuffled, standing at the start of an epoch.
        autocast: Makes the context of the forward pass.
        on_batch: Called after each batch.

    Returns:
        Sums over all valid clips, divided once.
    """
    num_classes = model.num_classes
    sums = _Sums(num_classes, torch.device(stream.device))
    was_training = model.training
    model.eval()
    num_slots = 0
    try:
        with torch.inference_mode():
            for batch in stream:
                with autocast():
                    logits = model(batch.pixels_BSCHW)
                sums.add(logits.float(), batch)
                num_slots += len(batch)
                on_batch(batch)
    finally:
        model.train(was_training)
    return sums.evaluation(stream.split, stream.classes, num_samples=stream.num_samples)


class _Sums:
    """What an evaluation adds up, on the device: nothing is fetched until the end."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes = num_classes
        self.confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.num_top5 = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, logits: torch.Tensor, batch: ClipBatch) -> None:
        counts = batch.valid & (batch.labels >= 0)
        labels = torch.where(counts, batch.labels, 0)
        losses = F.cross_entropy(logits, labels, reduction="none").double()
        self.loss += torch.where(counts, losses, 0.0).sum()
        cells = labels * self.num_classes + logits.argmax(1)
        self.confusion.index_add_(0, cells, counts.to(torch.int64))
        if self.num_classes >= 5:
            self.num_top5 += ((logits.topk(5).indices == labels[:, None]).any(1) & counts).sum()

    def evaluation(self, split: str, classes: Sequence[str], *, num_samples: int) -> Evaluation:
        confusion = self.confusion.view(self.num_classes, self.num_classes).cpu()
        right, of_class = confusion.diagonal().tolist(), confusion.sum(1).tolist()
        num_clips = sum(of_class)
        return Evaluation(
            split=split,
            num_clips=num_clips,
            num_unreadable=num_samples - num_clips,
            loss=float(self.loss) / max(num_clips, 1),
            top1=sum(right) / max(num_clips, 1),
            top5=int(self.num_top5) / max(num_clips, 1) if self.num_classes >= 5 else None,
            classes=list(classes),
            class_accuracy=[r / n if n else None for r, n in zip(right, of_class, strict=True)],
            confusion=confusion.tolist(),
        )


def _table(classes: Sequence[str], accuracy: Sequence[float | None], confusion: Sequence[Sequence[int]]) -> list[str]:
    """The confusion matrix as text: true classes down, predicted classes across by their numbers."""
    name_width = max(map(len, classes), default=0)
    width = max(5, *(len(str(cell)) + 2 for row in confusion for cell in row))
    head = " " * (name_width + 6) + "".join(f"{f'->{number}':>{width}}" for number in range(len(classes)))
    rows = [
        f"  {number:>2} {name:{name_width}} "
        + "".join(f"{cell:>{width}}" for cell in row)
        + ("" if share is None else f"   {share:.1%}")
        for number, (name, share, row) in enumerate(zip(classes, accuracy, confusion, strict=True))
    ]
    return [head, *rows]
