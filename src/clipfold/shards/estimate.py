"""How much a conversion would give, counted or estimated, before it is begun; and whether that fits on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clipfold.errors import ClipfoldError
from clipfold.progress import Progress
from clipfold.shards.codecs import get_codec
from clipfold.shards.engines import Engine
from clipfold.shards.summary import Skipped, size_text
from clipfold.shards.task import Job, probe_source
from clipfold.worker import Limits

__all__ = ["Estimate", "SpaceWatch", "available_bytes", "check_space", "estimate", "evenly", "limits_for"]

_SAMPLE = 16
_BRIEF = 60.0
_OVERHEAD_BYTES = 2560  # of a clip in a tar: three headers, label, .json, padding
_RESERVE_BYTES = 256_000_000
_TOO_LITTLE = 1.1  # estimates err: refuse only what is clearly too much


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What some sources would give.

    Args:
        num_clips: Clips of each source, in order; 0 where it cannot be read.
        num_bytes: Bytes of all of them in shards.
        skipped: What cannot be read.
    """

    num_clips: list[int]
    num_bytes: int
    skipped: list[Skipped]


def estimate(
    engine: Engine,
    jobs: Sequence[Job],
    limits: Callable[[Job], Limits],
    *,
    wants_bytes: bool,
    show_progress: bool,
) -> Estimate:
    """Count the clips of every job's source; bytes from the first clips of a sample of them."""
    fixed = _fixed_bytes(jobs[0])
    encoded = set() if fixed or not wants_bytes else set(evenly(len(jobs), _SAMPLE))
    probes = [replace(job, wants_bytes=number in encoded) for number, job in enumerate(jobs)]
    counts: list[int] = []
    sizes: list[int] = []
    skipped: list[Skipped] = []
    with Progress("counting", total=len(jobs), unit="sources", show=show_progress) as progress:
        for number, outcome in enumerate(engine.map(probe_source, probes, limits=limits)):
            if outcome.error is not None:
                name = jobs[number].source.name
                what, fix = outcome.error.what, outcome.error.fix
                skipped.append(Skipped(number=number, name=name, reason=outcome.error_name, text=what, fix=fix))
            counts.append(0 if outcome.error else outcome.value["num_clips"])
            if outcome.value and outcome.value["clip_bytes"] is not None:
                sizes.append(outcome.value["clip_bytes"])
            progress.advance(clips=sum(counts), skipped=len(skipped))
    each = fixed or (sum(sizes) // len(sizes) if sizes else jobs[0].options.spec.num_bytes)
    return Estimate(num_clips=counts, num_bytes=sum(counts) * (each + _OVERHEAD_BYTES), skipped=skipped)


def _fixed_bytes(job: Job) -> int | None:
    """Bytes of a clip where the codec always makes the same number of them."""
    header = get_codec(job.codec, job.codec_settings).header_bytes(job.options.spec)
    return None if header is None else header + job.options.spec.num_bytes


def evenly(num: int, num_wanted: int) -> list[int]:
    """At most ``num_wanted`` of ``range(num)``, spread evenly."""
    return sorted({place * num // num_wanted for place in range(num_wanted)}) if num > num_wanted else list(range(num))


def check_space(
    engine: Engine,
    jobs: Sequence[Job],
    limits: Callable[[Job], Limits],
    out: Path,
    *,
    shard_bytes: int,
    keeps_shards: bool = True,
) -> None:
    """Refuse to begin what cannot fit on the disk, judging by a sample of the sources.

    Args:
        engine: Does the reading.
        jobs: What is left to be converted, at least one.
        limits: Of reading a source.
        out: The folder where shards are made.
        shard_bytes: Largest shard; parts of about as much are staged beside the result.
        keeps_shards: Whether shards stay there; otherwise they leave as soon as they are finished.

    Raises:
        ClipfoldError: The disk has clearly too little free space.
    """
    free = shutil.disk_usage(out).free
    sample = [jobs[number] for number in evenly(len(jobs), _SAMPLE)]
    scale = len(jobs) / len(sample)
    spec = sample[0].options.spec
    brief = partial(_brief, limits)
    counted = estimate(engine, sample, brief, wants_bytes=False, show_progress=False)
    if scale * sum(counted.num_clips) * (spec.num_bytes + _OVERHEAD_BYTES) * 2 < free:
        return  # even uncompressed, even with everything staged: no need to look closer
    if _fixed_bytes(sample[0]) is None:
        counted = estimate(engine, sample, brief, wants_bytes=True, show_progress=False)
    result = scale * counted.num_bytes
    needed = (result if keeps_shards else min(result, shard_bytes)) + min(result, shard_bytes)
    if needed > _TOO_LITTLE * free:
        raise ClipfoldError(
            f"not enough free space: about {size_text(needed)} needed, {size_text(free)} free (estimated from "
            f"{len(sample)} of {len(jobs)} sources)",
            fix="free some, choose another folder, or a codec or spec that makes smaller clips",
            file=str(out),
        )


class SpaceWatch:
    """Stops a conversion before its disk is full: then there is still room to end in order.

    Args:
        folder: Where shards are made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reserve = min(_RESERVE_BYTES, shutil.disk_usage(folder).total // 100)

    def check(self) -> None:
        """Look.

        Raises:
            ClipfoldError: Less than 256 MB are free, or one hundredth of a disk that is small.
        """
        if (free := shutil.disk_usage(self._folder).free) < self._reserve:
            raise ClipfoldError(
                f"the disk is nearly full: {size_text(free)} free, expected at least {size_text(self._reserve)}",
                fix="make room, then run the same command again: it goes on where it stopped",
                file=str(self._folder),
            )


def _brief(limits: Callable[[Job], Limits], job: Job) -> Limits:
    """Less patience with a source that is looked at for an estimate only: the real attempt comes later."""
    full = limits(job)
    return replace(
        full, cpu_seconds=min(full.cpu_seconds or _BRIEF, _BRIEF), wall_seconds=min(full.wall_seconds or _BRIEF, _BRIEF)
    )


def limits_for(job: Job, *, deadline_seconds: float | None, memory: int, num_workers: int) -> Limits:
    """The limits of one source's conversion.

    The deadline runs from clip to clip, not over the whole file, so that a long video needs no longer one; between two
    clips that lie far apart a large file may have to be decoded: one second more for every 250 kB.
    """
    cpu = 300.0 + job.source.num_bytes / 250e3 if deadline_seconds is None else deadline_seconds
    each = max(memory // num_workers, min(memory, 1 << 30))
    return Limits(cpu_seconds=cpu, wall_seconds=4 * cpu + 60, memory_bytes=each, memory_alone_bytes=memory)


def available_bytes() -> int:
    """Memory that workers may use together: four fifths of the machine's, or of the container's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            total = min(total, int(text))
    return total * 4 // 5
