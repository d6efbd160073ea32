"""A labelled corpus whose classes differ only by motion over time: videos and image folders, drawn by code.

Each source shows two or three textured shapes on a textured background, all moving after the class:

======================  ==================================  ===================================
class                   column of a shape at frame t        its radius at frame t
======================  ==================================  ===================================
``drift_left``          ``x - v t``                         ``r``
``drift_right``         ``x + v t``                         ``r``
``expand``              ``x``                               grows from the least to the largest,
                                                            then starts again
``oscillate``           ``x + a sin(2 pi (f t + phase))``   ``r``
======================  ==================================  ===================================

**A single frame says nothing.** Columns wrap round the picture and ``x`` is uniform over it, so a column is uniform
at every frame whatever is added to it; a radius is uniform over the same range, at every frame of an expansion
(uniform phase of a sawtooth) as in the classes where it stands still. Row, shape, texture, colour, background, noise,
picture size, frame rate and length are drawn without looking at the class. So every single frame has exactly the same
distribution in all four classes, and only change over time tells them apart.

Nothing here imports torch: the worker processes that draw start fast.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clipfold.rng import hash_key, words

__all__ = ["CLASSES", "Motion", "make_media", "source_frames"]

Motion = Literal["drift_left", "drift_right", "expand", "oscillate"]
CLASSES: tuple[Motion, ...] = ("drift_left", "drift_right", "expand", "oscillate")

# Scenes are drawn in units of a picture of 32 x 96, whatever the size in pixels.
_ROWS, _COLUMNS = 32.0, 96.0
_SIZES = ((48, 96), (64, 128), (64, 192), (72, 144))  # (height, width) in pixels; even, for H.264 4:2:0
_FRAME_RATES = (24, 25, 30, 50)
_RADII = (4.0, 12.0)
_TEXTURE = 48  # pixels of the square that holds a shape's texture
_NOISE = 6  # largest change of a value from one frame to the next


def make_media(
    root: str | Path,
    *,
    num_sources: int,
    seed: int = 0,
    num_workers: int | None = None,
    on_source: Callable[[], object] = lambda: None,
) -> Path:
    """Draw ``num_sources`` sources into class folders, alternately H.264 mp4 files and folders of numbered JPEGs.

    ``root/drift_left/000.mp4``, ``root/drift_right/001.mp4``, ..., ``root/drift_left/004/frame_1.jpg``, ...

    Args:
        root: Folder to make. It appears whole or not at all.
        num_sources: How many; each class and each kind gets its even share.
        seed: Another seed draws another corpus of the same kind.
        num_workers: Processes that draw; as many as there are cores where ``None``.
        on_source: Called after each source.

    Raises:
        FileExistsError: ``root`` is there already.
        OSError: The disk is full or read-only.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"{root} is there already")
    beside = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        for motion in CLASSES:
            (beside / motion).mkdir(parents=True)
        workers = min(num_workers or len(os.sched_getaffinity(0)), num_sources)
        # spawn: the caller may hold threads and a GPU, which a fork would tear
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(
                _write_source, *zip(*((beside, seed, n) for n in range(num_sources)), strict=True), chunksize=8
            ):
                on_source()
        beside.rename(root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return root


def source_frames(seed: int, number: int) -> NDArray[np.uint8]:
    """The frames of source ``number``: uint8 (T, H, W, 3), with T in [70, 140]. Its class is ``number`` modulo 4."""
    return _Scene.drawn(seed, number).frames()


def _write_source(root: Path, seed: int, number: int) -> None:
    scene = _Scene.drawn(seed, number)
    place = root / scene.motion / f"{number:03d}"
    if number // len(CLASSES) % 2 == 0:
        _write_video(place.with_suffix(".mp4"), scene.frames(), scene.frame_rate)
    else:
        _write_images(place, scene.frames())


def _write_video(path: Path, frames_THWC: NDArray[np.uint8], frame_rate: int) -> None:
    import av

    _, height, width, _ = frames_THWC.shape
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(frame_rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "20"}
        stream.codec_context.thread_count = 1  # the processes beside us have the other cores
        for frame_HWC in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))


