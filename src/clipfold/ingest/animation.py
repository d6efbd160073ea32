"""Whether an image file moves: an animated GIF, WebP or PNG is a video."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_animation"]

_MAY_BE_ANIMATED = frozenset([".gif", ".webp", ".png", ".apng"])


def is_animation(path: Path) -> bool:
    """Whether a GIF, WebP or PNG holds more than one picture, by its first bytes where they tell."""
    if path.suffix.lower() not in _MAY_BE_ANIMATED:
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if head.startswith(b"\x89PNG"):
        data = head.find(b"IDAT")
        return b"acTL" in (head if data < 0 else head[:data])
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2)  # the flag ANIM (developers.google.com/speed/webp/docs/riff_container)
    return head.startswith(b"GIF8") and _gif_is_animated(path)


def _gif_is_animated(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # a broken picture stays a frame; its decoder says what is wrong with it
        return False
