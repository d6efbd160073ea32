from __future__ import annotations

import av
import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.errors import SourceError
from clipfold.ingest.resize import Resize, scale_exactly


def resize(height: int, width: int, **more: object) -> Resize:
    mode = more.pop("mode", "stretch")
    return Resize(mode=mode, spec=ClipSpec(height=height, width=width, **more))  # type: ignore[arg-type]


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def triangle_weights(num_in: int, num_out: int) -> np.ndarray:
    """(num_out, num_in): the antialiased bilinear filter, written down once more, edges repeated."""
    reach = max(num_in / num_out, 1.0)
    weights = np.zeros((num_out, num_in))
    for place in range(num_out):
        center = (place + 0.5) * num_in / num_out - 0.5
        for tap in range(int(center - reach) - 2, int(center + reach) + 3):
            weights[place, min(max(tap, 0), num_in - 1)] += max(0.0, 1 - abs(tap - center) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


def reference(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (triangle_weights(*pair) for pair in zip(pixels.shape[:2], size, strict=True))
    return np.einsum("ih,jw,hw...->ij...", rows, columns, pixels.astype(np.float64), optimize=True)


SIZES = [
    ((720, 1280), (16, 701)),
    ((100, 1300), (16, 32)),
    ((240, 426), (32, 96)),
    ((16, 701), (32, 96)),
    ((90, 90), (30, 45)),
]


@pytest.mark.parametrize(("native", "size"), SIZES)
def test_stretch_antialiases(native: tuple[int, int], size: tuple[int, int]) -> None:
    """Away from the border swscale's filter is the triangle to within its weights' 14 bits.

    Bound: rounding the result 0.5; rounding after the horizontal pass (to 1/128) and of the weights (each to 2**-14,
    their sum exact, so at most 255 * taps * 2**-15 in each direction: 91 taps give 0.71, 4 give 0.03, hardly ever at
    once). 0.5 + 0.01 + 0.75 + 0.75 is 2.01. A filter that does not widen is wrong by tens on noise.
    """
    pixels = noise(*native, 3)
    got = resize(*size)(pixels).astype(np.float64)
    want = reference(pixels, size)
    inside = np.s_[1:-1, 1:-1]
    assert np.abs(got - want)[inside].max() < 2.01
    # at the border the weights beyond the edge are shared out in another way than by repeating it: same picture still
    assert np.abs(got - want).mean() < 1


def test_no_alias_of_stripes() -> None:
    """Stripes finer than the output's pixels become grey: nothing of them may be left but their mean."""
    stripes = np.zeros((64, 640, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    got = resize(16, 64)(stripes)[:, 1:-1]
    assert got.min() >= 127
    assert got.max() <= 129


def test_a_very_long_way_down_is_still_the_mean() -> None:
    """More than swscale can shrink at once: 4320 rows to 16. Smooth content has to come out as it is."""
    ramp = np.broadcast_to(np.linspace(0, 255, 4320)[:, None, None], (4320, 40, 3)).astype(np.uint8)
    got = resize(16, 40)(ramp)[:, :, 0].astype(np.float64)
    want = np.linspace(0, 255, 4320).reshape(16, 270).mean(axis=1)
    assert np.abs(got - want[:, None])[1:-1].max() <= 2.5  # each of the two passes cuts and rounds: 1 + 0.5 + 1


@pytest.mark.parametrize("native", [(1, 7), (3, 3), (2, 40), (1, 60), (5, 5), (9, 2)])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 701), (7, 3)])
def test_tiny_sizes_are_right_too(native: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = noise(*native, 3)
    got, want = resize(*size)(pixels).astype(np.float64), reference(pixels, size)
    pairs = list(zip(native, size, strict=True))
    if all(have == wanted or wanted > have >= 5 or (have >= 9 and wanted >= 3) for have, wanted in pairs):
        assert np.abs(got - want)[:, 1:-1].max(initial=0) < 3  # swscale, its places rounded to 2**-16 pixels a step
    else:
        assert np.abs(got - want).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["stretch", "letterbox", "center_crop"])
def test_native_size_touches_no_value(dtype: str, channels: int, mode: str) -> None:
    pixels = noise(17, 701, channels, dtype=dtype)
    got = resize(17, 701, dtype=dtype, channels=channels, mode=mode)(pixels)
    assert got.dtype == dtype
    assert got.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(got, pixels)
    np.testing.assert_array_equal(resize(17, 701, dtype=dtype, channels=channels, mode=mode)(pixels[:, :, :]), pixels)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_deep_pictures_are_scaled_in_full_depth(dtype: str) -> None:
    for channels in (1, 3):
        pixels = noise(31, 64, channels, dtype=dtype)
        got = resize(16, 100, dtype=dtype, channels=channels)(pixels)
        want = reference(pixels, (16, 100))
        bound = 0.5 + 1e-6 if dtype == "uint16" else 4 * 2.0**-23  # rounding to the dtype; |values| stay below 4
        assert np.abs(got - want).max() <= bound


def test_depths_meet_full_scale_to_full_scale() -> None:
    eight = noise(4, 5, 1)
    sixteen = noise(4, 5, 1, dtype="uint16")
    at = {"height": 4, "width": 5, "channels": 1}
    np.testing.assert_array_equal(resize(**at, dtype="uint16")(eight), eight.astype(np.uint16) * 257)
    np.testing.assert_array_equal(resize(**at, dtype="uint8")(sixteen), sixteen >> 8)
    np.testing.assert_array_equal(resize(**at, dtype="float32")(eight), eight.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(
        resize(**at, dtype="float32")(sixteen), sixteen.astype(np.float32) / np.float32(65535)
    )
    np.testing.assert_array_equal(resize(**at, dtype="uint8")(resize(**at, dtype="uint16")(eight)), eight)
    with pytest.raises(SourceError, match="its unit is not known"):
        resize(**at, dtype="uint8")(noise(4, 5, 1, dtype="float32"))


def test_grey_and_colour() -> None:
    grey, colour = noise(6, 8, 1), noise(6, 8, 3)
    np.testing.assert_array_equal(resize(6, 8)(grey), np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(resize(6, 8)(grey[:, :, 0]), np.repeat(grey, 3, axis=2))
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert (
        np.abs(resize(6, 8, channels=1)(colour)[:, :, 0] - luma).max() <= 1
    )  # its weights have 15 bits, then rounding
    deep = noise(6, 8, 3, dtype="uint16")
    luma = deep @ np.array([0.299, 0.587, 0.114])
    assert np.abs(resize(6, 8, channels=1, dtype="uint16")(deep)[:, :, 0] - luma).max() <= 0.5 + 1e-6


def test_letterbox_and_crop_by_example() -> None:
    bright = np.full((10, 40, 3), 200, dtype=np.uint8)
    boxed = resize(20, 20, mode="letterbox")(bright)
    assert (boxed[:7] == 0).all()  # 40x10 becomes 20x5: 15 rows left over, 7 above and 8 below
    assert (boxed[7:12] == 200).all()
    assert (boxed[12:] == 0).all()
    columns = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (10, 40, 3))
    cropped = resize(10, 20, mode="center_crop")(columns)
    np.testing.assert_array_equal(cropped, columns[:, 10:30])


@pytest.mark.parametrize("mode", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("native", [(16, 701), (701, 16), (33, 47), (100, 100), (1, 50)])
def test_every_shape_fits(mode: str, native: tuple[int, int]) -> None:
    for size in [(32, 96), (96, 32), (17, 33), (1, 701)]:
        assert resize(*size, mode=mode)(noise(*native, 3)).shape == (*size, 3)


@pytest.mark.parametrize("rotation", [0, 90, 180, -180, -90, 270])
@pytest.mark.parametrize("mode", ["stretch", "letterbox", "center_crop"])
def test_turned_then_resized_is_resized_then_turned(rotation: int, mode: str) -> None:
    pixels = noise(48, 80, 3)
    upright = np.ascontiguousarray(np.rot90(pixels, round(rotation / 90) % 4))
    got = resize(20, 36, mode=mode)(pixels, rotation).astype(int)
    want = resize(20, 36, mode=mode)(upright).astype(int)
    assert np.abs(got - want).max() <= 10  # borders (see above) lie at other ends; the inside may round otherwise
    assert np.abs(got - want).mean() < 1
    exact = resize(*upright.shape[:2], mode=mode)(pixels, rotation)
    np.testing.assert_array_equal(exact, upright)


# ---- colour: matrix and range of YUV frames, against the formulas of BT.601, BT.709 and BT.2020

MATRICES = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def flat_yuv(pixel_format: str, yuv: tuple[int, int, int], matrix: int, full: bool) -> av.VideoFrame:
    frame = av.VideoFrame(64, 64, pixel_format)
    for plane, value in zip(frame.planes, yuv, strict=True):
        dtype = np.dtype("<u2" if "10" in pixel_format else "u1")
        plane.update(np.full(plane.buffer_size // dtype.itemsize, value, dtype=dtype).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


def rgb_of(yuv: tuple[int, int, int], matrix: int, full: bool, bits: int) -> np.ndarray:
    red_weight, blue_weight = MATRICES[matrix]
    unit = 2 ** (bits - 8)
    luma, blue, red = yuv
    if full:
        y, u, v = luma / (2**bits - 1), (blue - 128 * unit) / (2**bits - 1), (red - 128 * unit) / (2**bits - 1)
    else:
        y, u, v = (
            (luma - 16 * unit) / (219 * unit),
            (blue - 128 * unit) / (224 * unit),
            (red - 128 * unit) / (224 * unit),
        )
    r, b = y + 2 * (1 - red_weight) * v, y + 2 * (1 - blue_weight) * u
    return np.clip([r, (y - red_weight * r - blue_weight * b) / (1 - red_weight - blue_weight), b], 0, 1)


@pytest.mark.parametrize("matrix", sorted(MATRICES))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv422p10le", "yuv420p10le", "yuv444p10le"])
def test_matrix_range_and_depth(matrix: int, full: bool, pixel_format: str) -> None:
    """8 bits: rounding 0.5, and the 13-bit coefficients of the matrix another 0.5. 16 bits: the same 1 / 255."""
    bits = 10 if "10" in pixel_format else 8
    yuv = tuple(value * 2 ** (bits - 8) for value in (120, 90, 170))
    frame, want = flat_yuv(pixel_format, yuv, matrix, full), rgb_of(yuv, matrix, full, bits)  # type: ignore[arg-type]
    for size in [(64, 64), (64, 32), (32, 64), (16, 20), (100, 64)]:
        got = resize(*size)(frame)
        assert np.abs(got - want * 255).max() <= 1, size
        got = resize(*size, dtype="uint16")(frame)
        assert np.abs(got / 65535 - want).max() <= 1 / 255, size
        grey = resize(*size, channels=1)(frame)
        assert np.abs(grey - want @ np.array([0.299, 0.587, 0.114]) * 255).max() <= 2, size


def test_full_range_keeps_black_and_white() -> None:
    for value in (0, 255):
        frame = flat_yuv("yuv420p", (value, 128, 128), 1, True)
        assert (resize(20, 30)(frame) == value).all()


@pytest.mark.parametrize(
    ("pixel_format", "channels"), [("gray16le", 1), ("gray16be", 1), ("rgb48le", 3), ("rgb48be", 3), ("bgr48le", 3)]
)
def test_deep_frames_keep_their_values(pixel_format: str, channels: int) -> None:
    pixels = noise(16, 31, 3, dtype="uint16")[:, :, :channels]
    stored = pixels[:, :, ::-1] if pixel_format.startswith("bgr") else pixels
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored.squeeze()), format=pixel_format)
    np.testing.assert_array_equal(resize(16, 31, dtype="uint16", channels=channels)(frame), pixels)


def test_alpha_is_dropped_not_blended() -> None:
    pixels = noise(8, 9, 4)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
    np.testing.assert_array_equal(resize(8, 9)(frame), pixels[:, :, :3])


def test_scale_exactly_same_size_is_the_same_array() -> None:
    pixels = noise(4, 5, dtype="uint16")
    assert scale_exactly(pixels, (4, 5)) is pixels


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="resize mode"):
        resize(4, 4, mode="zoom")
    with pytest.raises(SourceError, match="frames of 3 channels for clips of 2"):
        resize(4, 4, channels=2)(noise(4, 4, 3))
    with pytest.raises(SourceError, match="frames of 5 channels for clips of 3"):
        resize(4, 4)(noise(4, 4, 5))


def test_other_numbers_of_channels_are_scaled_one_by_one() -> None:
    pixels = noise(32, 64, 5)
    got = resize(16, 32, channels=5)(pixels)
    for channel in range(5):
        np.testing.assert_array_equal(got[..., channel], scale_exactly(pixels[..., channel], (16, 32)))
