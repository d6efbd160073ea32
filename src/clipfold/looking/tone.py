"""From values of any dtype to pixels for a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.looking.clips import ShownClip

__all__ = ["Tone", "captions", "tones_of"]

_PERCENTILES = (1.0, 99.0)
_MAX_VALUES = 1_000_000  # per clip, for the percentiles


@dataclass(frozen=True, kw_only=True)
class Tone:
    """Which value is black and which is white; the same for all clips of a picture, so that they can be compared.

    Args:
        low: Shown black, as is all below.
        high: Shown white, as is all above.
        caption: What a reader has to know about it; ``""`` where values are shown as they are.
    """

    low: float = 0.0
    high: float = 255.0
    caption: str = ""

    def apply(self, pixels_SHWC: NDArray[Any]) -> NDArray[np.uint8]:
        """(S, H, W, 3). Grey is repeated; of more than three channels the first three are shown; NaN is black."""
        channels = pixels_SHWC.shape[3]
        shown = pixels_SHWC[..., :1] if channels == 2 else pixels_SHWC[..., :3]
        if shown.dtype != np.uint8:
            scaled = (shown.astype(np.float32) - self.low) * (255.0 / (self.high - self.low))
            shown = np.nan_to_num(np.clip(scaled, 0, 255)).round().astype(np.uint8)
        return np.repeat(shown, 3, axis=3) if shown.shape[3] == 1 else np.ascontiguousarray(shown)


def tones_of(clips: Sequence[ShownClip]) -> dict[str, Tone]:
    """The tone of each dtype: 8-bit clips as they are, others from the 1st to the 99th percentile.

    The value 0 does not count for the percentiles: in range images it means "no return", and there may be many.
    """
    dtypes = sorted({str(clip.pixels_SHWC.dtype) for clip in clips})
    return {dtype: _tone([clip for clip in clips if clip.pixels_SHWC.dtype == dtype], dtype) for dtype in dtypes}


def captions(tones: dict[str, Tone], clips: Sequence[ShownClip]) -> list[str]:
    """What a reader has to know about brightness and colours; nothing where values are shown as they are."""
    lines = [tone.caption for tone in tones.values() if tone.caption]
    channels = {clip.pixels_SHWC.shape[3] for clip in clips} - {1, 3}
    return lines + [f"of {num} channels the first {1 if num == 2 else 3} are shown" for num in sorted(channels)]


def _tone(clips: Sequence[ShownClip], dtype: str) -> Tone:
    if dtype == "uint8":
        return Tone()
    samples = []
    for clip in clips:
        values = clip.pixels_SHWC[: clip.num_valid_frames].reshape(-1)
        values = values[:: max(1, len(values) // _MAX_VALUES)]
        samples.append(values[np.isfinite(values) & (values != 0)].astype(np.float64))
    values = np.concatenate(samples)
    low, high = map(float, np.percentile(values, _PERCENTILES)) if len(values) else (0.0, 1.0)
    if high <= low:
        low, high = min(0.0, low), max(low, 0.0) + 1.0
    black, white = (f"{value:,.0f}" if dtype == "uint16" else f"{value:,.4g}" for value in (low, high))
    caption = f"{dtype} values from {black} (black) to {white} (white): 1st to 99th percentile of those that are not 0"
    return Tone(low=low, high=high, caption=caption)
