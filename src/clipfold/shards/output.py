"""The folder that a corpus is written into: what may be there, and what to say when its disk is full."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipfold.errors import ClipfoldError
from clipfold.shards.manifest import MANIFEST_NAME
from clipfold.shards.staging import STAGING_NAME

__all__ = ["check_out", "plain_disk_errors"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def check_out(out: Path) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ClipfoldError: It is a file, or holds neither a corpus nor an unfinished one.
    """
    if out.is_dir():
        entries = sorted(path.name for path in out.iterdir())
        if not entries or MANIFEST_NAME in entries or STAGING_NAME in entries:
            return
        shown = ", ".join(entries[:5]) + (", ..." if len(entries) > 5 else "")
        what = f"the output folder holds something else: {shown}; expected a new or empty folder"
    elif out.exists():
        what = "the output folder is a file"
    else:
        return
    raise ClipfoldError(what, fix="name another output folder", file=str(out))


@contextmanager
def plain_disk_errors(out: Path) -> Iterator[None]:
    """A full disk is an error with a cure.

    Raises:
        ClipfoldError: In place of an ``OSError`` that says that no space is left.
    """
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
