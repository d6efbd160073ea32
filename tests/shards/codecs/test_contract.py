"""Every codec of the table keeps the contract: its name alone gives it these tests."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipfold.clip import ClipSpec, Dtype
from clipfold.errors import ShardError
from clipfold.shards.codecs import CODECS, codec_from_manifest, empty_slot, get_codec, slot_shape

CODEC_NAMES = sorted(CODECS)
SHAPES = [(1, 1, 1, 1), (1, 3, 1, 1), (5, 3, 11, 13), (4, 1, 7, 2), (3, 3, 16, 701), (2, 2, 8, 8), (6, 5, 3, 9)]


def smooth_clip(spec: ClipSpec) -> np.ndarray[Any, Any]:
    """A gentle slope over columns and frames, far from black and white: what every lossy codec keeps."""
    S, _, H, W = np.indices(spec.shape_SCHW)
    values = 60 + (S + H / 4 + W / 8) % 64
    return np.ascontiguousarray(values.astype(spec.dtype))


def accepted(codec: Any, spec: ClipSpec) -> bool:
    try:
        codec.check(spec)
    except ValueError:
        return False
    return True


def decode(codec: Any, data: bytes, spec: ClipSpec) -> np.ndarray[Any, Any]:
    slot, clip_SCHW = empty_slot(codec, spec)
    slot.fill(7)
    codec.decode_into(memoryview(data), slot, spec)
    return clip_SCHW


def check_round_trip(name: str, spec: ClipSpec, clip_SCHW: np.ndarray[Any, Any]) -> None:
    codec = get_codec(name)
    if not accepted(codec, spec):
        return
    data = codec.encode(clip_SCHW, spec)
    assert type(data) is bytes
    assert codec.encode(np.asfortranarray(clip_SCHW), spec) == data, "strides do not matter"
    found_SCHW = decode(codec, data, spec)
    assert found_SCHW.shape == spec.shape_SCHW
    assert found_SCHW.dtype == np.dtype(spec.dtype)
    if codec.exact:
        np.testing.assert_array_equal(found_SCHW, clip_SCHW)


@pytest.mark.parametrize("dtype", get_args(Dtype))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CODEC_NAMES)
def test_round_trip(name: str, shape: tuple[int, int, int, int], dtype: Dtype) -> None:
    S, C, H, W = shape
    spec = ClipSpec(num_frames=S, channels=C, height=H, width=W, dtype=dtype)
    clip_SCHW = smooth_clip(spec)
    check_round_trip(name, spec, clip_SCHW)
    codec = get_codec(name)
    if not codec.exact and accepted(codec, spec):
        # 8-bit colours there and back through limited-range YCbCr are off by up to 3 levels by rounding alone
        # (219 levels for 256, times 1.77 for blue); the coefficients' quantisation adds less than that again.
        found_SCHW = decode(codec, codec.encode(clip_SCHW, spec), spec)
        assert np.abs(found_SCHW.astype(float) - clip_SCHW).mean() < 6


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.tuples(st.integers(1, 9), st.sampled_from([1, 3, 4]), st.integers(1, 40), st.integers(1, 40)),
    dtype=st.sampled_from(get_args(Dtype)),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("name", CODEC_NAMES)
def test_round_trip_of_noise(name: str, sizes: tuple[int, int, int, int], dtype: Dtype, seed: int) -> None:
    spec = ClipSpec(num_frames=sizes[0], channels=sizes[1], height=sizes[2], width=sizes[3], dtype=dtype)
    values = np.random.default_rng(seed).integers(0, 256, spec.num_bytes, np.uint8)  # floats: NaN and infinities too
    clip_SCHW = values.view(dtype).reshape(spec.shape_SCHW)
    check_round_trip(name, spec, clip_SCHW)


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_settings_come_back(name: str) -> None:
    codec = get_codec(name)
    again = codec_from_manifest(name, codec.settings())
    assert again.settings() == codec.settings()
    assert again.encode(smooth_clip(SMALL), SMALL) == codec.encode(smooth_clip(SMALL), SMALL)


SMALL = ClipSpec(num_frames=3, channels=3, height=10, width=21)


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_header_bytes_are_the_header_and_the_rest_is_the_slot(name: str) -> None:
    codec = get_codec(name)
    num = codec.header_bytes(SMALL)
    if num is None:
        return
    clip_SCHW = smooth_clip(SMALL)
    data = codec.encode(clip_SCHW, SMALL)
    assert data[:num] == codec.header(SMALL)  # type: ignore[attr-defined]
    slot = np.frombuffer(data, SMALL.dtype, offset=num).reshape(slot_shape(codec.layout, SMALL))
    np.testing.assert_array_equal(slot if codec.layout == "SCHW" else slot.transpose(0, 3, 1, 2), clip_SCHW)


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_bytes_that_are_no_clip_of_the_spec_are_refused(name: str) -> None:
    codec = get_codec(name)
    data = codec.encode(smooth_clip(SMALL), SMALL)
    slot, _ = empty_slot(codec, SMALL)
    for bad in (b"", b"\0" * 100, data[:-1], data[: len(data) // 2], data[:20]):
        with pytest.raises(ShardError):
            codec.decode_into(bad, slot, SMALL)
    for other in (
        ClipSpec(num_frames=4, channels=3, height=10, width=21),
        ClipSpec(num_frames=3, channels=3, height=26, width=21),
        ClipSpec(num_frames=3, channels=3, height=10, width=31),
    ):
        slot, _ = empty_slot(codec, other)
        with pytest.raises(ShardError):
            codec.decode_into(data, slot, other)


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_another_shape_or_dtype_is_not_encoded(name: str) -> None:
    codec = get_codec(name)
    with pytest.raises(ValueError, match="expected"):
        codec.encode(smooth_clip(SMALL)[:, :, :-1], SMALL)
    with pytest.raises(ValueError, match="uint16"):
        codec.encode(smooth_clip(SMALL).astype(np.uint16), SMALL)


def test_unknown_names_and_settings() -> None:
    with pytest.raises(Exception, match="expected one of jpeg"):
        get_codec("jpg")
    with pytest.raises(ValueError, match="quality"):
        get_codec("jpeg", {"quality": 0})
    with pytest.raises(ValueError, match="speed"):
        get_codec("raw", {"speed": 3})
    with pytest.raises(ShardError, match="codec of the corpus"):
        codec_from_manifest("os:system", {})
    with pytest.raises(ShardError, match="quality"):
        codec_from_manifest("jpeg", {"quality": "high"})


def test_a_codec_of_ones_own_must_be_whole() -> None:
    with pytest.raises(Exception, match="lacks extension"):
        get_codec("collections:OrderedDict")
