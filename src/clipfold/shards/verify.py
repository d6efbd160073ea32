"""Is a corpus what it says? Every checksum, every count, every sample; nothing is changed.

::

    dataset.json --its own sha256
       | sha256                   files on the disk: none missing, none too many
    shards.npy  -- totals
       | sha256, size             one pass over each tar, on threads (verify_shard.py):
    tar, index  -- rows = members, keys, offsets, sizes, labels, .json, xxh3, decoding; .idx says the same

Memory is flat: a few shards' indices and one clip a thread, whatever the size of the corpus.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipfold.errors import ShardError
from clipfold.files import Location, exists, is_url, join, read_bytes
from clipfold.progress import Progress
from clipfold.shards.index import shard_name
from clipfold.shards.manifest import MANIFEST_NAME
from clipfold.shards.reader import Corpus
from clipfold.shards.verify_report import Problem, VerifyReport
from clipfold.shards.verify_shard import ShardCheck, Yardstick

__all__ = ["Problem", "VerifyReport", "verify"]


def verify(
    root: Location, *, splits: Sequence[str] = (), num_workers: int | None = None, show_progress: bool = False
) -> VerifyReport:
    """Check every checksum, every count and every sample of a corpus. Changes nothing.

    Args:
        root: Corpus folder or URL. Files that are too many are looked for in local folders only.
        splits: Names of the splits to look at; none means all.
        num_workers: Threads; ``None`` takes one a core, at most 16.
        show_progress: Show how far it is on the standard error.

    Returns:
        What was looked at, and every problem: which shard, and which sample.

    Raises:
        ShardError: There is no corpus at ``root``, or it is of a newer format: nothing could be looked at.
        ValueError: An unknown split, or ``num_workers`` below 1.
    """
    workers = min(os.cpu_count() or 1, 16) if num_workers is None else num_workers
    if workers < 1:
        raise ValueError(f"num_workers: {num_workers}, expected at least 1")
    report = VerifyReport(root=str(root))
    try:
        corpus = Corpus(root)
    except ShardError as error:
        if not exists(join(root, MANIFEST_NAME)):
            raise
        report.add(f"{error.what} ({error.fix})", MANIFEST_NAME)
        return report
    if unknown := [split for split in splits if split not in corpus.splits]:
        raise ValueError(f"split: {unknown[0]!r}, expected one of {', '.join(corpus.splits)} (corpus {root})")
    _check_root(corpus, report)
    found = {split: _check_table(corpus, split, report) for split in splits or corpus.splits}
    tables = {split: table for split, table in found.items() if table is not None}
    _check_shards(corpus, tables, report, workers, show_progress)
    return report


def _check_root(corpus: Corpus, report: VerifyReport) -> None:
    """What lies beside the splits: files under a checksum, and folders of shards that the manifest does not know."""
    for name, sha256 in corpus.manifest.file_sha256.items():
        try:
            found = hashlib.sha256(read_bytes(join(corpus.root, name))).hexdigest()
        except OSError as error:
            report.add("is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}", name)
            continue
        if found != sha256:
            report.add(f"has sha256 {found[:16]}..., expected {sha256[:16]}...", name)
    if is_url(corpus.root):
        return
    for folder in sorted(path for path in Path(corpus.root).iterdir() if path.is_dir()):
        if folder.name not in corpus.splits and ((folder / "shards.npy").exists() or any(folder.glob("*.tar"))):
            report.add(f"holds shards, but {MANIFEST_NAME} has no such split", folder.name)


def _check_table(corpus: Corpus, split: str, report: VerifyReport) -> NDArray[Any] | None:
    """A split's ``shards.npy`` against the manifest, and its folder against the table."""
    try:
        table = corpus.shard_table(split)
    except ShardError as error:
        report.add(error.what, f"{split}/shards.npy")
        return None
    if not is_url(corpus.root):
        with os.scandir(join(corpus.root, split)) as entries:  # no list of them: there may be millions
            for entry in entries:
                if entry.name != "shards.npy" and not _is_of_shard(entry.name, split, len(table)):
                    report.add("is no file of this corpus: left over, it may be deleted", f"{split}/{entry.name}")
    return table


def _is_of_shard(name: str, split: str, num_shards: int) -> bool:
    """Whether this is one of the three files of one of the shards."""
    stem, _, extension = name.partition(".")
    number = stem.rpartition("-")[2]
    known = extension in ("tar", "index.npy", "idx") and number.isdecimal() and number.isascii()
    return known and int(number) < num_shards and stem == shard_name(split, int(number))


def _check_shards(
    corpus: Corpus, tables: dict[str, NDArray[Any]], report: VerifyReport, workers: int, show_progress: bool
) -> None:
    total = sum(int(table["num_samples"].sum()) for table in tables.values())
    yardstick = Yardstick(corpus)
    jobs = ((split, row) for split, table in tables.items() for row in table)
    with (
        Progress("verifying", total=total, unit="samples", show=show_progress) as progress,
        ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool,
    ):
        for shard in _in_order(pool, lambda job: ShardCheck(corpus, yardstick, *job).run(), jobs, 2 * workers):
            yardstick.compare(shard)
            report.merge(shard.report)
            progress.advance(shard.report.num_samples, problems=report.num_problems)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Any], ShardCheck], jobs: Iterator[Any], ahead: int
) -> Iterator[ShardCheck]:
    """Results in the order of the jobs, with at most ``ahead`` of them begun."""
    begun: deque[Future[ShardCheck]] = deque()
    try:
        for job in jobs:
            begun.append(pool.submit(function, job))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
