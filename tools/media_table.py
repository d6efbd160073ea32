"""What each real video does with each decoder, as a table in Markdown.

    tools/dev run python tools/media_table.py [FOLDER]

FOLDER is by default videos/ in CLIPFOLD_MEDIA (default: ../shared/media, seen from the project's root). For ``auto``
and each decoder by name: who served the file, and the frames that a whole pass really delivered; "same" where that is
PyAV after all, because the file is not one of those of which the decoder is known to deliver the same frames. The PSNR
is the lowest of any frame against PyAV's, in luma, at 16 x 701.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError
from clipfold.ingest.decoders import open_source
from clipfold.ingest.decoders.packets import scan_packets
from clipfold.ingest.places import OpenPlace, Place
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import Source, find_sources

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("decord", "torchcodec")
LUMA = np.array([0.299, 0.587, 0.114])
RESIZE = Resize(spec=ClipSpec())


def described(source: Source) -> str:
    """Codec, pixel format and size, as far as the file can be opened."""
    try:
        packets = scan_packets(OpenPlace(Place(source.path)))
        opened = open_source(source)
        size = f", {opened.width}x{opened.height}"
        opened.close()
    except ClipfoldError:
        return ""
    rate = f", {packets.fps:g} fps" if packets.fps else ""
    return f"{packets.codec} {packets.pixel_format}{size}{rate}"


def frames_of(source: Source, decoder: str) -> Iterator[Any]:
    opened = open_source(source, decoder)
    try:
        if opened.defect is not None:
            raise opened.defect
        yield opened.name, len(opened)
        yield from opened.read(range(len(opened)), RESIZE)
    finally:
        opened.close()


def try_decoder(source: Source, decoder: str) -> str:
    """The cell of ``auto``: who served it and how many frames it delivered, or why not."""
    num = 0
    try:
        frames = frames_of(source, decoder)
        name, _ = next(frames)
        for _ in frames:
            num += 1
    except ClipfoldError as error:
        where = f" at frame {num}" if num else ""
        return f"error{where}: {error.what.replace('|', '/')}"
    return f"{name}: {num} frames"


def compare(source: Source, decoder: str) -> str:
    """The cell of another decoder: its frames and how near they are to PyAV's."""
    try:
        theirs = frames_of(source, decoder)
        name, _ = next(theirs)
        if name != decoder:
            theirs.close()  # type: ignore[attr-defined]
            return "same"
        ours = frames_of(source, "pyav")
        next(ours)
        num, worst = 0, math.inf
        for one, two in zip_longest(ours, theirs):
            error = float(np.mean(((one.astype(np.float64) - two) @ LUMA) ** 2))
            worst = min(worst, 10 * math.log10(255**2 / error) if error else math.inf)
            num += 1
    except ClipfoldError as error:
        return "error" if decoder not in error.what else f"error: {error.what.replace('|', '/')}"
    return f"{num} frames, {'exact' if worst == math.inf else f'{worst:.1f} dB'}"


def main() -> None:
    """Print the table."""
    media = Path(os.environ.get("CLIPFOLD_MEDIA", ROOT.parent / "shared" / "media"))
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else media / "videos"
    found = find_sources(folder)
    print(f"| file | what it is | auto | {' | '.join(OTHERS)} |\n|{'---|' * (3 + len(OTHERS))}")
    for source in found.sources:
        cells = [source.name, described(source), try_decoder(source, "auto")]
        cells += [compare(source, other) for other in OTHERS]
        print(f"| {' | '.join(cells)} |", flush=True)
    for ignored in found.ignored:
        print(f"| {ignored.name} | | ignored: {ignored.reason} |{' |' * len(OTHERS)}")


if __name__ == "__main__":
    main()
