"""One flat dataclass for a run: every field is a flag of ``clipfold train``, and ``RUN/config.json`` holds them all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from clipfold.files import Location, read_json

__all__ = ["TrainConfig"]

Precision = Literal["auto", "fp32", "bf16"]
OnError = Literal["raise", "substitute"]

# Fields that a resumed run may change: they say where and how fast, not what is computed.
FREE_FIELDS = frozenset(
    (
        *(
            "data",
            "out",
            "resume",
            "max_steps",
            "device",
            "num_threads",
            "cpu_threads",
            "batch_size",
            "accumulate",
            "global_batch_size",
        ),
        *("log_every", "checkpoint_every", "eval_every", "eval_split", "show_progress"),
        *("on_error", "max_failures", "verify_checksums"),
    )
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what, and how.

    Raises:
        ValueError: A value out of range.
    """

    data: str
    """Corpus folder or URL."""

    out: str
    """Folder of the run: config, metrics, checkpoints, evaluations."""

    train_split: str = "train"
    """Split to train on."""

    eval_split: str = "auto"
    """Split to evaluate on during training: auto is val where there is one; none evaluates nothing."""

    reducer: str = "temporal_conv"
    """What removes the time axis: a name, or my_package.module:MyReducer."""

    hidden: int | None = None
    """Hidden channels of the reducer; its own default if left out."""

    reducer_options: tuple[str, ...] = ()
    """More options of the reducer, as name=value."""

    backbone: str = "resnet18"
    """Image network: a classification model of torchvision, or my_package.module:make."""

    augment: str = "light"
    """Recipe of augmentations (none, light), or my_package.module:make_recipe."""

    fold: bool = True
    """Fold what is linear into the reducer's weights; the same numbers up to rounding, faster."""

    epochs: int = 20
    """Times that every clip is seen."""

    batch_size: int = 32
    """Clips of one forward pass."""

    accumulate: int = 1
    """Forward passes of one step: the global batch is batch_size * accumulate."""

    global_batch_size: int | None = None
    """Clips of one step; sets accumulate (or a smaller batch_size) so that it comes out."""

    learning_rate: float = 2e-3
    """Peak learning rate of AdamW; cosine from there to zero."""

    warmup: float = 0.1
    """Share of the run in which the learning rate rises."""

    weight_decay: float = 0.05
    """Of weights; norms and biases have none."""

    label_smoothing: float = 0.1
    """In [0, 1)."""

    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""

    seed: int = 0
    """Decides the initial weights, the order of reading and every augmentation."""

    precision: Precision = "auto"
    """Of the backbone: auto is bf16 on CUDA and fp32 on CPU."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:1; auto is CUDA where there is one."""

    num_threads: int | None = None
    """Threads that read and decode; one per core if left out."""

    cpu_threads: int | None = None
    """Threads that compute, on CPU. If left out, one and all are timed, and the faster is kept and recorded."""

    eval_every: int = 1
    """Evaluate after every so many epochs, and after the last."""

    log_every: int = 20
    """Steps between two lines of metrics.jsonl."""

    checkpoint_every: int | None = None
    """Steps between two checkpoints, beside those at the end of every epoch."""

    max_steps: int | None = None
    """Stop after so many steps, with a checkpoint; --resume auto goes on."""

    resume: str = "never"
    """auto goes on from RUN's checkpoint where there is one, never refuses a used RUN, or the path of a checkpoint."""

    on_error: OnError = "raise"
    """What to do about a sample that cannot be read: stop, or take another in its place and write that down."""

    max_failures: int | None = None
    """Stop after so many unreadable samples."""

    verify_checksums: bool = True
    """Compare every sample with its checksum on every read."""

    show_progress: bool = True
    """Show progress on the standard error."""

    def __post_init__(self) -> None:
        for name in ("data", "out", "resume"):  # a Path is welcome
            object.__setattr__(self, name, str(getattr(self, name)))
        if isinstance(self.reducer_options, str):
            raise TypeError(f"reducer_options: {self.reducer_options!r}, expected several texts such as ('n=50',)")
        self._check_types()
        if not isinstance(self.reducer_options, tuple):  # a JSON list
            object.__setattr__(self, "reducer_options", tuple(self.reducer_options))
        for name in ("epochs", "batch_size", "accumulate", "eval_every", "log_every"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("hidden", "global_batch_size", "num_threads", "cpu_threads", "checkpoint_every", "max_steps"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "at least 1, or left out")
        self._check("learning_rate", 0 < self.learning_rate < math.inf, "a finite number above 0")
        self._check("weight_decay", 0 <= self.weight_decay < math.inf, "a finite number of at least 0")
        self._check("grad_clip", 0 <= self.grad_clip < math.inf, "a finite number of at least 0")
        for name in ("warmup", "label_smoothing"):
            self._check(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._check("seed", 0 <= self.seed < 1 << 64, "in [0, 2**64)")
        self._check("max_failures", self.max_failures is None or self.max_failures >= 0, "at least 0, or left out")
        self._check("precision", self.precision in get_args(Precision), f"one of {', '.join(get_args(Precision))}")
        self._check("on_error", self.on_error in get_args(OnError), f"one of {', '.join(get_args(OnError))}")
        self.options_of_reducer()
        if self.global_batch_size is not None:
            self._share_global_batch(self.global_batch_size)

    def _check_types(self) -> None:
        kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
        for field in fields(self):
            kind, _, none = str(field.type).partition(" | ")
            value = getattr(self, field.name)
            if kind not in kinds or (none and value is None):
                continue
            if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "bool"):
                found = f"{value!r} ({type(value).__name__})"
                raise TypeError(f"{field.name}: {found}, expected {kind} (--{field.name.replace('_', '-')})")

    def _share_global_batch(self, size: int) -> None:
        batch_size = min(self.batch_size, size)
        below, above = size // batch_size * batch_size, -(-size // batch_size) * batch_size
        self._check(
            "global_batch_size",
            size % batch_size == 0,
            f"a multiple of batch_size {batch_size}, such as {below} or {above}",
        )
        accumulate = size // batch_size
        self._check("accumulate", self.accumulate in (1, accumulate), f"{accumulate}, for global_batch_size {size}")
        object.__setattr__(self, "batch_size", batch_size)
        object.__setattr__(self, "accumulate", accumulate)

    def _check(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            raise ValueError(f"{name}: {getattr(self, name)!r}, expected {expected} (--{name.replace('_', '-')})")

    def options_of_reducer(self) -> dict[str, Any]:
        """The reducer's keyword arguments: ``hidden`` where given, and ``reducer_options`` read as JSON values.

        Raises:
            ValueError: An option that is not ``name=value``.
        """
        options: dict[str, Any] = {} if self.hidden is None else {"hidden": self.hidden}
        for text in self.reducer_options:
            name, equals, value = text.partition("=")
            if not equals or not name.isidentifier():
                raise ValueError(f"option of the reducer: {text!r}, expected name=value (--reducer-options)")
            try:
                options[name] = json.loads(value)
            except ValueError:
                options[name] = value
        return options

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return {**asdict(self), "reducer_options": list(self.reducer_options)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainConfig:
        """The configuration that :meth:`to_json` wrote; fields that are missing keep their defaults.

        Raises:
            ValueError: An unknown field, a missing ``data`` or ``out``, or a value out of range.
        """
        unknown = sorted(set(value) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"fields of a training configuration: unknown {', '.join(unknown)}")
        missing = sorted({"data", "out"} - set(value))
        if missing:
            raise ValueError(f"fields of a training configuration: missing {', '.join(missing)}")
        return cls(**value)

    @classmethod
    def load(cls, path: Location) -> TrainConfig:
        """Read a ``config.json``.

        Raises:
            ValueError: It is not one.
            OSError: It cannot be read.
        """
        try:
            value = read_json(path)
        except ValueError as error:
            raise ValueError(f"training configuration {path}: {error}, expected JSON") from error
        if not isinstance(value, dict):
            raise ValueError(f"training configuration {path}: {type(value).__name__}, expected an object")
        return cls.from_json(value)

    def differences(self, other: TrainConfig) -> list[str]:
        """What would make another run of it than ``other``: one text per field, empty where nothing does."""
        return [
            f"{field.name} {getattr(self, field.name)!r}, expected {getattr(other, field.name)!r}"
            for field in fields(self)
            if field.name not in FREE_FIELDS and getattr(self, field.name) != getattr(other, field.name)
        ]
