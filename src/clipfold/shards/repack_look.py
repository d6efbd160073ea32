"""Every shard of the corpora that are repacked, read once; what was found is kept for when the run is interrupted."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.files import read_json, write_json, write_whole
from clipfold.progress import Progress
from clipfold.shards.engines import Engine
from clipfold.shards.index import index_path
from clipfold.shards.repack_inputs import Input, Selection
from clipfold.shards.repack_task import LookJob, look_through
from clipfold.worker import Limits, Outcome

__all__ = ["look_through_all", "raise_error"]

Place = tuple[int, str, int]  # number of the input, split, shard


def look_through_all(
    inputs: Sequence[Input],
    selection: Selection,
    *,
    engine: Engine,
    limits: Limits,
    folder: Path,
    show_progress: bool,
) -> tuple[dict[Place, NDArray[Any]], list[dict[str, str]]]:
    """Look through the shards that an earlier run has not looked through.

    Args:
        inputs: The corpora.
        selection: Holds the condition on samples.
        engine: Does the work.
        limits: Of one shard, from member to member.
        folder: Where the results are kept.
        show_progress: Whether to show progress on the standard error.

    Returns:
        FOUND_DTYPE (num_samples,) of each shard, and the kinds of the columns of each input.

    Raises:
        ShardError: A shard is not what its checksums say.
        ValueError: The condition does not fit the columns.
        OSError: The disk is full.
    """
    folder.mkdir(exist_ok=True)
    jobs = _jobs(inputs, selection.where)
    stems = {place: folder / "-".join(map(str, place)) for place in jobs}
    new = [place for place in jobs if not stems[place].with_suffix(".json").exists()]
    with Progress("looking through", total=len(new), unit="shards", show=show_progress) as progress:
        outcomes = engine.map(look_through, [jobs[place] for place in new], limits=lambda _: limits)
        for place, outcome in zip(new, outcomes, strict=True):
            raise_error(outcome)
            table, kinds = outcome.value
            file = io.BytesIO()
            np.save(file, table, allow_pickle=False)
            write_whole(stems[place].with_suffix(".npy"), file.getvalue())
            write_json(stems[place].with_suffix(".json"), kinds)
            progress.advance()
    found = {place: np.load(stem.with_suffix(".npy"), allow_pickle=False) for place, stem in stems.items()}
    first = {number: stem for (number, _, _), stem in reversed(stems.items())}
    return found, [read_json(first[number].with_suffix(".json")) for number in range(len(inputs))]


def _jobs(inputs: Sequence[Input], where: str) -> dict[Place, LookJob]:
    return {
        (number, split, int(row["number"])): LookJob(
            tar=each.corpus.tar_location(split, int(row["number"])),
            index=index_path(each.corpus.root, split, int(row["number"])),
            index_sha256=row["index_sha256"].tobytes(),
            num_bytes=int(row["num_bytes"]),
            sha256=row["sha256"].tobytes(),
            split=split,
            where=where,
        )
        for number, each in enumerate(inputs)
        for split in each.corpus.splits
        for row in each.corpus.shard_table(split)
    }


def raise_error(outcome: Outcome) -> None:
    """Raise what went wrong in a worker, if anything did.

    Raises:
        ValueError: The user's condition does not fit the columns.
        ClipfoldError: Anything else.
    """
    if outcome.error is None:
        return
    if outcome.error_name == "ValueError":
        raise ValueError(outcome.error.what.removeprefix("ValueError: "))
    if not outcome.error.fix:
        outcome.error.fix = "`clipfold verify` says what is wrong with the corpus; copy or convert it again"
    raise outcome.error
