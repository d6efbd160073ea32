"""What a conversion leaves on the disk so that it can be killed at any moment and go on.

::

    corpus/.converting/
      lock                 held by flock while a command runs; goes with the process
      plan.json            the options that decide about bytes
      run.json             since when the command runs that holds the lock: for `clipfold status` alone
      journal.jsonl        one line a source that was gone through, one line a finished shard
      parts/00000012.part  the encoded clips of source 12, whole or not at all
      sources.jsonl        when appending: the sources that are appended
      base/                when appending: the tables of the finished corpus

A part lives from when its worker is done until the last shard with one of its clips is finished; unfinished tars are
made anew from parts. So a conversion needs, beyond its result, about one shard per split and what is under way.

A part is the clips' data end to end, then a JSON footer, then 24 bytes: the footer's size, its xxh3-64, a mark.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import xxhash

from clipfold.errors import ClipfoldError, ShardError
from clipfold.files import read_json, sync_folder, write_json, writing_whole
from clipfold.shards.index import ShardRow

__all__ = ["STAGING_NAME", "Journal", "PartClip", "PartReader", "Staging", "write_part"]

STAGING_NAME = ".converting"

_FOOTER = struct.Struct("<QQ8s")
_MARK = b"CFPART1\n"


@dataclass(frozen=True, kw_only=True)
class PartClip:
    """One clip of a part: what the codec made of it, and what the shard's index and ``.json`` say of it.

    ``number`` is its number within its source; ``None`` where that is its place in the part.
    """

    data: bytes
    num_valid_frames: int
    meta: Mapping[str, Any]
    number: int | None = None


def write_part(path: Path, clips: Iterable[PartClip], summary: dict[str, Any]) -> None:
    """Write the part of one source, whole or not at all, with flat memory.

    Args:
        path: Where it goes.
        clips: Its clips in order; taken one by one.
        summary: JSON values; read when the clips are through, so it may be filled by what makes them.

    Raises:
        OSError: The disk is full.
    """
    listed = []
    with writing_whole(path) as file:
        for clip in clips:
            file.write(clip.data)
            listed.append(
                {
                    "size": len(clip.data),
                    "xxh3": xxhash.xxh3_64_intdigest(clip.data),
                    "num_valid_frames": clip.num_valid_frames,
                    "meta": dict(clip.meta),
                    "number": clip.number,
                }
            )
        footer = json.dumps({"clips": listed, "summary": summary}, ensure_ascii=False).encode()
        file.write(footer)
        file.write(_FOOTER.pack(len(footer), xxhash.xxh3_64_intdigest(footer), _MARK))


class PartReader:
    """The part of one source.

    Args:
        path: Where it is.

    Raises:
        ShardError: It is damaged.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - _FOOTER.size, 0))
            tail = file.read()
            size, checksum, mark = _FOOTER.unpack(tail) if len(tail) == _FOOTER.size else (0, 0, b"")
            if mark != _MARK or size > end - _FOOTER.size:
                raise self._damaged("its end is not what it should be")
            file.seek(end - _FOOTER.size - size)
            footer = file.read(size)
        if xxhash.xxh3_64_intdigest(footer) != checksum:
            raise self._damaged("its footer does not have its checksum")
        value = json.loads(footer)
        self._clips: list[dict[str, Any]] = value["clips"]
        self.summary: dict[str, Any] = value["summary"]

    def __len__(self) -> int:
        return len(self._clips)

    def clips(self, start: int = 0) -> Iterator[tuple[int, PartClip]]:
        """(number, clip) from clip ``start`` on, checksums verified.

        Raises:
            ShardError: A clip does not have its checksum.
            OSError: It cannot be read.
        """
        with open(self.path, "rb") as file:
            file.seek(sum(clip["size"] for clip in self._clips[:start]))
            for number, clip in enumerate(self._clips[start:], start):
                data = file.read(clip["size"])
                if xxhash.xxh3_64_intdigest(data) != clip["xxh3"]:
                    raise self._damaged(f"clip {number} does not have its checksum")
                fields = {name: clip[name] for name in ("num_valid_frames", "meta", "number")}
                yield number, PartClip(data=data, **fields)

    def is_whole(self) -> bool:
        """Whether every clip has its checksum; reads them all.

        Raises:
            OSError: It cannot be read.
        """
        try:
            for _ in self.clips():
                pass
        except ShardError:
            return False
        return True

    def _damaged(self, what: str) -> ShardError:
        return ShardError(
            f"a staged part is damaged: {what}",
            fix="run the same command again: the source is decoded again",
            file=str(self.path),
        )


@dataclass
class Journal:
    """What ``journal.jsonl`` says; see the attributes of :class:`Staging`."""

    sources: dict[int, dict[str, Any]] = field(default_factory=dict)
    shards: dict[str, list[ShardRow]] = field(default_factory=dict)
    next_clip: dict[str, tuple[int, int]] = field(default_factory=dict)
    num_uploaded: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Journal:
        """The journal in these bytes; a last line that is not whole does not count."""
        journal = cls()
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            value = json.loads(line)
            if "source" in value:
                journal.sources.pop(value["source"], None)
                if value["record"] is not None:
                    journal.sources[value["source"]] = value["record"]
            elif "uploaded" in value:
                journal.num_uploaded[value["uploaded"]] = value["num"]
            else:
                journal.shards.setdefault(value["split"], []).append(ShardRow.from_json(value["shard"]))
                journal.next_clip[value["split"]] = (value["next"][0], value["next"][1])
        return journal


