"""The few clips that a preview shows, and how they are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from numpy.typing import NDArray

__all__ = ["Gallery", "ShownClip", "choose", "evenly"]

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class ShownClip:
    """One clip and what stands beside it.

    Args:
        key: Sample key, or the source's name where it is not converted yet.
        label: Class name; ``None`` without one.
        pixels_SHWC: (S, H, W, C) of uint8, uint16 or float32.
        num_valid_frames: Leading frames that are not padding, 1 to S.
        source: Name of the source; ``""`` where unknown.
        frames: The source's frames that it shows, in words; ``""`` where unknown.
        fps: Frames per second of the clip, 0.0 where unknown.
        facts: More rows for the table of an HTML page.
    """

    key: str
    label: str | None
    pixels_SHWC: NDArray[Any]
    num_valid_frames: int
    source: str = ""
    frames: str = ""
    fps: float = 0.0
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """S."""
        return len(self.pixels_SHWC)


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What a preview shows.

    Args:
        title: Of the whole.
        facts: About the corpus or file, by name.
        clips: At least one, clips of a class beside each other.
        notes: What could not be shown, and why.
    """

    title: str
    facts: Mapping[str, str]
    clips: Sequence[ShownClip]
    notes: Sequence[str] = ()

    def by_label(self) -> dict[str | None, list[ShownClip]]:
        """The clips of each class, in order."""
        groups: dict[str | None, list[ShownClip]] = {}
        for clip in self.clips:
            groups.setdefault(clip.label, []).append(clip)
        return groups


def evenly(items: Sequence[Item], num: int) -> list[Item]:
    """At most ``num`` items, spread evenly from the first to the last; of one the middle.

    Example:
        >>> evenly("abcdefg", 3)
        ['a', 'd', 'g']
    """
    if len(items) <= num:
        return list(items)
    if num == 1:
        return [items[len(items) // 2]]
    return [items[place * (len(items) - 1) // (num - 1)] for place in range(num)]


def choose(groups: Mapping[Any, Sequence[Item]], *, clips_per_class: int, max_clips: int) -> list[Item]:
    """A few items of each group, without chance: the same input, the same choice.

    Where there is no room for all groups, some of them are shown, spread evenly over their order.
    """
    names = evenly(list(groups), max(1, max_clips))
    each = max(1, min(clips_per_class, max_clips // max(1, len(names))))
    return [item for name in names for item in evenly(groups[name], each)]
