"""A video file before anything is decoded: how many frames, at which times, whole or cut short."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from numpy.typing import NDArray

from clipfold.errors import DecodeError
from clipfold.ingest.decoders.containers import declared_bytes
from clipfold.ingest.places import OpenPlace

__all__ = ["DAMAGED", "LIBAV_ERRORS", "Packets", "best_stream", "cut_short", "open_video", "plain", "scan_packets"]

DAMAGED = "copy the file again from where it came from; --keep-partial keeps the full clips before the damage"
_BUFFER_BYTES = 1 << 18  # of what is read through Python
# Broken metadata is no reason to refuse a video. From 19 on PyAV replaces what is not UTF-8 by itself.
_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
LIBAV_ERRORS = (FFmpegError, OSError, UnicodeDecodeError)


@dataclass(frozen=True, kw_only=True)
class Packets:
    """What a pass over a file's packets tells, without decoding any: a few milliseconds.

    Args:
        num_frames: Packets that will become frames; those that an edit list discards are not counted.
        num_discarded: Packets that an edit list discards.
        pts: int64, rising: the pts of each frame, or empty where some are missing or repeated.
        seconds_per_tick: Of the clock that ``pts`` counts in.
        keys: int64, rising: the frames that are key frames.
        ends_within: Whether the last packet is incomplete.
        fps: Frames per second, 0.0 where unknown.
        codec, container, pixel_format: FFmpeg's names.
        is_best_first: Whether the stream read is the file's first video stream.
    """

    num_frames: int
    num_discarded: int
    pts: NDArray[np.int64]
    seconds_per_tick: Fraction
    keys: NDArray[np.int64]
    ends_within: bool
    fps: float
    codec: str
    container: str
    pixel_format: str
    is_best_first: bool


def scan_packets(place: OpenPlace, *, options: dict[str, str] | None = None) -> Packets:
    """Count a video's frames and note their times, without decoding.

    Raises:
        DecodeError: The file is empty, has no readable header, no video stream, or no frame.
        SourceError: The file cannot be read.
    """
    if place.num_bytes == 0:
        what = "the file is empty: 0 bytes, expected a video"
        raise DecodeError(what, fix="copy it again or remove it", file=str(place.place))
    try:
        return _scan(place, options or {})
    except DecodeError as error:
        raise (cut_short(place) or error) from error.__cause__


def _scan(place: OpenPlace, options: dict[str, str]) -> Packets:
    path = str(place.place)
    try:
        with open_video(place, options) as container:
            stream = best_stream(container, path)
            codec = stream.codec_context.name
            kept: list[tuple[int | None, bool]] = []
            num_discarded, ends_within = 0, False
            for packet in container.demux(stream):
                if packet.size:
                    num_discarded += packet.is_discard
                    ends_within = packet.is_corrupt
                    if _is_shown(packet, codec):
                        kept.append((packet.pts, packet.is_keyframe))
            # read before the container is closed: a stream's attributes point into it
            fps, seconds_per_tick = stream.average_rate, stream.time_base or Fraction(0)
            name, pixel_format = container.format.name, str(stream.codec_context.pix_fmt)
            is_best_first = stream.index == container.streams.video[0].index
    except LIBAV_ERRORS as error:
        raise DecodeError(
            f"cannot be opened as a video: {plain(error)}",
            fix="check that it plays elsewhere; it may be no video at all, or cut short",
            file=path,
        ) from error
    if not kept:
        raise DecodeError("holds no frame: its video stream is empty", fix="copy it again or remove it", file=path)
    pts, keys = _timeline(kept)
    return Packets(
        num_frames=len(kept),
        num_discarded=num_discarded,
        pts=pts,
        seconds_per_tick=seconds_per_tick,
        keys=keys,
        ends_within=ends_within,
        fps=float(fps) if fps else 0.0,
        codec=codec,
        container=name,
        pixel_format=pixel_format,
        is_best_first=is_best_first,
    )


def cut_short(place: OpenPlace, ends_within: bool = False) -> DecodeError | None:
    """The error to raise where the file ends before its header says so, or within a frame; else ``None``."""
    num_bytes = place.num_bytes
    with place.open() as file:
        declared = declared_bytes(file, num_bytes)
    if declared is not None and declared > num_bytes:
        found = f"{num_bytes:,} bytes, expected at least the {declared:,} that its header says"
    elif ends_within:
        found = "it ends within a frame"
    else:
        return None
    return DecodeError(f"the file is cut short: {found}", fix=DAMAGED, file=str(place.place))


def _is_shown(packet: Any, codec: str) -> bool:
    """Whether a packet becomes a frame: not one outside the edit list, nor a hidden frame of VP8."""
    if packet.is_discard:
        return False
    if codec in ("vp8", "libvpx"):  # RFC 6386, 9.1: bit 4 of the frame tag is show_frame
        return bool(memoryview(packet)[0] & 0x10)
    return True


def _timeline(kept: list[tuple[int | None, bool]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    nothing = np.empty(0, dtype=np.int64)
    if any(pts is None for pts, _ in kept):
        return nothing, nothing
    pts = np.array([pts for pts, _ in kept], dtype=np.int64)
    order = np.argsort(pts, kind="stable")
    if (np.diff(pts[order]) <= 0).any():
        return nothing, nothing
    is_key = np.array([key for _, key in kept], dtype=bool)
    return pts[order], np.flatnonzero(is_key[order])


def open_video(place: OpenPlace, options: dict[str, str] | None = None) -> Any:
    """An open ``av`` container, to be closed by the caller."""
    return av.open(place.target(), options=options or {}, buffer_size=_BUFFER_BYTES, **_LENIENT)


def best_stream(container: Any, path: str) -> Any:
    """The video stream that FFmpeg calls the best one; cover art does not count.

    Raises:
        DecodeError: There is none.
    """
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic or stream.codec_context is None:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise DecodeError(
            f"holds no video stream: found {', '.join(kinds)}",
            fix="remove it, or leave it out with --exclude",
            file=path,
        )
    return stream


def plain(error: Exception) -> str:
    """The error's text without number and path, which our own message has."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text)
