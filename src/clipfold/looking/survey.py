"""A look at sources before they are converted: what they are, what is wrong with them, what converting would cost.

::

    find_sources --> probe each     --> counts, broken ones, lengths --+
                 --> hash equal sizes --> duplicates                   +--> Survey --> advice
                 --> encode a few clips with every codec --> estimates +

All that native code does, it does in worker processes: a file that crashes the decoder is one line of the survey.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from clipfold.ingest.decoders.probe import Probe
from clipfold.ingest.reader import ReadOptions
from clipfold.ingest.sources import Found, Source, find_sources
from clipfold.looking.advice import advice_on
from clipfold.looking.findings import Broken, ClassCount, CodecEstimate, Spread, Survey
from clipfold.looking.survey_tasks import (
    Measured,
    ProbeJob,
    SampleJob,
    fingerprint,
    measure_sample,
    probe_source,
)
from clipfold.pool import Limits, Outcome, Pool
from clipfold.progress import Progress
from clipfold.shards.codecs import CODECS, get_codec

__all__ = ["survey"]

_NUM_SAMPLES = 8
_TAR_BYTES = 2560  # of a clip in a shard beside its data: three headers, label, .json, padding
_REASONS = {
    "DecodeError": "decode",
    "SourceError": "source",
    "Crash": "crash",
    "CpuDeadline": "cpu_deadline",
    "WallDeadline": "wall_deadline",
    "OutOfMemory": "out_of_memory",
}


def survey(
    root: str | Path,
    *,
    options: ReadOptions | None = None,
    is_quick: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    num_workers: int | None = None,
    show_progress: bool = True,
) -> Survey:
    """Look at every source below a folder.

    Args:
        root: A folder, as for ``convert``, or one video.
        options: How clips would be read; the estimates are about these.
        is_quick: Read headers and first frames only. By default every frame is decoded, which finds what is broken.
        include, exclude, limit: Which sources; see :func:`clipfold.ingest.sources.find_sources`.
        num_workers: Processes; ``None`` is one a core.
        show_progress: Whether to show progress on the standard error.

    Raises:
        SourceError: Nothing to read there.
        ValueError: ``num_workers`` or ``limit`` below 1.
    """
    options = options or ReadOptions()
    start = time.monotonic()
    found = find_sources(root, include=include, exclude=exclude, limit=limit)
    with Pool(num_workers) as pool:
        report = Survey(
            root=str(root),
            is_quick=is_quick,
            spec=options.spec,
            num_sources=len(found.sources),
            num_bytes=sum(source.num_bytes for source in found.sources),
            num_workers=pool.num_workers,
        )
        _count_listing(report, found)
        probes = _probe_all(report, found.sources, pool, show_progress=show_progress)
        _count_probes(report, found.sources, probes, options)
        if not is_quick:
            _find_duplicates(report, found.sources, pool, show_progress=show_progress)
        samples = _choose_samples(found.sources, probes, options)
        _estimate(report, samples, options, pool, show_progress=show_progress)
    report.advice = advice_on(report, options)
    report.seconds = time.monotonic() - start
    return report


def _count_listing(report: Survey, found: Found) -> None:
    report.kinds = _counts(source.kind for source in found.sources)
    report.splits = _counts(source.split for source in found.sources if source.split is not None)
    for entry in found.ignored:
        report.ignored.setdefault(entry.reason, []).append(entry.name)


def _probe_all(report: Survey, sources: Sequence[Source], pool: Pool, *, show_progress: bool) -> dict[str, Probe]:
    """The probe of every source that can be read; the others go into the report."""
    jobs = [ProbeJob(source=source, depth="headers" if report.is_quick else "everything") for source in sources]
    probes: dict[str, Probe] = {}
    with Progress("looking", total=len(jobs), unit="sources", show=show_progress) as progress:
        outcomes = pool.map(probe_source, jobs, limits=lambda job: _limits(job.source))
        for source, outcome in zip(sources, outcomes, strict=True):
            if outcome.error is None:
                probes[source.name] = outcome.value
            else:
                report.broken.append(_broken(source, outcome))
            progress.advance(broken=len(report.broken))
    return probes


def _count_probes(report: Survey, sources: Sequence[Source], probes: Mapping[str, Probe], options: ReadOptions) -> None:
    found = list(probes.values())
    report.containers = _counts(each.container for each in found)
    report.codecs = _counts(each.codec for each in found)
    report.pixel_formats = _counts(each.pixel_format for each in found)
    report.sizes = _counts(f"{each.width}x{each.height}" for each in found)
    report.frame_rates = _counts(f"{each.fps:.2f}".rstrip("0").rstrip(".") if each.fps else "unknown" for each in found)
    report.dtypes = _counts(_dtype(each) for each in found)
    report.num_frames = Spread.of([each.num_frames for each in found])
    report.duration_seconds = Spread.of([each.duration_seconds for each in found if each.duration_seconds])
    traits: tuple[tuple[list[str], Callable[[Probe], object]], ...] = (
        (report.variable_rate, lambda each: each.is_variable_rate),
        (report.rotated, lambda each: each.rotation_degrees % 360 != 0),
        (report.interlaced, lambda each: each.is_interlaced),
        (report.several_streams, lambda each: each.num_video_streams > 1),
        (report.hidden_frames, lambda each: each.num_hidden_frames > 0),
        (report.grey, lambda each: each.is_grey),
        (report.too_short, lambda each: each.num_frames < _span(options)),
    )
    for names, is_so in traits:
        names += [name for name, each in probes.items() if is_so(each)]
    _count_classes(report, sources, probes, options)


def _count_classes(
    report: Survey, sources: Sequence[Source], probes: Mapping[str, Probe], options: ReadOptions
) -> None:
    by_label: dict[str, list[Probe]] = {source.label or "": [] for source in sources}
    for source in sources:
        if source.name in probes:
            by_label[source.label or ""].append(probes[source.name])
    for label, found in by_label.items():
        num_clips = sum(_num_clips(each, options) for each in found)
        num_frames = sum(each.num_frames for each in found)
        report.classes[label] = ClassCount(num_sources=len(found), num_frames=num_frames, num_clips=num_clips)
    report.num_clips = sum(count.num_clips for count in report.classes.values())


def _dtype(found: Probe) -> str:
    """What keeps its values: deep grey videos are measurements, 10-bit films are made for the eye."""
    return found.dtype if found.is_grey or found.container == "images" else "uint8"


def _span(options: ReadOptions) -> int:
    """Frames from the first to the last of a clip."""
    return options.sampling.frame_step * (options.spec.num_frames - 1) + 1


def _num_clips(found: Probe, options: ReadOptions) -> int:
    if found.num_frames < 1 or (options.sampling.short == "error" and found.num_frames < _span(options)):
        return 0
    return len(options.sampling.plan(found.num_frames, options.spec.num_frames))


def _find_duplicates(report: Survey, sources: Sequence[Source], pool: Pool, *, show_progress: bool) -> None:
    """Sources of the same content: only those of equal size are read."""
    sizes = Counter((source.kind, source.num_bytes, len(source.frames)) for source in sources)
    same = [source for source in sources if sizes[source.kind, source.num_bytes, len(source.frames)] > 1]
    groups: dict[str, list[Source]] = {}
    with Progress("comparing", total=len(same), unit="sources", show=show_progress) as progress:
        outcomes = pool.map(fingerprint, same, limits=_limits)
        for source, outcome in zip(same, outcomes, strict=True):
            if outcome.error is None:
                groups.setdefault(outcome.value, []).append(source)
            progress.advance()
    for group in groups.values():
        group = _overlapping(group)
        if len(group) > 1:
            names = [source.name for source in group]
            report.duplicates.append(names)
            if len({(source.label, source.split) for source in group}) > 1:
                report.crossing_duplicates.append(names)


def _overlapping(group: Sequence[Source]) -> list[Source]:
    """Those of identical files that share frames with another: parts of a video that lie apart are no duplicates."""

    def share(one: Source, other: Source) -> bool:
        starts = one.start_seconds or 0.0, other.start_seconds or 0.0
        stops = [math.inf if each.stop_seconds is None else each.stop_seconds for each in (one, other)]
        return max(starts) < min(stops)

    return [one for one in group if any(share(one, other) for other in group if other is not one)]


def _choose_samples(
    sources: Sequence[Source], probes: Mapping[str, Probe], options: ReadOptions
) -> dict[str, tuple[Source, int]]:
    """Where a few clips lie that are spread evenly over all clips: sources by name, with how many of the clips."""
    readable = [source for source in sources if source.name in probes]
    ends = list(accumulate(_num_clips(probes[source.name], options) for source in readable))
    total = ends[-1] if ends else 0
    num = min(total, _NUM_SAMPLES)
    chosen = Counter(bisect_right(ends, (2 * place + 1) * total // (2 * num)) for place in range(num))
    return {readable[place].name: (readable[place], times) for place, times in chosen.items()}


def _estimate(
    report: Survey, samples: Mapping[str, tuple[Source, int]], options: ReadOptions, pool: Pool, *, show_progress: bool
) -> None:
    """Encode the first clips of some sources with every codec that can hold them."""
    fitting, why_not = [], {}
    for name in CODECS:
        try:
            get_codec(name).check(options.spec)
            fitting.append(name)
        except ValueError as error:
            why_not[name] = str(error)
    jobs = [SampleJob(source=source, options=options, codecs=fitting) for source, _ in samples.values()]
    measured: list[Measured] = []
    with Progress("encoding samples", total=len(jobs), unit="clips", show=show_progress) as progress:
        outcomes = pool.map(measure_sample, jobs, limits=lambda job: _limits(job.source))
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome.error is None and outcome.value is not None:
                measured += [outcome.value] * samples[job.source.name][1]
                report.num_samples += 1
            progress.advance()
    if not measured or report.num_frames is None:
        return
    per_frame = sum(each.read_seconds for each in measured) / sum(each.num_frames for each in measured)
    report.read_ms_per_frame = 1e3 * per_frame
    report.zero_share = sum(each.zero_share for each in measured) / len(measured)
    for name in CODECS:
        if name in why_not:
            report.estimates.append(CodecEstimate(codec=name, fits=False, why_not=why_not[name]))
            continue
        clip_bytes = sum(each.encoded[name][0] for each in measured) / len(measured)
        encode_seconds = sum(each.encoded[name][1] for each in measured) / len(measured)
        busy = report.num_frames.total * per_frame + report.num_clips * encode_seconds
        report.estimates.append(
            CodecEstimate(
                codec=name,
                exact=get_codec(name).exact,
                clip_bytes=clip_bytes,
                encode_ms=1e3 * encode_seconds,
                num_bytes=round(report.num_clips * (clip_bytes + _TAR_BYTES)),
                seconds=busy / min(report.num_workers, max(1, report.num_readable)),
            )
        )


def _limits(source: Source) -> Limits:
    """Generous, and the larger the file the more so: a busy machine must not make a good file look broken."""
    cpu = 300.0 + source.num_bytes / 250e3
    return Limits(cpu_seconds=cpu, wall_seconds=4 * cpu + 60)


def _broken(source: Source, outcome: Outcome) -> Broken:
    assert outcome.error is not None
    reason = _REASONS.get(outcome.error_name, outcome.error_name)
    frame = outcome.error.where.get("frame")
    text = outcome.error.what + (f" (frame {frame})" if frame is not None else "")
    return Broken(name=source.name, reason=reason, text=text)


def _counts(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
