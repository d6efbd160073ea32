"""What a file's own header says about its length: how a file that was cut short is told from a short one.

FFmpeg reads what is there and stops without an error, so half a Matroska file looks like a shorter video. Three
families say how long they are: ISO media (mp4, mov: box sizes), Matroska (webm, mkv: the segment's size) and RIFF
(avi). MPEG streams do not.
"""

from __future__ import annotations

import os
from typing import BinaryIO

__all__ = ["declared_bytes"]

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def declared_bytes(file: BinaryIO, num_bytes: int) -> int | None:
    """How long a file should be at least, by its header; ``None`` where the header does not say.

    Args:
        file: Open, at its start.
        num_bytes: Its size.

    Raises:
        OSError: It cannot be read.
    """
    head = file.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return _iso_bytes(file, num_bytes)
    if head[:4] == _EBML:
        return _matroska_bytes(file)
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        return size + 8 if 0 < size < 0xFFFFFFFF else None
    return None


def _iso_bytes(file: BinaryIO, num_bytes: int) -> int | None:
    """The end of the last box of media data or index (ISO/IEC 14496-12, 4.2)."""
    start, declared = 0, None
    while start + 8 <= num_bytes:
        file.seek(start)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # 0: the last box, up to the end of the file; else no box at all
            break
        start += size
        if kind in (b"mdat", b"moov", b"moof"):
            declared = start
    return declared


def _matroska_bytes(file: BinaryIO) -> int | None:
    """The end of the segment (RFC 8794, section 6); unknown while a live stream is written."""
    file.seek(4)
    size = _variable_number(file)
    if size is None:
        return None
    file.seek(size, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return None
    size = _variable_number(file)
    return None if size is None else file.tell() + size


def _variable_number(file: BinaryIO) -> int | None:
    first = file.read(1)
    if not first or not first[0]:
        return None
    num_more = 8 - first[0].bit_length()
    rest = file.read(num_more)
    value = int.from_bytes(bytes([first[0] & (0x7F >> num_more)]) + rest, "big")
    return None if value == (1 << 7 * (num_more + 1)) - 1 else value
