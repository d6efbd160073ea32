from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs import get_codec
from clipfold.shards.codecs.lowrank import Factors, Lowrank
from clipfold.shards.codecs.lowrank_format import unpack

Clip = NDArray[np.uint8]


def moving(spec: ClipSpec) -> Clip:
    """A bright bar that wanders over a gradient, a little faster than one column a frame."""
    frame, channel, row, column = np.ogrid[: spec.num_frames, : spec.channels, : spec.height, : spec.width]
    bar = 120 * np.exp(-(((column - 1.3 * frame - row) % max(8, spec.width) - 4) ** 2) / 6)
    return np.clip(40 + 10 * channel + 60 * column / spec.width + bar, 0, 255).astype(np.uint8)


def static(spec: ClipSpec) -> Clip:
    frame = np.random.default_rng(1).integers(0, 256, spec.shape_SCHW[1:], np.uint8)
    return np.broadcast_to(frame, spec.shape_SCHW)


def noise(spec: ClipSpec) -> Clip:
    return np.random.default_rng(2).integers(0, 256, spec.shape_SCHW, np.uint8)


def black(spec: ClipSpec) -> Clip:
    return np.zeros(spec.shape_SCHW, np.uint8)


def grey(spec: ClipSpec) -> Clip:
    return np.full(spec.shape_SCHW, 128, np.uint8)


def one_pixel(spec: ClipSpec) -> Clip:
    clip = black(spec)
    clip[-1, 0, -1, -1] = 255
    return clip


def sparse(spec: ClipSpec) -> Clip:
    clip = noise(spec)
    clip[np.random.default_rng(3).random(clip.shape) < 0.95] = 0
    return clip


KINDS: list[Callable[[ClipSpec], Clip]] = [moving, static, noise, black, grey, one_pixel, sparse]
SPECS = [
    ClipSpec(num_frames=12, channels=3, height=16, width=130),
    ClipSpec(num_frames=7, channels=3, height=37, width=83),  # several rows of tiles, nothing divides
    ClipSpec(num_frames=1, channels=3, height=9, width=40),
    ClipSpec(num_frames=20, channels=1, height=1, width=300),
    ClipSpec(num_frames=20, channels=4, height=70, width=1),
    ClipSpec(num_frames=1, channels=1, height=1, width=1),
    ClipSpec(num_frames=5, channels=2, height=3, width=3000),
    ClipSpec(num_frames=300, channels=2, height=4, width=50),  # more planes than pixels in a tile
    ClipSpec(num_frames=300, channels=2, height=8, width=100),  # more planes than eigenvectors are sought for
]
SMALL = ClipSpec(num_frames=6, channels=3, height=5, width=70)


def mean_squared_error(codec: Lowrank, data: bytes, clip: Clip, spec: ClipSpec) -> float:
    floats = np.empty(spec.shape_SCHW, np.float32)
    codec.decode_floats(data, floats, spec)
    return float(np.mean((floats.astype(np.float64) - clip) ** 2))


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("min_psnr", [30.0, 38.0, 50.0])
def test_keeps_its_psnr(spec: ClipSpec, kind: Callable[[ClipSpec], Clip], min_psnr: float) -> None:
    codec, clip = Lowrank(min_psnr=min_psnr), kind(spec)
    data = codec.encode(clip, spec)
    assert mean_squared_error(codec, data, clip, spec) <= 255**2 / 10 ** (min_psnr / 10)


def test_highest_psnr_of_noise() -> None:
    codec, clip = Lowrank(min_psnr=60), noise(SMALL)
    assert mean_squared_error(codec, codec.encode(clip, SMALL), clip, SMALL) <= 255**2 / 10**6


def test_default_clip_is_small_and_good() -> None:
    spec, codec = ClipSpec(), Lowrank()
    clip = moving(spec)
    data = codec.encode(clip, spec)
    assert mean_squared_error(codec, data, clip, spec) <= 255**2 / 10**3.8
    assert len(data) < spec.num_bytes / 20  # the bar crosses 130 of 701 columns


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_slot_is_the_rounded_floats(kind: Callable[[ClipSpec], Clip]) -> None:
    spec, codec = SPECS[1], Lowrank()
    data = codec.encode(kind(spec), spec)
    floats, slot = np.empty(spec.shape_SCHW, np.float32), np.empty(spec.shape_SCHW, np.uint8)
    codec.decode_floats(data, floats, spec)
    codec.decode_into(memoryview(data), slot, spec)
    assert np.array_equal(slot, np.clip(np.rint(floats), 0, 255).astype(np.uint8))


