"""Which videos decord and torchcodec may serve: those of which they are known to deliver the same frames as PyAV.

Both lose or repeat frames in AVI, MPEG and transport streams and behind edit lists, and deliver 8 bits alone. So they
get mp4, mov, mkv and webm files with the codecs below, 8 bits a channel, without an edit list or a mirrored display
matrix, whose best stream is the first; and their own count has to be PyAV's.
"""

from __future__ import annotations

from clipfold.ingest.decoders.packets import scan_packets
from clipfold.ingest.decoders.pyav import PyAVDecoder
from clipfold.ingest.listing import extension_of

__all__ = ["has_edit_list", "may_serve"]

_EXTENSIONS = frozenset([".mp4", ".m4v", ".mov", ".mkv", ".webm"])
_EIGHT_BITS = frozenset(["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"])


def may_serve(reference: PyAVDecoder, codecs: frozenset[str], *, extension: str | None = None) -> bool:
    """Whether such a decoder may be asked for the file at all; its count is still to be compared.

    Args:
        reference: The file, opened by PyAV.
        codecs: FFmpeg's names of the codecs that it is known to be right with.
        extension: Of the file; by default that of its path.
    """
    packets = reference.packets
    if extension is None:
        place = reference.place.place
        extension = extension_of(f".{place.member}" if place.member else place.location)
    if extension not in _EXTENSIONS or reference.defect is not None:
        return False
    if packets.codec not in codecs or packets.pixel_format not in _EIGHT_BITS or not packets.is_best_first:
        return False
    return len(packets.pts) > 0 and not has_edit_list(reference) and not reference.is_mirrored


def has_edit_list(reference: PyAVDecoder) -> bool:
    """Whether an edit list does more than move the start: without it the packets are others, or other ones count."""
    packets = reference.packets
    if not packets.container.startswith("mov"):
        return False
    plain = scan_packets(reference.place, options={"ignore_editlist": "1"})
    if packets.num_discarded or len(plain.pts) != len(packets.pts):
        return True
    return bool((plain.pts - plain.pts[0] != packets.pts - packets.pts[0]).any())
