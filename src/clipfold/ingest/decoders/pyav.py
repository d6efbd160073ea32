"""PyAV: FFmpeg's decoders, the definition of which frame is which."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from numpy.typing import NDArray

from clipfold.errors import DecodeError, SourceError
from clipfold.ingest.decoders.containers import declared_bytes
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import Source

__all__ = ["Packets", "PyAVDecoder", "scan_packets"]

_DAMAGED = "copy the file again from where it came from; --keep-partial keeps the full clips before the damage"
_LIBAV_ERRORS = (FFmpegError, OSError, UnicodeDecodeError)


@dataclass(frozen=True, kw_only=True)
class Packets:
    """What a pass over a file's packets tells, without decoding any: a few milliseconds.

    Args:
        num_frames: Packets that will become frames; those that an edit list discards are not counted.
        num_discarded: Packets that an edit list discards.
        pts: int64, rising: the pts of each frame, or empty where some are missing or repeated.
        keys: int64, rising: the frames that are key frames.
        ends_within: Whether the last packet is incomplete.
        fps: Frames per second, 0.0 where unknown.
        codec, container, pixel_format: FFmpeg's names.
        is_best_first: Whether the stream read is the file's first video stream.
    """

    num_frames: int
    num_discarded: int
    pts: NDArray[np.int64]
    keys: NDArray[np.int64]
    ends_within: bool
    fps: float
    codec: str
    container: str
    pixel_format: str
    is_best_first: bool


class PyAVDecoder:
    """A video through PyAV, on one thread. Of several video streams it reads the one that FFmpeg calls the best.

    Args:
        source: A source of kind ``"video"``.

    Raises:
        DecodeError: The file is empty, has no readable header, no video stream, or no frame.
        SourceError: The file has gone.
    """

    name = "pyav"

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.version = f"{av.__version__} libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
        self.packets = scan_packets(self.path)
        self.fps = self.packets.fps
        self.defect = _cut_short(self.path, self.packets.ends_within)
        self._size: tuple[int, int] | None = None
        self._can_seek = len(self.packets.pts) > 0

    def __len__(self) -> int:
        return self.packets.num_frames

    @property
    def height(self) -> int:
        return self._upright_size()[0]

    @property
    def width(self) -> int:
        return self._upright_size()[1]

    def read(self, indices: Sequence[int], resize: Resize) -> Generator[NDArray[Any]]:
        wanted = iter(indices)
        index = next(wanted, None)
        place = 0
        with closing(self._decode()) as frames:
            for frame in frames:
                if place == len(self):
                    raise self._wrong_count(f"more than the {len(self)} frames it announces")
                self._size = self._size or _upright(frame)
                if place == index:
                    yield resize(frame, frame.rotation)
                    index = next(wanted, None)
                place += 1
        if place != len(self):
            raise self._wrong_count(f"{place} frames, expected the {len(self)} it announces", frame=place)

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        wanted = [int(index) for index in indices]
        for index in wanted:
            if not 0 <= index < len(self):
                raise IndexError(f"frame {index} of {self.path}, expected 0 to {len(self) - 1}")
        frames = dict(self._pick(sorted(set(wanted)), resize))
        shape = resize.spec.height, resize.spec.width, resize.spec.channels
        out = np.empty((len(wanted), *shape), dtype=resize.spec.dtype)
        for place, index in enumerate(wanted):
            out[place] = frames[index]
        return out

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _pick(self, indices: list[int], resize: Resize) -> Generator[tuple[int, NDArray[Any]]]:
        """Each of the rising indices, seeking over what lies between where that is exact."""
        left = indices
        while left:
            reached = len(left)
            with closing(self._frames_from(left[0])) as frames:
                for index, frame in frames:
                    if index == left[0]:
                        yield index, resize(frame, frame.rotation)
                        left = left[1:]
                        if not left or self._is_nearer_by_seek(index, left[0]):
                            break
            if len(left) == reached:
                raise self._wrong_count(f"no frame {left[0]} of the {len(self)} it announces", frame=left[0])

    def _is_nearer_by_seek(self, here: int, wanted: int) -> bool:
        return self._can_seek and self._key_before(wanted) > here + 1

    def _key_before(self, index: int) -> int:
        place = int(np.searchsorted(self.packets.keys, index, side="right")) - 1
        return int(self.packets.keys[place]) if place >= 0 else 0

    def _frames_from(self, index: int) -> Generator[tuple[int, av.VideoFrame]]:
        """Numbered frames, the first at or before ``index``: after a seek if one lands well, else from the start."""
        if self._can_seek and self._key_before(index) > 0:
            last = -1
            for place, frame in self._decode_after_seek(index):
                yield place, frame
                last = place
            if last >= index:
                return
            self._can_seek = False  # it landed late or lost count: this file is read from the start from now on
        yield from enumerate(self._decode())

    def _decode_after_seek(self, index: int) -> Generator[tuple[int, av.VideoFrame]]:
        """Nothing at all unless the first frame is a whole key frame at or before the one wanted."""
        pts = self.packets.pts
        place: int | None = None
        with closing(self._decode(seek_to=int(pts[index]))) as frames:
            for frame in frames:
                if place is None:
                    found = -1 if frame.pts is None else int(np.searchsorted(pts, frame.pts))
                    if not 0 <= found <= index or not frame.key_frame:
                        return
                    place = found
                if place >= len(pts) or frame.pts != pts[place] or frame.is_corrupt:
                    return
                yield place, frame
                place += 1

    def _decode(self, seek_to: int | None = None) -> Generator[av.VideoFrame]:
        num_done = 0
        try:
            with _open(self.path) as container:
                stream = _best_stream(container, self.path)
                stream.thread_type = "NONE"
                stream.codec_context.thread_count = 1
                if seek_to is not None:
                    container.seek(seek_to, stream=stream)
                for frame in container.decode(stream):
                    yield frame
                    num_done += 1
        except _LIBAV_ERRORS as error:
            where = None if seek_to is not None else num_done
            raise DecodeError(
                f"cannot be decoded: {_plain(error)}", fix=_DAMAGED, file=self.path, frame=where
            ) from error

    def _upright_size(self) -> tuple[int, int]:
        if self._size is None:
            with closing(self._decode()) as frames:
                frame = next(frames, None)
            if frame is None:
                raise self._wrong_count("no frame can be decoded", frame=0)
            self._size = _upright(frame)
        return self._size

    def _wrong_count(self, what: str, frame: int | None = None) -> DecodeError:
        return DecodeError(f"delivers {what}", fix=_DAMAGED, file=self.path, frame=frame)


def scan_packets(path: str, *, options: dict[str, str] | None = None) -> Packets:
    """Count a video's frames and note their times, without decoding.

    Raises:
        DecodeError: The file is empty, has no readable header, no video stream, or no frame.
        SourceError: The file has gone.
    """
    if not os.path.exists(path):
        raise SourceError("the file has gone since it was listed", fix="list the sources again", file=path)
    if os.path.getsize(path) == 0:
        raise DecodeError("the file is empty: 0 bytes, expected a video", fix="copy it again or remove it", file=path)
    try:
        return _scan(path, options or {})
    except DecodeError as error:
        raise (_cut_short(path) or error) from error.__cause__


def _scan(path: str, options: dict[str, str]) -> Packets:
    try:
        with _open(path, options) as container:
            stream = _best_stream(container, path)
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
            fps = stream.average_rate
            name, pixel_format = container.format.name, str(stream.codec_context.pix_fmt)
            is_best_first = stream.index == container.streams.video[0].index
    except _LIBAV_ERRORS as error:
        raise DecodeError(
            f"cannot be opened as a video: {_plain(error)}",
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
        keys=keys,
        ends_within=ends_within,
        fps=float(fps) if fps else 0.0,
        codec=codec,
        container=name,
        pixel_format=pixel_format,
        is_best_first=is_best_first,
    )


def _cut_short(path: str, ends_within: bool = False) -> DecodeError | None:
    num_bytes, declared = os.path.getsize(path), declared_bytes(path)
    if declared is not None and declared > num_bytes:
        found = f"{num_bytes:,} bytes, expected at least the {declared:,} that its header says"
    elif ends_within:
        found = "it ends within a frame"
    else:
        return None
    return DecodeError(f"the file is cut short: {found}", fix=_DAMAGED, file=path)


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


def _open(path: str, options: dict[str, str] | None = None) -> Any:
    # file: so that a name with a colon is no URL; broken metadata is no reason to refuse a video
    return av.open(f"file:{path}", metadata_errors="replace", options=options or {})


def _best_stream(container: Any, path: str) -> Any:
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic or stream.codec_context is None:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise DecodeError(
            f"holds no video stream: found {', '.join(kinds)}",
            fix="remove it, or leave it out with --exclude",
            file=path,
        )
    return stream


def _upright(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.width, frame.height) if round(frame.rotation / 90) % 2 else (frame.height, frame.width)


def _plain(error: Exception) -> str:
    """The error's text without number and path, which our own message has."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text)
