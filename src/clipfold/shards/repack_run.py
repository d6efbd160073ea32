"""One run of a repacking: begin, go on or find nothing to do; every source in order; what is said of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clipfold.errors import ClipfoldError
from clipfold.files import write_whole
from clipfold.progress import Progress
from clipfold.shards.assembly import Assembly, Part
from clipfold.shards.choose import Target, choose_codec_of_corpora, earlier_choice
from clipfold.shards.codecs import get_codec
from clipfold.shards.engines import Engine
from clipfold.shards.manifest import MANIFEST_NAME, Manifest, SplitTotals
from clipfold.shards.output import check_out, plain_disk_errors
from clipfold.shards.recipe import check_same
from clipfold.shards.repack_inputs import Input, Selection
from clipfold.shards.repack_look import look_through_all, raise_error
from clipfold.shards.repack_plan import RepackPlan, Unit, plan_repacking
from clipfold.shards.repack_summary import RepackSummary, clips_of, loss_notes, origin
from clipfold.shards.repack_task import ClipsJob, CopiedPart, repack_clips
from clipfold.shards.source_list import ListedSource, save_source_list
from clipfold.shards.staging import STAGING_NAME, PartReader, Staging
from clipfold.shards.summary import SKIPPED_NAME, SOURCES_NAME, size_text, skipped_lines
from clipfold.shards.totals import ChannelSums, mean_and_std
from clipfold.worker import Limits, Outcome

__all__ = ["RepackOptions", "RepackRun"]

_DEADLINE_SECONDS = 300.0  # from one clip, or one member of a shard, to the next
_OVERHEAD_BYTES = 2560  # of a clip in a tar


Statistics = tuple[Sequence[float], Sequence[float], ChannelSums | None]  # mean, standard deviation, and their sums


@dataclass(frozen=True, kw_only=True)
class RepackOptions:
    """The options that decide about bytes, the codec aside."""

    split: str | None
    shard_bytes: int
    shard_clips: int
    selection: Selection


@dataclass(frozen=True, kw_only=True)
class _Shards:
    """How the new shards are written."""

    codec: str
    codec_settings: Mapping[str, Any]
    shard_bytes: int
    shard_clips: int


class RepackRun:
    """One call of :func:`repack`."""

    def __init__(self, *, inputs: Sequence[Input], out: Path, engine: Engine, show_progress: bool) -> None:
        self.inputs, self.out, self.engine, self.show_progress = inputs, out, engine, show_progress
        self.spec = inputs[0].corpus.spec
        self.start = time.monotonic()
        self.codec, self.settings = "", dict[str, Any]()
        self.wish: dict[str, Any] | None = None  # what "auto" was asked for
        self.limits = Limits(cpu_seconds=_DEADLINE_SECONDS, wall_seconds=4 * _DEADLINE_SECONDS + 60)

    # ---- the codec ----

    def choose_codec(
        self, codec: str | None, settings: Mapping[str, Any] | None, *, target: Target, min_psnr: float
    ) -> None:
        """Find out what to store the clips with: as named, as before, as chosen earlier, or by measuring."""
        if codec == "auto":
            self.wish = {"target": target, "min_psnr": min_psnr}
            codec, settings = earlier_choice(self.out, self.wish) or self._choose(target, min_psnr)
        if codec is None:
            known = {(each.manifest.codec, json.dumps(dict(each.manifest.codec_settings))) for each in self.inputs}
            if len(known) > 1:
                shown = ", ".join(sorted(f"{name} {text}" for name, text in known))
                raise ValueError(f"codec: the corpora have several ({shown}); name the one that the clips are to have")
            codec, settings = self.inputs[0].manifest.codec, settings or self.inputs[0].manifest.codec_settings
        member = get_codec(codec, settings)
        member.check(self.spec)
        self.codec, self.settings = codec, member.settings()

    def _choose(self, target: Target, min_psnr: float) -> tuple[str, Mapping[str, Any]]:
        choice = choose_codec_of_corpora(
            [each.corpus for each in self.inputs],
            engine=self.engine,
            target=target,
            min_psnr=min_psnr,
            show_progress=self.show_progress,
        )
        if self.show_progress:
            print(choice, file=sys.stderr)
        return choice.codec, choice.settings

    # ---- begin, go on, or nothing to do ----

    def run(self, options: RepackOptions) -> RepackSummary:
        """Begin, go on, or find that nothing is left to do."""
        was_there = self.out.exists()
        check_out(self.out)
        if (self.out / MANIFEST_NAME).exists() and not (self.out / STAGING_NAME).exists():
            return self._already_finished(options)
        with plain_disk_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            with Staging(self.out) as staging:
                if (self.out / MANIFEST_NAME).exists():  # killed between its last two steps
                    summary = self._already_finished(options)
                    staging.remove()
                    return summary
                plan = {"clipfold": version("clipfold"), **self._options(options)}
                if staging.plan is not None:
                    check_same(staging.plan, plan, out=str(self.out), state="an unfinished conversion")
                else:
                    staging.set_plan(plan)
                try:
                    return self._work(staging, options)
                except (ClipfoldError, ValueError):
                    if not staging.sources:
                        self._undo(staging, was_there=was_there)
                    raise

    def _options(self, options: RepackOptions) -> dict[str, Any]:
        """What together with the inputs determines every byte."""
        return {
            "repack": [each.fingerprint for each in self.inputs],
            "codec": self.codec,
            "codec_settings": self.settings,
            "chosen_for": self.wish,
            "split": options.split,
            "shard_bytes": options.shard_bytes,
            "shard_clips": options.shard_clips,
            **options.selection.to_json(),
        }

    def _already_finished(self, options: RepackOptions) -> RepackSummary:
        manifest = Manifest.load(self.out)
        check_same(
            manifest.provenance.get("options", {}),
            self._options(options),
            out=str(self.out),
            state="a finished corpus",
        )
        return self._summary(manifest, was_finished=True)

    def _undo(self, staging: Staging, *, was_there: bool) -> None:
        """Leave the output folder as it was found."""
        staging.remove()
        (self.out / SOURCES_NAME).unlink(missing_ok=True)
        if not was_there:
            self.out.rmdir()

    # ---- the work ----

    def _work(self, staging: Staging, options: RepackOptions) -> RepackSummary:
        found, kinds = look_through_all(
            self.inputs,
            options.selection,
            engine=self.engine,
            limits=self.limits,
            folder=staging.folder / "found",
            show_progress=self.show_progress,
        )
        planned = plan_repacking(self.inputs, found, kinds, selection=options.selection, split=options.split)
        save_source_list(self.out / SOURCES_NAME, planned.listed)
        units = {unit.listed.number: unit for unit in planned.units}

        def open_part(source: ListedSource) -> Part:
            unit = units[source.number]
            if self._is_copied(unit):
                return CopiedPart(samples=unit.samples(), columns=planned.columns[unit.input])
            return PartReader(staging.part_path(source.number))

        shards = _Shards(
            codec=self.codec,
            codec_settings=self.settings,
            shard_bytes=options.shard_bytes,
            shard_clips=options.shard_clips,
        )
        listed = [unit.listed for unit in planned.units]
        with Assembly(self.out, shards, listed, planned.classes, staging, open_part=open_part) as assembly:
            self._go_through(planned, staging, assembly)
            totals = assembly.close()
        return self._finish(planned, options, totals, staging)

    def _is_copied(self, unit: Unit) -> bool:
        return self.inputs[unit.input].is_stored_as(self.codec, self.settings)

    def _go_through(self, planned: RepackPlan, staging: Staging, assembly: Assembly) -> None:
        """Every source in order: decode it where that is needed, append its clips where they are in no shard."""
        staged = staging.part_numbers()
        needed = [unit for unit in planned.units if assembly.needs_part(unit.listed)]
        worked = {unit.listed.number for unit in needed if self._needs_work(unit, planned, staging, staged)}
        self._check_space(needed)
        jobs = (self._job(unit, planned, staging) for unit in needed if unit.listed.number in worked)
        outcomes = self.engine.map(repack_clips, jobs, limits=lambda _: self.limits)
        total = sum(len(unit.rows) for unit in needed)
        with Progress("repacking", total=total, unit="clips", show=self.show_progress) as progress:
            for unit in needed:
                number = unit.listed.number
                if number in worked:
                    staging.add_source(number, _record(next(outcomes)))
                elif number not in staging.sources:
                    is_staged = number in staged and not self._is_copied(unit)
                    summary = PartReader(staging.part_path(number)).summary if is_staged else {}
                    staging.add_source(number, {"num_clips": len(unit.rows), "sums": None, **summary})
                assembly.append(unit.listed)
                progress.advance(len(unit.rows))

    def _needs_work(self, unit: Unit, planned: RepackPlan, staging: Staging, staged: set[int]) -> bool:
        number = unit.listed.number
        if self._is_copied(unit):
            return number not in staging.sources and self._wants_sums(unit, planned)
        return number not in staged

    def _wants_sums(self, unit: Unit, planned: RepackPlan) -> bool:
        return unit.listed.split == "train" and self._kept_statistics(planned) is None

    def _kept_statistics(
        self, planned: RepackPlan
    ) -> tuple[Sequence[float], Sequence[float], ChannelSums | None] | None:
        """Mean, standard deviation and sums of the train split where the inputs' own say them; else ``None``."""
        if not planned.keeps_train:
            return None
        train = [each for each in self.inputs if "train" in each.corpus.splits]
        known: list[Any] = [each.manifest.provenance.get("sums") for each in train]
        if len(self.inputs) == 1:
            manifest = self.inputs[0].manifest
            return manifest.mean, manifest.std, ChannelSums.from_json(known[0]) if known and known[0] else None
        if not known or None in known:
            return None
        parts = [ChannelSums.from_json(each) for each in known]
        total = sum(parts[1:], start=parts[0])
        return *mean_and_std([total], self.spec), total

    def _statistics(self, planned: RepackPlan, staging: Staging) -> Statistics:
        if kept := self._kept_statistics(planned):
            return kept
        found = [staging.sources[unit.listed.number]["sums"] for unit in planned.units]
        parts = [ChannelSums.from_json(each) for each in found if each]
        total = sum(parts[1:], start=parts[0]) if parts else None
        return *mean_and_std([total] if total else [], self.spec), total

    def _job(self, unit: Unit, planned: RepackPlan, staging: Staging) -> ClipsJob:
        manifest = self.inputs[unit.input].manifest
        return ClipsJob(
            samples=unit.samples(),
            columns=planned.columns[unit.input],
            spec=self.spec,
            codec=manifest.codec,
            codec_settings=dict(manifest.codec_settings),
            new_codec=self.codec,
            new_settings=self.settings,
            part="" if self._is_copied(unit) else str(staging.part_path(unit.listed.number)),
            wants_sums=self._wants_sums(unit, planned),
        )

    def _check_space(self, units: Sequence[Unit]) -> None:
        """Refuse to begin what cannot fit, where its size is known beforehand."""
        header = get_codec(self.codec, self.settings).header_bytes(self.spec)
        needed = 0
        for unit in units:
            if self._is_copied(unit):
                needed += int(unit.rows["size"].sum()) + len(unit.rows) * _OVERHEAD_BYTES
            elif header is not None:
                needed += len(unit.rows) * (header + self.spec.num_bytes + _OVERHEAD_BYTES)
        free = shutil.disk_usage(self.out).free
        if needed > free:
            raise ClipfoldError(
                f"not enough free space: about {size_text(needed)} needed, {size_text(free)} free",
                fix="free some, choose another folder, or a codec that makes smaller clips",
                file=str(self.out),
            )

    # ---- the end ----

    def _finish(
        self, planned: RepackPlan, options: RepackOptions, totals: Mapping[str, SplitTotals], staging: Staging
    ) -> RepackSummary:
        """All shards are there: what is said about them, the manifest last."""
        write_whole(self.out / SKIPPED_NAME, skipped_lines(planned.skipped))
        mean, std, sums = self._statistics(planned, staging)
        manifest = Manifest(
            spec=self.spec,
            codec=self.codec,
            codec_settings=self.settings,
            classes=planned.classes,
            splits=totals,
            mean=mean,
            std=std,
            file_sha256={
                name: hashlib.sha256((self.out / name).read_bytes()).hexdigest()
                for name in (SOURCES_NAME, SKIPPED_NAME)
            },
            provenance=self._provenance(planned, options, sums),
        )
        manifest.save(self.out)
        staging.remove()
        return self._summary(manifest, was_finished=False)

    def _provenance(self, planned: RepackPlan, options: RepackOptions, sums: ChannelSums | None) -> dict[str, Any]:
        before = [each.manifest.provenance for each in self.inputs]
        num_copied = sum(len(unit.rows) for unit in planned.units if self._is_copied(unit))
        cpu_types: set[str] = set()  # that the clips' bytes depend on
        if num_copied:
            cpu_types.update(name for each in before for name in each.get("cpu_types", []))
        if getattr(get_codec(self.codec, self.settings), "depends_on_cpu", False):
            cpu_types.update(getattr(self.engine, "cpu_types", []))
        provenance = {
            "version": version("clipfold"),
            "options": self._options(options),
            "made_from": [origin(each) for each in self.inputs],
            "decoders": sorted({name for each in before for name in each.get("decoders", [])}),
            "num_sources": len(planned.listed),
            "num_converted": len(planned.units),
            "num_copied": num_copied,
            "num_left_out": planned.num_left_out,
            "clips": clips_of(planned.units),
            "sums": None if sums is None else sums.to_json(),
            "notes": [*loss_notes(self.inputs, self.codec, self.settings), *planned.notes],
        }
        return {**provenance, "cpu_types": sorted(cpu_types)} if cpu_types else provenance

    def _summary(self, manifest: Manifest, *, was_finished: bool) -> RepackSummary:
        made = manifest.provenance
        return RepackSummary(
            out=str(self.out),
            was_finished=was_finished,
            num_inputs=len(self.inputs),
            codec=manifest.codec,
            codec_settings=dict(manifest.codec_settings),
            num_clips=sum(totals.num_samples for totals in manifest.splits.values()),
            num_copied=made["num_copied"],
            num_left_out=made["num_left_out"],
            num_bytes=sum(totals.num_bytes for totals in manifest.splits.values()),
            clips=made["clips"],
            notes=made["notes"],
            seconds=time.monotonic() - self.start,
        )


def _record(outcome: Outcome) -> dict[str, Any]:
    """What became of a source that was just worked on."""
    raise_error(outcome)
    record: dict[str, Any] = outcome.value
    if "unwritable" in record:
        raise OSError(record["errno"], record["unwritable"])
    return record
