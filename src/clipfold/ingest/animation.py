"""Whether an image file moves: an animated GIF, WebP or PNG is a video, and so is a TIFF of several pages."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_animation"]

_MAY_BE_ANIMATED = frozenset([".gif", ".webp", ".png", ".apng", ".tif", ".tiff"])


_NEW_SUBFILE_TYPE = 254  # TIFF 6.0, page 36: bit 0 is a reduced copy of another page


def is_animation(path: Path) -> bool:
    """Whether a GIF, WebP, PNG or TIFF holds more than one picture, by its first bytes where they tell.

    A second page that is a smaller copy of the first (a thumbnail) does not count.
    """
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
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _is_animated(path)
    return head.startswith(b"GIF8") and _is_animated(path)


def _is_animated(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.format != "TIFF" or not getattr(image, "is_animated", False):
                return bool(getattr(image, "is_animated", False))
            size = image.size
            image.seek(1)
            return bool(image.size == size and not image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 1)  # type: ignore[attr-defined]
    except Exception:  # a broken picture stays a frame; its decoder says what is wrong with it
        return False
