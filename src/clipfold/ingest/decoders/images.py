"""Pictures through Pillow: folders of numbered images, and animated images that FFmpeg cannot read.

PNG, JPEG, BMP, TIFF, WebP and GIF; 1, 8 and 16 bits; grey, palette, RGB and CMYK, alpha dropped; float TIFF. EXIF
orientation is applied. Of a TIFF with several pages the first is read. What Pillow gets wrong is read by FFmpeg.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import Any

import av
import numpy as np
import PIL
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image, ImageOps

from clipfold.errors import DecodeError, SourceError
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import Source

__all__ = ["AnimationDecoder", "FolderDecoder", "load_image"]

_ORIENTATION = 0x0112
_DAMAGED = "replace or remove the file; --keep-partial keeps the full clips before it"


def load_image(path: str) -> NDArray[Any]:
    """One picture, upright, with its values as they are stored.

    Returns:
        (H, W) or (H, W, 3) of uint8, uint16 or float32.

    Raises:
        DecodeError: It is no picture, is damaged or cut short, or has values that none of the dtypes holds.
        SourceError: The file has gone.
    """
    with _errors_of(path), Image.open(path) as image:
        if _needs_ffmpeg(image):
            return _turned(_load_by_ffmpeg(path), _orientation(image))
        return _array(ImageOps.exif_transpose(image), path)


class FolderDecoder:
    """A folder of images, one a frame.

    Args:
        source: A source of kind ``"frames"``.

    Raises:
        DecodeError: The first image cannot be read.
    """

    name = "images"
    fps = 0.0
    defect: DecodeError | None = None

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.version = f"pillow {PIL.__version__}"
        self._paths = [os.path.join(source.path, name) for name in source.frames]
        self.height, self.width = _upright_size(self._paths[0])

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int], resize: Resize) -> Generator[NDArray[Any]]:
        wanted = iter(indices)
        index = next(wanted, None)
        for place in range(len(self)):
            if place == index:
                yield self._load(place, resize)
                index = next(wanted, None)
            else:
                self._check_size(place, _upright_size(self._paths[place]))

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        return _gather(self, indices, resize, lambda wanted: {index: self._load(index, resize) for index in wanted})

    def close(self) -> None:
        """Nothing stays open between frames."""

    def _load(self, index: int, resize: Resize) -> NDArray[Any]:
        try:
            pixels = load_image(self._paths[index])
            self._check_size(index, pixels.shape[:2])
            return resize(pixels)
        except DecodeError as error:
            error.where.setdefault("frame", index)
            raise
        except SourceError as error:
            error.where.setdefault("file", self._paths[index])
            raise

    def _check_size(self, index: int, size: tuple[int, ...]) -> None:
        if size != (self.height, self.width):
            raise SourceError(
                f"frames of different sizes in one folder: {os.path.basename(self._paths[index])} is "
                f"{size[1]}x{size[0]}, but {os.path.basename(self._paths[0])} is {self.width}x{self.height}",
                fix="keep one size a folder: move the others into a folder of their own, or remove them",
                file=self._paths[index],
            )


class AnimationDecoder:
    """An animated image (WebP, GIF, PNG) through Pillow, its frames composed as a viewer shows them.

    Args:
        source: A source of kind ``"video"``.

    Raises:
        DecodeError: It cannot be opened as an image.
        SourceError: The file has gone.
    """

    name = "pillow"
    defect: DecodeError | None = None

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.version = PIL.__version__
        with _errors_of(self.path), Image.open(self.path) as image:
            self._num_frames = int(getattr(image, "n_frames", 1))
            self.width, self.height = image.size
            image.load()
            milliseconds = float(image.info.get("duration") or 0)
        self.fps = 1000.0 / milliseconds if milliseconds else 0.0

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int], resize: Resize) -> Generator[NDArray[Any]]:
        yield from (pixels for _, pixels in self._frames(indices, len(self), resize))

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        return _gather(self, indices, resize, lambda wanted: dict(self._frames(wanted, wanted[-1] + 1, resize)))

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _frames(self, indices: Sequence[int], stop: int, resize: Resize) -> Generator[tuple[int, NDArray[Any]]]:
        wanted = set(indices)
        place = 0
        with Image.open(self.path) as image:
            for place in range(stop):  # each frame builds on the one before: front to back
                with _errors_of(self.path, frame=place):
                    image.seek(place)
                    image.load()
                    pixels = _array(image, self.path) if place in wanted else None
                if pixels is not None:
                    yield place, resize(pixels)


def _gather(decoder: Any, indices: Sequence[int], resize: Resize, load: Any) -> NDArray[Any]:
    wanted = [int(index) for index in indices]
    for index in wanted:
        if not 0 <= index < len(decoder):
            raise IndexError(f"frame {index} of {decoder.path}, expected 0 to {len(decoder) - 1}")
    spec = resize.spec
    out = np.empty((len(wanted), spec.height, spec.width, spec.channels), dtype=spec.dtype)
    frames = load(sorted(set(wanted))) if wanted else {}
    for place, index in enumerate(wanted):
        out[place] = frames[index]
    return out


class _errors_of:
    """Turns whatever Pillow raises for a broken picture into a DecodeError that names the file."""

    def __init__(self, path: str, frame: int | None = None) -> None:
        self.path, self.frame = path, frame

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, (DecodeError, SourceError)):
            return
        if isinstance(error, FileNotFoundError):
            what, fix = "the file has gone since it was listed", "list the sources again"
            raise SourceError(what, fix=fix, file=self.path) from error
        what = str(error) or type(error).__name__
        if isinstance(error, PIL.UnidentifiedImageError):
            what = "no picture in any known format" if os.path.getsize(self.path) else "the file is empty: 0 bytes"
        raise DecodeError(
            f"cannot be decoded as an image: {what}", fix=_DAMAGED, file=self.path, frame=self.frame
        ) from error


def _upright_size(path: str) -> tuple[int, int]:
    """Height and width by the header alone."""
    with _errors_of(path), Image.open(path) as image:
        width, height = image.size
        # Pillow already reports a turned TIFF upright
        turned = image.format != "TIFF" and _orientation(image) >= 5
    return (width, height) if turned else (height, width)


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(_ORIENTATION, 1) or 1)


def _array(image: Image.Image, path: str) -> NDArray[Any]:
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


def _needs_ffmpeg(image: Image.Image) -> bool:
    """Whether Pillow would cut 16-bit channels down to 8, or scramble an uncompressed TIFF that lies on its side."""
    if image.format == "TIFF" and image.info.get("compression") == "raw" and _orientation(image) >= 5:
        return True
    # the file's raw mode has 16 bits, the mode that Pillow gives it has not
    raw_modes = [
        str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in getattr(image, "tile", [])
    ]
    return any(";16" in mode for mode in raw_modes) and not image.mode.startswith("I")


def _load_by_ffmpeg(path: str) -> NDArray[Any]:
    try:
        with av.open(f"file:{path}") as container:
            frame = next(container.decode(video=0))
            components = [component for component in frame.format.components if not component.is_alpha]
            grey = len(components) == 1 and not frame.format.has_palette
            deep = max(component.bits for component in components) > 8
            wanted = ("gray16le" if deep else "gray") if grey else ("gbrp16le" if deep else "rgb24")
            pixels: NDArray[Any] = frame.reformat(format=wanted, threads=1).to_ndarray()
            return pixels
    except (FFmpegError, OSError, StopIteration) as error:
        raise DecodeError(f"cannot be decoded as an image: {error}", fix=_DAMAGED, file=path) from error


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Upright by the EXIF number (Exif 2.32, tag 274)."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    return np.rot90(pixels, {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0))
