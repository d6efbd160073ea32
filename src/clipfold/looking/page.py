"""One HTML page that needs nothing else: pictures inside it, no script, nothing from the network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape

from PIL import Image

from clipfold.looking.animation import clip_webp
from clipfold.looking.clips import Gallery, ShownClip
from clipfold.looking.drawing import frames_picture, is_strip, slice_of, strip_size
from clipfold.looking.tone import Tone, captions, tones_of
from clipfold.looking.words import clip_line

__all__ = ["gallery_page"]

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #fff; --ink: #1c1e21; --muted: #5b626a; --line: #dee1e5;
        --soft: #f4f5f7; --red: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --card: #1e2125; --ink: #e8eaed; --muted: #a3aab3; --line: #33383e; --soft: #24282d;
          --red: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .25rem 0; } .muted { color: var(--muted); font-size: .87rem; } .red { color: var(--red); }
.clips { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 34rem), 1fr)); }
.clips.wide { grid-template-columns: 1fr; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; min-width: 0; }
figure { margin: .75rem 0 0; } figcaption { color: var(--muted); font-size: .8rem; }
img { max-width: 100%; height: auto; display: block; border-radius: 4px; }
img.frames { background: #f5f6f8; padding: 6px; } img.sharp { image-rendering: pixelated; width: 100%; }
.pair { display: grid; gap: .9rem; grid-template-columns: 1fr 1fr; align-items: start; }
.wide .pair { grid-template-columns: 1fr; }
table { border-collapse: collapse; margin: .75rem 0 0; font-size: .87rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
.scroll { overflow-x: auto; } table.all td, table.all th { border-bottom: 1px solid var(--line); }
details { margin-top: .6rem; } summary { cursor: pointer; color: var(--muted); font-size: .87rem; }
"""


def gallery_page(gallery: Gallery) -> str:
    """The page. The same gallery gives the same text."""
    tones = tones_of(gallery.clips)
    notes = "".join(f'<p class="muted">{escape(line)}</p>' for line in captions(tones, gallery.clips))
    notes += "".join(f'<p class="muted red">{escape(line)}</p>' for line in gallery.notes)
    sections = "".join(
        f"<section><h2>{escape(label or 'without a class')}</h2>"
        f'<div class="clips{" wide" if _is_wide(clips[0]) else ""}">'
        + "".join(_card(clip, tones[str(clip.pixels_SHWC.dtype)]) for clip in clips)
        + "</div></section>"
        for label, clips in gallery.by_label().items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(gallery.title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{escape(gallery.title)}</h1>\n{_table(gallery.facts)}{notes}\n{sections}\n"
        f"<section><h2>All clips of this page</h2>{_overview(gallery)}</section>\n</body></html>\n"
    )


def _card(clip: ShownClip, tone: Tone) -> str:
    still = _png(_first_frame(clip, tone))
    moving = _data("image/webp", clip_webp(clip, tone))
    found = slice_of(clip, tone)
    is_padded = clip.num_valid_frames < clip.num_frames
    playing = (
        f'<picture><source media="(prefers-reduced-motion: no-preference)" srcset="{moving}" type="image/webp">'
        f'<img class="sharp" src="{still}" alt="{escape(clip.key)} playing"></picture>'
    )
    facts = {"source": clip.source, "frames of the source": clip.frames, **clip.facts}
    return (
        f"<article><h3>{escape(clip.key)}</h3>"
        f'<p class="muted{" red" if is_padded else ""}">{escape(clip_line(clip))}</p>'
        f'<div class="pair"><figure>{playing}<figcaption>the clip, playing</figcaption></figure>'
        f'<figure><img class="sharp" src="{_png(_large_slice(found.image))}" alt="{found.caption}">'
        f"<figcaption>{found.caption}: what moves makes a slanted line</figcaption></figure></div>"
        f'<figure><img class="frames" src="{_png(frames_picture(clip, tone))}" alt="frames in time order"></figure>'
        f"<details><summary>more about it</summary>{_table({k: v for k, v in facts.items() if v})}</details></article>"
    )


def _is_wide(clip: ShownClip) -> bool:
    return is_strip(*clip.pixels_SHWC.shape[1:3])


def _first_frame(clip: ShownClip, tone: Tone) -> Image.Image:
    image = Image.fromarray(tone.apply(clip.pixels_SHWC[:1])[0])
    return strip_size(image) if _is_wide(clip) else image


def _large_slice(image: Image.Image) -> Image.Image:
    times = max(1, -(-150 // image.height))
    return image.resize((image.width, image.height * times), Image.Resampling.NEAREST)


def _overview(gallery: Gallery) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("class", "key", "valid frames", "fps", "size", "source", "its frames")
    )
    rows = []
    for clip in gallery.clips:
        frames, height, width, _ = clip.pixels_SHWC.shape
        values = (
            clip.label or "",
            clip.key,
            f"{clip.num_valid_frames} of {frames}",
            f"{clip.fps:.4g}" if clip.fps else "",
            f"{width} x {height}",
            clip.source,
            clip.frames,
        )
        rows.append("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>")
    return f'<div class="scroll"><table class="all"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _table(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return _data("image/png", file.getvalue())


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
