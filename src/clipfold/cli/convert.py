"""``clipfold convert SRC --out DIR``."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from clipfold.clip import ClipSpec
from clipfold.ingest.sampling import Sampling
from clipfold.shards.convert import convert

__all__ = ["Convert", "parse_size"]

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn videos and image folders into shards of clips.

    SRC holds one folder a class, with videos or folders of numbered images in it; or train/, val/ and test/ with such
    class folders; or unlabelled videos and image folders. Run the same command again to go on after an interruption.

    Example: clipfold convert videos --out corpus --codec jpeg --split 0.8/0.1/0.1
    """

    src: tyro.conf.Positional[str]
    """Folder of videos and image folders, one video, a table, or existing shards."""

    out: str
    """Folder of the corpus: new, empty, or left by the same command. Or a URL such as s3://bucket/corpus: finished
    shards go there one by one, the manifest last."""

    media_root: str | None = None
    """Where SRC is a table: what its relative paths start from, in place of its own folder."""

    staging: str | None = None
    """With a URL: local folder for what is under way; one in the user's cache by default."""

    codec: str = "raw"
    """How clips are stored: raw (exact, fastest), lossless, jpeg, mp4, lowrank, my_package.module:MyCodec; or auto: try
    all on a sample of the clips and take the best."""

    target: Literal["speed", "balanced", "size"] = "balanced"
    """What --codec auto chooses for."""

    min_psnr: float = 38.0
    """Lossy codecs below this PSNR (dB) are not chosen by --codec auto."""

    quality: int | None = None
    """Of codecs that have one (jpeg: 1 to 100, 90 by default)."""

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

    clips: Literal["windows", "equal"] = "windows"
    """Sliding windows, or --num-clips clips spread evenly over each source."""

    num_clips: int = 1
    """Clips of each source, with --clips equal."""

    frame_step: int = 1
    """Take every so many-th frame."""

    clip_stride: int | None = None
    """Frames from one window's start to the next; side by side by default."""

    short: Literal["repeat_last", "wrap", "zero", "drop", "error"] = "repeat_last"
    """What to do with a source that is shorter than a clip: pad it, drop it, or take it for an error."""

    split: str | None = None
    """Shares of train/val/test by source within each class, such as 0.8/0.1/0.1. By default the folders train/, val/
    and test/ of SRC say it, or everything is train."""

    fps: float | None = None
    """Frames a second that clips are made of, chosen by the true times of the video's own."""

    axes: Literal["auto", "SCHW", "SHWC", "SHW"] = "auto"
    """Order of the dimensions of arrays (.npy, .npz), where their lengths do not tell."""

    decoder: str = "auto"
    """auto (PyAV, and where it fails on a file another one), pyav, decord, torchcodec, or
    my_package.module:MyDecoder."""

    keep_partial: bool = False
    """Keep the clips before an error in a source, instead of leaving the source out."""

    shard_bytes: str = "1GiB"
    """Largest shard, such as 512MB or 1GiB."""

    shard_clips: int = 10_000
    """Most clips of a shard."""

    include: tuple[str, ...] = ()
    """Globs on the sources' names (walk/*): only these."""

    exclude: tuple[str, ...] = ()
    """Globs on the sources' names: not these."""

    limit: int | None = None
    """At most so many sources, of each class in turn."""

    follow_outside: bool = False
    """Follow links that lead out of SRC too."""

    classes: str | None = None
    """File that renames, merges, orders and drops classes: a .txt of lines such as `walk` (a class, in the order of
    the numbers), `stroll -> walk` (renamed, or merged), `noise -> -` (dropped), `* -> -` (all others dropped); a .csv
    with these two columns; or a .json object."""

    append: bool = False
    """Convert what is new into a finished corpus: its shards stay as they are, new ones come behind them."""

    num_workers: int | None = None
    """Processes that decode; one per CPU core by default. The result does not depend on it."""

    on_error: Literal["skip", "raise"] = "skip"
    """Leave out a source that cannot be read, and say so; or stop."""

    max_failures: int | None = None
    """Stop when more sources than this had to be left out."""

    retry_skipped: bool = False
    """Try sources again that were left out; in a finished corpus their clips go into new shards."""

    deadline_seconds: float | None = None
    """CPU seconds that a source may take from one clip to the next; 300 and more for large files by default."""

    memory: str | None = None
    """Memory that all workers may use together, such as 8GB; four fifths of the machine's by default."""

    allow_mixed_cpu: bool = False
    """Let a codec whose bytes depend on the type of the CPU (lowrank) run on several types."""

    engine: str = "local"
    """Where the work is done: local (processes of this machine), or ray (a Ray cluster, extra clipfold[ray])."""

    ray_address: str | None = None
    """With --engine ray: address of the cluster; RAY_ADDRESS or the one on this machine by default."""

    dry_run: bool = False
    """Count clips and estimate bytes; write nothing."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the summary as one JSON object, the last line of the standard output."""

    def run(self) -> int:
        """Convert, and print the summary."""
        _check_lasts(self.out)
        try:
            summary = convert(
                self.src,
                out=self.out,
                media_root=self.media_root,
                staging=self.staging,
                spec=ClipSpec(
                    num_frames=self.num_frames,
                    channels=self.channels,
                    height=self.height,
                    width=self.width,
                    dtype=self.dtype,
                ),
                codec=self.codec,
                codec_settings=None if self.quality is None else {"quality": self.quality},
                target=self.target,
                min_psnr=self.min_psnr,
                sampling=Sampling(
                    clips=self.clips,
                    num_clips=self.num_clips,
                    frame_step=self.frame_step,
                    clip_stride=self.clip_stride,
                    short=self.short,
                ),
                resize=self.resize,
                fps=self.fps,
                axes=self.axes,
                decoder=self.decoder,
                keep_partial=self.keep_partial,
                split=self.split,
                shard_bytes=parse_size(self.shard_bytes),
                shard_clips=self.shard_clips,
                include=self.include,
                exclude=self.exclude,
                limit=self.limit,
                follow_outside=self.follow_outside,
                classes=self.classes,
                append=self.append,
                num_workers=self.num_workers,
                on_error=self.on_error,
                max_failures=self.max_failures,
                retry_skipped=self.retry_skipped,
                allow_mixed_cpu=self.allow_mixed_cpu,
                deadline_seconds=self.deadline_seconds,
                memory_bytes=None if self.memory is None else parse_size(self.memory),
                engine=self.engine,
                ray_address=self.ray_address,
                dry_run=self.dry_run,
            )
        except KeyboardInterrupt:
            print(f"stopped; the same command goes on with {self.out}", file=sys.stderr)
            raise
        print(summary, file=sys.stderr if self.as_json else sys.stdout)
        if self.as_json:
            print(json.dumps(summary.to_json(), ensure_ascii=False))
        return 0


def _check_lasts(out: str) -> None:
    """Refuse an output that is no place, or that ends with this process.

    Raises:
        ValueError: A URL of memory, or one without a host, bucket or path.
    """
    scheme, has_scheme, rest = out.partition("://")
    if not has_scheme:
        return
    if scheme.lower() == "memory":
        raise ValueError(f"out: {out!r} is the memory of this process and ends with it; name a folder or a store")
    if not rest.strip("/"):
        raise ValueError(f"out: {out!r} is a URL without a bucket, expected one such as {scheme}://bucket/corpus")


def parse_size(text: str) -> int:
    """A number of bytes such as ``512MB`` (10**6), ``1GiB`` (2**30), ``1.5 GB`` or ``1000000``.

    Raises:
        ValueError: Not such a size.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]i?)?B?\s*", text)
    unit = (found[2] or "").replace("K", "k").replace("ki", "Ki") if found else "?"
    if found is None or unit not in _UNITS:
        raise ValueError(f"size: {text!r}, expected one like 512MB, 1GiB or 1000000")
    return round(float(found[1]) * _UNITS[unit])
