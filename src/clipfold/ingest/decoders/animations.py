"""Images that move: animated WebP, which FFmpeg cannot read, and TIFFs of several pages; GIF and PNG too, if asked."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from clipfold.errors import DecodeError, SourceError
from clipfold.ingest.decoders.order import gather
from clipfold.ingest.decoders.pictures import array_of, needs_ffmpeg, picture_errors
from clipfold.ingest.listing import Source
from clipfold.ingest.places import OpenPlace, place_of
from clipfold.ingest.resize import Resize

__all__ = ["AnimationDecoder"]


class AnimationDecoder:
    """An animated image (WebP, GIF, PNG) through Pillow, its frames composed as a viewer shows them, or TIFF pages.

    Args:
        source: A source whose content is ``"video"``.

    Raises:
        DecodeError: It cannot be opened as an image.
        SourceError: The file has gone.
    """

    name = "pillow"
    defect: DecodeError | None = None

    def __init__(self, source: Source) -> None:
        self._place = OpenPlace(place_of(source))
        self.path = str(self._place.place)
        self.version = PIL.__version__
        with picture_errors(self._place.place), self._opened() as image:
            self._num_frames = int(getattr(image, "n_frames", 1))
            self.width, self.height = image.size
            image.load()
            milliseconds = float(image.info.get("duration") or 0)
        self.fps = 1000.0 / milliseconds if milliseconds else 0.0
        self._times: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int], resize: Resize, *, whole: bool = True) -> Generator[NDArray[Any]]:
        stop = len(self) if whole else max(indices, default=-1) + 1
        yield from (pixels for _, pixels in self._frames(indices, stop, resize))

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        return gather(
            indices,
            resize,
            lambda wanted: dict(self._frames(wanted, wanted[-1] + 1, resize)),
            num_frames=len(self),
            path=self.path,
        )

    def times_seconds(self) -> NDArray[np.float64] | None:
        """By the time that each frame stays; ``None`` where one does not say (TIFF)."""
        if self._times is None:
            stays = []
            with self._opened() as image:
                for place in range(len(self)):
                    with picture_errors(self._place.place, frame=place):
                        image.seek(place)
                        image.load()
                        stays.append(float(image.info.get("duration") or 0))
            if not all(stays):
                return None
            self._times = np.cumsum([0.0, *stays[:-1]]) / 1000
        return self._times

    def close(self) -> None:
        self._place.close()

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        with self._place.open() as file, Image.open(file) as image:
            yield image

    def _frames(self, indices: Sequence[int], stop: int, resize: Resize) -> Generator[tuple[int, NDArray[Any]]]:
        wanted = set(indices)
        place = 0
        with self._opened() as image:
            for place in range(stop):  # each frame builds on the one before: front to back
                with picture_errors(self._place.place, frame=place):
                    image.seek(place)
                    image.load()
                    pixels = self._pixels(image) if place in wanted else None
                if pixels is not None:
                    yield place, resize(pixels)

    def _pixels(self, image: Image.Image) -> NDArray[Any]:
        if image.size != (self.width, self.height):
            size, first = f"{image.size[0]}x{image.size[1]}", f"{self.width}x{self.height}"
            raise SourceError(f"pages of different sizes: {size}, but the first is {first}", file=self.path)
        if needs_ffmpeg(image):
            raise DecodeError(
                "pages that Pillow cannot read exactly (16-bit colour, or lying on their side)",
                fix="save them as a folder of pictures",
                file=self.path,
            )
        return array_of(image, self.path)
