"""The end of a conversion: all shards are there; lists, tables and totals are written, the manifest last."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clipfold.files import write_whole
from clipfold.shards.base import Base
from clipfold.shards.index import shard_table_path
from clipfold.shards.manifest import MANIFEST_NAME, Manifest, SplitTotals
from clipfold.shards.recipe import Recipe
from clipfold.shards.records import skipped_of
from clipfold.shards.source_list import ListedSource, save_source_list
from clipfold.shards.store import Store
from clipfold.shards.summary import (
    NO_NUMBER,
    SKIPPED_NAME,
    SOURCES_NAME,
    Skipped,
    clips_by_class,
    merge_clips,
    skipped_lines,
)
from clipfold.shards.totals import ChannelSums, mean_and_std

__all__ = ["Completed", "complete"]

Records = Sequence[tuple[ListedSource, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What was written.

    Args:
        manifest: The manifest.
        sources: All sources of the corpus.
        skipped: Those that were left out.
    """

    manifest: Manifest
    sources: list[ListedSource]
    skipped: list[Skipped]


def complete(
    listed: Sequence[ListedSource],
    records: Mapping[int, Mapping[str, Any]],
    *,
    out: str,
    folder: Path,
    recipe: Recipe,
    classes: Sequence[str],
    totals: Mapping[str, SplitTotals],
    base: Base | None,
    store: Store | None,
    missing: Callable[[Sequence[ListedSource]], Sequence[Skipped]] = lambda sources: (),
) -> Completed:
    """Write all that is not a shard.

    Args:
        listed: The sources that were gone through.
        records: What became of them.
        out: The corpus folder or URL.
        folder: Where files are made.
        recipe: The options.
        classes: Names of the classes.
        totals: Of each split, whose tables of shards are written already.
        base: The finished corpus that was appended to.
        store: Where the files go; ``None`` leaves them in ``folder``.
        missing: What is left out without being in any list, from all sources of the corpus.

    Raises:
        OSError: The disk is full.
        ClipfoldError: A file cannot be uploaded.
    """
    numbers = {source.number for source in listed}
    others = [source for source in (base.sources if base else ()) if source.number not in numbers]
    sources = sorted([*others, *listed], key=lambda source: source.number)
    lacking = missing(sources)
    before = [each for each in (base.skipped if base else ()) if each.number != NO_NUMBER]
    skipped = [*skipped_of(listed, records, before=before), *lacking]
    save_source_list(folder / SOURCES_NAME, sources)
    write_whole(folder / SKIPPED_NAME, skipped_lines(skipped))
    pairs = [(source, records[source.number]) for source in listed]
    sums = _sums(pairs, base.sums(out) if base else None)
    mean, std = mean_and_std([sums] if sums else [], recipe.read.spec)
    manifest = Manifest(
        spec=recipe.read.spec,
        codec=recipe.codec,
        codec_settings=recipe.codec_settings,
        classes=classes,
        splits=totals,
        mean=mean,
        std=std,
        file_sha256={
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (SOURCES_NAME, SKIPPED_NAME)
        },
        provenance=_provenance(pairs, recipe, base, sums, num_sources=len(sources) + len(lacking)),
    )
    if store is not None:
        tables = [shard_table_path(folder, split).removeprefix(f"{folder}/") for split in totals]
        store.put_files(folder, [*tables, SOURCES_NAME, SKIPPED_NAME])
    manifest.save(folder)
    if store is not None:
        store.put_files(folder, [MANIFEST_NAME])
    return Completed(manifest=manifest, sources=sources, skipped=skipped)


def _sums(pairs: Records, before: ChannelSums | None) -> ChannelSums | None:
    """Sums over all valid frames of train, in the order of the sources; those of the corpus come first."""
    parts = [ChannelSums.from_json(record["sums"]) for _, record in pairs if record.get("sums")]
    parts = parts if before is None else [before, *parts]
    return sum(parts[1:], start=parts[0]) if parts else None


def _provenance(
    pairs: Records, recipe: Recipe, base: Base | None, sums: ChannelSums | None, *, num_sources: int
) -> dict[str, Any]:
    made = [record for _, record in pairs if "num_clips" in record]
    before = base.manifest.provenance if base else {}
    clips = clips_by_class((source, record.get("num_clips", 0)) for source, record in pairs)
    cpu_types = {*before.get("cpu_types", []), *(record["cpu_type"] for record in made if "cpu_type" in record)}
    provenance = {
        "version": version("clipfold"),
        "options": recipe.to_json(),
        "decoders": sorted({*before.get("decoders", []), *(record["decoder"] for record in made)}),
        "num_sources": num_sources,
        "num_converted": before.get("num_converted", 0) + len(made),
        "clips": merge_clips(before.get("clips", {}), clips),
        "sums": None if sums is None else sums.to_json(),  # so that mean and std can go on when more is appended
    }
    return {**provenance, "cpu_types": sorted(cpu_types)} if cpu_types else provenance
