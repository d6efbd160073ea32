"""torchcodec on the CPU, where it is known to deliver the same frames as PyAV: optional, and never the default.

Its count can promise frames that it cannot deliver (0.17: an MPEG program stream of 100 frames, 87 delivered), so it
serves what :mod:`clipfold.ingest.decoders.exactness` lets it, front to back on one thread. It brings torch with it,
which makes workers start slowly, and needs FFmpeg's shared libraries (4 to 8) on the machine.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from clipfold.errors import DecodeError, PluginError
from clipfold.ingest.decoders.exactness import may_serve
from clipfold.ingest.decoders.order import gather
from clipfold.ingest.decoders.pyav import PyAVDecoder
from clipfold.ingest.listing import Source
from clipfold.ingest.resize import Resize

__all__ = ["TorchcodecDecoder", "load_torchcodec", "open_torchcodec"]

_CODECS = frozenset(["h264", "hevc", "mpeg4", "mjpeg", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d"])
_NUM_FRAMES = 8  # decoded in one call


def load_torchcodec() -> Any:
    """The module's ``VideoDecoder``.

    Raises:
        PluginError: It is not installed, or finds no FFmpeg.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]
    except Exception as error:  # it raises RuntimeError where no FFmpeg loads
        missing = isinstance(error, ImportError)
        raise PluginError(
            "torchcodec is not installed" if missing else f"torchcodec does not load: {str(error).splitlines()[0]}",
            fix="pip install 'clipfold[torchcodec]'; it needs FFmpeg's shared libraries (apt install ffmpeg)",
        ) from error
    return VideoDecoder


def open_torchcodec(source: Source) -> TorchcodecDecoder | PyAVDecoder:
    """torchcodec where it may serve the file, else PyAV: the decoder's ``name`` says which.

    Raises:
        PluginError: torchcodec does not load.
        DecodeError: The file cannot be opened, by PyAV either.
        SourceError: The file has gone.
    """
    video_decoder = load_torchcodec()
    reference = PyAVDecoder(source)
    if not may_serve(reference, _CODECS):
        return reference
    with suppress(Exception):  # whatever it has against the file: PyAV has opened it already
        decoder = TorchcodecDecoder(reference, video_decoder)
        if decoder.opens_like_reference():
            return decoder
    return reference


class TorchcodecDecoder:
    """A video through torchcodec on one thread, front to back. Use :func:`open_torchcodec`.

    Args:
        reference: The file, opened by PyAV.
        video_decoder: The class.
    """

    name = "torchcodec"
    defect: DecodeError | None = None

    def __init__(self, reference: PyAVDecoder, video_decoder: Any) -> None:
        from importlib.metadata import version

        self.path, self._reference, self._video_decoder = reference.path, reference, video_decoder
        self.version = version("torchcodec")
        self.fps = reference.fps
        self.height, self.width = reference.height, reference.width
        decoder, files = self._open()
        self._num_promised = len(decoder)
        _close(files)

    def __len__(self) -> int:
        return len(self._reference)

    def opens_like_reference(self) -> bool:
        """Whether it counts PyAV's frames and the first one has PyAV's upright size."""
        first = next(self._frames(1))
        return self._num_promised == len(self._reference) and first.shape == (self.height, self.width, 3)

    def read(self, indices: Sequence[int], resize: Resize, *, whole: bool = True) -> Generator[NDArray[Any]]:
        wanted = set(indices)
        for place, pixels in enumerate(self._frames(len(self) if whole else max(wanted, default=-1) + 1)):
            if place in wanted:
                yield resize(pixels)

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        return gather(indices, resize, lambda wanted: self._load(wanted, resize), num_frames=len(self), path=self.path)

    def times_seconds(self) -> NDArray[np.float64] | None:
        return self._reference.times_seconds()

    def close(self) -> None:
        self._reference.close()

    def _load(self, indices: list[int], resize: Resize) -> dict[int, NDArray[Any]]:
        return dict(zip(indices, self.read(indices, resize, whole=False), strict=True))

    def _open(self) -> tuple[Any, list[BinaryIO]]:
        place = self._reference.place
        files = [] if place.place.is_plain else [place.open()]
        decoder = self._video_decoder(
            files[0] if files else place.place.location, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )
        return decoder, files

    def _frames(self, stop: int) -> Generator[NDArray[Any]]:
        place = 0
        files: list[BinaryIO] = []
        try:
            decoder, files = self._open()
            while place < stop:
                batch = decoder.get_frames_in_range(place, min(place + _NUM_FRAMES, stop)).data.numpy()
                for pixels in batch:
                    yield pixels
                    place += 1
        except (RuntimeError, IndexError, ValueError, OSError) as error:
            # without the function and the build path that it puts in front
            text = re.sub(r"^\w+, \S+\.cpp:\d+, ", "", str(error).strip())
            lines = text.splitlines()
            raise DecodeError(
                f"cannot be decoded by torchcodec: {lines[0] if lines else type(error).__name__}",
                fix="read it with --decoder pyav",
                file=self.path,
                frame=place,
            ) from error
        finally:
            _close(files)


def _close(files: Sequence[BinaryIO]) -> None:
    for file in files:
        file.close()
