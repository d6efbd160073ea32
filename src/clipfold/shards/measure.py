"""What each codec makes of some of the user's own clips: bytes, PSNR, milliseconds. Worker processes do it.

::

    sources, or a corpus --> a few clips, the same ones every time --> workers: encode, decode, compare --> Totals
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError, ShardError, SourceError
from clipfold.files import is_url, read_bytes
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.sources import Source
from clipfold.pool import num_cpus
from clipfold.progress import Progress
from clipfold.shards.codecs import Codec, empty_slot, get_codec
from clipfold.shards.engines import Engine
from clipfold.shards.estimate import available_bytes, evenly
from clipfold.shards.index import sample_key
from clipfold.shards.reader import Corpus
from clipfold.worker import Limits, renew_deadline

__all__ = ["Totals", "Trial", "measure_corpus", "measure_sources", "read_bytes_per_second"]

_NUM_DECODES = 3  # the quickest counts: anything else that ran on the machine can only have slowed the others
_SPREAD = 4  # the clips of a source lie among its first ones, this many times as many as are taken
_NUM_ROUNDS = 4
_BRIEF = 60.0  # CPU seconds from clip to clip: less patience than the conversion itself will have
_SECONDS_OF_THREADS = 0.05
_LEAST_READ_BYTES, _MOST_READ_BYTES, _PIECE_BYTES = 8 << 20, 128 << 20, 4 << 20


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A codec with its settings, to be tried."""

    codec: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Tally:
    """What one codec made of the clips so far."""

    sizes: list[int] = field(default_factory=list)
    squared_errors: list[float] = field(default_factory=list)  # mean of each clip
    encode_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)
    trouble: str = ""


@dataclass
class Totals:
    """What all codecs made of some clips.

    Attributes:
        num_clips: How many clips were measured.
        num_zeros: Values of these clips that are exactly 0.
        num_values: All values.
        unreadable: Sources that could not be read, with the reason.
        num_busy_cores: By codec, how many cores decode at a time when there is a thread for each of them: fewer than
            there are where a codec holds Python's lock.
    """

    num_clips: int = 0
    num_zeros: int = 0
    num_values: int = 0
    unreadable: list[str] = field(default_factory=list)
    num_busy_cores: dict[str, float] = field(default_factory=dict)
    _tallies: dict[str, _Tally] = field(default_factory=lambda: defaultdict(_Tally))

    @property
    def share_of_zeros(self) -> float:
        """Of all values, in [0, 1]."""
        return self.num_zeros / max(self.num_values, 1)

    def trouble(self, codec: str) -> str:
        """Why a codec could not hold one of the clips; ``""`` where it could hold all."""
        return self._tallies[codec].trouble

    def clip_bytes(self, codec: str) -> float:
        """Mean size of a clip."""
        return sum(self._tallies[codec].sizes) / self.num_clips

    def psnr(self, codec: str, spec: ClipSpec) -> float:
        """``10 log10(peak^2 / e)`` in dB, e the mean squared error over all clips; infinite where exact."""
        error = sum(self._tallies[codec].squared_errors) / self.num_clips
        return 10 * math.log10(spec.full_scale**2 / error) if error else math.inf

    def encode_ms(self, codec: str) -> float:
        """Median time to encode a clip."""
        return 1e3 * median(self._tallies[codec].encode_seconds)

    def decode_ms(self, codec: str) -> float:
        """Median time to decode a clip."""
        return 1e3 * median(self._tallies[codec].decode_seconds)

    def add(self, clips: Sequence[Mapping[str, Any]]) -> None:
        """Add what a worker sent: one :func:`_measure` a clip."""
        for clip in clips:
            self.num_clips += 1
            self.num_zeros += clip["num_zeros"]
            self.num_values += clip["num_values"]
            for name, found in clip["codecs"].items():
                tally = self._tallies[name]
                if isinstance(found, str):
                    tally.trouble = tally.trouble or found
                    continue
                size, error, encode_seconds, decode_seconds = found
                tally.sizes.append(size)
                tally.squared_errors.append(error)
                tally.encode_seconds.append(encode_seconds)
                tally.decode_seconds.append(decode_seconds)

    def merge(self, other: Totals) -> None:
        """Add what was measured on other clips."""
        self.num_clips += other.num_clips
        self.num_zeros += other.num_zeros
        self.num_values += other.num_values
        self.unreadable += other.unreadable
        self.num_busy_cores = {**other.num_busy_cores, **self.num_busy_cores}
        for name, found in other._tallies.items():
            tally = self._tallies[name]
            tally.sizes += found.sizes
            tally.squared_errors += found.squared_errors
            tally.encode_seconds += found.encode_seconds
            tally.decode_seconds += found.decode_seconds
            tally.trouble = tally.trouble or found.trouble


