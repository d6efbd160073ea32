"""Videos and image folders into a corpus of shards, so that it can be killed at any moment and go on.

::

    sources.jsonl (frozen) --> workers: decode, encode --> parts --> one writer, in order --> shards --> dataset.json

Workers finish in any order, parts are appended in the order of the list: the corpus is the same, byte for byte, for
any number of workers and however often the command was interrupted. ``dataset.json`` is written last.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from clipfold import plugins
from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError, SourceError
from clipfold.files import write_whole
from clipfold.ingest.decoders import DECODERS
from clipfold.ingest.reader import ReadOptions
from clipfold.ingest.resize import Mode
from clipfold.ingest.sampling import Sampling
from clipfold.ingest.sources import SPLITS, Found, Source, find_sources
from clipfold.progress import Progress
from clipfold.shards.assembly import Assembly
from clipfold.shards.engines import Engine, open_engine
from clipfold.shards.estimate import check_space, estimate, limits_for, memory_bytes
from clipfold.shards.manifest import MANIFEST_NAME, Manifest, SplitTotals
from clipfold.shards.recipe import Recipe, check_same
from clipfold.shards.source_list import ListedSource, freeze, load_source_list, save_source_list
from clipfold.shards.staging import STAGING_NAME, PartReader, Staging
from clipfold.shards.summary import ConvertSummary, Skipped
from clipfold.shards.task import Job, convert_source
from clipfold.shards.totals import ChannelSums, mean_and_std
from clipfold.worker import Outcome

__all__ = ["SKIPPED_NAME", "SOURCES_NAME", "convert"]

SOURCES_NAME = "sources.jsonl"
SKIPPED_NAME = "skipped.jsonl"

_NUM_IGNORED_KEPT = 100
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    "DecodeError": "decode",
    "SourceError": "source",
    "Crash": "crash",
    "CpuDeadline": "cpu_deadline",
    "WallDeadline": "wall_deadline",
    "OutOfMemory": "out_of_memory",
}


def convert(
    source_root: str | Path,
    *,
    out: str | Path,
    spec: ClipSpec | None = None,
    codec: str = "raw",
    codec_settings: Mapping[str, Any] | None = None,
    sampling: Sampling | None = None,
    resize: Mode = "stretch",
    decoder: str = "auto",
    keep_partial: bool = False,
    split: str | None = None,
    shard_bytes: int = 1 << 30,
    shard_clips: int = 10_000,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    num_workers: int | None = None,
    on_error: Literal["skip", "raise"] = "skip",
    max_failures: int | None = None,
    retry_skipped: bool = False,
    deadline_seconds: float | None = None,
    engine: str = "local",
    dry_run: bool = False,
    show_progress: bool = True,
) -> ConvertSummary:
    """Convert videos and image sequences into a corpus of shards.

    The same call again goes on where an interrupted one stopped, and does nothing once the corpus is complete. The
    options up to ``limit`` decide about bytes and may not change in between; the others may.

    Args:
        source_root: Folder of class folders, of ``train``, ``val`` and ``test`` folders with class folders, or of
            unlabelled videos and image folders; see :mod:`clipfold.ingest.sources`.
        out: The corpus folder: new, empty, or left by the same call.
        spec: Shape and dtype of the clips; the default of :class:`clipfold.ClipSpec` where ``None``.
        codec: ``"raw"``, ``"jpeg"``, ... or ``"my_package.module:MyCodec"``.
        codec_settings: Keyword arguments of the codec, such as ``{"quality": 95}``.
        sampling: Which frames make a clip: by default windows side by side.
        resize: How frames come to the spec's size: ``"stretch"``, ``"letterbox"`` or ``"center_crop"``.
        decoder: ``"auto"`` or a decoder's name.
        keep_partial: Whether the clips before an error in a source are kept; otherwise the source is left out.
        split: Shares of train, val and test by source, such as ``"0.8/0.1/0.1"``, within each class. ``None`` takes
            the split folders below ``source_root``, or puts everything into train.
        shard_bytes: A shard closes before the clip that would make its tar larger.
        shard_clips: A shard closes before the clip that would be one too many.
        include, exclude, limit: Which sources; see :func:`clipfold.ingest.sources.find_sources`.
        num_workers: Processes that decode; ``None`` is one per CPU core.
        on_error: What to do with a source that cannot be read: leave it out, or stop. A source that changed since the
            list was frozen always stops the conversion.
        max_failures: Stop when more sources than this had to be left out; ``None`` never does.
        retry_skipped: Try sources again that were left out when this conversion was interrupted.
        deadline_seconds: CPU seconds from one clip of a source to the next; ``None`` is 300 and one more for each
            250 kB of the source. The clock may show four times as much.
        engine: Where the work is done; see :mod:`clipfold.shards.engines`.
        dry_run: Count clips and estimate bytes; write nothing.
        show_progress: Whether to show progress on the standard error.

    Returns:
        What was done.

    Raises:
        ValueError: A wrong option; the codec cannot hold such clips.
        PluginError: No codec, decoder or engine has this name.
        SourceError: Nothing to read, nothing that can be read, or a source changed since the list was frozen.
        DecodeError: A source cannot be decoded and ``on_error`` is "raise".
        ClipfoldError: ``out`` holds something else, or a conversion with other options; another command is at work
            there; too many failures; no space is left. Where work was done, the same call goes on with it.

    Example:
        >>> convert("videos", out="corpus", codec="jpeg", split="0.8/0.1/0.1")      # doctest: +SKIP
    """
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error: {on_error!r}, expected 'skip' or 'raise'")
    if decoder != "auto":
        plugins.load("decoders", decoder, DECODERS)  # an unknown one is one error, not one a source
    read = ReadOptions(
        spec=spec or ClipSpec(),
        sampling=sampling or Sampling(),
        resize=resize,
        decoder=decoder,
        keep_partial=keep_partial,
    )
    recipe = Recipe(
        read=read,
        codec=codec,
        codec_settings=codec_settings or {},
        split=split,
        shard_bytes=shard_bytes,
        shard_clips=shard_clips,
        include=tuple(include),
        exclude=tuple(exclude),
        limit=limit,
    )
    with closing(open_engine(engine, num_workers=num_workers)) as workers:
        conversion = _Conversion(
            root=Path(source_root),
            out=Path(out),
            recipe=recipe,
            engine=workers,
            deadline_seconds=deadline_seconds,
            show_progress=show_progress,
        )
        if dry_run:
            return conversion.try_out()
        return conversion.run(stops=on_error == "raise", max_failures=max_failures, retry_skipped=retry_skipped)


class _Conversion:
    """One call of :func:`convert`."""

    def __init__(
        self,
        *,
        root: Path,
        out: Path,
        recipe: Recipe,
        engine: Engine,
        deadline_seconds: float | None,
        show_progress: bool,
    ) -> None:
        self.root, self.out, self.recipe, self.engine = root, out, recipe, engine
        self.show_progress = show_progress
        self.limits = partial(
            limits_for, deadline_seconds=deadline_seconds, memory=memory_bytes(), num_workers=engine.num_workers
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
            clips=_clips_by_class(zip(listed, counted.num_clips, strict=True)),
            skipped=skipped,
            **_ignored(found),
            seconds=time.monotonic() - self.start,
        )

    # ---- the real thing ----

    def run(self, *, stops: bool, max_failures: int | None, retry_skipped: bool) -> ConvertSummary:
        """Begin, go on, or find that nothing is left to do."""
        was_there = self.out.exists()
        self._check_out()
        if (self.out / MANIFEST_NAME).exists() and not (self.out / STAGING_NAME).exists():
            return self._already_finished(retry_skipped=retry_skipped)
        with _plain_disk_errors(self.out):
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

    def _check_out(self) -> None:
        """Refuse a folder that holds something else."""
        if self.out.is_dir():
            entries = sorted(path.name for path in self.out.iterdir())
            if not entries or MANIFEST_NAME in entries or STAGING_NAME in entries:
                return
            shown = ", ".join(entries[:5]) + (", ..." if len(entries) > 5 else "")
            what = f"the output folder holds something else: {shown}; expected a new or empty folder"
        elif self.out.exists():
            what = "the output folder is a file"
        else:
            return
        raise ClipfoldError(what, fix="name another output folder", file=str(self.out))

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
                "clips": _clips_by_class(zip(listed, counts, strict=True)),
            },
        )
        manifest.save(self.out)
        staging.remove()
        seconds = time.monotonic() - self.start
        return replace(
            _summary_of(self.out, manifest),
            **_ignored(found),
            seconds=seconds,
            clips_per_second=self.num_new_clips / seconds,
        )

    def _already_finished(self, *, retry_skipped: bool) -> ConvertSummary:
        manifest = Manifest.load(self.out)
        options = manifest.provenance.get("options", {})
        check_same(options, self.recipe.to_json(), out=str(self.out), state="a finished corpus")
        summary = _summary_of(self.out, manifest)
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


def _clips_by_class(counted: Iterable[tuple[ListedSource, int]]) -> dict[str, dict[str, int]]:
    clips: dict[str, dict[str, int]] = {}
    for source, num in counted:
        if num:
            of_split = clips.setdefault(source.split, {})
            of_split[source.label or ""] = of_split.get(source.label or "", 0) + num
    return {split: dict(sorted(clips[split].items())) for split in SPLITS if split in clips}


def _summary_of(out: Path, manifest: Manifest) -> ConvertSummary:
    """What a finished corpus says of its own making."""
    lines = (out / SKIPPED_NAME).read_text(encoding="utf-8").splitlines()
    skipped = [Skipped(**json.loads(line)) for line in lines]
    return ConvertSummary(
        out=str(out),
        num_sources=manifest.provenance["num_sources"],
        num_converted=manifest.provenance["num_converted"],
        num_clips=sum(totals.num_samples for totals in manifest.splits.values()),
        num_bytes=sum(totals.num_bytes for totals in manifest.splits.values()),
        clips=manifest.provenance["clips"],
        skipped=[each for each in skipped if each.reason != "partial"],
        partial=[each.name for each in skipped if each.reason == "partial"],
    )


def _ignored(found: Found) -> dict[str, Any]:
    shown = [f"{each.name}: {each.reason}" for each in found.ignored[:_NUM_IGNORED_KEPT]]
    return {"ignored": shown, "num_ignored": len(found.ignored)}


@contextmanager
def _plain_disk_errors(out: Path) -> Iterator[None]:
    """A full disk is an error with a cure."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise ClipfoldError(
            f"no space left on the disk ({error.strerror})",
            fix="make room, then run the same command again: it goes on where it stopped",
            file=str(out),
        ) from error