class Staging:
    """The hidden folder of one conversion, held by one process at a time.

    Args:
        out: The corpus folder, which must exist.

    Attributes:
        sources: What became of each source that was gone through, by number.
        shards: The finished shards of each split.
        next_clip: For each split, (source, clip) of the first clip behind its finished shards.
        num_uploaded: For each split, how many of its finished shards are where they belong, if that is behind a URL.

    Raises:
        ClipfoldError: Another process holds it.
        OSError: The folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / STAGING_NAME
        self.parts = self.folder / "parts"
        self._lock = self._take_lock()
        self.parts.mkdir(exist_ok=True)
        self._use(self._read_journal())
        for leftover in [*self.folder.glob(".*.tmp"), *self.parts.glob(".*.tmp")]:
            leftover.unlink()

    def _use(self, journal: Journal) -> None:
        self.sources, self.shards, self.next_clip = journal.sources, journal.shards, journal.next_clip
        self.num_uploaded = journal.num_uploaded

    def _take_lock(self) -> int:
        path = self.folder / "lock"
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # a command that just ended removed the folder
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise ClipfoldError(
                    "another command is converting into this folder at this moment",
                    fix="wait until it has ended, or stop it; then this command goes on where it was",
                    file=str(self.folder.parent),
                ) from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            os.close(descriptor)  # removed between our opening and locking it

    # ---- the plan ----

    @property
    def plan(self) -> dict[str, Any] | None:
        """The options with which the conversion was begun; ``None`` before :meth:`set_plan`."""
        try:
            plan: dict[str, Any] = read_json(self.folder / "plan.json")
        except FileNotFoundError:
            return None
        return plan

    def set_plan(self, plan: dict[str, Any]) -> None:
        """Begin: from now on only a conversion with these options may go on here."""
        write_json(self.folder / "plan.json", plan)

    def note_run(self) -> None:
        """Say for :mod:`clipfold.shards.status` since when this command runs, and what it found done."""
        run = {"start": time.time(), "num_done": len(self.sources), "pid": os.getpid(), "host": socket.gethostname()}
        write_json(self.folder / "run.json", run)

    # ---- the journal ----

    def add_source(self, number: int, record: dict[str, Any]) -> None:
        """Note what became of a source. Survives the end of the process, not necessarily of the machine."""
        self.sources[number] = record
        self._append({"source": number, "record": record})

    def forget_failures(self) -> int:
        """Take skipped sources as not yet gone through; how many there were."""
        failed = [number for number, record in self.sources.items() if "reason" in record]
        for number in failed:
            del self.sources[number]
            self._append({"source": number, "record": None})
        return len(failed)

    def add_shard(self, split: str, row: ShardRow, next_clip: tuple[int, int]) -> None:
        """Note a finished shard, for good."""
        self.shards.setdefault(split, []).append(row)
        self.next_clip[split] = next_clip
        self._append({"split": split, "shard": row.to_json(), "next": list(next_clip)}, sync=True)

    def add_upload(self, split: str, num: int) -> None:
        """Note that so many shards of a split are behind the URL, for good."""
        self.num_uploaded[split] = num
        self._append({"uploaded": split, "num": num}, sync=True)

    def _append(self, value: dict[str, Any], *, sync: bool = False) -> None:
        path = self.folder / "journal.jsonl"
        with open(path, "ab") as file:
            file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
            if sync:
                file.flush()
                os.fsync(file.fileno())

    def _read_journal(self) -> Journal:
        path = self.folder / "journal.jsonl"
        if not path.exists():
            return Journal()
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # killed in the middle of a line, which then never counted
            os.truncate(path, whole)
        return Journal.parse(data)

    # ---- the parts ----

    def part_path(self, number: int) -> Path:
        """Where the part of a source is."""
        return self.parts / f"{number:08d}.part"

    def part_numbers(self) -> set[int]:
        """The sources whose part is there."""
        return {int(path.stem) for path in self.parts.glob("*.part")}

    def remove_part(self, number: int) -> None:
        """Delete a part that no unfinished shard needs."""
        self.part_path(number).unlink(missing_ok=True)

    # ---- the end ----

    def clear(self) -> None:
        """Delete everything but the lock, and forget it."""
        (self.folder / "plan.json").unlink(missing_ok=True)  # first: the rest means nothing without it
        for path in self.folder.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.parts.mkdir()
        self._use(Journal())

    def remove(self) -> None:
        """Delete everything: the conversion has ended well."""
        self.clear()
        self.parts.rmdir()
        (self.folder / "lock").unlink()
        with suppress(OSError):  # another command just made its lock in here
            self.folder.rmdir()
        sync_folder(self.folder.parent)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
