"""``jpeg``: the S frames stacked to one (S * H', W) picture, decoded by one call.

::

    frame 0   H rows + the last row repeated until H' is a multiple of 8
    ------------------------------------------------ restart marker
    frame 1   ...

Without chroma subsampling (4:4:4) an 8x8 block never reaches over a frame's border, and a restart marker there makes
the entropy code start afresh: every frame of the strip decodes to the very pixels of a JPEG of that frame alone, and
one frame can be cut out without decoding the others (:meth:`Jpeg.decode_frame`).
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs import Layout, check_clip

__all__ = ["Jpeg"]

_BLOCK = 8
_MAX_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION
_MAX_RESTART = 65_535  # blocks between restart markers: a 16-bit number
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")  # inside the entropy code 0xff is otherwise always followed by 0x00
_DAMAGED = "the sample is damaged; convert again"


class Jpeg:
    """Clips as one JPEG strip, 8 bits, grey or RGB.

    Args:
        quality: libjpeg's quality, 1 to 100.

    Raises:
        ValueError: ``quality`` out of range.
    """

    extension = "jpg"
    layout: Layout = "SHWC"
    exact = False

    def __init__(self, *, quality: int = 90) -> None:
        if not isinstance(quality, int) or isinstance(quality, bool) or not 1 <= quality <= 100:
            raise ValueError(f"quality of codec 'jpeg': {quality!r}, expected a whole number from 1 to 100")
        self.quality = quality

    def settings(self) -> dict[str, Any]:
        """``quality``."""
        return {"quality": self.quality}

    def check(self, spec: ClipSpec) -> None:
        """uint8, one or three channels, at most 65,500 rows in the strip and 65,500 columns.

        Raises:
            ValueError: One of these does not hold.
        """
        if spec.dtype != "uint8":
            raise ValueError(f"codec 'jpeg' holds uint8 clips, not {spec.dtype}; use codec 'lossless' or 'raw'")
        if spec.channels not in (1, 3):
            raise ValueError(
                f"codec 'jpeg' holds clips of 1 or 3 channels, not {spec.channels}; use codec 'lossless' or 'raw'"
            )
        rows = spec.num_frames * _padded(spec.height)
        if rows > _MAX_SIDE or spec.width > _MAX_SIDE:
            raise ValueError(
                f"codec 'jpeg' holds strips of at most {_MAX_SIDE:,} rows and columns, but {spec.num_frames} frames of "
                f"{_padded(spec.height)} rows (height padded to a multiple of 8) and {spec.width} columns make "
                f"{rows:,} x {spec.width:,}; use fewer frames, smaller frames, or codec 'mp4', 'lossless' or 'raw'"
            )

    def header_bytes(self, spec: ClipSpec) -> int | None:
        """``None``: a JPEG has to be decoded."""
        return None

    def encode(self, clip_SCHW: NDArray[Any], spec: ClipSpec) -> bytes:
        """The strip with restart markers at every frame's border.

        Raises:
            ValueError: Another shape or dtype than the spec's.
        """
        check_clip(clip_SCHW, spec)
        strip_SHWC = clip_SCHW.transpose(0, 2, 3, 1)
        if padding := _padded(spec.height) - spec.height:
            strip_SHWC = np.pad(strip_SHWC, ((0, 0), (0, padding), (0, 0), (0, 0)), mode="edge")
        rows_PWC = np.ascontiguousarray(strip_SHWC).reshape(-1, spec.width, spec.channels)
        picture = Image.fromarray(rows_PWC if spec.channels == 3 else rows_PWC[:, :, 0])
        file = io.BytesIO()
        picture.save(
            file, "JPEG", quality=self.quality, subsampling=0, restart_marker_rows=_block_rows_per_restart(spec)
        )
        return file.getvalue()

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], spec: ClipSpec) -> None:
        """Decode the strip into the slot (S, H, W, C); with one copy more where H is not a multiple of 8.

        Raises:
            ShardError: Not a JPEG, a damaged one, or one of another size or kind than the spec's.
        """
        rows = _padded(spec.height)
        if rows == spec.height:
            _decode(data, out.reshape(-1, spec.width, spec.channels), spec)
            return
        padded_SHWC = np.empty((spec.num_frames, rows, spec.width, spec.channels), np.uint8)
        _decode(data, padded_SHWC.reshape(-1, spec.width, spec.channels), spec)
        np.copyto(out, padded_SHWC[:, : spec.height])

    def decode_frame(self, data: bytes | memoryview, frame: int, spec: ClipSpec) -> NDArray[np.uint8]:
        """One frame of the strip, cut out at its restart markers; the others are not decoded.

        Args:
            data: The strip.
            frame: Number of the frame, in [0, S).
            spec: Shape of the clip.

        Returns:
            uint8 (H, W, C), the same values as in the whole strip.

        Raises:
            ShardError: The strip is damaged or has no restart markers where they should be.
            IndexError: No such frame.
        """
        if not 0 <= frame < spec.num_frames:
            raise IndexError(f"frame {frame} of a clip of {spec.num_frames} frames")
        frame_HWC = np.empty((_padded(spec.height), spec.width, spec.channels), np.uint8)
        _decode(_cut_frame(bytes(data), frame, spec), frame_HWC, spec)
        return frame_HWC[: spec.height]


def _padded(height: int) -> int:
    return -(-height // _BLOCK) * _BLOCK


def _block_rows_per_restart(spec: ClipSpec) -> int:
    """The most rows of blocks between restart markers that divide a frame and fit the 16-bit interval."""
    frame_rows, columns = _padded(spec.height) // _BLOCK, -(-spec.width // _BLOCK)
    return max(rows for rows in range(1, frame_rows + 1) if frame_rows % rows == 0 and rows * columns <= _MAX_RESTART)


def _decode(data: bytes | memoryview, out_HWC: NDArray[Any], spec: ClipSpec) -> None:
    kind = "RGB" if spec.channels == 3 else "GRAY"
    try:
        height, width, found_kind, _ = simplejpeg.decode_jpeg_header(data)
        if (height, width) != out_HWC.shape[:2] or (found_kind == "Gray") != (kind == "GRAY"):
            raise ShardError(
                f"JPEG strip is {height} x {width} {found_kind}, expected {out_HWC.shape[0]} x {out_HWC.shape[1]} "
                f"{kind} ({spec})",
                fix=_DAMAGED,
            )
        simplejpeg.decode_jpeg(data, colorspace=kind, buffer=out_HWC)
    except ValueError as error:
        raise ShardError(f"JPEG strip cannot be decoded: {error}", fix=_DAMAGED) from error


def _cut_frame(data: bytes, frame: int, spec: ClipSpec) -> bytes:
    """A JPEG of one frame: the strip's header with another height, then the frame's stretch of entropy code."""
    header, start = _scan_header(data, spec)
    per_frame = _padded(spec.height) // _BLOCK // _block_rows_per_restart(spec)
    first, last = frame * per_frame, (frame + 1) * per_frame  # the frame lies between these two markers
    pieces = []
    number = 0
    for marker in _RESTART.finditer(data, start):
        if number >= first:
            pieces.append(data[start : marker.start()])
        start, number = marker.end(), number + 1
        if number == last:
            break
    else:
        if number == last - 1:
            pieces.append(data[start:-2])  # the strip's last stretch, up to the end-of-image marker
    if len(pieces) != per_frame:
        raise ShardError(
            f"JPEG strip has {number} restart markers, too few for frame {frame} of {spec.num_frames}", fix=_DAMAGED
        )
    body = b"".join(piece + bytes((0xFF, 0xD0 + i % 8)) for i, piece in enumerate(pieces))  # numbered from 0 again
    return header + body[:-2] + b"\xff\xd9"


def _scan_header(data: bytes, spec: ClipSpec) -> tuple[bytes, int]:
    """The strip's header with the height of one frame, and where its entropy code starts."""
    header = bytearray(data)
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xC0:  # baseline frame header: marker, size, precision, height, width, ...
            header[position + 5 : position + 7] = _padded(spec.height).to_bytes(2, "big")
        position += 2 + size
        if marker == 0xDA:
            return bytes(header[:position]), position
    raise ShardError("JPEG strip has no start of scan", fix=_DAMAGED)