# ---- in the workers ----


@dataclass(frozen=True, kw_only=True)
class _SourceJob:
    source: Source
    options: ReadOptions
    trials: tuple[Trial, ...]
    num_clips: int


@dataclass(frozen=True, kw_only=True)
class _CorpusJob:
    location: str
    codec: str
    codec_settings: Mapping[str, Any]
    spec: ClipSpec
    rows: tuple[tuple[str, int, int, int], ...]  # key, offset, size, xxh3
    trials: tuple[Trial, ...]


def _measure_source(job: _SourceJob) -> list[dict[str, Any]]:
    with read_clips(job.source, job.options) as reader:
        wanted = set(evenly(min(reader.num_clips, _SPREAD * job.num_clips), job.num_clips))
        found = []
        for clip in reader:
            if clip.number in wanted:
                found.append(_measure(clip.pixels_SCHW, job.options.spec, job.trials))
            if clip.number >= max(wanted):
                break
    return found


def _measure_samples(job: _CorpusJob) -> list[dict[str, Any]]:
    return [_measure(pixels_SCHW, job.spec, job.trials) for pixels_SCHW in _decoded(job)]


def _busy_cores_of_source(job: _SourceJob) -> dict[str, float]:
    with read_clips(job.source, job.options) as reader:
        return _busy_cores(next(reader).pixels_SCHW, job.options.spec, job.trials)


def _busy_cores_of_sample(job: _CorpusJob) -> dict[str, float]:
    return _busy_cores(next(_decoded(job)), job.spec, job.trials)


def _decoded(job: _CorpusJob) -> Iterator[NDArray[Any]]:
    """The clips (S, C, H, W) of a job's samples, each in memory of its own."""
    codec = get_codec(job.codec, job.codec_settings)
    for key, offset, size, checksum in job.rows:
        data = read_bytes(job.location, offset=offset, size=size)
        if xxhash.xxh3_64_intdigest(data) != checksum:
            raise ShardError(
                "the sample does not have its checksum",
                fix="`clipfold verify` finds all that is damaged; copy or convert the corpus again",
                file=job.location,
                key=key,
            )
        slot, pixels_SCHW = empty_slot(codec, job.spec)
        codec.decode_into(data, slot, job.spec)
        yield pixels_SCHW


def _measure(clip_SCHW: NDArray[Any], spec: ClipSpec, trials: Sequence[Trial]) -> dict[str, Any]:
    """One clip through every codec: (bytes, mean squared error, seconds to encode, to decode), or what went wrong."""
    codecs: dict[str, Any] = {}
    for trial in trials:
        try:
            codecs[trial.codec] = _try(clip_SCHW, spec, get_codec(trial.codec, trial.settings))
        except (ClipfoldError, ValueError) as error:
            codecs[trial.codec] = error.what if isinstance(error, ClipfoldError) else str(error)
        renew_deadline()
    num_zeros = clip_SCHW.size - int(np.count_nonzero(clip_SCHW))
    return {"num_zeros": num_zeros, "num_values": clip_SCHW.size, "codecs": codecs}


