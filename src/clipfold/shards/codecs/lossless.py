"""``lossless``: a ``.npy`` file as one zstd frame with its checksum. Exact, any dtype; small where pixels are sparse.

Read by ``stream_reader.readinto`` straight into the slot, without the interpreter's lock. A frame that ends early, a
checksum that does not fit, and bytes behind the frame are errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs import Layout
from clipfold.shards.codecs.raw import Raw, npy_header

__all__ = ["Lossless"]

_MAX_LEVEL = 22
_MAX_WINDOW_BYTES = 1 << 27  # what zstd writes at its highest level, and reads without being asked
_RAW = Raw()
_FIX = "the sample is damaged; convert again"


class Lossless:
    """Clips as ``.npy.zst``.

    Args:
        level: zstd's level, 1 (fast) to 22 (small).

    Raises:
        ValueError: ``level`` out of range.
    """

    extension = "npy.zst"
    layout: Layout = "SCHW"
    exact = True

    def __init__(self, *, level: int = 3) -> None:
        if not isinstance(level, int) or isinstance(level, bool) or not 1 <= level <= _MAX_LEVEL:
            raise ValueError(f"level of codec 'lossless': {level!r}, expected a whole number from 1 to {_MAX_LEVEL}")
        self.level = level

    def settings(self) -> dict[str, Any]:
        """``level``."""
        return {"level": self.level}

    def check(self, spec: ClipSpec) -> None:
        """Every spec is fine."""

    def header_bytes(self, spec: ClipSpec) -> int | None:
        """``None``: a zstd frame has to be decoded."""
        return None

    def encode(self, clip_SCHW: NDArray[Any], spec: ClipSpec) -> bytes:
        """Header and pixels, compressed on one thread.

        Raises:
            ValueError: Another shape or dtype than the spec's.
        """
        compressor = zstandard.ZstdCompressor(level=self.level, write_checksum=True, write_content_size=True)
        return compressor.compress(_RAW.encode(clip_SCHW, spec))

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], spec: ClipSpec) -> None:
        """Decompress into the slot.

        Raises:
            ShardError: Not exactly one zstd frame with a checksum, one of another size than the clip's, or damaged.
        """
        header = npy_header(spec)
        found_header = bytearray(len(header))
        try:
            _check_frame(data, len(header) + spec.num_bytes)
            decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
            with decompressor.stream_reader(data) as reader:
                _fill(reader, memoryview(found_header))
                _fill(reader, out.reshape(-1).view(np.uint8).data)
                if reader.read(1):  # also makes the decoder read and compare the checksum
                    raise ValueError("it holds more than one clip")
        except (zstandard.ZstdError, ValueError) as error:
            raise ShardError(f"zstd frame cannot be decoded: {error}", fix=_FIX) from error
        if found_header != header:
            raise ShardError(
                f"zstd frame holds {bytes(found_header[:80])!r}, expected the .npy header of {spec}", fix=_FIX
            )


def _fill(reader: Any, target: memoryview) -> None:
    filled = 0
    while filled < len(target):
        num = reader.readinto(target[filled:])
        if num == 0:
            raise ValueError(f"it ends {len(target) - filled:,} bytes too early")
        filled += num


def _check_frame(data: bytes | memoryview, num_bytes: int) -> None:
    """One frame from the first byte to the last, of the right size and with a checksum, before any memory is taken.

    RFC 8878, section 3.1.1: a frame header, then blocks whose three bytes of header hold 1 bit last, 2 bits type and
    21 bits size (a block of type 1 repeats one byte), then four bytes of checksum.
    """
    parameters = zstandard.get_frame_parameters(data)
    if parameters.content_size != num_bytes or not parameters.has_checksum or parameters.dict_id:
        raise ValueError(f"it says {parameters.content_size:,} bytes, expected {num_bytes:,} and a checksum")
    position, last = zstandard.frame_header_size(data), 0
    while not last:
        header = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        position += 3 + (1 if kind == 1 else size)
        if position > len(data):
            raise ValueError(f"it has {len(data):,} bytes, but its blocks go on")
    if position + 4 != len(data):
        raise ValueError(f"it has {len(data):,} bytes, but the frame has {position + 4:,}")
