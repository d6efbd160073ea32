"""From what a decoder delivers to pixels of the clip's size and dtype.

Pictures of 8 bits per channel, and videos of any depth in YUV, are converted and scaled in one swscale call: a
triangle filter that widens with the scale, so that shrinking does not alias. Its weights have 14 bits, which is no
harm to 8-bit pixels but would be to LiDAR ranges; pictures of 16 bits (grey or RGB), floats and arrays of other than 1
or 3 channels therefore go through :func:`scale_exactly`, the same filter in float64. At native size no value is
touched.

How depths meet, full scale to full scale, so that ``value / full_scale`` stays what it was:

============  ======================  ======================  =================
from \\ to     uint8                   uint16                  float32
============  ======================  ======================  =================
8 bits        as it is                ``* 257``               ``/ 255``
16 bits       ``>> 8`` (lossy)        as it is                ``/ 65535``
float         refused                 refused                 as it is
============  ======================  ======================  =================

10- and 12-bit videos count as 16 bits, their values widened to the full scale. Colour matrix (BT.601, BT.709, BT.2020,
...) and range are those of the frame; an unspecified matrix is BT.601, as FFmpeg has it. Grey from colour is the BT.601
luma; colour from grey repeats it. Alpha is dropped (not blended), as PyAV, OpenCV and Pillow do when asked for RGB.
Pixels count as square, whatever their aspect ratio. Interlaced frames stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import SourceError

__all__ = ["Mode", "Resize", "scale_exactly"]

Mode = Literal["stretch", "letterbox", "center_crop"]

# BITEXACT and ACCURATE_RND: the same bytes on every CPU. FULL_CHR: chroma is filtered at full width, in and out.
_FLAGS = (
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
# RGB in planes, not packed: the same bytes in 1.0 ms in place of 2.8 for a 720p frame to 16x701, because swscale has
# vector code for it; and 16 bits packed (rgb48) come out wrong where chroma is subsampled and the height stays.
_COLOUR, _DEEP_COLOUR = "gbrp", "gbrp16le"
_MOST_SHRINKING = 72  # above about 76 swscale's filter does not fit and it quietly takes another one
_STEP_SIZE = 16  # where it would have to shrink by more: first to so many times the size, then to the size
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Brings frames to the (H, W, C) and dtype of a spec.

    Args:
        mode: ``"stretch"`` fills (H, W) whatever the aspect ratio; ``"letterbox"`` keeps it and fills up with 0 on
            both sides; ``"center_crop"`` keeps it and cuts off what is too much on both sides.
        spec: Its height, width, channels and dtype are used. Channels other than 1 and 3 are for arrays of as many.

    Raises:
        ValueError: An unknown mode.
    """

    mode: Mode = "stretch"
    spec: ClipSpec
    _first: VideoReformatter = field(default_factory=VideoReformatter, init=False, repr=False, compare=False)
    _second: VideoReformatter = field(default_factory=VideoReformatter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"resize mode: {self.mode!r}, expected one of {', '.join(get_args(Mode))}")

    def __call__(
        self, frame: av.VideoFrame | NDArray[Any], rotation_degrees: int = 0, *, is_mirrored: bool = False
    ) -> NDArray[Any]:
        """One frame as pixels.

        Args:
            frame: A decoded frame, or an array (H, W) or (H, W, C) of uint8, uint16 or float32.
            rotation_degrees: Counter-clockwise turn that makes it upright, rounded to a multiple of 90.
            is_mirrored: Whether left and right are swapped before that turn.

        Returns:
            (H, W, C) of the spec's dtype, contiguous; the array given, where there is nothing to do.

        Raises:
            SourceError: A float picture where the spec wants whole numbers; a number of channels that does not fit.
        """
        self._check_channels(frame)
        turns = round(rotation_degrees / 90) % 4
        height, width = frame.shape[:2] if isinstance(frame, np.ndarray) else (frame.height, frame.width)
        size = self._scaled_size(*((width, height) if turns % 2 else (height, width)))
        pixels = self._scale(frame, size[::-1] if turns % 2 else size)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        pixels = self._to_spec(pixels)
        return self._place(np.rot90(pixels[:, ::-1] if is_mirrored else pixels, turns))

    def _check_channels(self, frame: av.VideoFrame | NDArray[Any]) -> None:
        found = (frame.shape[2] if frame.ndim == 3 else 1) if isinstance(frame, np.ndarray) else 3
        wanted = self.spec.channels
        if found != wanted and not (found in (1, 3) and wanted in (1, 3)):
            raise SourceError(
                f"frames of {found} channels for clips of {wanted}",
                fix="ask for clips of 1 (grey) or 3 (RGB) channels, or of as many as the arrays have",
            )

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """The whole upright picture's size before anything is cut off or filled up."""
        if self.mode == "stretch":
            return self.spec.height, self.spec.width
        ratios = self.spec.height / height, self.spec.width / width
        ratio = min(ratios) if self.mode == "letterbox" else max(ratios)
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def _place(self, pixels: NDArray[Any]) -> NDArray[Any]:
        height, width = self.spec.height, self.spec.width
        spare_height, spare_width = height - pixels.shape[0], width - pixels.shape[1]
        if self.mode == "letterbox" and (spare_height or spare_width):
            canvas = np.zeros((height, width, pixels.shape[2]), dtype=pixels.dtype)
            top, left = spare_height // 2, spare_width // 2
            canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
            return canvas
        top, left = -spare_height // 2, -spare_width // 2
        return np.ascontiguousarray(pixels[top : top + height, left : left + width])

    def _scale(self, frame: av.VideoFrame | NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        """(h, w) or (h, w, 1 or 3), uint8, uint16 or float32: the right size, not yet the right dtype."""
        if isinstance(frame, np.ndarray):
            if frame.dtype != np.uint8 or (frame.ndim == 3 and frame.shape[2] not in (1, 3)):
                return scale_exactly(frame, size)
            grey = frame.ndim == 2 or frame.shape[2] == 1
            if frame.shape[:2] == size and (grey or self.spec.channels == 3):
                return frame
            picture = frame.reshape(frame.shape[:2]) if grey else frame
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray" if grey else "rgb24")
        components = [component for component in frame.format.components if not component.is_alpha]
        grey = len(components) == 1 and not frame.format.has_palette
        if max(component.bits for component in components) <= 8:
            return self._swscale(frame, "gray" if grey or self.spec.channels == 1 else _COLOUR, size)
        if grey or frame.format.is_rgb:
            native = frame.height, frame.width
            return scale_exactly(self._swscale(frame, "gray16le" if grey else _DEEP_COLOUR, native), size)
        if self.spec.dtype == "uint8":
            return self._swscale(frame, "gray" if self.spec.channels == 1 else _COLOUR, size)
        return self._swscale(frame, _DEEP_COLOUR, size)

    def _swscale(self, frame: av.VideoFrame, pixel_format: str, size: tuple[int, int]) -> NDArray[Any]:
        stored = frame.height, frame.width
        step = _step_size(stored, size)
        if step != size:
            frame = self._second.reformat(
                frame, width=step[1], height=step[0], format=pixel_format, interpolation=_FLAGS, threads=1
            )
        exactly = not (_fits(frame.height, size[0]) and _fits(frame.width, size[1]))
        height, width = (frame.height, frame.width) if exactly else size
        frame = self._first.reformat(
            frame, width=width, height=height, format=pixel_format, interpolation=_FLAGS, threads=1
        )
        pixels: NDArray[Any] = frame.to_ndarray()
        return scale_exactly(pixels, size) if exactly else pixels

    def _to_spec(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """(h, w, C) of the spec's channels and dtype."""
        if self.spec.channels == 1 and pixels.shape[2] == 3:
            luma = pixels @ _LUMA
            luma = luma if pixels.dtype == np.float32 else np.rint(luma)
            pixels = luma[..., None].astype(pixels.dtype)
        elif self.spec.channels == 3 and pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        if pixels.dtype == self.spec.dtype:
            return pixels
        if pixels.dtype == np.float32:
            raise SourceError(
                f"a float picture for clips of {self.spec.dtype}: its unit is not known",
                fix="convert with dtype float32, or save the pictures as 8 or 16 bits",
            )
        if self.spec.dtype == "float32":
            return pixels.astype(np.float32) / np.float32(255 if pixels.dtype == np.uint8 else 65535)
        if self.spec.dtype == "uint16":
            return pixels.astype(np.uint16) * np.uint16(257)
        return (pixels >> 8).astype(np.uint8)


def scale_exactly(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The triangle filter of antialiased bilinear scaling, in float64 and in a fixed order of adding.

    Args:
        pixels: (H, W) or (H, W, C) of uint8, uint16 or float32.
        size: Height and width wanted.

    Returns:
        The same dtype; whole numbers are rounded. The very same values where the size is the same.
    """
    if pixels.shape[:2] == size:
        return pixels
    scaled = pixels.astype(np.float64)
    for axis in (0, 1) if size[0] * pixels.shape[1] < pixels.shape[0] * size[1] else (1, 0):
        if pixels.shape[axis] != size[axis]:
            scaled = _scale_axis(scaled, axis, size[axis])
    return scaled.astype(np.float32) if pixels.dtype == np.float32 else np.rint(scaled).astype(pixels.dtype)


def _scale_axis(pixels: NDArray[np.float64], axis: int, num_out: int) -> NDArray[np.float64]:
    num_in = pixels.shape[axis]
    reach = max(num_in / num_out, 1.0)  # half the triangle's base, in pixels of the input
    centers = (np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5
    first = np.ceil(centers - reach).astype(np.int64)
    shape = [num_out if place == axis else 1 for place in range(pixels.ndim)]
    total, weights_sum = 0.0, np.zeros(num_out)
    for tap in range(int(np.floor(2 * reach)) + 1):
        place = first + tap
        weights = np.maximum(0.0, 1.0 - np.abs(place - centers) / reach)
        total = total + pixels.take(np.clip(place, 0, num_in - 1), axis=axis) * weights.reshape(shape)
        weights_sum += weights
    return total / weights_sum.reshape(shape)


def _step_size(stored: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    height, width = (
        wanted if have <= wanted * _MOST_SHRINKING else max(wanted * _STEP_SIZE, -(-have // _MOST_SHRINKING))
        for have, wanted in zip(stored, size, strict=True)
    )
    return height, width


def _fits(num_in: int, num_out: int) -> bool:
    """Whether swscale's filter is the full triangle: it is cut to two taps less than there are pixels."""
    return num_in == num_out or (num_out > num_in >= 5) or (num_in >= 9 and num_out >= 3)
