"""``mp4``: one H.264 video a clip, 4:2:0, one group of pictures. Lossy and smallest; for slow links.

4:2:0 wants even sizes, so the last row and column are repeated where needed, and cropped on decoding. The bytes depend
on nothing but the clip and the versions of FFmpeg and x264: one thread, no dates, no version strings in the container.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs import Layout, check_clip

__all__ = ["Mp4"]

_MAX_SIDE = 16_384  # x264's
_FRAMES_PER_SECOND = 25  # nominal: a clip's own rate is in its .json
_FIX = "the sample is damaged; convert again"


class Mp4:
    """Clips as H.264 videos.

    Args:
        crf: x264's constant rate factor, 0 (largest) to 51 (smallest).
        preset: x264's preset: how long to look for fewer bytes.

    Raises:
        ValueError: A setting out of range.
    """

    extension = "mp4"
    layout: Layout = "SHWC"
    exact = False

    def __init__(self, *, crf: int = 18, preset: str = "medium") -> None:
        presets = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
        if not isinstance(crf, int) or isinstance(crf, bool) or not 0 <= crf <= 51:
            raise ValueError(f"crf of codec 'mp4': {crf!r}, expected a whole number from 0 to 51")
        if preset not in presets:
            raise ValueError(f"preset of codec 'mp4': {preset!r}, expected one of {', '.join(presets)}")
        self.crf, self.preset = crf, preset

    def settings(self) -> dict[str, Any]:
        """``crf`` and ``preset``."""
        return {"crf": self.crf, "preset": self.preset}

    def check(self, spec: ClipSpec) -> None:
        """uint8, one or three channels, at most 16,384 rows and columns.

        Raises:
            ValueError: One of these does not hold.
        """
        if spec.dtype != "uint8" or spec.channels not in (1, 3):
            raise ValueError(
                f"codec 'mp4' holds uint8 clips of 1 or 3 channels, not {spec.dtype} of {spec.channels}; "
                "use codec 'lossless' or 'raw'"
            )
        if max(spec.height, spec.width) > _MAX_SIDE:
            raise ValueError(
                f"codec 'mp4' holds frames of at most {_MAX_SIDE:,} rows and columns, not {spec.height:,} x "
                f"{spec.width:,}; use smaller frames, or codec 'lossless' or 'raw'"
            )

    def header_bytes(self, spec: ClipSpec) -> int | None:
        """``None``: a video has to be decoded."""
        return None

    def encode(self, clip_SCHW: NDArray[Any], spec: ClipSpec) -> bytes:
        """The video.

        Raises:
            ValueError: Another shape or dtype than the spec's.
        """
        import av

        check_clip(clip_SCHW, spec)
        padding = ((0, 0), (0, spec.height % 2), (0, spec.width % 2), (0, 0))
        frames_SHWC = np.ascontiguousarray(np.pad(clip_SCHW.transpose(0, 2, 3, 1), padding, mode="edge"))
        file = io.BytesIO()
        with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("libx264", rate=_FRAMES_PER_SECOND, options=self._x264_options(spec))
            stream.height, stream.width = frames_SHWC.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            for number, frame_HWC in enumerate(frames_SHWC):
                frame = av.VideoFrame.from_ndarray(*_plane(frame_HWC))
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return file.getvalue()

    def _x264_options(self, spec: ClipSpec) -> dict[str, str]:
        group = str(max(spec.num_frames, 1))
        return {
            "crf": str(self.crf),
            "preset": self.preset,
            "threads": "1",
            "flags": "+bitexact",
            "x264-params": f"keyint={group}:min-keyint={group}:scenecut=0:threads=1:lookahead-threads=1",
        }

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], spec: ClipSpec) -> None:
        """Decode all frames into the slot (S, H, W, C).

        Raises:
            ShardError: Not a video, a damaged one, or one of another size or number of frames than the spec's.
        """
        import av
        from av.video.reformatter import VideoReformatter

        size = spec.height + spec.height % 2, spec.width + spec.width % 2
        number = 0
        try:
            _check_boxes(data)
            with av.open(io.BytesIO(data), "r", format="mp4") as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                convert = VideoReformatter()  # one for all frames: each sets up its tables anew
                for frame in container.decode(stream):
                    if (frame.height, frame.width) != size or number == spec.num_frames:
                        raise ValueError(
                            f"frame {number} is {frame.height} x {frame.width}, expected {spec.num_frames} frames of "
                            f"{size[0]} x {size[1]}"
                        )
                    pixels = convert.reformat(frame, format="rgb24" if spec.channels == 3 else "gray").to_ndarray()
                    out[number] = pixels.reshape(*size, spec.channels)[: spec.height, : spec.width]
                    number += 1
        except (av.FFmpegError, ValueError, IndexError) as error:
            raise ShardError(f"mp4 clip cannot be decoded: {error}", fix=_FIX) from error
        if number != spec.num_frames:
            raise ShardError(f"mp4 clip has {number} frames, expected {spec.num_frames}", fix=_FIX)


def _check_boxes(data: bytes | memoryview) -> None:
    """The file is whole: its boxes (ISO/IEC 14496-12: four bytes of size, four of type, the rest) end where it does.

    FFmpeg itself would read a file that was cut somewhere in the last of them.
    """
    position = 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size < 8:  # 0 and 1 stand for sizes that clips never need
            break
        position += size
    if not data or position != len(data):
        raise ValueError(f"it has {len(data):,} bytes, but its boxes end elsewhere")


def _plane(frame_HWC: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """What PyAV takes: a grey picture has no axis for its channel."""
    return (frame_HWC, "rgb24") if frame_HWC.shape[2] == 3 else (np.ascontiguousarray(frame_HWC[:, :, 0]), "gray")