def _try(clip_SCHW: NDArray[Any], spec: ClipSpec, codec: Codec) -> tuple[int, float, float, float]:
    start = time.perf_counter()
    data = codec.encode(clip_SCHW, spec)
    encode_seconds = time.perf_counter() - start
    slot, decoded_SCHW = empty_slot(codec, spec)
    decode_seconds = math.inf
    for _ in range(_NUM_DECODES):
        start = time.perf_counter()
        codec.decode_into(data, slot, spec)
        decode_seconds = min(decode_seconds, time.perf_counter() - start)
    if codec.exact:
        return len(data), 0.0, encode_seconds, decode_seconds
    if hasattr(codec, "decode_floats"):  # what the stored bytes stand for, before it is rounded to whole pixels
        decoded_SCHW = np.empty(spec.shape_SCHW, np.float32)
        codec.decode_floats(data, decoded_SCHW, spec)
    return len(data), _mean_squared_error(clip_SCHW, decoded_SCHW), encode_seconds, decode_seconds


def _busy_cores(clip_SCHW: NDArray[Any], spec: ClipSpec, trials: Sequence[Trial]) -> dict[str, float]:
    """How much faster than one thread as many threads as cores decode a clip, by codec."""
    num_threads = num_cpus()
    found = {}
    for trial in trials:
        with suppress(ClipfoldError, ValueError):  # it was said why when it was measured
            codec = get_codec(trial.codec, trial.settings)
            data = codec.encode(clip_SCHW, spec)
            one, all_of_them = (_decodes_per_second(codec, data, spec, num) for num in (1, num_threads))
            found[trial.codec] = min(all_of_them / one, float(num_threads))
        renew_deadline()
    return found


def _decodes_per_second(codec: Codec, data: bytes, spec: ClipSpec, num_threads: int) -> float:
    start = time.perf_counter()

    def work(_: int) -> int:
        slot, num = empty_slot(codec, spec)[0], 0
        while not num or time.perf_counter() - start < _SECONDS_OF_THREADS:
            codec.decode_into(data, slot, spec)
            num += 1
        return num

    with ThreadPoolExecutor(num_threads) as pool:
        total = sum(pool.map(work, range(num_threads)))
    return total / (time.perf_counter() - start)


def _mean_squared_error(clip_SCHW: NDArray[Any], decoded_SCHW: NDArray[Any]) -> float:
    total = 0.0
    for frame_CHW, decoded_CHW in zip(clip_SCHW, decoded_SCHW, strict=True):
        difference = frame_CHW.astype(np.float64) - decoded_CHW
        total += float(np.square(difference).sum())
    return total / clip_SCHW.size


# ---- in the command ----


