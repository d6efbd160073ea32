from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs import empty_slot
from clipfold.shards.codecs.jpeg import Jpeg

SPECS = [
    ClipSpec(num_frames=12, channels=3, height=16, width=701),
    ClipSpec(num_frames=5, channels=1, height=11, width=30),
    ClipSpec(num_frames=3, channels=3, height=1, width=1),
    ClipSpec(num_frames=1, channels=3, height=9, width=17),
    ClipSpec(num_frames=2, channels=1, height=600, width=8000),  # 75,000 blocks a frame: restarts inside it as well
]


def textured(spec: ClipSpec) -> np.ndarray[Any, Any]:
    steps = np.random.default_rng(3).integers(-9, 10, spec.shape_SCHW)
    return np.clip(128 + np.cumsum(steps, -1), 0, 255).astype(np.uint8)


def decoded(spec: ClipSpec, data: bytes) -> np.ndarray[Any, Any]:
    slot, _ = empty_slot(Jpeg(), spec)
    Jpeg().decode_into(data, slot, spec)
    return slot


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_strip_is_bit_exact_with_single_frames(spec: ClipSpec) -> None:
    clip_SCHW = textured(spec)
    strip_SHWC = decoded(spec, Jpeg(quality=80).encode(clip_SCHW, spec))
    for frame in range(spec.num_frames):
        frame_HWC = clip_SCHW[frame].transpose(1, 2, 0)
        file = io.BytesIO()
        picture = Image.fromarray(np.ascontiguousarray(frame_HWC if spec.channels == 3 else frame_HWC[:, :, 0]))
        picture.save(file, "JPEG", quality=80, subsampling=0)
        kind = "RGB" if spec.channels == 3 else "GRAY"
        alone_HWC = simplejpeg.decode_jpeg(file.getvalue(), colorspace=kind)
        np.testing.assert_array_equal(strip_SHWC[frame], alone_HWC)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_single_frames_come_out_of_the_strip(spec: ClipSpec) -> None:
    data = Jpeg().encode(textured(spec), spec)
    strip_SHWC = decoded(spec, data)
    for frame in range(spec.num_frames):
        np.testing.assert_array_equal(Jpeg().decode_frame(data, frame, spec), strip_SHWC[frame])


def test_a_frame_does_not_need_the_others() -> None:
    spec = SPECS[0]
    data = bytearray(Jpeg().encode(textured(spec), spec))
    expected = Jpeg().decode_frame(bytes(data), 2, spec)
    markers = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    for at in range(markers[4] + 2, markers[5]):  # frame 5 is gone
        data[at] = 0
    np.testing.assert_array_equal(Jpeg().decode_frame(bytes(data), 2, spec), expected)


def test_frames_that_are_not_there() -> None:
    spec = SPECS[1]
    data = Jpeg().encode(textured(spec), spec)
    for frame in (-1, 5):
        with pytest.raises(IndexError, match="5 frames"):
            Jpeg().decode_frame(data, frame, spec)
    longer = ClipSpec(num_frames=9, channels=1, height=11, width=30)
    with pytest.raises(ShardError, match="restart markers"):
        Jpeg().decode_frame(data, 7, longer)
    with pytest.raises(ShardError, match="start of scan"):
        Jpeg().decode_frame(data[:40], 0, spec)


def test_check_says_what_and_what_to_do() -> None:
    with pytest.raises(ValueError, match="uint8 clips, not uint16; use codec 'lossless'"):
        Jpeg().check(ClipSpec(dtype="uint16"))
    with pytest.raises(ValueError, match="1 or 3 channels, not 4"):
        Jpeg().check(ClipSpec(channels=4))
    with pytest.raises(ValueError, match="65,600 x 701; use fewer frames"):
        Jpeg().check(ClipSpec(num_frames=4100, height=10))
    Jpeg().check(ClipSpec(num_frames=4090, height=10))
    with pytest.raises(ValueError, match="70,000"):
        Jpeg().check(ClipSpec(num_frames=1, width=70_000))


def test_no_optional_marks_of_the_writer() -> None:
    """Restart interval: one frame of 2 x 88 blocks."""
    data = Jpeg().encode(textured(SPECS[0]), SPECS[0])
    assert data[data.index(b"\xff\xdd") :][:6] == b"\xff\xdd\x00\x04" + (2 * 88).to_bytes(2, "big")
