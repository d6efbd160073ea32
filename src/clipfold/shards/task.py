"""What a worker does with one source: decode, encode, stage the part. Imports no torch, so that workers start fast."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipfold.errors import SourceError
from clipfold.ingest.places import source_state
from clipfold.ingest.reader import ClipReader, ReadClip, ReadOptions, count_clips, read_clips
from clipfold.ingest.sources import Source
from clipfold.shards.codecs import Codec, get_codec
from clipfold.shards.columns import Column
from clipfold.shards.meta import sample_meta
from clipfold.shards.staging import PartClip, write_part
from clipfold.shards.totals import ChannelSums
from clipfold.worker import cpu_type, renew_deadline

__all__ = ["Job", "convert_source", "probe_source"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One source and what to do with it.

    Args:
        source: As it is listed now.
        options: How to read it.
        codec: Name of the codec, as the user wrote it.
        codec_settings: Its settings.
        num_bytes: Size that the frozen list has.
        mtime_ns: Time of the last change that the frozen list has.
        part: Where the part goes; ``""`` when probing.
        wants_sums: Whether the channels are summed up: for sources of the train split.
        wants_bytes: Whether a probe encodes the first clip.
        label: Its class in the corpus.
        columns: The user's own columns, for every clip's ``.json``.
    """

    source: Source
    options: ReadOptions
    codec: str
    codec_settings: Mapping[str, Any]
    num_bytes: int = 0
    mtime_ns: int = 0
    part: str = ""
    wants_sums: bool = False
    wants_bytes: bool = False
    label: str | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)


def convert_source(job: Job) -> dict[str, Any]:
    """Stage the part of one source, whole or not at all.

    Returns:
        JSON values: ``num_clips``, ``decoder`` (name and version), ``sums`` (or ``None``), ``cpu_type`` where the
        codec's bytes depend on it, and ``broken_by`` where only the clips before an error were kept; or ``reason`` and
        ``text`` where the source has to be left out; or a text as ``changed`` or ``unwritable`` where the whole
        conversion has to stop.

    Raises:
        ClipfoldError: It cannot be read or decoded.
    """
    if (state := source_state(job.source)) is None:
        return {"reason": "vanished", "text": "it was there when the sources were listed, now it is not"}
    if state != (job.num_bytes, job.mtime_ns):
        return {"changed": f"{state[0]:,} bytes now, {job.num_bytes:,} when the sources were listed, or a newer time"}
    record: dict[str, Any] = {"num_clips": 0, "decoder": "", "sums": None}
    codec = get_codec(job.codec, job.codec_settings)
    if getattr(codec, "depends_on_cpu", False):
        record["cpu_type"] = cpu_type()
    clips = _encoded(job, codec, record)
    try:
        write_part(Path(job.part), clips, record)
    except OSError as error:  # what goes wrong in reading comes as SourceError
        return {"unwritable": error.strerror or str(error), "errno": error.errno}
    if not record["num_clips"]:
        Path(job.part).unlink()
        return {"reason": "too_short", "text": "it has fewer frames than a clip, and such sources are dropped"}
    return record


def _encoded(job: Job, codec: Codec, record: dict[str, Any]) -> Iterator[PartClip]:
    """The clips of a source one by one; the record is complete when they are through."""
    spec = job.options.spec
    total = None
    reader = _open(job)
    for clip in _read(reader, job):
        if job.wants_sums:
            sums = ChannelSums.of(clip.pixels_SCHW, clip.num_valid_frames)
            if not all(map(math.isfinite, (*sums.sums, *sums.squares))):
                raise SourceError("pixels are not finite numbers", file=job.source.path)
            total = sums if total is None else total + sums
        data = codec.encode(clip.pixels_SCHW, spec)
        record["num_clips"] += 1
        record["decoder"] = " ".join(clip.decoder)
        record["sums"] = total.to_json() if total is not None else None
        meta = sample_meta(
            source=job.source.name,
            indices=clip.indices,
            label=job.label,
            fps=clip.fps,
            num_valid_frames=clip.num_valid_frames,
            height=clip.height,
            width=clip.width,
            extra=job.columns,
        )
        renew_deadline()
        yield PartClip(data=data, num_valid_frames=clip.num_valid_frames, meta=meta)
    if reader.broken_by is not None:
        record["broken_by"] = reader.broken_by.what


def _open(job: Job) -> ClipReader:
    try:
        return read_clips(job.source, job.options)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", file=job.source.path) from error


def _read(reader: ClipReader, job: Job) -> Iterator[ReadClip]:
    try:
        with reader:
            yield from reader
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", file=job.source.path) from error


def probe_source(job: Job) -> dict[str, Any]:
    """How much a source would give, without writing anything.

    Returns:
        ``num_frames``, ``num_clips``, and ``clip_bytes``: what the codec makes of the first clip, ``None`` where it
        was not asked for.

    Raises:
        ClipfoldError: It cannot be read or decoded.
    """
    num_frames, num_clips = count_clips(job.source, job.options)
    clip_bytes = None
    if job.wants_bytes and num_clips:
        codec = get_codec(job.codec, job.codec_settings)
        with _open(job) as reader:
            clip_bytes = len(codec.encode(next(reader).pixels_SCHW, job.options.spec))
    return {"num_frames": num_frames, "num_clips": num_clips, "clip_bytes": clip_bytes}