def measure_sources(
    sources: Sequence[Source],
    options: ReadOptions,
    trials: Sequence[Trial],
    *,
    engine: Engine,
    num_clips: int,
    deadline_seconds: float | None = None,
    show_progress: bool = False,
) -> Totals:
    """Try the codecs on clips of some of the sources: of each class in turn, in the order of a hash of their names.

    The same sources give the same clips. A source that cannot be read is left out, and another one taken for it.

    Raises:
        SourceError: None of those that were tried can be read.
    """
    totals, waiting = Totals(), _in_turn(sources)
    probe: _SourceJob | None = None
    memory = available_bytes()
    limits = Limits(
        cpu_seconds=deadline_seconds or _BRIEF,
        wall_seconds=4 * (deadline_seconds or _BRIEF) + 60,
        memory_bytes=max(memory // engine.num_workers, min(memory, 1 << 30)),
        memory_alone_bytes=memory,
    )
    with Progress("measuring codecs", total=num_clips, unit="clips", show=show_progress) as progress:
        for _ in range(_NUM_ROUNDS):
            missing = num_clips - totals.num_clips
            taken, waiting = waiting[:missing], waiting[missing:]
            if missing <= 0 or not taken:
                break
            each = -(-missing // len(taken))
            jobs = [
                _SourceJob(source=source, options=options, trials=tuple(trials), num_clips=each) for source in taken
            ]
            for source, outcome in zip(taken, engine.map(_measure_source, jobs, limits=lambda _: limits), strict=True):
                if outcome.error is not None:
                    totals.unreadable.append(f"{source.name}: {outcome.error.what}")
                    continue
                totals.add(outcome.value)
                progress.advance(len(outcome.value))
                probe = probe or replace(jobs[0], source=source)
    if probe is not None:  # alone: nothing else is at work now
        for outcome in engine.map(_busy_cores_of_source, [probe], limits=lambda _: limits):
            totals.num_busy_cores = outcome.value or {}
    if not totals.num_clips:
        shown = "\n".join(f"  {text}" for text in totals.unreadable[:5])
        raise SourceError(f"no codec could be measured: none of the sources that were tried gave a clip\n{shown}")
    return totals


def _in_turn(sources: Sequence[Source]) -> list[Source]:
    """One source of each class, then another of each, ...; within a class in the order of a hash of the names."""
    classes: dict[str, list[Source]] = defaultdict(list)
    for source in sorted(sources, key=lambda source: (xxhash.xxh3_64_intdigest(source.name.encode()), source.name)):
        classes[source.label or ""].append(source)
    places = sorted((place, label) for label, members in classes.items() for place in range(len(members)))
    return [classes[label][place] for place, label in places]


def measure_corpus(
    corpus: Corpus,
    trials: Sequence[Trial],
    *,
    engine: Engine,
    num_clips: int,
    show_progress: bool = False,
) -> Totals:
    """Try the codecs on clips of a corpus, evenly spread over it, train split first.

    Raises:
        ShardError: A clip is damaged.
    """
    totals = Totals()
    jobs = list(_corpus_jobs(corpus, trials, num_clips))
    limits = Limits(cpu_seconds=300.0, wall_seconds=1260.0)
    with Progress("measuring codecs", total=num_clips, unit="clips", show=show_progress) as progress:
        for outcome in engine.map(_measure_samples, jobs, limits=lambda _: limits):
            if outcome.error is not None:
                raise outcome.error
            totals.add(outcome.value)
            progress.advance(len(outcome.value))
    for outcome in engine.map(_busy_cores_of_sample, jobs[:1], limits=lambda _: limits):
        totals.num_busy_cores = outcome.value or {}
    return totals


def _corpus_jobs(corpus: Corpus, trials: Sequence[Trial], num_clips: int) -> Iterator[_CorpusJob]:
    """A job for each shard that holds a chosen clip."""
    splits = sorted(corpus.splits, key=lambda split: (split != "train", split))
    shards = [
        (split, int(row["number"]), int(row["num_samples"])) for split in splits for row in corpus.shard_table(split)
    ]
    wanted = evenly(sum(num for _, _, num in shards), num_clips)
    start = 0
    for split, number, num in shards:
        places = [place - start for place in wanted if start <= place < start + num]
        start += num
        if places:
            yield _CorpusJob(
                location=corpus.tar_location(split, number),
                codec=corpus.manifest.codec,
                codec_settings=dict(corpus.manifest.codec_settings),
                spec=corpus.spec,
                rows=tuple(
                    (sample_key(int(r["source"]), int(r["clip"])), int(r["offset"]), int(r["size"]), int(r["xxh3"]))
                    for r in corpus.index(split, number)[places]
                ),
                trials=tuple(trials),
            )


def read_bytes_per_second(paths: Sequence[str]) -> float | None:
    """How fast this machine reads these files from where they lie, front to back, without the kernel's cache.

    Returns:
        ``None`` where there are fewer than 8 MiB to read, or the files are not local.
    """
    sizes = {path: Path(path).stat().st_size for path in paths if not is_url(path) and Path(path).is_file()}
    num_bytes, seconds, buffer = 0, 0.0, bytearray(_PIECE_BYTES)
    for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
        if num_bytes >= _MOST_READ_BYTES:
            break
        with suppress(OSError), open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            while num_bytes < _MOST_READ_BYTES and (num := file.readinto(buffer)):
                num_bytes += num
            seconds += time.perf_counter() - start
    return num_bytes / seconds if num_bytes >= _LEAST_READ_BYTES and seconds else None
