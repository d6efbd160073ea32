"""What the survey's worker processes do with one source each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import xxhash

from clipfold.ingest.decoders.probe import Depth, Probe, probe
from clipfold.ingest.places import OpenPlace, places_of
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.sources import Source
from clipfold.shards.codecs import get_codec

__all__ = ["Measured", "ProbeJob", "SampleJob", "fingerprint", "measure_sample", "probe_source"]

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ProbeJob:
    """One source to be looked at."""

    source: Source
    depth: Depth


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """One source whose first clip is read, then encoded with each codec."""

    source: Source
    options: ReadOptions
    codecs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What reading and encoding one clip took.

    Args:
        num_frames: Frames that were decoded for it.
        read_seconds: Opening, decoding and scaling.
        zero_share: Share of its pixels, all channels together, that are exactly 0 in valid frames.
        encoded: Bytes and seconds by codec.
    """

    num_frames: int
    read_seconds: float
    zero_share: float
    encoded: dict[str, tuple[int, float]]


def probe_source(job: ProbeJob) -> Probe:
    """See :func:`clipfold.ingest.decoders.probe.probe`."""
    return probe(job.source, depth=job.depth)


def fingerprint(source: Source) -> str:
    """xxh3-128 of a source's bytes, in hexadecimal; of an image folder the frames' in order, with their sizes."""
    digest = xxhash.xxh3_128()
    for each in places_of(source):
        with closing(OpenPlace(each)) as place, place.open() as file:
            digest.update(place.num_bytes.to_bytes(8, "little"))
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def measure_sample(job: SampleJob) -> Measured | None:
    """Read the first clip of a source and encode it with each codec; ``None`` where it gives no clip.

    Raises:
        DecodeError: It cannot be decoded.
        SourceError: It has gone, or its frames differ in size.
    """
    start = time.perf_counter()
    with read_clips(job.source, job.options) as reader:
        clip = next(reader, None)
        read_seconds = time.perf_counter() - start
    if clip is None:
        return None
    valid = clip.pixels_SHWC[: clip.num_valid_frames]
    encoded = {name: _encode(name, clip.pixels_SCHW, job.options) for name in job.codecs}
    return Measured(
        num_frames=int(clip.indices.max()) + 1,
        read_seconds=read_seconds,
        zero_share=float((valid == 0).all(axis=3).mean()),
        encoded=encoded,
    )


def _encode(name: str, clip_SCHW: Any, options: ReadOptions) -> tuple[int, float]:
    codec = get_codec(name)
    seconds = []
    for _ in range(2):  # the first pays for tables and memory
        start = time.perf_counter()
        size = len(codec.encode(clip_SCHW, options.spec))
        seconds.append(time.perf_counter() - start)
    return size, min(seconds)
