"""A contact sheet: one picture with a panel for each clip, classes below each other."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw

from clipfold.looking.clips import Gallery, ShownClip
from clipfold.looking.drawing import INK, LINE, MUTED, PAPER, RED, font, frames_picture, is_strip, slice_panel
from clipfold.looking.tone import Tone, captions, tones_of
from clipfold.looking.words import clip_line, header_lines, shorten

__all__ = ["contact_sheet", "sheet_png"]

_MARGIN, _GAP = 24, 28
_MAX_WIDTH = 1900


def contact_sheet(gallery: Gallery) -> Image.Image:
    """All clips of a gallery on one sheet."""
    tones = tones_of(gallery.clips)
    panels = {
        label: [_panel(clip, tones[str(clip.pixels_SHWC.dtype)]) for clip in clips]
        for label, clips in gallery.by_label().items()
    }
    widest = max(panel.width for row in panels.values() for panel in row)
    columns = max(1, min(max(map(len, panels.values())), (_MAX_WIDTH + _GAP) // (widest + _GAP)))
    width = max(2 * _MARGIN + columns * (widest + _GAP) - _GAP, 640)
    header = _header(gallery, captions(tones, gallery.clips), width)
    top = header.height
    places: list[tuple[int, int, Image.Image]] = [(0, 0, header)]
    for label, row in panels.items():
        if len(panels) > 1 or label is not None:
            heading = _heading(label, width)
            places.append((0, top, heading))
            top += heading.height
        for start in range(0, len(row), columns):
            line = row[start : start + columns]
            places += [(_MARGIN + place * (widest + _GAP), top, panel) for place, panel in enumerate(line)]
            top += max(panel.height for panel in line) + _GAP
    sheet = Image.new("RGB", (width, top), PAPER)
    for left, upper, image in places:
        sheet.paste(image, (left, upper))
    return sheet


def sheet_png(gallery: Gallery) -> bytes:
    """The contact sheet as a PNG file. The same gallery gives the same bytes."""
    file = io.BytesIO()
    contact_sheet(gallery).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _panel(clip: ShownClip, tone: Tone) -> Image.Image:
    """Title line, frames, and the slice through time."""
    frames = frames_picture(clip, tone)
    _, height, width, _ = clip.pixels_SHWC.shape
    beside = slice_panel(clip, tone, height=frames.height)
    if is_strip(height, width):
        size = max(frames.width, beside.width), frames.height + 6 + beside.height
        place = 0, frames.height + 6
    else:
        size = frames.width + 12 + beside.width, max(frames.height, beside.height)
        place = frames.width + 12, 0
    picture = Image.new("RGB", (size[0], size[1] + 24), PAPER)
    draw = ImageDraw.Draw(picture)
    title = shorten(clip.key, size[0] // 2, 14)
    draw.text((0, 0), title, INK, font(14))
    left = int(font(14).getlength(title)) + 12
    is_padded = clip.num_valid_frames < clip.num_frames
    draw.text((left, 2), shorten(clip_line(clip), size[0] - left, 12), RED if is_padded else MUTED, font(12))
    picture.paste(frames, (0, 24))
    picture.paste(beside, (place[0], place[1] + 24))
    return picture


def _header(gallery: Gallery, notes: list[str], width: int) -> Image.Image:
    lines = header_lines(gallery, notes, width - 2 * _MARGIN, 12)
    picture = Image.new("RGB", (width, 62 + 17 * len(lines)), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 16), shorten(gallery.title, width - 2 * _MARGIN, 22), INK, font(22))
    for place, line in enumerate(lines):
        draw.text((_MARGIN, 48 + 17 * place), line, MUTED, font(12))
    return picture


def _heading(label: str | None, width: int) -> Image.Image:
    picture = Image.new("RGB", (width, 40), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.line((_MARGIN, 2, width - _MARGIN, 2), LINE)
    draw.text((_MARGIN, 12), shorten(label or "without a class", width - 2 * _MARGIN, 17), INK, font(17))
    return picture
