from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest

from clipfold.clip import ClipSpec, Dtype
from clipfold.errors import ShardError
from clipfold.shards.codecs.raw import Raw


@pytest.mark.parametrize("dtype", get_args(Dtype))
def test_is_the_very_file_that_numpy_writes(dtype: Dtype) -> None:
    spec = ClipSpec(num_frames=3, channels=2, height=5, width=7, dtype=dtype)
    clip_SCHW = np.arange(spec.num_values).reshape(spec.shape_SCHW).astype(dtype)
    file = io.BytesIO()
    np.save(file, clip_SCHW)
    assert Raw().encode(clip_SCHW, spec) == file.getvalue()
    assert Raw().header_bytes(spec) == 128


def test_message_names_sizes() -> None:
    spec = ClipSpec(num_frames=2, channels=1, height=2, width=2)
    data = Raw().encode(np.zeros(spec.shape_SCHW, np.uint8), spec)
    out = np.empty(spec.shape_SCHW, np.uint8)
    with pytest.raises(ShardError, match=r"135 bytes, expected 136 .*S=2"):
        Raw().decode_into(data[:-1], out, spec)
    with pytest.raises(ShardError, match=r"expected the \.npy header"):
        Raw().decode_into(data.replace(b"(2, 1, 2, 2)", b"(2, 2, 1, 2)"), out, spec)
