"""One pass over one shard: its tar, member by member, against its index, its row in ``shards.npy`` and its ``.idx``."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipfold.errors import ShardError
from clipfold.files import open_bytes
from clipfold.shards.codecs import empty_slot
from clipfold.shards.index import dali_path, sample_key, shard_name
from clipfold.shards.meta import MAX_META_BYTES, meta_kinds
from clipfold.shards.reader import Corpus
from clipfold.shards.tar import TarMember, iter_members
from clipfold.shards.verify_report import VerifyReport
from clipfold.shards.writer import dali_line

__all__ = ["HashedReader", "ShardCheck", "Yardstick"]

_READ_BYTES = 1 << 20
_MAX_BYTES = {"cls": 20, "json": MAX_META_BYTES}


class Yardstick:
    """What all samples of a corpus share: the form of their small members, and memory to decode into."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._forms: dict[str, tuple[Any, str]] = {}
        self._slots = threading.local()

    def compare(self, shard: ShardCheck) -> None:
        """Hold the form of a shard's samples against the first shard's. Called shard by shard, in order."""
        for what, (form, key) in shard.forms.items():
            first, first_key = self._forms.setdefault(what, (form, key))
            if form != first:
                shard.add(f"{what} unlike in sample {first_key}, expected the same in every sample", key=key)

    def decode(self, data: bytes) -> str | None:
        """What is wrong with the bytes as a clip of the corpus; ``None`` if nothing is."""
        try:
            if not hasattr(self._slots, "slot"):  # one a thread
                self._slots.slot, _ = empty_slot(self._corpus.codec, self._corpus.spec)
            self._corpus.codec.decode_into(memoryview(data), self._slots.slot, self._corpus.spec)
        except ShardError as error:
            return error.what
        except Exception as error:  # a codec that is not ours may raise anything; the other samples are still checked
            return f"cannot be decoded: {type(error).__name__}: {error}"
        return None


class _Row(NamedTuple):
    """One row of the index, as plain numbers, behind its place in the index."""

    number: int
    source: int
    clip: int
    label: int
    num_valid_frames: int
    reserved: int
    offset: int
    size: int
    xxh3: int


@dataclass
class _Sample:
    """The members of one key, as far as they were met."""

    key: str
    row: _Row | None
    places: dict[str, TarMember] = field(default_factory=dict)
    small: dict[str, bytes] = field(default_factory=dict)