def test_any_strides_and_same_bytes() -> None:
    spec, codec = SPECS[0], Lowrank()
    clip = moving(spec)
    channels_last = np.ascontiguousarray(clip.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert codec.encode(clip, spec) == codec.encode(channels_last, spec) == Lowrank().encode(clip, spec)


def test_settings_and_table() -> None:
    assert Lowrank(min_psnr=41).settings() == {"min_psnr": 41.0}
    codec = get_codec("lowrank", {"min_psnr": 41.0})
    assert (codec.extension, codec.layout, codec.exact, codec.header_bytes(SMALL)) == ("lowrank", "SCHW", False, None)


@pytest.mark.parametrize("value", [19.9, 61, True, "38", float("nan")])
def test_refuses_psnr(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a number from 20 to 60"):
        Lowrank(min_psnr=value)


def test_check_and_wrong_clip() -> None:
    codec = Lowrank()
    codec.check(ClipSpec())
    with pytest.raises(ValueError, match="uint16"):
        codec.check(ClipSpec(dtype="uint16"))
    with pytest.raises(ValueError, match="4,096 planes"):
        codec.check(ClipSpec(num_frames=5000))
    with pytest.raises(ValueError, match="expected"):
        codec.encode(noise(SMALL)[1:], SMALL)


def test_wrong_spec() -> None:
    codec = Lowrank()
    data = codec.encode(noise(SMALL), SMALL)
    with pytest.raises(ShardError, match="expected"):
        codec.factors(data, ClipSpec())


# --- the format, read a second time: slowly, and by its description alone -------------------------------------------


def dct(n: int) -> NDArray[np.float64]:
    matrix = np.array([[np.cos(np.pi * (2 * i + 1) * k / (2 * n)) for i in range(n)] for k in range(n)])
    return matrix * np.where(np.arange(n) == 0, np.sqrt(1 / n), np.sqrt(2 / n))[:, None]


def read_blocks(factors: Factors, tile: int, column: int) -> list[list[int]]:
    """The 32 whole numbers of each row that a column holds."""
    number = tile * factors.num_columns + column
    rows, word = int(factors.column_rows[number]), int(factors.column_starts[number])
    codes = [int(factors.words[word + row // 8]) >> 4 * (row % 8) & 15 for row in range(rows)]
    word += (rows + 7) // 8
    blocks = []
    for code in codes:
        width = {14: 16, 15: 20}.get(code, code)
        planes = [int(factors.words[word + p]) for p in range(width)]
        word += width
        unsigned = [sum((plane >> i & 1) << p for p, plane in enumerate(planes)) for i in range(32)]
        blocks.append([n - (1 << width) if width and n >> (width - 1) else n for n in unsigned])
    assert word == factors.column_starts[number + 1]
    return blocks


def scan_order(height: int, width: int, scan: int) -> list[tuple[int, int]]:
    slope = [0, 0.25, 1, 4][scan]
    places = [(row, column) for row in range(height) for column in range(width)]
    return sorted(places, key=lambda place: slope * place[0] * width + place[1] * height)


def read_slowly(factors: Factors) -> NDArray[np.float64]:
    s, c, h, w = factors.shape_SCHW
    th, tw = factors.tile_height, factors.tile_width
    across = -(-w // tw)
    pixels = np.full((s, c, -(-h // th) * th, across * tw), factors.centre, np.float64)
    order = scan_order(th, tw, factors.scan)
    for tile in range(factors.num_tiles):
        start, stop = int(factors.row_starts[tile]), int(factors.row_starts[tile + 1])
        basis = np.zeros((stop - start, -(-s * c // 32) * 32))
        coefficients = np.zeros((stop - start, -(-th * tw // 32) * 32))
        for column in range(factors.num_columns):
            is_basis = column < factors.basis_columns
            place = 32 * (column if is_basis else column - factors.basis_columns)
            for row, block in enumerate(read_blocks(factors, tile, column)):
                (basis if is_basis else coefficients)[row, place : place + 32] = block
        for row in range(stop - start):
            weights_SC = dct(s).T @ basis[row, : s * c].reshape(c, s).T @ dct(c)
            frequencies = np.zeros((th, tw))
            for place, value in zip(order, coefficients[row], strict=False):
                frequencies[place] = value
            picture = dct(th).T @ frequencies @ dct(tw)
            top, left = tile // across * th, tile % across * tw
            product = float(factors.scales[start + row]) * np.einsum("sc,hw->schw", weights_SC, picture)
            pixels[:, :, top : top + th, left : left + tw] += product
    return pixels[:, :, :h, :w]


@pytest.mark.parametrize("kind", [moving, noise, one_pixel, grey], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("spec", [SMALL, ClipSpec(num_frames=4, channels=2, height=40, width=60)], ids=str)
def test_floats_are_what_the_factors_say(kind: Callable[[ClipSpec], Clip], spec: ClipSpec) -> None:
    codec = Lowrank(min_psnr=45)
    data = codec.encode(kind(spec), spec)
    floats = np.empty(spec.shape_SCHW, np.float32)
    codec.decode_floats(data, floats, spec)
    # fp32 sums of at most 18 rows whose products stay under 2^8 * sqrt(18 * 2048): each of the some 10 roundings in a
    # row is off by 2^-24 of that, which is 10 * 18 * 50,000 * 6e-8 = 0.5 at worst, and their root under 0.05
    assert np.abs(floats - read_slowly(codec.factors(data, spec))).max() < 0.05


def test_linear_reducer_needs_no_pixels() -> None:
    """What a kernel does: weights through the basis, rows of frequencies into K maps, K maps turned back."""
    codec, spec = Lowrank(), SPECS[0]
    data = codec.encode(moving(spec), spec)
    factors = codec.factors(data, spec)
    floats = np.empty(spec.shape_SCHW, np.float32)
    codec.decode_floats(data, floats, spec)
    weights_KSC = np.random.default_rng(5).normal(size=(4, spec.num_frames, spec.channels))
    turned_KN = (dct(spec.channels) @ weights_KSC.transpose(0, 2, 1) @ dct(spec.num_frames).T).reshape(4, -1)
    basis_RN, coefficients_RP = unpack(factors)
    th, tw = factors.tile_height, factors.tile_width
    tiles = []
    for start, stop in pairwise(factors.row_starts):
        weights_KR = turned_KN @ (basis_RN[start:stop] * factors.scales[start:stop, None]).T
        frequencies_KP = weights_KR @ coefficients_RP[start:stop]
        maps_KP = np.empty_like(frequencies_KP)
        maps_KP[:, [row * tw + column for row, column in scan_order(th, tw, factors.scan)]] = frequencies_KP
        tiles.append(dct(th).T @ maps_KP.reshape(4, th, tw) @ dct(tw))
    maps_KHW = np.concatenate(tiles, axis=2)[:, :, : spec.width]
    maps_KHW += factors.centre * weights_KSC.sum(axis=(1, 2))[:, None, None]
    expected_KHW = np.einsum("ksc,schw->khw", weights_KSC, floats.astype(np.float64))
    # the floats are off by at most 0.05 (above); weighted by normal numbers over S*C = 36 planes: 0.05 * 36 at worst,
    # and the rounding of single planes is independent: 0.05 * 6
    assert np.abs(maps_KHW - expected_KHW).max() < 0.3


def test_factors_are_views() -> None:
    codec = Lowrank()
    data = codec.encode(noise(SMALL), SMALL)
    factors = codec.factors(data, SMALL)
    memory = np.frombuffer(data, np.uint8)
    for name in ("row_starts", "scales", "column_starts", "column_rows", "words"):
        assert np.shares_memory(getattr(factors, name), memory), name


# --- bytes that nobody wrote ---------------------------------------------------------------------------------------


def assert_survives(data: bytes) -> None:
    slot = np.empty(SMALL.shape_SCHW, np.uint8)
    with contextlib.suppress(ShardError):
        Lowrank().decode_into(data, slot, SMALL)


@pytest.fixture(scope="module")
def good() -> bytes:
    return Lowrank(min_psnr=30).encode(moving(SMALL), SMALL)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
    in_header=st.booleans(),
)
def test_mutated_bytes(good: bytes, changes: list[tuple[int, int]], cut: int, in_header: bool) -> None:
    mutated = bytearray(good)
    for place, value in changes:
        mutated[place % (64 if in_header else len(mutated))] = value
    assert_survives(bytes(mutated[: len(mutated) - cut]) if cut < 200 else bytes(mutated) + bytes(cut - 200))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    assert_survives(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=13, max_size=13))
def test_any_header(good: bytes, numbers: list[int]) -> None:
    assert_survives(good[:12] + np.array(numbers, "<u4").tobytes() + good[64:])


def test_every_cut_is_found(good: bytes) -> None:
    slot = np.empty(SMALL.shape_SCHW, np.uint8)
    for size in range(len(good)):
        with pytest.raises(ShardError):
            Lowrank().decode_into(good[:size], slot, SMALL)
    with pytest.raises(ShardError):
        Lowrank().decode_into(good + b"\0", slot, SMALL)


def test_newer_version_says_so(good: bytes) -> None:
    with pytest.raises(ShardError, match="version 2"):
        Lowrank().factors(good[:8] + b"\2\0" + good[10:], SMALL)
