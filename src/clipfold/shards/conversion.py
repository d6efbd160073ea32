"""One run of a conversion: begin, go on or find nothing to do; then every source in order; then what is said of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clipfold.errors import ClipfoldError, SourceError
from clipfold.files import write_whole
from clipfold.ingest.sources import SPLITS, Found, Source, find_sources
from clipfold.progress import Progress
from clipfold.shards.assembly import Assembly
from clipfold.shards.engines import Engine
from clipfold.shards.estimate import available_bytes, check_space, estimate, limits_for
from clipfold.shards.manifest import MANIFEST_NAME, Manifest, SplitTotals
from clipfold.shards.output import check_out, plain_disk_errors
from clipfold.shards.recipe import Recipe, check_same
from clipfold.shards.source_list import ListedSource, freeze, load_source_list, save_source_list
from clipfold.shards.staging import STAGING_NAME, PartReader, Staging
from clipfold.shards.summary import (
    SKIPPED_NAME,
    ConvertSummary,
    Skipped,
    clips_by_class,
    ignored_fields,
    summary_of,
)
from clipfold.shards.task import Job, convert_source
from clipfold.shards.totals import ChannelSums, mean_and_std
from clipfold.worker import Outcome

__all__ = ["SOURCES_NAME", "Conversion"]

SOURCES_NAME = "sources.jsonl"

_REASONS = {
    "DecodeError": "decode",
    "SourceError": "source",
    "Crash": "crash",
    "CpuDeadline": "cpu_deadline",
    "WallDeadline": "wall_deadline",
    "OutOfMemory": "out_of_memory",
}


class Conversion:
    """One call of :func:`clipfold.shards.convert.convert`, whose arguments these are.

    Args:
        root: Where the sources are.
        out: The corpus folder.
        recipe: The options that decide about bytes.
        engine: Does the work.
        deadline_seconds: CPU seconds from one clip to the next, or ``None``.
        memory: Bytes of memory for all workers together, or ``None``.
        show_progress: Whether to show progress on the standard error.
    """

    def __init__(
        self,
        *,
        root: Path,
        out: Path,
        recipe: Recipe,
        engine: Engine,
        deadline_seconds: float | None,
        memory: int | None,
        show_progress: bool,
    ) -> None:
        self.root, self.out, self.recipe, self.engine = root, out, recipe, engine
        self.show_progress = show_progress
        self.limits = partial(
            limits_for,
            deadline_seconds=deadline_seconds,
            memory=available_bytes() if memory is None else memory,
            num_workers=engine.num_workers,
        )
        self.start = time.monotonic()
        self.num_new_clips = 0

    # ---- dry run ----

    def try_out(self) -> ConvertSummary:
        """Count everything, write nothing."""
        found = find_sources(
            self.root, include=self.recipe.include, exclude=self.recipe.exclude, limit=self.recipe.limit
        )
        listed = freeze(found.sources, split=self.recipe.split)
        by_name = {source.name: source for source in found.sources}
        jobs = [self._job(source, by_name[source.name], parts=None) for source in listed]
        counted = estimate(self.engine, jobs, self.limits, wants_bytes=True, show_progress=self.show_progress)
        skipped = [replace(each, reason=_reason(each.reason)) for each in counted.skipped]
        return ConvertSummary(
            out=str(self.out),
            is_dry_run=True,
            num_sources=len(listed),
            num_converted=len(listed) - len(skipped),
            num_clips=sum(counted.num_clips),
            num_bytes=counted.num_bytes,
            clips=clips_by_class(zip(listed, counted.num_clips, strict=True)),
            skipped=skipped,
            **ignored_fields(found),
            seconds=time.monotonic() - self.start,
        )

    # ---- the real thing ----

    def run(self, *, stops: bool, max_failures: int | None, retry_skipped: bool) -> ConvertSummary:
        """Begin, go on, or find that nothing is left to do."""
        was_there = self.out.exists()
        check_out(self.out)
        if (self.out / MANIFEST_NAME).exists() and not (self.out / STAGING_NAME).exists():
            return self._already_finished(retry_skipped=retry_skipped)
        with plain_disk_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            with Staging(self.out) as staging:
                if (self.out / MANIFEST_NAME).exists():  # killed between its last two steps
                    summary = self._already_finished(retry_skipped=retry_skipped)
                    staging.remove()
                    return summary
                if staging.plan is not None:
                    check_same(staging.plan, self._plan(), out=str(self.out), state="an unfinished conversion")
                if retry_skipped:
                    staging.forget_failures()
                try:
                    return self._work(staging, stops=stops, max_failures=max_failures)
                except (ClipfoldError, ValueError):
                    if not any("num_clips" in record for record in staging.sources.values()):
                        self._undo(staging, was_there=was_there)  # nothing to go on with
                    raise

    def _work(self, staging: Staging, *, stops: bool, max_failures: int | None) -> ConvertSummary:
        listed, found = self._list(staging)
        classes = sorted({source.label for source in listed if source.label is not None})
        with Assembly(self.out, self.recipe, listed, classes, staging) as assembly:
            self._go_through(listed, found, staging, assembly, stops=stops, max_failures=max_failures)
            if not any("num_clips" in record for record in staging.sources.values()):
                raise _nothing_converted(listed, staging)
            totals = assembly.close()
        return self._finish(listed, classes, totals, staging, found)

    def _plan(self) -> dict[str, Any]:
        return {"clipfold": version("clipfold"), **self.recipe.to_json()}

    def _list(self, staging: Staging) -> tuple[list[ListedSource], Found]:
        """The frozen list, made now or before, and what is there now."""
        path = self.out / SOURCES_NAME
        resumes = staging.plan is not None and path.exists()
        limit = None if resumes else self.recipe.limit  # files that came since must not push out others
        found = find_sources(self.root, include=self.recipe.include, exclude=self.recipe.exclude, limit=limit)
        if resumes:
            return load_source_list(path), found
        listed = freeze(found.sources, split=self.recipe.split)
        staging.set_plan(self._plan())
        save_source_list(path, listed)
        return listed, found

    def _go_through(
        self,
        listed: Sequence[ListedSource],
        found: Found,
        staging: Staging,
        assembly: Assembly,
        *,
        stops: bool,
        max_failures: int | None,
    ) -> None:
        """Every source in order: convert it where that was not done, append its clips where they are in no shard."""
        present = {source.name: source for source in found.sources}
        staged = staging.part_numbers()
        needed = [source for source in listed if assembly.needs_part(source)]
        jobs = {
            source.number: self._job(source, present[source.name], parts=staging.parts)
            for source in needed
            if source.number not in staged and source.name in present
        }
        for job in jobs.values():
            if (job.source.num_bytes, job.source.mtime_ns) != (job.num_bytes, job.mtime_ns):
                raise _changed(job.source, f"{job.source.num_bytes:,} bytes, listed with {job.num_bytes:,}")
        if jobs:
            check_space(self.engine, list(jobs.values()), self.limits, self.out, shard_bytes=self.recipe.shard_bytes)
        outcomes = self.engine.map(convert_source, jobs.values(), limits=self.limits)
        num_failed = sum("reason" in record for record in staging.sources.values())
        with Progress("converting", total=len(needed), unit="sources", show=self.show_progress) as progress:
            for source in needed:
                if source.number in jobs:
                    record = self._take(next(outcomes), jobs[source.number].source, stops=stops)
                elif source.number in staged:
                    record = PartReader(staging.part_path(source.number)).summary
                else:
                    record = {"reason": "vanished", "text": "it was there when the sources were listed, now it is not"}
                staging.add_source(source.number, record)
                if "reason" in record:
                    num_failed += 1
                    _check_failures(num_failed, max_failures, source, record)
                else:
                    assembly.append(source)
                seconds = time.monotonic() - self.start
                progress.advance(clips_per_second=f"{self.num_new_clips / seconds:.1f}", skipped=num_failed)

    def _take(self, outcome: Outcome, source: Source, *, stops: bool) -> dict[str, Any]:
        """The record of a source that was just worked on."""
        if outcome.error is None:
            record: dict[str, Any] = outcome.value
            if "changed" in record:
                raise _changed(source, record["changed"])
            if "unwritable" in record:
                raise OSError(record["errno"], record["unwritable"])
            self.num_new_clips += record.get("num_clips", 0)
            return record
        if stops:
            outcome.error.where.setdefault("file", source.path)
            raise outcome.error
        # no machine's paths: the same failure gives the same bytes everywhere
        text = outcome.error.what.replace(source.path, source.name)
        return {"reason": _reason(outcome.error_name), "text": text}

    def _finish(
        self,
        listed: Sequence[ListedSource],
        classes: Sequence[str],
        totals: Mapping[str, SplitTotals],
        staging: Staging,
        found: Found,
    ) -> ConvertSummary:
        """All shards are there: what is said about them, the manifest last."""
        records = staging.sources
        converted = [source for source in listed if "num_clips" in records[source.number]]
        skipped = [
            Skipped(number=source.number, name=source.name, reason=record["reason"], text=record["text"])
            for source in listed
            if "reason" in (record := _left_out(records[source.number]))
        ]
        write_whole(
            self.out / SKIPPED_NAME, "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in skipped)
        )
        sums = [records[source.number]["sums"] for source in converted]
        mean, std = mean_and_std((ChannelSums.from_json(each) for each in sums if each), self.recipe.read.spec)
        counts = [records[source.number].get("num_clips", 0) for source in listed]
        manifest = Manifest(
            spec=self.recipe.read.spec,
            codec=self.recipe.codec,
            codec_settings=self.recipe.codec_settings,
            classes=classes,
            splits=totals,
            mean=mean,
            std=std,
            file_sha256={
                name: hashlib.sha256((self.out / name).read_bytes()).hexdigest()
                for name in (SOURCES_NAME, SKIPPED_NAME)
            },
            provenance={
                "version": version("clipfold"),
                "options": self.recipe.to_json(),
                "decoders": sorted({records[source.number]["decoder"] for source in converted}),
                "num_sources": len(listed),
                "num_converted": len(converted),
                "clips": clips_by_class(zip(listed, counts, strict=True)),
            },
        )
        manifest.save(self.out)
        staging.remove()
        seconds = time.monotonic() - self.start
        return replace(
            summary_of(self.out, manifest),
            **ignored_fields(found),
            seconds=seconds,
            clips_per_second=self.num_new_clips / seconds,
        )

    def _already_finished(self, *, retry_skipped: bool) -> ConvertSummary:
        manifest = Manifest.load(self.out)
        options = manifest.provenance.get("options", {})
        check_same(options, self.recipe.to_json(), out=str(self.out), state="a finished corpus")
        summary = summary_of(self.out, manifest)
        if retry_skipped and summary.skipped:
            raise ClipfoldError(
                "the conversion has ended, its skipped sources cannot be tried again in this folder",
                fix="convert them into a folder of their own (include=...), or all into a new one",
                file=str(self.out),
            )
        with suppress(SourceError):  # the files may be gone by now
            found = find_sources(self.root, include=self.recipe.include, exclude=self.recipe.exclude)
            there = {source.name for source in found.sources}
            if there.isdisjoint(source.name for source in load_source_list(self.out / SOURCES_NAME)):
                raise ClipfoldError(
                    "the output folder holds a finished corpus of other sources",
                    fix="name another output folder",
                    file=str(self.out),
                )
        return replace(summary, was_finished=True, seconds=time.monotonic() - self.start)

    def _undo(self, staging: Staging, *, was_there: bool) -> None:
        """Leave the output folder as it was found."""
        staging.remove()
        (self.out / SOURCES_NAME).unlink(missing_ok=True)
        for folder in [*(self.out / split for split in SPLITS), *([] if was_there else [self.out])]:
            with suppress(OSError):
                folder.rmdir()

    def _job(self, listed: ListedSource, source: Source, *, parts: Path | None) -> Job:
        return Job(
            source=source,
            options=self.recipe.read,
            codec=self.recipe.codec,
            codec_settings=self.recipe.codec_settings,
            num_bytes=listed.num_bytes,
            mtime_ns=listed.mtime_ns,
            part="" if parts is None else str(parts / f"{listed.number:08d}.part"),
            wants_sums=listed.split == "train",
        )


def _reason(error_name: str) -> str:
    return _REASONS.get(error_name, error_name)


def _left_out(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as it stands in ``skipped.jsonl``: sources of which only the beginning was kept are named there too."""
    return {"reason": "partial", "text": record["broken_by"]} if "broken_by" in record else record


def _changed(source: Source, text: str) -> SourceError:
    return SourceError(
        f"a source has changed since the list was frozen: {text}",
        fix="put the old file back, or take it away (then it is left out), or convert into a new folder",
        file=source.path,
    )


def _check_failures(num: int, most: int | None, source: ListedSource, record: Mapping[str, Any]) -> None:
    if most is not None and num > most:
        raise SourceError(
            f"{num} sources had to be left out, expected at most {most}; the last: {record['reason']}: "
            f"{record['text']}",
            fix="look at the sources, or allow more failures",
            file=source.name,
        )


def _nothing_converted(listed: Sequence[ListedSource], staging: Staging) -> SourceError:
    records = [(source.name, staging.sources[source.number]) for source in listed]
    shown = "\n".join(f"  {name}: {record['reason']}: {record['text']}" for name, record in records[:5])
    more = f"\n  ... and {len(records) - 5} more" if len(records) > 5 else ""
    return SourceError(f"none of {len(records)} sources could be converted, nothing was written\n{shown}{more}")
