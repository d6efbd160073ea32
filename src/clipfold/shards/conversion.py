"""One run of a conversion: begin, go on, append or find nothing to do; every source in order; what is said of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clipfold.errors import ClipfoldError
from clipfold.files import Location, exists, join
from clipfold.ingest.sources import SPLITS, Found, Source
from clipfold.progress import Progress
from clipfold.shards.assembly import Assembly
from clipfold.shards.base import Base, sha256_of
from clipfold.shards.codecs import get_codec
from clipfold.shards.completion import complete
from clipfold.shards.engines import Engine
from clipfold.shards.estimate import SpaceWatch, available_bytes, check_space, estimate, limits_for
from clipfold.shards.manifest import MANIFEST_NAME
from clipfold.shards.output import check_out, plain_disk_errors
from clipfold.shards.recipe import Recipe, check_same
from clipfold.shards.records import (
    changed_source,
    check_failures,
    check_one_cpu_type,
    nothing_converted,
    reason_of,
    take_outcome,
)
from clipfold.shards.source_list import ListedSource, load_source_list, reading_fields, save_source_list
from clipfold.shards.staging import STAGING_NAME, PartReader, Staging
from clipfold.shards.store import Store
from clipfold.shards.summary import (
    SOURCES_NAME,
    ConvertSummary,
    clips_by_class,
    ignored_fields,
    new_fields,
    since_fields,
    summary_of,
)
from clipfold.shards.task import Job, convert_source
from clipfold.shards.uploads import Uploads
from clipfold.shards.wanted import Wanted

__all__ = ["SOURCES_NAME", "Conversion"]


class Conversion:
    """One call of :func:`clipfold.shards.convert.convert`, whose arguments these are.

    Args:
        root: Where the sources are.
        media_root: Of a table: what its relative paths start from; ``None`` is its folder.
        out: The corpus folder, or its URL.
        folder: Where shards are made: ``out`` itself, or a local folder where that is a URL.
        recipe: The options that decide about bytes.
        engine: Does the work.
        stops: Whether a source that cannot be read ends the run.
        max_failures: How many may be left out.
        retry_skipped: Whether sources that were left out are tried again.
        append: Whether new sources go into a finished corpus.
        allow_mixed_cpu: Whether a codec may run on different types of CPU although that changes its bytes.
        deadline_seconds: CPU seconds from one clip to the next, or ``None``.
        memory: Bytes of memory for all workers of a machine together, or ``None``.
        show_progress: Whether to show progress on the standard error.
    """

    def __init__(
        self,
        *,
        root: Location,
        media_root: Location | None,
        out: str,
        folder: Path,
        recipe: Recipe,
        engine: Engine,
        stops: bool,
        max_failures: int | None,
        retry_skipped: bool,
        append: bool,
        allow_mixed_cpu: bool,
        deadline_seconds: float | None,
        memory: int | None,
        show_progress: bool,
    ) -> None:
        self.wanted = Wanted(root, media_root=media_root, recipe=recipe)
        self.out, self.folder, self.recipe, self.engine = out, folder, recipe, engine
        self.stops, self.max_failures = stops, max_failures
        self.retry_skipped, self.append, self.allow_mixed_cpu = retry_skipped, append, allow_mixed_cpu
        self.show_progress = show_progress
        self.store = None if str(folder) == out else Store(out)
        self.limits = partial(
            limits_for,
            deadline_seconds=deadline_seconds,
            memory=available_bytes() if memory is None else memory,
            num_workers=engine.num_workers_per_machine,
        )
        self.start = time.monotonic()
        self.num_new_clips = 0
        self._may_undo = False  # until it is sure that what is staged here is of this conversion

    # ---- dry run ----

    def try_out(self) -> ConvertSummary:
        """Count everything, write nothing."""
        found = self.wanted.found(limit=self.recipe.limit)
        listed = self.wanted.at_first()
        by_name = {source.name: source for source in found.sources}
        jobs = [self._job(source, by_name[source.name], parts=None) for source in listed]
        counted = estimate(self.engine, jobs, self.limits, wants_bytes=True, show_progress=self.show_progress)
        skipped = [replace(each, reason=reason_of(each.reason)) for each in counted.skipped]
        missing = self.wanted.missing()
        return ConvertSummary(
            out=self.out,
            is_dry_run=True,
            num_sources=len(listed) + len(missing),
            num_converted=len(listed) - len(skipped),
            num_clips=sum(counted.num_clips),
            num_bytes=counted.num_bytes,
            clips=clips_by_class(zip(listed, counted.num_clips, strict=True)),
            skipped=[*skipped, *missing],
            **ignored_fields(found),
            seconds=time.monotonic() - self.start,
        )

    # ---- begin, go on, append, or nothing to do ----

    def run(self) -> ConvertSummary:
        """Begin, go on, append, or find that nothing is left to do."""
        codec = get_codec(self.recipe.codec, self.recipe.codec_settings)
        if getattr(codec, "depends_on_cpu", False) and not self.allow_mixed_cpu:
            check_one_cpu_type(self.engine.cpu_types)
        was_there = self.folder.exists()
        if self.store is None:
            check_out(self.folder)
        else:
            self.store.check(goes_on=(self.folder / STAGING_NAME).exists())
        is_finished = exists(join(self.out, MANIFEST_NAME))
        wants_more = self.append or self.retry_skipped
        if is_finished and not wants_more and not (self.folder / STAGING_NAME).exists():
            return self._nothing_to_do(Base.load(self.out))
        with plain_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with Staging(self.folder) as staging, self._clean_end(staging, was_there=was_there):
                base = self._base(staging)
                if not self._goes_on(staging, base) and not self._freeze(staging, base):
                    assert base is not None, "a list without sources"
                    return self._nothing_to_do(base)
                summary = self._work(staging, base)
        return self.run() if self.append and summary.num_new else summary  # what came since the list was frozen

    def _base(self, staging: Staging) -> Base | None:
        """The finished corpus that is there."""
        if not exists(join(self.out, MANIFEST_NAME)):
            return None
        is_extended = staging.plan is not None and staging.plan.get("base") == sha256_of(self.out)
        return Base.load(self.out, tables=staging.folder / "base" if is_extended else None)

    def _goes_on(self, staging: Staging, base: Base | None) -> bool:
        """Whether an earlier command froze what is to be done."""
        plan = staging.plan
        if plan is not None and plan.get("base") == (base.sha256 if base else None):
            check_same(plan, self._plan(base), out=self.out, state="an unfinished conversion")
            if base is not None and not (self.append or self.retry_skipped):
                raise ClipfoldError(
                    "sources were being appended here, and that is not finished",
                    fix="run the same command with --append again: it goes on where it stopped",
                    file=self.out,
                )
            self._may_undo = True
            if self.retry_skipped and base is None:
                staging.forget_failures()
            return self._list_path(staging, base).exists()
        if base is None and plan is not None:
            raise ClipfoldError(
                f"{MANIFEST_NAME} has gone while sources were being appended",
                fix="copy it back, or convert into a new folder",
                file=self.out,
            )
        self._may_undo = True
        if base is not None:
            staging.clear()  # of this corpus' own making: killed between its last two steps
        return False

    def _freeze(self, staging: Staging, base: Base | None) -> bool:
        """Write down what is to be done from now on; False where that is nothing."""
        if base is None:
            listed = self.wanted.at_first()
            staging.set_plan(self._plan(None))
            save_source_list(self._list_path(staging, None), listed)
            return True
        if not (self.append or self.retry_skipped):
            return False
        options = base.manifest.provenance.get("options", {})
        check_same(options, self.recipe.to_json(), out=self.out, state="a finished corpus")
        base.sums(self.out)
        listed = self.wanted.more(base, append=self.append, retry_skipped=self.retry_skipped)
        if listed:
            base.keep(self.out, staging.folder / "base")
            save_source_list(self._list_path(staging, base), listed)
            staging.set_plan(self._plan(base))
        return bool(listed)

    def _plan(self, base: Base | None) -> dict[str, Any]:
        plan = {"clipfold": version("clipfold"), **self.recipe.to_json()}
        return plan if base is None else {**plan, "base": base.sha256}

    def _list_path(self, staging: Staging, base: Base | None) -> Path:
        return (self.folder if base is None else staging.folder) / SOURCES_NAME

    def _nothing_to_do(self, base: Base) -> ConvertSummary:
        options = base.manifest.provenance.get("options", {})
        check_same(options, self.recipe.to_json(), out=self.out, state="a finished corpus")
        there = {source.name: source for source in self.wanted.still_there()}
        if there and not self.append and there.keys().isdisjoint(source.name for source in base.sources):
            raise ClipfoldError(
                "the output folder holds a finished corpus of other sources",
                fix="name another output folder, or --append them to it",
                file=self.out,
            )
        new = self.wanted.new(base.sources) if there else []
        summary = summary_of(self.out, base.manifest, base.skipped)
        seconds = time.monotonic() - self.start
        since = since_fields(base.sources, there, base.skipped)
        return replace(summary, was_finished=True, seconds=seconds, **new_fields(new), **since)

    @contextmanager
    def _clean_end(self, staging: Staging, *, was_there: bool) -> Iterator[None]:
        """Leave nothing behind where nothing is to be gone on with."""
        try:
            yield
        except (ClipfoldError, ValueError):
            is_begun = any("num_clips" in record for record in staging.sources.values()) or staging.part_numbers()
            if self._may_undo and not is_begun:
                staging.remove()
                self._undo(was_there=was_there)
            raise
        staging.remove()
        if self.store is not None:
            shutil.rmtree(self.folder)

    def _undo(self, *, was_there: bool) -> None:
        """Leave the output folder as it was found."""
        if self.store is not None or not exists(join(self.out, MANIFEST_NAME)):
            (self.folder / SOURCES_NAME).unlink(missing_ok=True)
            for folder in [*(self.folder / split for split in SPLITS), *([] if was_there else [self.folder])]:
                with suppress(OSError):
                    folder.rmdir()

    # ---- the work ----

    def _work(self, staging: Staging, base: Base | None) -> ConvertSummary:
        listed = load_source_list(self._list_path(staging, base))
        found = self.wanted.found(limit=None)
        staging.note_run()
        labels = {source.label for source in listed if source.label is not None}
        classes = self.recipe.classes.order(labels, after=base.manifest.classes if base else ())
        cpu_types = set(base.manifest.provenance.get("cpu_types", []) if base else [])
        uploads = None if self.store is None else Uploads(self.store, self.folder, staging, base)
        with Assembly(
            self.folder,
            self.recipe,
            listed,
            classes,
            staging,
            before=base.shards if base else None,
            labelled=base.is_labelled if base else None,
            on_shard=uploads.add if uploads else None,
        ) as assembly:
            if uploads is not None:
                uploads.catch_up()
            self._go_through(listed, found, staging, assembly, cpu_types=cpu_types)
            if base is None and not any("num_clips" in record for record in staging.sources.values()):
                raise nothing_converted(listed, staging.sources)
            totals = assembly.close()
        ended = complete(
            listed,
            staging.sources,
            out=self.out,
            folder=self.folder,
            recipe=self.recipe,
            classes=classes,
            totals=totals,
            base=base,
            store=self.store,
            missing=lambda sources: self.wanted.missing(listed=sources, before=base.skipped if base else ()),
        )
        seconds = time.monotonic() - self.start
        return replace(
            summary_of(self.out, ended.manifest, ended.skipped),
            **ignored_fields(found),
            **new_fields(self.wanted.new(ended.sources)),
            num_appended=len(listed) if base is not None else 0,
            seconds=seconds,
            clips_per_second=self.num_new_clips / seconds,
        )

    def _go_through(
        self,
        listed: Sequence[ListedSource],
        found: Found,
        staging: Staging,
        assembly: Assembly,
        *,
        cpu_types: set[str],
    ) -> None:
        """Every source in order: convert it where that was not done, append its clips where they are in no shard."""
        present = {source.name: source for source in found.sources}
        needed = [source for source in listed if assembly.needs_part(source)]
        staged = self._whole_parts(needed, staging)
        jobs = {
            source.number: self._job(source, present[source.name], parts=staging.parts)
            for source in needed
            if source.number not in staged and source.name in present
        }
        for source in needed:
            if source.number in jobs:
                _check_unchanged(source, present[source.name])
        if jobs:
            check_space(
                self.engine,
                list(jobs.values()),
                self.limits,
                self.folder,
                shard_bytes=self.recipe.shard_bytes,
                keeps_shards=self.store is None,
            )
        outcomes = self.engine.map(convert_source, jobs.values(), limits=self.limits)
        watch = SpaceWatch(self.folder)
        num_failed = sum("reason" in record for record in staging.sources.values())
        cpu_types |= {record["cpu_type"] for record in staging.sources.values() if "cpu_type" in record}
        with Progress("converting", total=len(needed), unit="sources", show=self.show_progress) as progress:
            for source in needed:
                if source.number in jobs:
                    record = take_outcome(next(outcomes), jobs[source.number].source, stops=self.stops)
                    self.num_new_clips += record.get("num_clips", 0)
                elif source.number in staged:
                    record = PartReader(staging.part_path(source.number)).summary
                else:
                    record = {"reason": "vanished", "text": "it was there when the sources were listed, now it is not"}
                cpu_types |= {record["cpu_type"]} if "cpu_type" in record else set()
                if not self.allow_mixed_cpu:
                    check_one_cpu_type(cpu_types)
                staging.add_source(source.number, record)
                if "reason" in record:
                    num_failed += 1
                    check_failures(num_failed, self.max_failures, source, record)
                else:
                    assembly.append(source)
                watch.check()
                seconds = time.monotonic() - self.start
                progress.advance(clips_per_second=f"{self.num_new_clips / seconds:.1f}", skipped=num_failed)

    def _whole_parts(self, needed: Sequence[ListedSource], staging: Staging) -> set[int]:
        """The parts that are there from before, less those that are damaged: their sources are decoded again."""
        staged = staging.part_numbers() & {source.number for source in needed}
        for number in sorted(staged):
            try:
                is_whole = PartReader(staging.part_path(number)).is_whole()
            except ClipfoldError:
                is_whole = False
            if not is_whole:
                staging.remove_part(number)
                staged.remove(number)
        return staged

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
            label=listed.label,
            columns=listed.columns,
        )


def _check_unchanged(listed: ListedSource, source: Source) -> None:
    if (source.num_bytes, source.mtime_ns) != (listed.num_bytes, listed.mtime_ns):
        raise changed_source(source, f"{source.num_bytes:,} bytes, listed with {listed.num_bytes:,}")
    if (now := reading_fields(source)) != dict(listed.reading):
        raise changed_source(source, f"{now or 'a whole file'}, listed with {dict(listed.reading) or 'a whole file'}")
