"""The lines of text in pictures and pages."""

from __future__ import annotations

from clipfold.looking.clips import Gallery, ShownClip
from clipfold.looking.drawing import text_width

__all__ = ["clip_line", "header_lines", "shorten", "wrap"]


def clip_line(clip: ShownClip) -> str:
    """What stands behind a clip's name."""
    _, height, width, _ = clip.pixels_SHWC.shape
    padding = clip.num_frames - clip.num_valid_frames
    parts = [
        f"{width} x {height}",
        f"{clip.num_valid_frames} of {clip.num_frames} frames, {padding} padding"
        if padding
        else f"{clip.num_frames} frames",
        f"{clip.fps:.4g} fps" if clip.fps else "",
        clip.source if clip.source != clip.key else "",
        f"frames {clip.frames}" if clip.frames else "",
    ]
    return "  |  ".join(part for part in parts if part)


def header_lines(gallery: Gallery, notes: list[str], width: int, size: int) -> list[str]:
    """Facts and notes of a gallery, wrapped."""
    facts = "  |  ".join(f"{name}: {value}" for name, value in gallery.facts.items())
    return [line for text in (facts, *notes, *gallery.notes) for line in wrap(text, width, size)]


def wrap(text: str, width: int, size: int) -> list[str]:
    """Lines that are at most ``width`` pixels wide; a longer word is cut."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size) > width:
            lines.append(shorten(line, width, size))
            longer = word
        line = longer
    return [*lines, shorten(line, width, size)] if line else lines


def shorten(text: str, width: int, size: int) -> str:
    """The text, its middle left out where it is wider than ``width`` pixels."""
    if text_width(text, size) <= width:
        return text
    keep = len(text)
    while keep > 2 and text_width(f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}", size) > width:
        keep -= 1
    return f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
