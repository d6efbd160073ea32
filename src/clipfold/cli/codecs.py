"""``clipfold codecs DATA``: which codec suits these clips?"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from clipfold.clip import ClipSpec
from clipfold.files import exists, join
from clipfold.ingest.reader import ReadOptions
from clipfold.ingest.sampling import Sampling
from clipfold.ingest.sources import find_sources
from clipfold.shards.choose import CodecChoice, choose_codec, choose_codec_of_corpora
from clipfold.shards.engines import open_engine
from clipfold.shards.manifest import MANIFEST_NAME
from clipfold.shards.reader import Corpus

__all__ = ["Codecs", "print_choice"]


@dataclass(frozen=True, kw_only=True)
class Codecs:
    """Try every codec on a sample of your own clips, and say which one to take.

    DATA is a corpus (its clips are decoded again) or anything that `clipfold convert` reads; the flags about clips
    (--num-frames, --height, ...) are for the latter, and are those of `clipfold convert`.

    Example: clipfold codecs videos --target size
    """

    data: tyro.conf.Positional[str]
    """Corpus, or folder of videos and image folders, or one video."""

    target: Literal["speed", "balanced", "size"] = "balanced"
    """What the codec is for: training at full speed, a good mean, or the fewest bytes."""

    min_psnr: float = 38.0
    """Lossy codecs below this PSNR (dB) are not taken; lowrank is tried at this very PSNR."""

    num_clips: int = 24
    """About how many clips are tried, of each class in turn."""

    num_frames: int = 100
    """Frames of a clip."""

    height: int = 16
    """Rows of a clip."""

    width: int = 701
    """Columns of a clip."""

    channels: int = 3
    """1 is grey, 3 is RGB."""

    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    """Type of a pixel."""

    resize: Literal["stretch", "letterbox", "center_crop"] = "stretch"
    """How frames come to height x width."""

    frame_step: int = 1
    """Take every so many-th frame."""

    decoder: str = "auto"
    """auto, or a decoder's name."""

    num_workers: int | None = None
    """Processes that measure; one per CPU core by default."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print everything that was measured as one JSON object, the last line of the standard output."""

    def run(self) -> int:
        """Measure, and print the table."""
        with closing(open_engine("local", num_workers=self.num_workers)) as engine:
            options: dict[str, Any] = {
                "engine": engine,
                "target": self.target,
                "min_psnr": self.min_psnr,
                "num_clips": self.num_clips,
            }
            if exists(join(self.data, MANIFEST_NAME)):
                choice = choose_codec_of_corpora([Corpus(self.data)], show_progress=True, **options)
            else:
                read = ReadOptions(
                    spec=ClipSpec(
                        num_frames=self.num_frames,
                        channels=self.channels,
                        height=self.height,
                        width=self.width,
                        dtype=self.dtype,
                    ),
                    sampling=Sampling(frame_step=self.frame_step),
                    resize=self.resize,
                    decoder=self.decoder,
                )
                choice = choose_codec(find_sources(self.data).sources, read, show_progress=True, **options)
        print_choice(choice, as_json=self.as_json)
        if self.as_json:
            print(json.dumps(choice.to_json(), ensure_ascii=False))
        return 0


def print_choice(choice: CodecChoice, *, as_json: bool) -> None:
    """The table: drawn on a terminal, plain text elsewhere; on the standard error where the output is JSON."""
    file = sys.stderr if as_json else sys.stdout
    if not file.isatty():
        print(choice, file=file)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    heading, *rows = choice.rows()
    table = Table()
    for number, name in enumerate(heading):
        table.add_column(name, justify="left" if number in (0, 6) else "right")
    for row in rows:
        table.add_row(*map(escape, row), style="bold" if row[0] == choice.codec else None)
    console = Console(file=file)
    console.print(table)
    for line in choice.lines_below():
        console.print(line, markup=False, highlight=False)
