from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from clipfold.errors import ShardError
from clipfold.shards.tar import TarMember, iter_members, tar_size


def make_tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def walk(data: bytes) -> dict[TarMember, bytes]:
    return {member: read(member.size) for member, read in iter_members(io.BytesIO(data).read, len(data))}


def test_members_and_their_data() -> None:
    data = make_tar((entry("a.x"), b"1" * 700), (entry("a.y"), b""), (entry("b.x"), b"3" * 512))
    expected = {
        TarMember("a.x", 512, 700): b"1" * 700,
        TarMember("a.y", 2048, 0): b"",
        TarMember("b.x", 2560, 512): b"3" * 512,
    }
    assert walk(data) == expected
    assert [member for member, _ in iter_members(io.BytesIO(data).read, len(data))] == list(expected), (
        "data left unread"
    )
    assert len(data) == tar_size(3072)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (entry("../../etc/passwd"), "unsafe name"),
        (entry("/etc/passwd.npy"), "unsafe name"),
        (entry("a/b.npy"), "unsafe name"),
        (entry("a b.npy"), "unsafe name"),
        (entry("a..npy"), "unsafe name"),
        (entry("\x1b[31m.npy"), "unsafe name"),
        (entry("a.npy", tarfile.SYMTYPE, "/etc/passwd"), "not a regular file"),
        (entry("a.npy", tarfile.LNKTYPE, "b.npy"), "not a regular file"),
        (entry("a.npy", tarfile.DIRTYPE), "unsafe name|not a regular file"),
        (entry("a.npy", tarfile.CHRTYPE), "not a regular file"),
        (entry("a.npy", tarfile.FIFOTYPE), "not a regular file"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else value,
)
def test_hostile_members_are_refused(member: tarfile.TarInfo, message: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=message):
        walk(make_tar((member, b"")))


def test_long_names_and_extended_headers_are_refused() -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with pytest.raises(ShardError, match=r"unsafe name|not a regular file"):
            walk(make_tar((entry("a" * 300 + ".npy"), b"x"), form=form))


def test_a_giant_declared_size_is_not_believed() -> None:
    for size in (10**6, 8**11 - 1, 2**62, -512):
        member = entry("a.npy")
        member.size = size
        data = member.tobuf(tarfile.GNU_FORMAT) + bytes(10_240 - 512)
        with pytest.raises(ShardError, match=r"declares|damaged"):
            walk(data)


def test_cut_and_changed_archives_are_refused() -> None:
    data = make_tar((entry("a.x"), b"1" * 700), (entry("b.x"), b"2" * 700))
    for length in (0, 100, 512, 600, 1212, 1500, 4096, len(data) - 512, len(data) - 1):
        with pytest.raises(ShardError):
            walk(data[:length])
    with pytest.raises(ShardError, match="end-of-archive"):
        walk(data + bytes(512))
    regions = {
        "header": 20,
        "header's sum": 150,
        "unused header": 505,
        "padding": 1300,
        "second header": 1600,
        "end": 4200,
    }
    for at in regions.values():
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(ShardError):
            walk(bytes(damaged))
