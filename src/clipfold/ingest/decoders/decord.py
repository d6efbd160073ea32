"""decord, where it is known to deliver the same frames as PyAV: optional, and never the default.

decord 0.6 carries FFmpeg 4 and has not been maintained since 2022. It is not exact in AVI, MPEG and transport streams,
raises on AV1 and on files without a duration, and may loop for ever on what it does not know; so it gets mp4, mov, mkv
and webm files with the codecs below, without an edit list, if its own count is PyAV's. PyAV serves the others.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.errors import DecodeError, PluginError
from clipfold.ingest.decoders.packets import scan_packets
from clipfold.ingest.decoders.pyav import PyAVDecoder
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import Source

__all__ = ["DecordDecoder", "open_decord"]

_EXTENSIONS = frozenset([".mp4", ".m4v", ".mov", ".mkv", ".webm"])
_CODECS = frozenset(["h264", "hevc", "mpeg4", "mjpeg", "vp8", "vp9", "libvpx", "libvpx-vp9"])
_EIGHT_BITS = frozenset(["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"])


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
    if not _may_serve(reference):
        return reference
    with suppress(Exception):  # whatever decord has against the file: PyAV has opened it already
        decoder = DecordDecoder(source, reference, decord)
        if len(decoder) == len(reference) and decoder.opens_like_reference():
            return decoder
    return reference


def _may_serve(reference: PyAVDecoder) -> bool:
    packets = reference.packets
    if PurePath(reference.path).suffix.lower() not in _EXTENSIONS or reference.defect is not None:
        return False
    if packets.codec not in _CODECS or packets.pixel_format not in _EIGHT_BITS or not packets.is_best_first:
        return False
    return len(packets.pts) > 0 and not _has_edit_list(reference)


def _has_edit_list(reference: PyAVDecoder) -> bool:
    """Whether an edit list does more than move the start: without it the packets are others, or other ones count."""
    packets = reference.packets
    if not packets.container.startswith("mov"):
        return False
    plain = scan_packets(reference.path, options={"ignore_editlist": "1"})
    if packets.num_discarded or len(plain.pts) != len(packets.pts):
        return True
    return bool((plain.pts - plain.pts[0] != packets.pts - packets.pts[0]).any())


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

    def read(self, indices: Sequence[int], resize: Resize) -> Generator[NDArray[Any]]:
        wanted = set(indices)
        for place, pixels in enumerate(self._frames(len(self))):
            if place in wanted:
                yield resize(pixels)

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        wanted = [int(index) for index in indices]
        for index in wanted:
            if not 0 <= index < len(self):
                raise IndexError(f"frame {index} of {self.path}, expected 0 to {len(self) - 1}")
        spec = resize.spec
        out = np.empty((len(wanted), spec.height, spec.width, spec.channels), dtype=spec.dtype)
        for place, pixels in enumerate(self._frames(max(wanted, default=-1) + 1)):
            if place in wanted:
                out[[slot for slot, index in enumerate(wanted) if index == place]] = resize(pixels)
        return out

    def close(self) -> None:
        """Nothing stays open between calls."""

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
