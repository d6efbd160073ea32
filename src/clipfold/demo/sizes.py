"""A clip size that fits somebody's own media: of their shape and length, small enough for two CPU cores."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError
from clipfold.ingest.decoders import open_source
from clipfold.ingest.sources import find_sources

__all__ = ["spec_for"]

_NUM_LOOKED_AT = 12
_NUM_PIXELS = 4096  # of a frame: about a minute of training on two cores for a few hundred clips
_LEAST_SIDE = 16
_LEAST_FRAMES, _MOST_FRAMES = 8, 100


def spec_for(media: str | Path) -> ClipSpec:
    """The size of clips for a folder of media, from a few of its sources.

    As many frames as half of them have, at most 100; a picture of their shape with about 4,096 pixels, or their own
    size where that is smaller.

    Args:
        media: As for :func:`clipfold.ingest.sources.find_sources`.

    Returns:
        Three channels, uint8. The same media give the same spec.

    Raises:
        SourceError: Nothing is there.
    """
    sources = find_sources(media).sources
    seen = []
    for source in sources[:: max(1, len(sources) // _NUM_LOOKED_AT)]:
        try:
            decoder = open_source(source)
        except ClipfoldError:
            continue  # conversion names what cannot be read
        try:
            seen.append((len(decoder), decoder.height, decoder.width))
        finally:
            decoder.close()
    if not seen:
        return ClipSpec(height=32, width=96)
    lengths, heights, widths = zip(*seen, strict=True)
    num_frames = min(max(statistics.median_low(lengths), _LEAST_FRAMES), _MOST_FRAMES)
    height, width = _shrunk(statistics.median_low(heights), statistics.median_low(widths))
    return ClipSpec(num_frames=num_frames, height=height, width=width)


def _shrunk(height: int, width: int) -> tuple[int, int]:
    """About 4,096 pixels of the same shape: sides in steps of 8, none below 16, none enlarged."""
    if height * width <= _NUM_PIXELS:
        return height, width
    short, long = sorted((height, width))
    small = min(short, max(_LEAST_SIDE, 8 * round(math.sqrt(_NUM_PIXELS * short / long) / 8)))
    other = min(long, max(_LEAST_SIDE, 8 * round(_NUM_PIXELS / small / 8)))
    return (small, other) if height <= width else (other, small)
