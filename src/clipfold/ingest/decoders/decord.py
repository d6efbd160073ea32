"""decord, where it is known to deliver the same frames as PyAV: optional, and never the default.

decord 0.6 carries FFmpeg 4 and has not been maintained since 2022. It raises on AV1 and on files without a duration,
and may loop for ever on what it does not know; so it gets local files with the codecs below that
:mod:`clipfold.ingest.decoders.exactness` allows. PyAV serves the others.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.errors import DecodeError, PluginError
from clipfold.ingest.decoders.exactness import may_serve
from clipfold.ingest.decoders.order import gather
from clipfold.ingest.decoders.pyav import PyAVDecoder
from clipfold.ingest.listing import Source
from clipfold.ingest.resize import Resize

__all__ = ["DecordDecoder", "open_decord"]

_CODECS = frozenset(["h264", "hevc", "mpeg4", "mjpeg", "vp8", "vp9", "libvpx", "libvpx-vp9"])


def open_decord(source: Source) -> DecordDecoder | PyAVDecoder:
    """decord where it may serve the file, else PyAV: the decoder's ``name`` says which.

    Raises:
        PluginError: decord is not installed.
        DecodeError: The file cannot be opened, by PyAV either.
        SourceError: The file has gone.
    """
    try:
        import decord
    except ImportError as error:
        raise PluginError(
            "decord is not installed", fix="pip install 'clipfold[decord]', or leave --decoder out"
        ) from error
    reference = PyAVDecoder(source)
    if not reference.place.place.is_plain or not may_serve(reference, _CODECS):
        return reference
    with suppress(Exception):  # whatever decord has against the file: PyAV has opened it already
        decoder = DecordDecoder(source, reference, decord)
        if len(decoder) == len(reference) and decoder.opens_like_reference():
            return decoder
    return reference


class DecordDecoder:
    """A video through decord on one thread, front to back. Use :func:`open_decord`.

    Args:
        source: A source of kind ``"video"``.
        reference: The same file, opened by PyAV.
        decord: The module.
    """

    name = "decord"
    defect: DecodeError | None = None

    def __init__(self, source: Source, reference: PyAVDecoder, decord: Any) -> None:
        decord.logging.set_level(decord.logging.QUIET)
        self.path, self._decord, self._reference = source.path, decord, reference
        self.version = str(decord.__version__)
        self.fps = reference.fps
        self.height, self.width = reference.height, reference.width
        self._num_frames = len(self._open())

    def __len__(self) -> int:
        return self._num_frames

    def opens_like_reference(self) -> bool:
        """Whether the first frame has PyAV's upright size, and three channels (some rotated ones have four)."""
        return next(self._frames(1)).shape == (self.height, self.width, 3)

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

    def _open(self) -> Any:
        return self._decord.VideoReader(self.path, ctx=self._decord.cpu(0), num_threads=1)

    def _frames(self, stop: int) -> Generator[NDArray[Any]]:
        num_done = 0
        try:
            reader = self._open()
            while num_done < stop:
                yield reader.next().asnumpy()
                num_done += 1
        except (self._decord.DECORDError, StopIteration, RuntimeError) as error:
            raise DecodeError(
                f"cannot be decoded by decord: {_plain(error)}",
                fix="read it with --decoder pyav",
                file=self.path,
                frame=num_done,
            ) from error


def _plain(error: Exception) -> str:
    """The first line without the times and build paths that decord puts in front of it."""
    lines = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", str(error)).splitlines()
    return lines[0] if lines else f"no more frames ({type(error).__name__})"
