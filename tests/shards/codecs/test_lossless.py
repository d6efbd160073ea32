from __future__ import annotations

import numpy as np
import pytest
import zstandard

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs.lossless import Lossless
from clipfold.shards.codecs.raw import Raw

SPEC = ClipSpec(num_frames=3, channels=3, height=9, width=40)
CLIP = (np.indices(SPEC.shape_SCHW).sum(0) % 11).astype(np.uint8)


def fails(data: bytes) -> bool:
    out = np.empty(SPEC.shape_SCHW, np.uint8)
    try:
        Lossless().decode_into(data, out, SPEC)
    except ShardError:
        return True
    return not np.array_equal(out, CLIP) and pytest.fail("other pixels passed unseen")


def test_any_zstd_reads_it() -> None:
    data = Lossless(level=7).encode(CLIP, SPEC)
    assert zstandard.ZstdDecompressor().decompress(data) == Raw().encode(CLIP, SPEC)


def test_no_flipped_bit_changes_a_pixel_unseen() -> None:
    data = Lossless().encode(CLIP, SPEC)
    found = 0
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            found += fails(bytes(damaged))
    assert found > 0.95 * 8 * len(data)  # a few bits mean nothing to the decoder (another way to say the same match)


def test_exactly_one_frame() -> None:
    data = Lossless().encode(CLIP, SPEC)
    assert not fails(data)
    skippable = b"\x50\x2a\x4d\x18\x01\x00\x00\x00\x00"
    for bad in (data + b"\0", data + data, data[:-1], data[:-4], data + skippable, skippable + data):
        assert fails(bad)
    for options in ({"write_checksum": False}, {"write_checksum": True, "write_content_size": False}):
        assert fails(zstandard.ZstdCompressor(**options).compress(Raw().encode(CLIP, SPEC)))


def test_a_bomb_takes_no_memory() -> None:
    bomb = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(50_000_000))
    with pytest.raises(ShardError, match="says 50,000,000 bytes, expected 3,368"):
        Lossless().decode_into(bomb, np.empty(SPEC.shape_SCHW, np.uint8), SPEC)


def test_level_is_checked() -> None:
    with pytest.raises(ValueError, match="1 to 22"):
        Lossless(level=23)