class ShardCheck:
    """One shard; :meth:`run` fills ``report``.

    Args:
        corpus: The corpus.
        yardstick: What its shards share.
        split: Name of the split.
        row: The shard's row of ``shards.npy``.
    """

    def __init__(self, corpus: Corpus, yardstick: Yardstick, split: str, row: NDArray[Any]) -> None:
        self.report = VerifyReport(root=corpus.root, num_shards=1)
        self.forms: dict[str, tuple[Any, str]] = {}  # form of the first sample's small members, and its key
        self._corpus, self._yardstick, self._shard = corpus, yardstick, row
        self._split, self._number = split, int(row["number"])
        self._index: NDArray[Any] | None = None
        self._unseen: dict[str, _Row] = {}
        self._next = 0  # row of the index that the next sample of the tar should be
        self._dali: _DaliLines | None = None

    def add(self, what: str, extension: str = ".tar", *, key: str | None = None, offset: int | None = None) -> None:
        """Report a problem of one of the shard's files."""
        file = f"{self._split}/{shard_name(self._split, self._number)}{extension}"
        self.report.add(what, file, key=key, offset=offset)

    def run(self) -> ShardCheck:
        """Check everything, and return itself."""
        try:
            self._index = self._corpus.index(self._split, self._number)
        except ShardError as error:
            self.add(error.what, ".index.npy")
        else:
            rows = (_Row(number, *fields) for number, fields in enumerate(self._index.tolist()))
            self._unseen = {sample_key(row.source, row.clip): row for row in rows}
            self._check_index(self._index)
        try:
            with open_bytes(dali_path(self._corpus.root, self._split, self._number)) as file:
                self._dali = _DaliLines(file, int(self._shard["num_samples"]))
                self._open_tar()
        except OSError as error:
            self.add(_unreadable(error), ".idx")
            self._open_tar()
        return self

    def _open_tar(self) -> None:
        try:
            with open_bytes(self._corpus.tar_location(self._split, self._number)) as file:
                self._check_tar(HashedReader(file))
        except OSError as error:
            self.add(_unreadable(error))

    def _check_index(self, index: NDArray[Any]) -> None:
        """Numbers that can be wrong although no byte of the index is damaged."""
        labels, valid = index["label"], index["num_valid_frames"]
        num_classes, num_frames = len(self._corpus.classes), self._corpus.spec.num_frames
        _, first = np.unique(index[["source", "clip"]], return_index=True)
        wrong = {
            f"has a label outside [-1, {num_classes})": (labels < -1) | (labels >= num_classes),
            f"has a number of valid frames outside [1, {num_frames}]": (valid < 1) | (valid > num_frames),
            "is there twice": ~np.isin(np.arange(len(index)), first),
        }
        for what, rows in wrong.items():
            for row in index[rows]:
                self.add(what, ".index.npy", key=sample_key(int(row["source"]), int(row["clip"])))

    def _check_tar(self, reader: HashedReader) -> None:
        try:
            self._check_members(reader)
        except ShardError as error:
            offset = error.where.get("offset", reader.num_bytes)
            self.add(error.what, key=self._key_at(offset), offset=offset)
            self._check_unreached(reader)
        else:
            for key in self._unseen:
                self.add("is in the index, but not in the tar", key=key)
            if self._dali is not None and (problem := self._dali.end()):
                self.add(problem, ".idx")
        while reader.read(_READ_BYTES):
            pass
        self.report.num_bytes = reader.num_bytes
        if reader.num_bytes != self._shard["num_bytes"]:
            self.add(f"has {reader.num_bytes:,} bytes, expected {int(self._shard['num_bytes']):,}")
        found, expected = reader.sha256.digest(), self._shard["sha256"].tobytes()
        if found != expected:
            self.add(f"has sha256 {found.hex()[:16]}..., expected {expected.hex()[:16]}...")

    def _check_members(self, reader: HashedReader) -> None:
        sample: _Sample | None = None
        for member, read in iter_members(reader.read, int(self._shard["num_bytes"])):
            key, _, extension = member.name.partition(".")
            if sample is None or sample.key != key:
                if sample is not None:
                    self._check_sample(sample)
                sample = _Sample(key, self._unseen.pop(key, None))
            if extension in sample.places:
                self.add(f"has two members .{extension}", key=key, offset=member.offset)
            sample.places[extension] = member
            self._check_member(sample, extension, member, read)
        if sample is not None:
            self._check_sample(sample)

    def _check_member(self, sample: _Sample, extension: str, member: TarMember, read: Callable[[int], bytes]) -> None:
        if extension == self._corpus.codec.extension:
            row = sample.row
            if row is not None and (member.offset, member.size) != (row.offset, row.size):
                self.add(
                    f"has {member.size:,} bytes at offset {member.offset:,}, but its index says {row.size:,} bytes at "
                    f"{row.offset:,}",
                    key=sample.key,
                )
            elif row is not None:
                self._check_data(sample.key, read(member.size), row)
        elif extension not in _MAX_BYTES:
            self.add(f"has a member .{extension}, which no sample has", key=sample.key, offset=member.offset)
        elif member.size > _MAX_BYTES[extension]:
            self.add(
                f"has a .{extension} of {member.size:,} bytes, expected at most {_MAX_BYTES[extension]:,}",
                key=sample.key,
            )
        else:
            sample.small[extension] = read(member.size)

    def _check_data(self, key: str, data: bytes, row: _Row) -> None:
        found = xxhash.xxh3_64_intdigest(data)
        if found != row.xxh3:
            self.add(f"has xxh3 {found:016x}, expected {row.xxh3:016x}", key=key, offset=row.offset)
        elif problem := self._yardstick.decode(data):
            self.add(problem, key=key, offset=row.offset)

    def _check_sample(self, sample: _Sample) -> None:
        """A sample whose members have all been met."""
        self.report.num_samples += 1
        for extension in (self._corpus.codec.extension, "json"):
            if extension not in sample.places:
                self.add(f"has no member .{extension}", key=sample.key)
        if list(sample.places) != sorted(sample.places):
            self.add(f"has its members in the order {', '.join(sample.places)}, expected them sorted", key=sample.key)
        if self._index is not None and sample.row is None:
            self.add("is in the tar, but not in the index", key=sample.key)
        elif sample.row is not None:
            if sample.row.number != self._next:
                self.add(
                    f"is row {sample.row.number} of the index, expected row {self._next}", ".index.npy", key=sample.key
                )
            self._next = sample.row.number + 1
        self._compare_form("has its .cls", "cls" in sample.places, sample.key)
        if "cls" in sample.small and sample.row is not None and sample.small["cls"] != b"%d" % sample.row.label:
            self.add(f"has .cls {sample.small['cls']!r}, but its index says {sample.row.label}", key=sample.key)
        if "json" in sample.small:
            self._check_meta(sample)
        if self._dali is not None and (problem := self._dali.compare(dali_line(sample.places))):
            self.add(problem, ".idx", key=sample.key)

    def _check_meta(self, sample: _Sample) -> None:
        """The ``.json``: names and types like all others, and what it says is what the index says."""
        try:
            meta = json.loads(sample.small["json"])
            self._compare_form("has the fields of its .json", meta_kinds(meta), sample.key)
        except (ValueError, AttributeError, RecursionError) as error:
            self.add(f"has a .json that is not one: {error}", key=sample.key)
            return
        num_frames, classes, row = self._corpus.spec.num_frames, self._corpus.classes, sample.row
        expected: dict[str, Any] = {"count": num_frames}
        if row is not None:
            expected["num_valid_frames"] = row.num_valid_frames
        if row is not None and -1 <= row.label < len(classes):
            expected["label"] = classes[row.label] if row.label >= 0 else ""
        for name, value in expected.items():
            if meta.get(name) != value:
                self.add(f"has {name} {meta.get(name)!r} in its .json, expected {value!r}", key=sample.key)
        indices = meta.get("indices")
        if not isinstance(indices, list) or len(indices) != num_frames:
            self.add(f"has no list of {num_frames} frame indices in its .json", key=sample.key)

    def _compare_form(self, what: str, form: Any, key: str) -> None:
        first, first_key = self.forms.setdefault(what, (form, key))
        if form != first:
            self.add(f"{what} unlike in sample {first_key}, expected the same in every sample", key=key)

    def _key_at(self, offset: int) -> str | None:
        """The sample whose members lie around a byte of the tar."""
        if self._index is None or not len(self._index):
            return None
        ends = self._index["offset"] + self._index["size"]
        row = self._index[min(int(np.searchsorted(ends, offset)), len(self._index) - 1)]
        return sample_key(int(row["source"]), int(row["clip"]))

    def _check_unreached(self, reader: HashedReader) -> None:
        """Where a damaged header ends the walk, the index still says where the other samples are."""
        for key, row in sorted(self._unseen.items(), key=lambda item: item[1].offset):
            if not reader.num_bytes <= row.offset <= row.offset + row.size <= int(self._shard["num_bytes"]):
                self.add("cannot be reached in the damaged tar", key=key, offset=row.offset)
                continue
            while reader.num_bytes < row.offset and reader.read(min(_READ_BYTES, row.offset - reader.num_bytes)):
                pass
            data = reader.read(row.size)
            self.report.num_samples += 1
            if len(data) < row.size:
                self.add(f"is cut off: {len(data):,} bytes, expected {row.size:,}", key=key, offset=row.offset)
            else:
                self._check_data(key, data, row)


