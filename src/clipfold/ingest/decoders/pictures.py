"""One picture through Pillow, upright, its values as they are stored.

PNG, JPEG, BMP, TIFF, WebP and GIF; 1, 8 and 16 bits; grey, palette, RGB and CMYK, alpha dropped; float TIFF. EXIF
orientation is applied. What Pillow gets wrong is read by FFmpeg.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
import PIL
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image, ImageOps

from clipfold.errors import DecodeError, SourceError
from clipfold.ingest.places import OpenPlace, Place

__all__ = ["array_of", "load_image", "needs_ffmpeg", "picture_errors", "upright_size"]

_ORIENTATION = 0x0112
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_DAMAGED = "replace or remove the file; --keep-partial keeps the full clips before it"


def load_image(path: str | Place) -> NDArray[Any]:
    """One picture, upright, with its values as they are stored.

    Returns:
        (H, W) or (H, W, 3) of uint8, uint16 or float32.

    Raises:
        DecodeError: It is no picture, is damaged or cut short, or has values that none of the dtypes holds.
        SourceError: The file has gone.
    """
    place = Place(path) if isinstance(path, str) else path
    with picture_errors(place), _opened(place) as image:
        if needs_ffmpeg(image):
            return _turned(_load_by_ffmpeg(place), _orientation(image))
        return array_of(ImageOps.exif_transpose(image), str(place))


@contextmanager
def _opened(place: Place) -> Iterator[Image.Image]:
    with Image.open(place.location if place.is_plain else io.BytesIO(place.read())) as image:
        yield image


@contextmanager
def picture_errors(place: Place, frame: int | None = None) -> Iterator[None]:
    """Turns whatever Pillow raises for a broken picture into a DecodeError that names the file."""
    try:
        yield
    except (DecodeError, SourceError):
        raise
    except FileNotFoundError as error:
        what, fix = "the file has gone since it was listed", "list the sources again"
        raise SourceError(what, fix=fix, file=str(place)) from error
    except Exception as error:
        what = _words_of(error)
        if isinstance(error, PIL.UnidentifiedImageError):
            opened = OpenPlace(place)
            opened.close()
            what = "no picture in any known format" if opened.num_bytes else "the file is empty: 0 bytes"
        raise DecodeError(
            f"cannot be decoded as an image: {what}", fix=_DAMAGED, file=str(place), frame=frame
        ) from error


def _words_of(error: Exception) -> str:
    """What it says, without paths and addresses in memory: the same failure reads the same everywhere."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _ADDRESS.sub("", text) or type(error).__name__


def upright_size(place: Place) -> tuple[int, int]:
    """Height and width by the header alone."""
    with picture_errors(place), _opened(place) as image:
        width, height = image.size
        # Pillow already reports a turned TIFF upright
        turned = image.format != "TIFF" and _orientation(image) >= 5
    return (width, height) if turned else (height, width)


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(_ORIENTATION, 1) or 1)


def array_of(image: Image.Image, path: str) -> NDArray[Any]:
    """(H, W) or (H, W, 3) of an open picture, as it lies; ``path`` is for messages."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16, copy=False)
    if image.mode == "F":
        return np.asarray(image, dtype=np.float32)
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DecodeError(
                f"values from {values.min()} to {values.max()}, expected 0 to 65535",
                fix="save the pictures as 16-bit or as float TIFF",
                file=path,
            )
        return values.astype(np.uint16)
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB"))


def needs_ffmpeg(image: Image.Image) -> bool:
    """Whether Pillow would cut 16-bit channels down to 8, or scramble an uncompressed TIFF that lies on its side."""
    if image.format == "TIFF" and image.info.get("compression") == "raw" and _orientation(image) >= 5:
        return True
    # the file's raw mode has 16 bits, the mode that Pillow gives it has not
    raw_modes = [
        str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in getattr(image, "tile", [])
    ]
    return any(";16" in mode for mode in raw_modes) and not image.mode.startswith("I")


def _load_by_ffmpeg(place: Place) -> NDArray[Any]:
    opened = OpenPlace(place)
    try:
        with av.open(opened.target(), "r") as container:
            frame = next(container.decode(video=0))
            components = [component for component in frame.format.components if not component.is_alpha]
            grey = len(components) == 1 and not frame.format.has_palette
            deep = max(component.bits for component in components) > 8
            wanted = ("gray16le" if deep else "gray") if grey else ("gbrp16le" if deep else "rgb24")
            pixels: NDArray[Any] = frame.reformat(format=wanted, threads=1).to_ndarray()
            return pixels
    except (FFmpegError, OSError, StopIteration) as error:
        raise DecodeError(
            f"cannot be decoded as an image: {_words_of(error)}", fix=_DAMAGED, file=str(place)
        ) from error
    finally:
        opened.close()


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Upright by the EXIF number (Exif 2.32, tag 274)."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    return np.rot90(pixels, {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0))
