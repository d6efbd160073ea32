"""The folder of a run: who may use it, and what lies in it.

::

    RUN/config.json        every field of the configuration
    RUN/metrics.jsonl      one line every few steps, one an evaluation
    RUN/checkpoint.pt      where training stands: all that is needed to go on
    RUN/best.pt            the same at the best evaluation so far
    RUN/summary.json       written at the end
    RUN/evaluation-*.json  one a split that was evaluated
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from types import TracebackType

from clipfold.errors import ResumeError, TrainingError

__all__ = ["CONFIG_NAME", "METRICS_NAME", "SUMMARY_NAME", "RunFolder"]

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
SUMMARY_NAME = "summary.json"
_LOCK_NAME = ".lock"
_CHECKPOINT_NAME = "checkpoint.pt"
_OURS = re.compile(
    r"config\.json|metrics\.jsonl|summary\.json|evaluation-.+\.json|faults\.\d+\.jsonl|(checkpoint|best)\.pt|report\.html"
)
_UNFINISHED = re.compile(rf"\.({_OURS.pattern})\.\d+-[0-9a-f]+\.tmp")  # files.writing_whole was killed


class RunFolder:
    """A run's folder, held by this process while the block runs.

    Args:
        out: The folder; made where it is missing.
        resume: ``"never"`` takes only a folder without a checkpoint; anything else also one that holds a run.

    Raises:
        ResumeError: It holds a run, and ``resume`` is ``"never"``.
        TrainingError: It holds something else, or another process trains in it.
        OSError: It cannot be made.
    """

    def __init__(self, out: str | Path, *, resume: str) -> None:
        self.path = Path(out)
        self._is_new = not self.path.exists()
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError("a file, expected a folder for the run", fix="choose another --out", folder=str(out))
        if not self._is_new:
            self._check_is_ours()  # before anything is put into it
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take_lock()
            self._check_is_ours()
            self._check_resume(resume)
            for name in os.listdir(self.path):
                if _UNFINISHED.fullmatch(name):
                    (self.path / name).unlink()
        except BaseException:
            self.close()
            raise

    def _check_is_ours(self) -> None:
        names = set(os.listdir(self.path)) - {_LOCK_NAME}
        others = [name for name in names if not _OURS.fullmatch(name) and not _UNFINISHED.fullmatch(name)]
        if others and CONFIG_NAME not in names:
            raise TrainingError(
                f"the folder holds something else than a run: {', '.join(sorted(others)[:3])}",
                fix="choose another --out",
                folder=str(self.path),
            )

    def _check_resume(self, resume: str) -> None:
        names = set(os.listdir(self.path)) & {_CHECKPOINT_NAME}  # a run without one has nothing to lose
        fix = "--resume auto goes on with it; another --out starts a new one"
        if names and resume == "never":
            raise ResumeError("the folder holds a run already", fix=fix, folder=str(self.path))
        if (
            names
            and resume != "auto"
            and self.path.resolve()
            not in (
                Path(resume).resolve(),
                Path(resume).resolve().parent,
            )
        ):
            raise ResumeError(
                "the folder holds a run already, and --resume names a checkpoint of another",
                fix=fix,
                folder=str(self.path),
                checkpoint=resume,
            )

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(
                "another process is training in this folder",
                fix="wait for it, or choose another --out",
                folder=str(self.path),
            ) from error

    def close(self) -> None:
        """Let others use the folder; nothing is left of one that was made here and stayed empty."""
        if self._lock >= 0:
            if self._is_new and os.listdir(self.path) == [_LOCK_NAME]:
                (self.path / _LOCK_NAME).unlink()
                self.path.rmdir()
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
