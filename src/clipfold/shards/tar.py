"""Plain tars, read one header after the other: nothing is ever extracted, no link is followed, no size is believed.

A shard is a POSIX (ustar) tar of regular files. A header block of 512 bytes stands before each member's data, which is
padded with zeros to a multiple of 512; two blocks of zeros end the archive, padded to a multiple of 10,240.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clipfold.errors import ShardError

__all__ = ["BLOCK_BYTES", "TarMember", "find_member", "iter_members", "padded", "tar_size"]

BLOCK_BYTES = 512
_RECORD_BYTES = tarfile.RECORDSIZE
_SAFE_NAME = re.compile(r"[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)+")
_FIX = "this is not a shard that clipfold wrote, or it is damaged; convert again or copy it again"


@dataclass(frozen=True)
class TarMember:
    """One regular file of a tar: its name, where its data starts, and how many bytes it has."""

    name: str
    offset: int
    size: int


def padded(size: int) -> int:
    """``size`` rounded up to whole blocks."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def tar_size(end: int) -> int:
    """Size of a tar whose last member's data, with padding, ends at ``end``."""
    return -(-(end + 2 * BLOCK_BYTES) // _RECORD_BYTES) * _RECORD_BYTES


def iter_members(read: Callable[[int], bytes], num_bytes: int) -> Iterator[tuple[TarMember, Callable[[int], bytes]]]:
    """Walk through a tar front to back with flat memory.

    Args:
        read: Gives the next bytes of the tar, as many as asked except at its end.
        num_bytes: Size of the tar: what no member may reach beyond.

    Yields:
        Each member with a function that reads its data, piece by piece; what is left unread is skipped.

    Raises:
        ShardError: A header that is damaged, a member that is no regular file (link, folder, device, sparse file), a
            name with a path in it (``../``, an absolute path), a size beyond the tar's end, padding that is not zero,
            or an archive without its end.
    """
    position = 0
    while True:
        header = read(BLOCK_BYTES)
        if len(header) < BLOCK_BYTES:
            raise ShardError("tar ends without an end-of-archive mark", fix=_FIX, offset=position)
        position += BLOCK_BYTES
        if header == bytes(BLOCK_BYTES):
            _check_end(read, position)
            return
        member = _parse_header(header, position, num_bytes)
        data = _Data(read, member.size)
        yield member, data.read
        while data.left:
            data.read(1 << 20)
        padding = read(padded(member.size) - member.size)
        position += padded(member.size)
        if padding != bytes(padded(member.size) - member.size):
            raise ShardError(f"tar has bytes between its members, after {member.name!r}", fix=_FIX, offset=position)


class _Data:
    """The data of one member; never reads beyond it."""

    def __init__(self, read: Callable[[int], bytes], size: int) -> None:
        self.left = size
        self._read = read

    def read(self, size: int) -> bytes:
        wanted = min(size, self.left)
        data = self._read(wanted)
        if len(data) < wanted:
            raise ShardError("tar ends in the middle of a member", fix=_FIX)
        self.left -= wanted
        return data


def find_member(piece: bytes, name: str) -> bytes:
    """The data of one member in a piece of a tar that starts at a header.

    Raises:
        ShardError: It is not in there, or a header before it is damaged.
    """
    position = 0
    while position + BLOCK_BYTES <= len(piece):
        header = piece[position : position + BLOCK_BYTES]
        if header == bytes(BLOCK_BYTES):
            break
        member = _parse_header(header, position + BLOCK_BYTES, len(piece))
        if member.name == name:
            return piece[member.offset : member.offset + member.size]
        position += BLOCK_BYTES + padded(member.size)
    raise ShardError(f"tar member {name!r} is not where it should be", fix=_FIX)


def _parse_header(header: bytes, position: int, num_bytes: int) -> TarMember:
    offset = position - BLOCK_BYTES
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise ShardError(f"tar header is damaged: {error}", fix=_FIX, offset=offset) from error
    if not _SAFE_NAME.fullmatch(found.name):
        raise ShardError(f"tar member has the unsafe name {found.name!r}", fix=_FIX, offset=offset)
    if found.type != tarfile.REGTYPE:
        raise ShardError(
            f"tar member {found.name!r} is not a regular file (type {found.type!r})", fix=_FIX, offset=offset
        )
    if not 0 <= found.size <= num_bytes - position:
        raise ShardError(
            f"tar member {found.name!r} declares {found.size:,} bytes, but {max(num_bytes - position, 0):,} are left",
            fix=_FIX,
            offset=offset,
        )
    return TarMember(found.name, position, found.size)


def _check_end(read: Callable[[int], bytes], position: int) -> None:
    """All that follows the first block of zeros is zeros, up to a whole record."""
    expected = tar_size(position - BLOCK_BYTES) - position
    rest = read(expected + 1)
    if len(rest) != expected or rest.count(0) != expected:
        raise ShardError("tar does not end where its end-of-archive mark says", fix=_FIX, offset=position)
