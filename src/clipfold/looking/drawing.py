"""Pictures of one clip: some of its frames in time order, and a slice through space and time.

Strips (at least four times as wide as high) are stacked, one time step below the other, their rows repeated until they
can be seen; other frames stand in a grid::

    t=0    [-----------strip-----------]          [ t=0  ] [ t=14 ] [ t=28 ] [ t=42 ]
    t=20   [-----------strip-----------]          [ t=57 ] [ t=71 ] [ t=85 ] [ t=99 ]
    ...
    row 7  [ that row of every frame,  ]          [ row 90 over time ]
    over   [ one below the other: what ]
    time   [ moves makes a slanted line]

Frames that are padding are marked red.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clipfold.looking.clips import ShownClip, evenly
from clipfold.looking.tone import Tone

__all__ = [
    "INK",
    "MUTED",
    "PAPER",
    "RED",
    "Slice",
    "fit",
    "font",
    "frames_picture",
    "is_strip",
    "slice_of",
    "slice_panel",
    "strip_size",
    "text_width",
]

PAPER, INK, MUTED, RED, LINE = (245, 246, 248), (28, 30, 33), (105, 112, 120), (200, 44, 36), (214, 218, 223)

_STRIP_RATIO = 4
_STRIP_STEPS, _GRID_STEPS = 6, 8
_STRIP_WIDTH = (480, 1024)  # least and most on the picture
_STRIP_HEIGHT = 48
_BOX = (168, 126)  # width and height of a frame of the grid
_TALL_BOX = (60, 320)
_GUTTER = 64
_SMALL = 11


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One line of pixels over time.

    Args:
        image: Time runs down (a row over time), or to the right (a column, of pictures that are higher than wide).
        caption: Which line it is.
    """

    image: Image.Image
    caption: str


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that Pillow carries: the same picture on every machine."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Width of one line in pixels."""
    return int(np.ceil(font(size).getlength(text)))