class HashedReader:
    """A file that is hashed while it is read, front to back."""

    def __init__(self, file: IO[bytes]) -> None:
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self._file = file

    def read(self, size: int) -> bytes:
        """The next bytes: as many as asked, fewer only at the end."""
        pieces = []
        while size:
            piece = self._file.read(min(size, _READ_BYTES))  # a size that a damaged index gives takes no memory
            if not piece:
                break
            self.sha256.update(piece)
            self.num_bytes += len(piece)
            size -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _DaliLines:
    """The ``.idx`` file, line by line, against what the tar says; the first difference is the only one reported."""

    def __init__(self, file: IO[bytes], num_samples: int) -> None:
        self._file = file
        self._silent = False
        self._first = self.compare(f"v1.2 {num_samples}")

    def compare(self, line: str) -> str | None:
        """What is wrong with the next line; ``None`` if nothing is."""
        expected = line.encode() + b"\n"
        found = self._file.readline(len(expected) + 1)
        if self._silent or found == expected:
            return None
        self._silent = True
        return f"has the line {found[:200]!r}, expected {expected[:200]!r}"

    def end(self) -> str | None:
        """What is wrong with its first line, or behind its last; ``None`` if nothing is."""
        return self._first or (None if self._silent or not self._file.read(1) else "goes on behind its last sample")


def _unreadable(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
