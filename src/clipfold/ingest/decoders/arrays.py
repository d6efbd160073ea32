"""Arrays as sequences: ``.npy`` (mapped into memory, or read frame by frame behind a URL) and ``.npz`` (one array).

Three dimensions are (S, H, W). Of four, the one of length 1 or 3 is the channels: (S, C, H, W) or (S, H, W, C); where
both could be, or neither is, the order has to be said (``axes="SCHW"``). So has "SHW" where the last of three is 3 or
4 long, which looks like one picture. uint8, uint16 and float32 are carried as they are; float16 becomes float32,
exactly; float64 is rounded to float32; any other type is refused: what unit it has is not known. Nothing is unpickled.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from clipfold.clip import Dtype
from clipfold.errors import DecodeError, SourceError
from clipfold.files import is_url
from clipfold.ingest.decoders.order import gather
from clipfold.ingest.listing import Source, extension_of
from clipfold.ingest.places import OpenPlace, place_of
from clipfold.ingest.resize import Resize

__all__ = ["ArrayDecoder", "Axes"]

Axes = Literal["auto", "SCHW", "SHWC", "SHW"]

_NAMES = ("clip", "video", "frames", "arr_0")  # which array of several in a .npz
_BROKEN = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    offset: int


class ArrayDecoder:
    """An array, one frame after the other.

    Args:
        source: A source whose content is ``"array"``.
        axes: The order of its dimensions.

    Attributes:
        channels: C; 1 where the array has no such dimension.
        dtype: In which its values are delivered.

    Raises:
        DecodeError: It is no array, is cut short, has a type that is refused or an order that is not clear.
        SourceError: It has gone or cannot be read.
        ValueError: Unknown ``axes``.
    """

    name = "arrays"
    version = f"numpy {np.__version__}"
    fps = 0.0
    defect: DecodeError | None = None

    def __init__(self, source: Source, *, axes: Axes = "auto") -> None:
        if axes not in get_args(Axes):
            raise ValueError(f"axes of an array: {axes!r}, expected one of {', '.join(get_args(Axes))}")
        self._open_place = OpenPlace(place_of(source))
        self.path = str(self._open_place.place)
        try:
            self._array = self._load(source)
        except _BROKEN as error:
            self.close()
            raise DecodeError(
                f"cannot be read as an array: {_plain(error)}", fix="save it again with numpy.save", file=self.path
            ) from error
        self._order = self._checked(axes)
        shape = dict(zip(self._order, self._array.shape, strict=True))
        self.height, self.width = shape["H"], shape["W"]
        self.channels = int(shape.get("C", 1))
        self.dtype: Dtype = (
            "float32" if self._array.dtype.kind == "f" else cast(Dtype, str(self._array.dtype.newbyteorder("=")))
        )

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def read(self, indices: Sequence[int], resize: Resize, *, whole: bool = True) -> Generator[NDArray[Any]]:
        for index in indices:
            yield self._frame(index, resize)

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        return gather(
            indices,
            resize,
            lambda wanted: {index: self._frame(index, resize) for index in wanted},
            num_frames=len(self),
            path=self.path,
        )

    def times_seconds(self) -> NDArray[np.float64] | None:
        return None

    def close(self) -> None:
        self._open_place.close()

    def _frame(self, index: int, resize: Resize) -> NDArray[Any]:
        frame = np.asarray(self._array[index])
        if self._order == "SCHW":
            frame = frame.transpose(1, 2, 0)
        native = np.float32 if frame.dtype.kind == "f" else frame.dtype.newbyteorder("=")
        try:
            return resize(np.ascontiguousarray(frame, dtype=native))
        except SourceError as error:
            error.where.setdefault("file", self.path)
            raise

    def _load(self, source: Source) -> Any:
        place = self._open_place.place
        if extension_of(f".{place.member}" if place.member else source.path) == ".npz":
            with self._open_place.open() as file, np.load(file, allow_pickle=False) as arrays:
                return arrays[_only_name(arrays.files)]
        with self._open_place.open() as file:
            header = _read_header(file)
        num_bytes = math.prod(header.shape) * header.dtype.itemsize
        if header.offset + num_bytes > self._open_place.num_bytes:
            raise ValueError(
                f"{self._open_place.num_bytes:,} bytes, expected the {header.offset + num_bytes:,} that its header says"
            )
        if not is_url(place.location):
            if not num_bytes:
                return np.zeros(header.shape, header.dtype)
            return np.memmap(
                place.location,
                dtype=header.dtype,
                mode="r",
                offset=place.offset + header.offset,
                shape=header.shape,
                order="F" if header.is_fortran else "C",
            )
        if header.is_fortran:
            with self._open_place.open() as file:
                return np.load(io.BytesIO(file.read()), allow_pickle=False)
        return _RemoteArray(self._open_place, header)

    def _checked(self, axes: Axes) -> str:
        shape, dtype = self._array.shape, self._array.dtype.newbyteorder("=")
        if (dtype not in (np.uint8, np.uint16) and dtype.kind != "f") or dtype.itemsize > 8:
            raise DecodeError(
                f"an array of {dtype}, expected uint8, uint16 or float",
                fix="save it as one of these: in which unit the values are is yours to say",
                file=self.path,
            )
        order = _order(shape) if axes == "auto" else axes
        if order is None or len(order) != len(shape) or not all(shape):
            raise DecodeError(
                f"an array of shape {shape}, expected (S, H, W), (S, C, H, W) or (S, H, W, C)"
                + (f" as asked for: {axes}" if axes != "auto" else ""),
                fix="say the order of its dimensions: --axes SCHW, SHWC or SHW",
                file=self.path,
            )
        return order


class _RemoteArray:
    """A .npy behind a URL: a frame is a range of its bytes."""

    def __init__(self, place: OpenPlace, header: _Header) -> None:
        self.shape, self.dtype = header.shape, header.dtype
        self._header = header
        self._file = place.open()

    def __getitem__(self, index: int) -> NDArray[Any]:
        frame = self.shape[1:]
        num_bytes = math.prod(frame) * self.dtype.itemsize
        self._file.seek(self._header.offset + index * num_bytes)
        return np.frombuffer(self._file.read(num_bytes), self.dtype).reshape(frame)


def _order(shape: tuple[int, ...]) -> str | None:
    if len(shape) == 3:
        return None if shape[2] in (3, 4) else "SHW"
    if len(shape) != 4:
        return None
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        return None
    return "SCHW" if first else "SHWC"


def _only_name(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    for name in _NAMES:
        if name in names:
            return name
    raise ValueError(f"{len(names)} arrays ({', '.join(names)}), expected one, or one named {', '.join(_NAMES)}")


def _read_header(file: Any) -> _Header:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format {version}, expected 1.0 or 2.0")
    shape, is_fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled")
    return _Header(shape, is_fortran, dtype, file.tell())


def _plain(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0] if text else type(error).__name__
