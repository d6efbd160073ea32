"""Clips that play side by side: a GIF for a whole gallery, a small animation of one clip for a page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from clipfold.looking.clips import Gallery, ShownClip
from clipfold.looking.drawing import INK, LINE, MUTED, PAPER, RED, fit, font, is_strip, strip_size
from clipfold.looking.tone import Tone, captions, tones_of
from clipfold.looking.words import shorten, wrap

__all__ = ["clip_webp", "gallery_gif"]

_CELL = (260, 195)
_MARGIN = 14
_MOST_FRAMES = 150
_DEFAULT_FPS = 25.0
_FASTEST_FPS = 50.0  # browsers slow down what has less than 20 ms a frame
_WEBP_QUALITY = 70


def gallery_gif(gallery: Gallery) -> bytes:
    """All clips at once, each with its class and a bar that shows the time; red where frames are padding.

    They start together and run at the first clip's frame rate; shorter clips stay on their last frame.
    """
    tones = tones_of(gallery.clips)
    num_frames = max(clip.num_frames for clip in gallery.clips)
    every = -(-num_frames // _MOST_FRAMES)
    note = "; ".join(captions(tones, gallery.clips))
    cells = [_frames(clip, tones[str(clip.pixels_SHWC.dtype)], every) for clip in gallery.clips]
    canvas, places = _canvas(gallery, cells, note)
    pictures = []
    for number, step in enumerate(range(0, num_frames, every)):
        picture = canvas.copy()
        draw = ImageDraw.Draw(picture)
        for clip, frames, (left, top) in zip(gallery.clips, cells, places, strict=True):
            frame = frames[min(number, len(frames) - 1)]
            picture.paste(frame, (left, top))
            _time_bar(draw, clip, min(step, clip.num_frames - 1), left, top + frame.height + 2, frame.width)
        pictures.append(picture)
    file = io.BytesIO()
    palette = _palette(pictures)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    indexed[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=_duration_ms(gallery.clips, every),
        loop=0,
    )
    return file.getvalue()


def clip_webp(clip: ShownClip, tone: Tone) -> bytes:
    """One clip as an animated WebP, for a page."""
    every = -(-clip.num_frames // _MOST_FRAMES)
    frames = []
    for number, image in enumerate(_frames(clip, tone, every)):
        picture = Image.new("RGB", (image.width, image.height + 8), PAPER)
        picture.paste(image, (0, 0))
        step = min(number * every, clip.num_frames - 1)
        _time_bar(ImageDraw.Draw(picture), clip, step, 0, image.height + 2, image.width)
        frames.append(picture)
    file = io.BytesIO()
    frames[0].save(
        file,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=_duration_ms([clip], every),
        loop=0,
        quality=_WEBP_QUALITY,
        method=2,
    )
    return file.getvalue()


def _frames(clip: ShownClip, tone: Tone, every: int) -> list[Image.Image]:
    _, height, width, _ = clip.pixels_SHWC.shape
    images = [Image.fromarray(frame) for frame in tone.apply(clip.pixels_SHWC[::every])]
    return [strip_size(image) if is_strip(height, width) else fit(image, *_CELL) for image in images]


def _canvas(
    gallery: Gallery, cells: Sequence[Sequence[Image.Image]], note: str
) -> tuple[Image.Image, list[tuple[int, int]]]:
    """What does not move, and where each clip's frames go."""
    width = max(frames[0].width for frames in cells)
    height = max(frames[0].height for frames in cells) + 42
    num = len(cells)
    columns = 1 if width > 2 * _CELL[0] else max(1, min(num, round(math.sqrt(num * 1.6 * height / width))))
    rows = -(-num // columns)
    full_width = max(columns * (width + _MARGIN) + _MARGIN, 260)
    notes = wrap(note, full_width - 2 * _MARGIN, 11)
    header = 36 + 15 * len(notes)
    canvas = Image.new("RGB", (full_width, header + rows * height), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, 8), shorten(gallery.title, full_width - 2 * _MARGIN, 16), INK, font(16))
    for place, line in enumerate(notes):
        draw.text((_MARGIN, 30 + 15 * place), line, MUTED, font(11))
    places = []
    for number, clip in enumerate(gallery.clips):
        left, top = _MARGIN + number % columns * (width + _MARGIN), header + number // columns * height
        text = clip.key if clip.label is None or clip.key.startswith(f"{clip.label}/") else f"{clip.label}  {clip.key}"
        draw.text((left, top), shorten(text, width, 12), INK, font(12))
        places.append((left, top + 18))
    return canvas, places


def _time_bar(draw: ImageDraw.ImageDraw, clip: ShownClip, step: int, left: int, top: int, width: int) -> None:
    """How far the clip is; the padded part of the bar is red."""
    valid = width * clip.num_valid_frames // clip.num_frames
    draw.rectangle((left, top, left + width - 1, top + 3), fill=LINE)
    if valid < width:
        draw.rectangle((left + valid, top, left + width - 1, top + 3), fill=(240, 190, 186))
    done = max(1, width * (step + 1) // clip.num_frames)
    draw.rectangle((left, top, left + done - 1, top + 3), fill=RED if step >= clip.num_valid_frames else INK)


def _duration_ms(clips: Sequence[ShownClip], every: int) -> int:
    fps = next((clip.fps for clip in clips if clip.fps), _DEFAULT_FPS)
    return max(20, round(1000 * every / min(fps, _FASTEST_FPS)))


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    """256 colours for all frames, from a few of them: one palette does not flicker, and makes a smaller file."""
    few = [pictures[place * (len(pictures) - 1) // 5] for place in range(6)]
    mosaic = Image.new("RGB", (few[0].width, few[0].height * len(few)))
    for place, picture in enumerate(few):
        mosaic.paste(picture, (0, place * picture.height))
    return mosaic.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