def _write_images(folder: Path, frames_THWC: NDArray[np.uint8]) -> None:
    from simplejpeg import encode_jpeg

    folder.mkdir()
    for number, frame_HWC in enumerate(frames_THWC, start=1):  # frame_2 before frame_10: the natural order
        (folder / f"frame_{number}.jpg").write_bytes(encode_jpeg(frame_HWC, quality=92, colorspace="RGB"))


class _Dice:
    """Uniform numbers from a key: one stream of raw words."""

    def __init__(self, *key: int) -> None:
        self._key, self._num = key, 0

    def words(self, num: int) -> NDArray[np.uint64]:
        self._num += 1
        return words(num, *self._key, self._num)

    def uniform(self, low: float, high: float, *shape: int) -> Any:
        unit = (self.words(math.prod(shape)) >> np.uint64(11)) * 2.0**-53
        values = low + (high - low) * unit
        return values.reshape(shape) if shape else float(values[0])

    def choice(self, items: tuple[Any, ...]) -> Any:
        return items[int(self.words(1)[0] >> np.uint64(33)) % len(items)]


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """One moving thing: where it is at each frame, how large, and what it looks like."""

    row: float  # of its middle
    columns_T: NDArray[np.float64]  # of its middle, any number: they wrap
    radii_T: NDArray[np.float64]
    colours_XYC: NDArray[np.uint8]  # texture on the square round the shape
    inside_XY: NDArray[np.bool_]  # where that square is covered