def is_strip(height: int, width: int) -> bool:
    """Whether frames are so wide that they are stacked."""
    return width >= _STRIP_RATIO * height


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as fits: whole multiples with sharp pixels where it is smaller, a filter where larger."""
    ratio = min(width / image.width, height / image.height)
    if ratio >= 1:
        return _enlarged(image, int(ratio), int(ratio))
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.resize(size, Image.Resampling.BOX)


def frames_picture(clip: ShownClip, tone: Tone) -> Image.Image:
    """Some frames of a clip in time order, each with its time step."""
    _, height, width, _ = clip.pixels_SHWC.shape
    steps = _steps(clip, _STRIP_STEPS if is_strip(height, width) else _GRID_STEPS)
    images = [Image.fromarray(frame) for frame in tone.apply(clip.pixels_SHWC[steps])]
    if is_strip(height, width):
        return _stack([strip_size(image) for image in images], steps, clip)
    box = _TALL_BOX if height >= _STRIP_RATIO * width else _BOX
    return _grid([fit(image, *box) for image in images], steps, clip, columns=8 if box == _TALL_BOX else 4)


def strip_size(image: Image.Image) -> Image.Image:
    """A strip with rows and columns repeated until it is large enough; too wide ones are made narrower."""
    if image.width > _STRIP_WIDTH[1]:
        image = image.resize((_STRIP_WIDTH[1], image.height), Image.Resampling.BOX)
    across = max(1, -(-_STRIP_WIDTH[0] // image.width))
    return _enlarged(image, across, max(across, round(_STRIP_HEIGHT / image.height)))


def slice_of(clip: ShownClip, tone: Tone) -> Slice:
    """The row whose pixels change most over time (the column, in pictures that are higher than wide), over time.

    Where more than half of the pixels are 0, as in range images of a radar, one row shows little: there, the brightest
    of all rows. Of the padding no more is shown than a quarter of the valid frames.
    """
    _, height, width, _ = clip.pixels_SHWC.shape
    num_shown = min(clip.num_frames, clip.num_valid_frames + max(2, clip.num_valid_frames // 4))
    pixels_SHWC = tone.apply(clip.pixels_SHWC[:num_shown])
    is_tall = height >= _STRIP_RATIO * width
    axis, word = (2, "column") if is_tall else (1, "row")
    if (clip.pixels_SHWC[: clip.num_valid_frames] == 0).mean() > 0.5:
        line, caption = pixels_SHWC.max(axis=axis), f"brightest {word} over time"
    else:
        place = _liveliest(pixels_SHWC[: clip.num_valid_frames], axis=axis)
        line, caption = pixels_SHWC.take(place, axis=axis), f"{word} {place} over time"
    image = Image.fromarray(np.ascontiguousarray(line.transpose(1, 0, 2) if is_tall else line))
    return Slice(image=_mark_padding(image, clip.num_valid_frames, to_the_right=is_tall), caption=caption)


def slice_panel(clip: ShownClip, tone: Tone, *, height: int) -> Image.Image:
    """The slice with its caption, for a sheet: below strips, or in the given height beside a grid."""
    found = slice_of(clip, tone)
    _, rows, columns, _ = clip.pixels_SHWC.shape
    image = found.image
    if is_strip(rows, columns):
        wide = strip_size(Image.new("RGB", (columns, 1))).width
        image = image.resize((wide, image.height * max(1, round(100 / image.height))), Image.Resampling.BOX)
        panel = Image.new("RGB", (_GUTTER + image.width, image.height + 4), PAPER)
        panel.paste(image, (_GUTTER, 2))
        draw = ImageDraw.Draw(panel)
        for place, text in enumerate(
            found.caption.replace(" over", "\nover").replace("brightest ", "brightest\n").split("\n")
        ):
            draw.text((0, 2 + 14 * place), text, fill=MUTED, font=font(_SMALL))
        return panel
    size = (_BOX[0], height - 18) if image.height >= image.width // 4 else (_BOX[0], height // 2)
    image = image.resize(size, Image.Resampling.BOX if image.width > size[0] else Image.Resampling.NEAREST)
    panel = Image.new("RGB", (max(image.width, text_width(found.caption, _SMALL)), height), PAPER)
    panel.paste(image, (0, 0))
    ImageDraw.Draw(panel).text((0, image.height + 2), found.caption, fill=MUTED, font=font(_SMALL))
    return panel


def _steps(clip: ShownClip, num: int) -> list[int]:
    """Time steps from the first to the last valid frame, spread evenly; where there is padding, its end as well."""
    is_padded = clip.num_valid_frames < clip.num_frames
    steps = evenly(range(clip.num_valid_frames), num - 1 if is_padded else num)
    return [*steps, clip.num_frames - 1] if is_padded else steps


def _step_text(step: int, clip: ShownClip) -> str:
    if step >= clip.num_valid_frames:
        return f"t={step}, pad"
    return f"t={step}" + (f", {step / clip.fps:.1f} s" if clip.fps and step else "")


def _stack(images: list[Image.Image], steps: list[int], clip: ShownClip) -> Image.Image:
    width, height = images[0].size
    picture = Image.new("RGB", (_GUTTER + width, len(images) * (height + 4) - 4), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, (step, image) in enumerate(zip(steps, images, strict=True)):
        top = place * (height + 4)
        is_padding = step >= clip.num_valid_frames
        picture.paste(image, (_GUTTER, top))
        draw.text((0, top + (height - 12) // 2), _step_text(step, clip), RED if is_padding else MUTED, font(_SMALL))
        if is_padding:
            draw.rectangle((_GUTTER - 5, top, _GUTTER - 2, top + height - 1), fill=RED)
    return picture


def _grid(images: list[Image.Image], steps: list[int], clip: ShownClip, *, columns: int) -> Image.Image:
    width, height = images[0].size
    cell = max(width, 48)
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    picture = Image.new("RGB", (columns * (cell + 6) - 6, rows * (height + 18)), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, (step, image) in enumerate(zip(steps, images, strict=True)):
        left, top = place % columns * (cell + 6), place // columns * (height + 18)
        is_padding = step >= clip.num_valid_frames
        picture.paste(image, (left, top))
        if is_padding:
            draw.rectangle((left, top, left + width - 1, top + height - 1), outline=RED, width=3)
        draw.text((left, top + height + 2), _step_text(step, clip), RED if is_padding else MUTED, font(_SMALL))
    return picture


def _enlarged(image: Image.Image, across: int, down: int) -> Image.Image:
    if across == down == 1:
        return image
    return image.resize((image.width * across, image.height * down), Image.Resampling.NEAREST)


def _liveliest(pixels_SHWC: NDArray[np.uint8], *, axis: int) -> int:
    """The row (axis 1) or column (axis 2) with the largest variance over time; the middle one where nothing moves."""
    grey_SHW = pixels_SHWC.mean(axis=3, dtype=np.float32)
    variance = grey_SHW.var(axis=0).mean(axis=1 if axis == 1 else 0)
    if float(variance.max()) < 0.5:
        return len(variance) // 2
    return int(variance.argmax())


def _mark_padding(image: Image.Image, start: int, *, to_the_right: bool) -> Image.Image:
    """The part of a slice from time step ``start`` on, half red."""
    stop = image.width if to_the_right else image.height
    if start == stop:
        return image
    box = (start, 0, stop, image.height) if to_the_right else (0, start, image.width, stop)
    part = image.crop(box)
    image.paste(Image.blend(part, Image.new("RGB", part.size, RED), 0.35), box[:2])
    return image
