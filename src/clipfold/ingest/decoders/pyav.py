"""PyAV: FFmpeg's decoders, the definition of which frame is which."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from clipfold.errors import DecodeError
from clipfold.ingest.decoders.orientation import orientation_of
from clipfold.ingest.decoders.packets import (
    DAMAGED,
    LIBAV_ERRORS,
    best_stream,
    cut_short,
    open_video,
    plain,
    scan_packets,
)
from clipfold.ingest.listing import Source
from clipfold.ingest.places import OpenPlace, place_of
from clipfold.ingest.resize import Resize

__all__ = ["PyAVDecoder"]


class PyAVDecoder:
    """A video through PyAV, on one thread. Of several video streams it reads the one that FFmpeg calls the best.

    Args:
        source: A video: a file, behind a URL, or in a tar.

    Raises:
        DecodeError: The file is empty, has no readable header, no video stream, or no frame.
        SourceError: The file has gone or cannot be read.
    """

    name = "pyav"

    def __init__(self, source: Source) -> None:
        self.place = OpenPlace(place_of(source))
        self.path = str(self.place.place)
        self.version = f"{av.__version__} libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
        self.packets = scan_packets(self.place)
        self.fps = self.packets.fps
        self.defect = cut_short(self.place, self.packets.ends_within)
        self._size: tuple[int, int] | None = None
        self._is_mirrored = False
        self._can_seek = len(self.packets.pts) > 0

    def __len__(self) -> int:
        return self.packets.num_frames

    @property
    def height(self) -> int:
        return self._upright_size()[0]

    @property
    def width(self) -> int:
        return self._upright_size()[1]

    @property
    def is_mirrored(self) -> bool:
        """Whether its display matrix swaps left and right."""
        self._upright_size()
        return self._is_mirrored

    def read(self, indices: Sequence[int], resize: Resize, *, whole: bool = True) -> Generator[NDArray[Any]]:
        if not whole:
            yield from (pixels for _, pixels in self._pick(list(indices), resize))
            return
        wanted = iter(indices)
        index = next(wanted, None)
        place = 0
        with closing(self._decode()) as frames:
            for frame in frames:
                if place == len(self):
                    raise self._wrong_count(f"more than the {len(self)} frames it announces")
                if self._size is None:
                    self._look_at(frame)
                if place == index:
                    yield _upright_pixels(frame, resize)
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

    def times_seconds(self) -> NDArray[np.float64] | None:
        packets = self.packets
        if len(packets.pts) < len(self) or not packets.seconds_per_tick:
            return None
        ticks = packets.pts - packets.pts[0]
        # whole numbers up to the one division: 40 ticks of 1/1000 are exactly what "0.04" is
        times: NDArray[np.float64] = ticks * packets.seconds_per_tick.numerator / packets.seconds_per_tick.denominator
        return times

    def close(self) -> None:
        self.place.close()

    def _pick(self, indices: list[int], resize: Resize) -> Generator[tuple[int, NDArray[Any]]]:
        """Each of the rising indices, seeking over what lies between where that is exact."""
        left = indices
        while left:
            reached = len(left)
            with closing(self._frames_from(left[0])) as frames:
                for index, frame in frames:
                    if index == left[0]:
                        yield index, _upright_pixels(frame, resize)
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
            with open_video(self.place) as container:
                stream = best_stream(container, self.path)
                stream.thread_type = "NONE"
                stream.codec_context.thread_count = 1
                if seek_to is not None:
                    container.seek(seek_to, stream=stream)
                for frame in container.decode(stream):
                    yield frame
                    num_done += 1
        except LIBAV_ERRORS as error:
            where = None if seek_to is not None else num_done
            raise DecodeError(f"cannot be decoded: {plain(error)}", fix=DAMAGED, file=self.path, frame=where) from error

    def _upright_size(self) -> tuple[int, int]:
        if self._size is None:
            with closing(self._decode()) as frames:
                frame = next(frames, None)
            if frame is None:
                raise self._wrong_count("no frame can be decoded", frame=0)
            self._look_at(frame)
        assert self._size is not None
        return self._size

    def _look_at(self, first: av.VideoFrame) -> None:
        orientation = orientation_of(first)
        is_turned = orientation.num_turns % 2
        self._size = (first.width, first.height) if is_turned else (first.height, first.width)
        self._is_mirrored = orientation.is_mirrored

    def _wrong_count(self, what: str, frame: int | None = None) -> DecodeError:
        return DecodeError(f"delivers {what}", fix=DAMAGED, file=self.path, frame=frame)


def _upright_pixels(frame: av.VideoFrame, resize: Resize) -> NDArray[Any]:
    orientation = orientation_of(frame)
    return resize(frame, orientation.rotation_degrees, is_mirrored=orientation.is_mirrored)
