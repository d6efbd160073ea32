"""Folders of numbered images through Pillow, one image a frame.

Of a TIFF whose other pages are thumbnails the first is read; a TIFF of several full pages is a video of its own, which
:mod:`clipfold.ingest.decoders.animations` reads.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from clipfold.errors import DecodeError, SourceError
from clipfold.files import is_url, name_of
from clipfold.ingest.decoders.order import gather
from clipfold.ingest.decoders.pictures import load_image, upright_size
from clipfold.ingest.listing import Source
from clipfold.ingest.places import Place, frame_places
from clipfold.ingest.resize import Resize

__all__ = ["FolderDecoder", "load_image"]

_FIX = "replace or remove the image"


class FolderDecoder:
    """A folder of images, or the images of a sample in a tar, one a frame.

    Args:
        source: A source whose content is ``"frames"``.

    Raises:
        DecodeError: The first image cannot be read.
    """

    name = "images"
    fps = 0.0
    defect: DecodeError | None = None

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.version = f"pillow {PIL.__version__}"
        self._places = frame_places(source)
        self._is_cheap = not is_url(source.path)  # looking at the size of a frame that nobody wants
        with self._naming(0):
            self.height, self.width = upright_size(self._places[0])

    def __len__(self) -> int:
        return len(self._places)

    def times_seconds(self) -> NDArray[np.float64] | None:
        return None

    def read(self, indices: Sequence[int], resize: Resize, *, whole: bool = True) -> Generator[NDArray[Any]]:
        wanted = iter(indices)
        index = next(wanted, None)
        for place in range(len(self)):
            if place == index:
                yield self._load(place, resize)
                index = next(wanted, None)
            elif whole and self._is_cheap:
                with self._naming(place):
                    size = upright_size(self._places[place])
                self._check_size(place, size)

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        return gather(
            indices,
            resize,
            lambda wanted: {index: self._load(index, resize) for index in wanted},
            num_frames=len(self),
            path=self.path,
        )

    def close(self) -> None:
        """Nothing stays open between frames."""

    def _load(self, index: int, resize: Resize) -> NDArray[Any]:
        with self._naming(index):
            pixels = load_image(self._places[index])
        self._check_size(index, pixels.shape[:2])
        with self._naming(index):
            return resize(pixels)

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Puts frame and image before what is wrong: of a source that is left out, only this text is kept."""
        try:
            yield
        except (DecodeError, SourceError) as error:
            name = _name(self._places[index])
            where = {"file": str(self._places[index]), "frame": index, **error.where}
            raise type(error)(f"frame {index} ({name}): {error.what}", fix=error.fix or _FIX, **where) from error

    def _check_size(self, index: int, size: tuple[int, ...]) -> None:
        if size != (self.height, self.width):
            raise SourceError(
                f"frames of different sizes in one folder: {_name(self._places[index])} is "
                f"{size[1]}x{size[0]}, but {_name(self._places[0])} is {self.width}x{self.height}",
                fix="keep one size a folder: move the others into a folder of their own, or remove them",
                file=str(self._places[index]),
            )


def _name(place: Place) -> str:
    return place.member or name_of(place.location)
