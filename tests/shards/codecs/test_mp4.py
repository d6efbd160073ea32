from __future__ import annotations

import io

import av
import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs.mp4 import Mp4

SPEC = ClipSpec(num_frames=30, channels=3, height=15, width=33)


def numbered_clip(spec: ClipSpec) -> np.ndarray:
    """Frame i has the value 20 + 7 i everywhere: a frame out of its place is off by at least 7."""
    values = 20 + 7 * np.arange(spec.num_frames, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], spec.shape_SCHW).copy()


def test_frames_in_their_places() -> None:
    clip_SCHW = numbered_clip(SPEC)
    out_SHWC = np.empty((30, 15, 33, 3), np.uint8)
    Mp4().decode_into(Mp4().encode(clip_SCHW, SPEC), out_SHWC, SPEC)
    means = out_SHWC.reshape(30, -1).astype(float).mean(1)
    np.testing.assert_array_equal(np.rint((means - 20) / 7), np.arange(30))


def test_one_group_of_pictures_420() -> None:
    data = Mp4().encode(numbered_clip(SPEC), SPEC)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (34, 16)
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
    assert keys == [True] + [False] * 29


def test_another_number_of_frames_is_refused() -> None:
    data = Mp4().encode(numbered_clip(SPEC), SPEC)
    for num_frames in (29, 31):
        other = ClipSpec(num_frames=num_frames, channels=3, height=15, width=33)
        with pytest.raises(ShardError, match="frame"):
            Mp4().decode_into(data, np.empty((num_frames, 15, 33, 3), np.uint8), other)


def test_check_and_settings() -> None:
    with pytest.raises(ValueError, match="not float32"):
        Mp4().check(ClipSpec(dtype="float32"))
    with pytest.raises(ValueError, match="16,384"):
        Mp4().check(ClipSpec(width=20_000))
    with pytest.raises(ValueError, match="0 to 51"):
        Mp4(crf=52)
    with pytest.raises(ValueError, match="ultrafast"):
        Mp4(preset="best")
