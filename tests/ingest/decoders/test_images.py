from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import DecodeError, SourceError
from clipfold.ingest.decoders import open_source
from clipfold.ingest.decoders.images import load_image
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import find_sources

RNG = np.random.default_rng(0)
EIGHT = RNG.integers(0, 256, (9, 14, 4), dtype=np.uint8)


def saved(folder: Path, image: Image.Image, name: str = "x.png", **options: object) -> np.ndarray:
    image.save(folder / name, **options)
    return load_image(str(folder / name))


def test_modes(tmp_path: Path) -> None:
    rgb, grey = EIGHT[:, :, :3], EIGHT[:, :, 0]
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(rgb)), rgb)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(grey)), grey)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(EIGHT)), rgb)  # alpha is dropped, not blended
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(EIGHT[:, :, [0, 3]], mode="LA")), grey)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(grey > 99)), (grey > 99) * np.uint8(255))
    palette = Image.fromarray(grey % 4).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]], dtype=np.uint8)
    for options in ({}, {"transparency": 1}):
        np.testing.assert_array_equal(saved(tmp_path, palette, **options), colours[grey % 4])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_every_bit(tmp_path: Path, suffix: str) -> None:
    pixels = RNG.integers(0, 65536, (9, 14), dtype=np.uint16)
    got = saved(tmp_path, Image.fromarray(pixels), f"x.{suffix}")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, pixels)


def test_16_bit_big_endian_tiff_keeps_every_bit(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 65536, (9, 14), dtype=np.uint16)
    got = saved(tmp_path, Image.frombytes("I;16B", (14, 9), pixels.astype(">u2").tobytes()), "x.tif")
    np.testing.assert_array_equal(got, pixels)
    assert got.dtype == np.uint16


@pytest.mark.parametrize(
    ("suffix", "pixel_format"),
    [("png", "rgb48"), ("png", "rgba64"), ("png", "ya16"), ("tiff", "rgb48"), ("tiff", "rgba64")],
)
def test_16_bit_colour_keeps_every_bit(tmp_path: Path, suffix: str, pixel_format: str) -> None:
    endian = "be" if suffix == "png" else "le"
    channels = {"rgb48": 3, "rgba64": 4, "ya16": 2}[pixel_format]
    pixels = RNG.integers(0, 65536, (9, 14, channels), dtype=np.uint16)
    path = tmp_path / f"x.{suffix}"
    frame = av.VideoFrame(14, 9, pixel_format + endian)
    row_bytes = frame.planes[0].line_size
    rows = np.zeros(
        (frame.planes[0].buffer_size // row_bytes, row_bytes // 2), dtype=f"{'>' if endian == 'be' else '<'}u2"
    )
    rows[:9, : 14 * channels] = pixels.reshape(9, -1)
    frame.planes[0].update(rows.tobytes())
    encoder = av.CodecContext.create(suffix, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 14, 9, pixel_format + endian, Fraction(1, 25)
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))
    want = pixels[:, :, 0] if channels == 2 else pixels[:, :, :3]
    got = load_image(str(path))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, want)


def test_float_tiff(tmp_path: Path) -> None:
    pixels = RNG.normal(size=(9, 14)).astype(np.float32)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(pixels), "x.tif"), pixels)


def test_32_bit_whole_numbers(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 65536, (9, 14)).astype(np.int32)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(pixels), "x.tif"), pixels)
    with pytest.raises(DecodeError, match="expected 0 to 65535"):
        saved(tmp_path, Image.fromarray(pixels * 2), "x.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "lzw.tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Where the letter's corner is white: row and column of the upright picture (Exif 2.32, tag 274)."""
    stored = np.zeros((16, 32), dtype=np.uint8)
    stored[:8, :16] = 255
    image = Image.fromarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"lzw.tif": {"compression": "tiff_lzw"}, "webp": {"lossless": True}}.get(suffix, {})
    got = saved(tmp_path, image, f"x.{suffix}", exif=exif, **more)
    got = got if got.ndim == 2 else got[:, :, 0]
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
    assert got.shape == ((32, 16) if orientation >= 5 else (16, 32))
    height, width = got.shape
    found = got[height // 4 + corner[0] * height // 2, width // 4 + corner[1] * width // 2]
    assert found > 127
    assert (got > 127).mean() == 0.25
    opened = open_source(find_sources(tmp_path).sources[0])
    assert (opened.height, opened.width) == got.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_16_bit_colour(tmp_path: Path, orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that FFmpeg reads are turned as Pillow turns the others."""
    from clipfold.ingest.decoders import pictures

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(EIGHT[:, :, 0]).save(tmp_path / "x.png", exif=exif)
    want = load_image(str(tmp_path / "x.png"))
    np.testing.assert_array_equal(pictures._turned(EIGHT[:, :, 0], orientation), want)


def test_sizes_that_differ_name_both_files(tmp_path: Path) -> None:
    for number, width in enumerate([20, 20, 20, 24]):
        Image.new("RGB", (width, 10)).save(tmp_path / f"f{number}.png")
    source = find_sources(tmp_path).sources[0]
    resize = Resize(spec=ClipSpec(height=10, width=20))
    for wanted in ([0, 1, 2, 3], [0]):  # whether or not a clip shows the odd one
        with pytest.raises(SourceError, match=r"f3\.png is 24x10, but f0\.png is 20x10") as caught:
            list(open_source(source).read(wanted, resize))
        assert caught.value.file == str(tmp_path / "f3.png")


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_a_broken_image_names_itself_and_its_frame(tmp_path: Path, damage: str) -> None:
    for number in range(4):
        Image.fromarray(EIGHT).save(tmp_path / f"f{number}.png")
    path = tmp_path / "f2.png"
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no picture\n" * 9, "cut": data[: len(data) // 2]}[damage])
    options = ReadOptions(spec=ClipSpec(num_frames=4, height=9, width=14))
    with pytest.raises(DecodeError, match=r"frame 2 \(f2\.png\): cannot be decoded as an image") as caught:
        list(read_clips(find_sources(tmp_path).sources[0], options))
    assert str(tmp_path) not in caught.value.what
    assert " at 0x" not in caught.value.what
    assert "replace or remove" in caught.value.fix
    assert caught.value.file == str(path)
    assert caught.value.frame == 2


def test_a_broken_first_image(tmp_path: Path) -> None:
    (tmp_path / "f0.png").write_bytes(b"no picture")
    with pytest.raises(DecodeError, match=r"frame 0 \(f0\.png\): .*no picture in any known format"):
        open_source(find_sources(tmp_path).sources[0])


def test_lidar_bit_exact_through_the_reader(media: Path, made: SimpleNamespace) -> None:
    source = made.source_of(media / "frames" / "lidar_vlp16_16x701")
    options = ReadOptions(spec=ClipSpec(num_frames=13, channels=1, height=16, width=701, dtype="uint16"))
    (clip,) = read_clips(source, options)
    assert clip.pixels_SHWC.dtype == np.uint16
    for number, name in enumerate(source.frames):
        with Image.open(Path(source.path) / name) as image:
            stored = np.asarray(image)
        assert stored.dtype == np.uint16
        assert stored.max() > 255
        np.testing.assert_array_equal(clip.pixels_SHWC[number, :, :, 0], stored)
