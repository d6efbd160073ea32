"""One source to its clips, in one pass front to back, with flat memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError, DecodeError, SourceError
from clipfold.ingest.decoders import Decoder, Fallbacks, open_source
from clipfold.ingest.decoders.arrays import Axes
from clipfold.ingest.listing import Source
from clipfold.ingest.resize import Mode, Resize
from clipfold.ingest.sampling import ClipPlan, Sampling
from clipfold.ingest.timeline import chosen_frames, nominal_times

__all__ = ["ClipReader", "ReadClip", "ReadOptions", "count_clips", "read_clips"]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Everything about reading that changes a clip's bytes.

    Args:
        spec: What every clip looks like.
        sampling: Which frames it shows.
        resize: How frames come to the spec's size.
        decoder: ``"auto"``, or a decoder's name.
        keep_partial: Whether a source that breaks in the middle keeps the clips before the damage.
        fps: Frames a second that sampling sees: the frame on the screen at every ``1 / fps``, by true timestamps, see
            :mod:`clipfold.ingest.timeline`; ``None`` is every frame, once. Videos without usable timestamps count as
            evenly spaced at their nominal rate; what has neither (image folders, arrays) is a SourceError.
        axes: Order of the dimensions of arrays, see :mod:`clipfold.ingest.decoders.arrays`.

    Raises:
        ValueError: As for :class:`clipfold.ingest.resize.Resize`; ``fps`` is not above 0; unknown ``axes``.
    """

    spec: ClipSpec = field(default_factory=ClipSpec)
    sampling: Sampling = field(default_factory=Sampling)
    resize: Mode = "stretch"
    decoder: str = "auto"
    keep_partial: bool = False
    fps: float | None = None
    axes: Axes = "auto"

    def __post_init__(self) -> None:
        Resize(mode=self.resize, spec=self.spec)
        if self.fps is not None and not 0 < self.fps < inf:
            raise ValueError(f"fps: {self.fps}, expected more than 0 frames a second")
        if self.axes not in get_args(Axes):
            raise ValueError(f"axes: {self.axes!r}, expected one of {', '.join(get_args(Axes))}")

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return {
            "spec": self.spec.to_json(),
            "sampling": self.sampling.to_json(),
            "resize": self.resize,
            "decoder": self.decoder,
            "keep_partial": self.keep_partial,
            "fps": self.fps,
            "axes": self.axes,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ReadOptions:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: A missing or unknown name, or a value that is not allowed.
        """
        names = {"spec", "sampling", "resize", "decoder", "keep_partial", "fps", "axes"}
        value = {"fps": None, "axes": "auto", **value}  # older than these two
        if set(value) != names:
            raise ValueError(f"fields of reading options: {sorted(value)}, expected {sorted(names)}")
        return cls(
            spec=ClipSpec.from_json(value["spec"]),
            sampling=Sampling.from_json(value["sampling"]),
            resize=value["resize"],
            decoder=value["decoder"],
            keep_partial=value["keep_partial"],
            fps=value["fps"],
            axes=value["axes"],
        )


@dataclass(frozen=True, kw_only=True)
class ReadClip:
    """One clip of a source.

    Args:
        number: Its place among the source's clips.
        pixels_SHWC: (S, H, W, C) of the spec's dtype, contiguous, owned by the clip.
        indices: int64 (S,): the source's frame that each frame shows; -1 for one of zeros.
        num_valid_frames: Leading frames that are in the source; the rest is padding.
        fps: Frames per second that sampling saw: of the source, or as asked for; 0.0 where unknown.
        height, width: Native size of the source, upright.
        decoder: Who really decoded it, and its version.
    """

    number: int
    pixels_SHWC: NDArray[Any]
    indices: NDArray[np.int64]
    num_valid_frames: int
    fps: float
    height: int
    width: int
    decoder: tuple[str, str]

    @property
    def pixels_SCHW(self) -> NDArray[Any]:
        """The same pixels as a view (S, C, H, W)."""
        return self.pixels_SHWC.transpose(0, 3, 1, 2)


class ClipReader(Iterator[ReadClip]):
    """The clips of one source, front to back; also a context manager.

    Frames that several clips share are decoded and kept once; no more than the frames of the clips under way are in
    memory, however long the source is. Behind the last clip the rest of the source is decoded too: a source that
    delivers another number of frames than it announces has failed, wherever that shows. Of a source with start and
    stop only that part is decoded, from the key frame before it.

    With ``decoder="auto"`` a video on which PyAV fails is tried with each other decoder that is installed and known to
    deliver the same frames; the clips that were not finished come from the first that succeeds.

    Attributes:
        num_frames: Frames that clips are sampled from.
        num_clips: Clips that it gives if all goes well.
        decoder: Name and version of who really decodes.
        broken_by: With ``keep_partial``: the error that ended the reading early, behind at least one full clip;
            ``None`` while nothing is wrong.

    Raises:
        DecodeError: The source cannot be opened; while iterating: it breaks, or delivers another number of frames.
        SourceError: It has gone, is shorter than a clip where ``short`` is "error", its frames differ in size, or it
            has no times where they are needed.
        PluginError: No decoder has this name.
    """

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self.source, self.options = source, options
        self.broken_by: ClipfoldError | None = None
        self._decoder = open_source(source, options.decoder, axes=options.axes)
        self.decoder = self._decoder.name, self._decoder.version
        try:
            self._chosen = _chosen(self._decoder, source, options)
            self.num_frames = len(self._decoder) if self._chosen is None else len(self._chosen)
            plan = _plan(source, options, self.num_frames)
        except BaseException:
            self._decoder.close()
            raise
        self.num_clips = len(plan)
        self._clips = self._read(plan)

    def __next__(self) -> ReadClip:
        return next(self._clips)

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder; safe to call twice."""
        self._clips.close()
        self._decoder.close()

    def _read(self, plan: ClipPlan) -> Generator[ReadClip]:
        keep = self.options.keep_partial
        num_done = 0
        try:
            if self._decoder.defect is not None and not keep:
                raise self._decoder.defect
            others = None
            while True:
                try:
                    for clip in self._assemble(plan, num_done):
                        yield clip
                        num_done += 1
                    break
                except DecodeError as error:
                    if error.__cause__ is None:  # not the library gave up: the file is not what it announces
                        raise
                    if others is None:
                        others = Fallbacks(self.source, self.options.decoder, error)
                    self._turn_to(others.next_after(error))
            if self._decoder.defect is not None:
                raise self._decoder.defect
        except (DecodeError, SourceError) as error:
            error.where.setdefault("file", self.source.path)
            if not keep or not num_done:
                raise
            self.broken_by = error

    def _turn_to(self, decoder: Decoder) -> None:
        self._decoder.close()
        self._decoder = decoder
        self.decoder = decoder.name, decoder.version

    def _indices(self, plan: ClipPlan, number: int) -> NDArray[np.int64]:
        """Frames of the source that a clip shows; -1 for one of zeros."""
        indices = plan.clip(number)
        return indices if self._chosen is None else np.where(indices < 0, indices, self._chosen[indices])

    def _assemble(self, plan: ClipPlan, first: int) -> Generator[ReadClip]:
        """The clips from ``first`` on."""
        resize = Resize(mode=self.options.resize, spec=self.options.spec)
        wanted = self._wanted(plan, first)
        num_valid = plan.num_valid
        is_part = self.source.start_seconds is not None or self.source.stop_seconds is not None
        read = partial(self._decoder.read, whole=False) if is_part else self._decoder.read
        with closing(read(wanted, resize)) as frames:
            ahead = zip(wanted, frames, strict=True)
            kept: dict[int, NDArray[Any]] = {}
            newest = -1
            for number in range(first, len(plan)):
                indices = self._indices(plan, number)
                for index in [index for index in kept if index < indices[0]]:
                    del kept[index]
                last = int(indices.max())
                while newest < last:
                    newest, pixels = next(ahead)
                    kept[newest] = pixels
                yield self._clip(number, indices, int(num_valid[number]), kept)
            kept.clear()
            for _ in ahead:  # nothing is wanted any more: the decoder reads on to the end and counts
                raise AssertionError("a frame that no clip wants")

    def _wanted(self, plan: ClipPlan, first: int) -> list[int]:
        """The frames that any clip from ``first`` on shows, each once, rising."""
        is_wanted = np.zeros(len(self._decoder) + 1, dtype=bool)
        for number in range(first, len(plan)):
            is_wanted[self._indices(plan, number)] = True
        is_wanted[-1] = False  # where -1, a frame of zeros, has left its mark
        return [int(index) for index in np.flatnonzero(is_wanted)]

    def _clip(
        self, number: int, indices: NDArray[np.int64], num_valid: int, frames: Mapping[int, NDArray[Any]]
    ) -> ReadClip:
        spec = self.options.spec
        pixels_SHWC = np.zeros((spec.num_frames, spec.height, spec.width, spec.channels), dtype=spec.dtype)
        for place, index in enumerate(indices.tolist()):
            if index >= 0:
                pixels_SHWC[place] = frames[index]
        return ReadClip(
            number=number,
            pixels_SHWC=pixels_SHWC,
            indices=indices,
            num_valid_frames=num_valid,
            fps=self.options.fps or self._decoder.fps,
            height=self._decoder.height,
            width=self._decoder.width,
            decoder=self.decoder,
        )


def read_clips(source: Source, options: ReadOptions) -> ClipReader:
    """The clips of one source; see :class:`ClipReader`.

    Example:
        for clip in read_clips(source, ReadOptions()):
            save(clip.pixels_SCHW, clip.indices, clip.num_valid_frames)
    """
    return ClipReader(source, options)


def count_clips(source: Source, options: ReadOptions) -> tuple[int, int]:
    """Frames that clips are sampled from, and clips, of one source, without decoding it.

    Raises:
        DecodeError: It cannot be opened, or is cut short (with ``keep_partial`` what is there counts).
        SourceError: It has gone, is shorter than a clip where ``short`` is "error", or has no times where they are
            needed.
        PluginError: No decoder has this name.
    """
    decoder: Decoder = open_source(source, options.decoder, axes=options.axes)
    try:
        if decoder.defect is not None and not options.keep_partial:
            raise decoder.defect
        chosen = _chosen(decoder, source, options)
        num_frames = len(decoder) if chosen is None else len(chosen)
        return num_frames, len(_plan(source, options, num_frames))
    finally:
        decoder.close()


def _chosen(decoder: Decoder, source: Source, options: ReadOptions) -> NDArray[np.int64] | None:
    """The frames that sampling sees, where they are not simply all."""
    if options.fps is None and source.start_seconds is None and source.stop_seconds is None:
        return None
    times = decoder.times_seconds()
    if times is None and decoder.fps:
        times = nominal_times(len(decoder), decoder.fps)
    if times is None:
        raise SourceError(
            "its frames have no times and it has no frame rate",
            fix="leave out --fps, and start and stop of a table: they are for videos",
            file=source.path,
        )
    try:
        return chosen_frames(
            times, fps=options.fps, start_seconds=source.start_seconds, stop_seconds=source.stop_seconds
        )
    except SourceError as error:
        error.where.setdefault("file", source.path)
        raise


def _plan(source: Source, options: ReadOptions, num_frames: int) -> ClipPlan:
    try:
        return options.sampling.plan(num_frames, options.spec.num_frames)
    except ValueError as error:
        fix = "choose another --short, fewer --num-frames, or leave it out"
        raise SourceError(str(error), fix=fix, file=source.path) from error
