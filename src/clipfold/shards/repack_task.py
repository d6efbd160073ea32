"""What workers do for :mod:`clipfold.shards.repack`: look through a shard; decode, encode or sum up a source's clips.

No sample is taken on trust: a shard is read once from front to back against its sha256 before any of it is used (its
``.json`` members are under no other checksum), and every clip against its xxh3 when it is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.files import open_bytes, read_bytes
from clipfold.shards.codecs import empty_slot, get_codec
from clipfold.shards.index import load_index, sample_key
from clipfold.shards.meta import MAX_META_BYTES, meta_kinds
from clipfold.shards.staging import PartClip, write_part
from clipfold.shards.tar import iter_members
from clipfold.shards.totals import ChannelSums
from clipfold.shards.verify_shard import HashedReader
from clipfold.shards.where import Where
from clipfold.worker import renew_deadline

__all__ = ["FOUND_DTYPE", "ClipsJob", "CopiedPart", "LookJob", "Sample", "look_through", "repack_clips"]

FOUND_DTYPE = np.dtype([("json_offset", "<i8"), ("json_size", "<i4"), ("is_wanted", "<i4")])

_FIX = "`clipfold verify` finds all that is damaged; copy or convert the corpus again"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class LookJob:
    """A shard to be looked through.

    Args:
        tar: Where it is.
        index: Where its index is.
        index_sha256: What the index must hash to.
        num_bytes: Size of the tar.
        sha256: What it must hash to.
        split: Name of its split.
        where: The condition on its samples; ``""`` takes all.
    """

    tar: str
    index: str
    index_sha256: bytes
    num_bytes: int
    sha256: bytes
    split: str
    where: str = ""


def look_through(job: LookJob) -> tuple[NDArray[Any], dict[str, str]]:
    """Find the ``.json`` of every sample of a shard, and the samples that fulfil the condition.

    Returns:
        FOUND_DTYPE (num_samples,) in the order of the index, and the kinds of the columns of the first sample.

    Raises:
        ShardError: The shard is not what its checksums say.
        ValueError: The condition does not fit the columns.
    """
    index = load_index(job.index, sha256=job.index_sha256)
    places = {sample_key(int(row["source"]), int(row["clip"])): place for place, row in enumerate(index)}
    found = np.zeros(len(index), FOUND_DTYPE)
    where = Where(job.where) if job.where else None
    kinds: dict[str, str] = {}
    trouble: ValueError | None = None
    try:
        with open_bytes(job.tar) as file:
            reader = HashedReader(file)
            for member, read in iter_members(reader.read, job.num_bytes):
                renew_deadline()
                key, _, extension = member.name.partition(".")
                if extension != "json" or key not in places or member.size > MAX_META_BYTES:
                    continue
                found[places[key]] = (member.offset, member.size, where is None)
                try:
                    columns = json.loads(read(member.size)) if where or not kinds else {}
                    kinds = kinds or meta_kinds(columns)
                    if where is not None:
                        found["is_wanted"][places[key]] = where.holds({"split": job.split, "key": key, **columns})
                except ValueError as error:  # not worth a word before the checksum says that the bytes are right
                    trouble = trouble or error
            while reader.read(_READ_BYTES):
                pass
    except OSError as error:
        raise ShardError(f"cannot be read: {error.strerror or error}", fix=_FIX, file=job.tar) from error
    except ShardError as error:
        raise ShardError(error.what, fix=_FIX, **{**error.where, "file": job.tar}) from error
    if (reader.num_bytes, reader.sha256.digest()) != (job.num_bytes, job.sha256):
        raise ShardError("the shard does not have its checksum", fix=_FIX, file=job.tar)
    if trouble is not None:
        raise trouble
    if not found["json_offset"].all():
        raise ShardError("a sample of the index is not in the tar, or has no .json", fix=_FIX, file=job.tar)
    return found, kinds


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Where one sample is: its tar, its clip's bytes and their xxh3, its ``.json``."""

    tar: str
    source: int
    clip: int
    num_valid_frames: int
    offset: int
    size: int
    xxh3: int
    json_offset: int
    json_size: int

    def read(self) -> bytes:
        """The clip's bytes.

        Raises:
            ShardError: They do not have their checksum.
        """
        data = read_bytes(self.tar, offset=self.offset, size=self.size)
        if xxhash.xxh3_64_intdigest(data) != self.xxh3:
            raise ShardError(
                "the sample does not have its checksum", fix=_FIX, file=self.tar, key=sample_key(self.source, self.clip)
            )
        return data

    def read_meta(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Its ``.json`` with the columns that it lacks, each of the type of the given value."""
        meta: dict[str, Any] = json.loads(read_bytes(self.tar, offset=self.json_offset, size=self.json_size))
        for name, default in columns.items():
            meta[name] = float(meta[name]) if name in meta and isinstance(default, float) else meta.get(name, default)
        return meta


@dataclass(frozen=True, kw_only=True)
class CopiedPart:
    """The clips of a source whose bytes stay as they are, straight from the shards that they are in.

    Args:
        samples: In the order of their clips.
        columns: What their ``.json`` lacks or has as another kind of number, with the value where it lacks it.
    """

    samples: Sequence[Sample]
    columns: Mapping[str, Any]

    def clips(self, start: int = 0) -> Iterator[tuple[int, PartClip]]:
        """(place, clip) from place ``start`` on."""
        for place, sample in enumerate(self.samples[start:], start):
            yield (
                place,
                PartClip(
                    data=sample.read(),
                    num_valid_frames=sample.num_valid_frames,
                    meta=sample.read_meta(self.columns),
                    number=sample.clip,
                ),
            )


@dataclass(frozen=True, kw_only=True)
class ClipsJob:
    """The clips of one source, to be decoded.

    Args:
        samples: In the order of their clips.
        columns: As for :class:`CopiedPart`.
        spec: Shape and dtype.
        codec, codec_settings: What they are stored with.
        new_codec, new_settings: What to store them with.
        part: Where the part goes; ``""`` where nothing is encoded.
        wants_sums: Whether the channels are summed up.
    """

    samples: tuple[Sample, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)
    spec: ClipSpec
    codec: str
    codec_settings: Mapping[str, Any]
    new_codec: str
    new_settings: Mapping[str, Any]
    part: str
    wants_sums: bool


def repack_clips(job: ClipsJob) -> dict[str, Any]:
    """Decode the clips; encode them into a part, sum up their channels, or both.

    Returns:
        The source's record for the journal; ``{"unwritable": text, "errno": number}`` where the part cannot be written.

    Raises:
        ShardError: A clip is damaged.
    """
    record: dict[str, Any] = {"num_clips": len(job.samples), "sums": None}
    clips = _encoded(job, record)
    if not job.part:
        for _ in clips:
            pass
        return record
    try:
        write_part(Path(job.part), clips, record)
    except OSError as error:  # what goes wrong in reading comes as ShardError
        return {"unwritable": error.strerror or str(error), "errno": error.errno}
    return record


def _encoded(job: ClipsJob, record: dict[str, Any]) -> Iterator[PartClip]:
    codec, new_codec = get_codec(job.codec, job.codec_settings), get_codec(job.new_codec, job.new_settings)
    slot, pixels_SCHW = empty_slot(codec, job.spec)
    total = None
    for sample in job.samples:
        try:
            data, meta = sample.read(), sample.read_meta(job.columns)
        except OSError as error:
            raise ShardError(f"cannot be read: {error.strerror or error}", file=sample.tar) from error
        try:
            codec.decode_into(data, slot, job.spec)
        except ShardError as error:
            error.where.update(file=sample.tar, key=sample_key(sample.source, sample.clip))
            raise
        if job.wants_sums:
            sums = ChannelSums.of(pixels_SCHW, sample.num_valid_frames)
            total = sums if total is None else total + sums
            record["sums"] = total.to_json()
        if job.part:
            data = new_codec.encode(pixels_SCHW, job.spec)
        renew_deadline()
        yield PartClip(data=data, num_valid_frames=sample.num_valid_frames, meta=meta, number=sample.clip)
