from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.errors import DecodeError, SourceError
from clipfold.ingest.decoders import open_source
from clipfold.ingest.decoders.arrays import ArrayDecoder
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import Source, find_sources


def saved(path: Path, array: np.ndarray, **more: np.ndarray) -> Source:
    if path.suffix == ".npz":
        np.savez_compressed(path, clip=array, **more)
    else:
        np.save(path, array)
    return find_sources(path).sources[0]


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    values = np.random.default_rng(1).random(shape) * (65535 if dtype == "uint16" else 255 if dtype == "uint8" else 7)
    return values.astype(dtype)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16", "float64", ">u2", ">f4"])
@pytest.mark.parametrize("order", ["SHW", "SCHW", "SHWC"])
def test_values_are_carried_as_they_are(tmp_path: Path, suffix: str, dtype: str, order: str) -> None:
    channels = 1 if order == "SHW" else 3
    plain = "uint8" if dtype == "uint8" else "uint16" if dtype in ("uint16", ">u2") else "float32"
    wanted = noise(6, 16, 70, channels, dtype=plain)
    if dtype == "float16":
        wanted = wanted.astype("float16").astype("float32")
    stored = {"SHW": wanted[..., 0], "SCHW": wanted.transpose(0, 3, 1, 2), "SHWC": wanted}[order].astype(dtype)
    source = saved(tmp_path / f"a{suffix}", stored)
    spec = ClipSpec(num_frames=6, channels=channels, height=16, width=70, dtype=plain)  # type: ignore[arg-type]
    with read_clips(source, ReadOptions(spec=spec)) as reader:
        clip = next(reader)
    np.testing.assert_array_equal(clip.pixels_SHWC, wanted)
    assert clip.decoder[0] == "arrays"
    assert (clip.fps, clip.height, clip.width) == (0.0, 16, 70)


def test_the_contract(tmp_path: Path, made: SimpleNamespace) -> None:
    source = saved(tmp_path / "a.npy", np.stack([made.number_picture(number) for number in range(40)]))
    for decoder in ("auto", "pyav", "images", "arrays"):
        opened = open_source(source, decoder)
        assert opened.name == "arrays"
        assert len(opened) == 40
        resize = Resize(spec=ClipSpec(height=16, width=96))
        assert [made.read_number(frame) for frame in opened.read(range(40), resize)] == list(range(40))
        assert [made.read_number(frame) for frame in opened.get_frames_at([7, 3, 7], resize)] == [7, 3, 7]
        with pytest.raises(IndexError, match="frame 40 of"):
            opened.get_frames_at([40], resize)
        opened.close()
        opened.close()


def test_five_channels_and_fortran_order(tmp_path: Path) -> None:
    stored = np.asfortranarray(noise(4, 5, 8, 9))
    source = saved(tmp_path / "a.npy", stored)
    with pytest.raises(DecodeError, match=r"shape \(4, 5, 8, 9\).*"):
        open_source(source)
    options = ReadOptions(spec=ClipSpec(num_frames=4, channels=5, height=8, width=9, dtype="uint16"), axes="SCHW")
    with read_clips(source, options) as reader:
        np.testing.assert_array_equal(next(reader).pixels_SCHW, stored)


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((4, 3, 8, 3), "auto", "say the order"),
        ((4, 2, 8, 9), "auto", "say the order"),
        ((480, 640, 3), "auto", "say the order"),
        ((480, 640), "auto", "expected"),
        ((0, 3, 4, 5), "auto", "expected"),
        ((4, 3, 8, 9), "SHW", "as asked for: SHW"),
    ],
)
def test_orders_that_are_not_clear(tmp_path: Path, shape: tuple[int, ...], axes: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        open_source(saved(tmp_path / "a.npy", np.zeros(shape, np.uint8)), axes=axes)


def test_orders_that_are_said(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.npy", np.zeros((4, 3, 8, 3), np.uint8))
    assert (open_source(source, axes="SCHW").height, open_source(source, axes="SHWC").height) == (8, 3)
    with pytest.raises(ValueError, match="axes of an array: 'HSW'"):
        ArrayDecoder(source, axes="HSW")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="axes: 'HSW'"):
        ReadOptions(axes="HSW")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["int16", "int64", "bool", "complex64", "U3", "longdouble"])
def test_types_that_are_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(DecodeError, match="expected uint8, uint16 or float"):
        open_source(saved(tmp_path / "a.npy", np.zeros((2, 4, 5), dtype)))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_objects_are_never_unpickled(tmp_path: Path, suffix: str) -> None:
    marker = tmp_path / "unpickled"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return marker.touch, ()

    source = saved(tmp_path / f"a{suffix}", np.array([Evil()], dtype=object))
    with pytest.raises(DecodeError, match="cannot be read as an array"):
        open_source(source)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_cut_short(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    source = saved(path, noise(6, 16, 70))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DecodeError, match="cannot be read as an array") as caught:
        open_source(source)
    assert caught.value.file == str(path)


def test_several_arrays_in_one_file(tmp_path: Path) -> None:
    pixels = noise(2, 4, 5)
    assert len(open_source(saved(tmp_path / "a.npz", pixels, labels=np.zeros(3)))) == 2
    file = io.BytesIO()
    np.savez(file, a=pixels, b=pixels)
    (tmp_path / "b.npz").write_bytes(file.getvalue())
    with pytest.raises(DecodeError, match="2 arrays"):
        open_source(find_sources(tmp_path / "b.npz").sources[0])


def test_an_array_has_no_times(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.npy", noise(6, 16, 70))
    with pytest.raises(SourceError, match="no times and it has no frame rate"):
        read_clips(source, ReadOptions(fps=10))