@dataclass(frozen=True, kw_only=True)
class _Scene:
    motion: Motion
    height: int
    width: int
    frame_rate: int
    num_frames: int
    background_HWC: NDArray[np.int16]
    shapes: list[_Shape]
    noise_key: int

    @classmethod
    def drawn(cls, seed: int, number: int) -> _Scene:
        dice = _Dice(seed, number)
        motion = CLASSES[number % len(CLASSES)]
        height, width = dice.choice(_SIZES)
        num_frames = int(dice.uniform(70, 141))
        # The background keeps to one half of the brightness and the shapes to the other.
        bright = dice.choice((True, False))
        background_HWC = _clouds(dice, height, width, *((20, 110) if bright else (145, 235)))
        num_shapes = dice.choice((2, 3))
        shapes = [_drawn_shape(dice, motion, num_frames, bright) for _ in range(num_shapes)]
        return cls(
            motion=motion,
            height=height,
            width=width,
            frame_rate=dice.choice(_FRAME_RATES),
            num_frames=num_frames,
            background_HWC=background_HWC,
            shapes=shapes,
            noise_key=hash_key(seed, number),
        )

    def frames(self) -> NDArray[np.uint8]:
        bits = words(self.height * self.width * 3 // 8 + 512, self.noise_key).view(np.uint8)
        noise = (bits % (2 * _NOISE + 1)).astype(np.int16) - _NOISE
        starts = words(self.num_frames, self.noise_key, 1) % np.uint64(4096)
        frames_THWC = np.empty((self.num_frames, self.height, self.width, 3), np.uint8)
        for t in range(self.num_frames):
            frame_HWC = self.background_HWC.copy()
            for shape in self.shapes:
                self._paint(frame_HWC, shape, t)
            start = int(starts[t])
            frame_HWC += noise[start : start + frame_HWC.size].reshape(frame_HWC.shape)
            np.clip(frame_HWC, 0, 255, out=frame_HWC)
            frames_THWC[t] = frame_HWC
        return frames_THWC

    def _paint(self, frame_HWC: NDArray[np.int16], shape: _Shape, t: int) -> None:
        rows, texture_rows = _span(shape.row, shape.radii_T[t], self.height, self.height / _ROWS)
        columns, texture_columns = _span(shape.columns_T[t], shape.radii_T[t], self.width, self.width / _COLUMNS)
        box, source = np.ix_(rows, columns), np.ix_(texture_rows, texture_columns)
        inside = shape.inside_XY[source]
        frame_HWC[box] = np.where(inside[..., None], shape.colours_XYC[source], frame_HWC[box])


def _span(middle: float, radius: float, size: int, scale: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels along one axis that a shape covers (wrapped), and for each the place in its texture."""
    start, stop = (middle - radius) * scale, (middle + radius) * scale
    pixels = np.arange(math.ceil(start), math.ceil(stop))
    places = ((pixels - start) * (_TEXTURE / (stop - start))).astype(np.int64)
    return pixels % size, np.minimum(places, _TEXTURE - 1)


def _drawn_shape(dice: _Dice, motion: Motion, num_frames: int, bright: bool) -> _Shape:
    t = np.arange(num_frames)
    column, radius, phase = dice.uniform(0, _COLUMNS), dice.uniform(*_RADII), dice.uniform(0, 1)
    speed, swing, tempo = dice.uniform(0.3, 0.7), dice.uniform(10, 18), dice.uniform(0.7, 1.4)
    columns_T, radii_T = np.full(num_frames, column), np.full(num_frames, radius)
    if motion == "drift_left":  # less than once round in 100 frames: a track that meets itself has no direction
        columns_T = column - speed * t
    elif motion == "drift_right":
        columns_T = column + speed * t
    elif motion == "oscillate":  # at least two turns in the shortest source: less would look like a drift
        columns_T = column + swing * np.sin(2 * np.pi * (tempo / 30 * t + phase))
    else:
        low, high = _RADII
        radii_T = low + (high - low) * ((phase + tempo / 40 * t) % 1.0)
    return _Shape(
        row=dice.uniform(0, _ROWS),
        columns_T=columns_T,
        radii_T=radii_T,
        colours_XYC=_texture(dice, *((150, 250) if bright else (5, 105))),
        inside_XY=_outline(dice.choice(("disc", "square", "diamond", "ring"))),
    )


def _clouds(dice: _Dice, height: int, width: int, low: float, high: float) -> NDArray[np.int16]:
    """A soft random texture (H, W, 3) that wraps round: a coarse grid of colours, blended between its points."""
    grid: NDArray[np.float64] = dice.uniform(low, high, 3, 6, 3)
    for axis, size in ((0, height), (1, width)):
        place = np.arange(size) * (grid.shape[axis] / size)
        left = place.astype(np.int64)
        part = np.expand_dims(place - left, tuple(a for a in range(3) if a != axis))
        right = np.take(grid, (left + 1) % grid.shape[axis], axis)
        grid = np.take(grid, left, axis) * (1 - part) + right * part
    return grid.astype(np.int16)


def _texture(dice: _Dice, low: float, high: float) -> NDArray[np.uint8]:
    """Stripes, squares or spots of two colours: (X, Y, 3)."""
    x, y = np.meshgrid(*2 * [np.arange(_TEXTURE) / _TEXTURE], indexing="ij")
    waves, turn = dice.uniform(1.5, 3.5), dice.uniform(0, np.pi)
    along, across = (waves * (x * np.cos(turn + d) + y * np.sin(turn + d)) for d in (0, np.pi / 2))
    pattern = dice.choice(("stripes", "squares", "spots"))
    if pattern == "stripes":
        first = along % 1 < 0.5
    elif pattern == "squares":
        first = (along % 1 < 0.5) ^ (across % 1 < 0.5)
    else:
        first = (along % 1 - 0.5) ** 2 + (across % 1 - 0.5) ** 2 < 0.12
    colours = dice.uniform(low, high, 2, 3)
    colours_XYC: NDArray[np.uint8] = np.where(first[..., None], colours[0], colours[1]).astype(np.uint8)
    return colours_XYC


def _outline(name: str) -> NDArray[np.bool_]:
    x, y = np.meshgrid(*2 * [(np.arange(_TEXTURE) + 0.5) * (2 / _TEXTURE) - 1], indexing="ij")
    radius: NDArray[np.float64] = np.hypot(x, y)
    inside: dict[str, NDArray[np.bool_]] = {
        "square": np.maximum(abs(x), abs(y)) < 0.9,
        "diamond": abs(x) + abs(y) < 1,
        "disc": radius < 1,
        "ring": (radius < 1) & (radius > 0.45),
    }
    return inside[name]
