"""``raw``: the bytes as they are, in a ``.npy`` file whose header is always the same.

Any dtype, any size, exact. A reader that knows the spec can read the file straight into its slot, because the header's
size is known beforehand and the rest is the slot's memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs import Layout, check_clip

__all__ = ["Raw", "npy_header"]

_DESCR = {"uint8": "|u1", "uint16": "<u2", "float32": "<f4"}


class Raw:
    """Clips as ``.npy`` files of shape (S, C, H, W), C order, little endian."""

    extension = "npy"
    layout: Layout = "SCHW"
    exact = True

    def settings(self) -> dict[str, Any]:
        """No settings."""
        return {}

    def check(self, spec: ClipSpec) -> None:
        """Every spec is fine."""

    def header_bytes(self, spec: ClipSpec) -> int | None:
        """Size of the ``.npy`` header: 128 for every shape with fewer than some 50 digits."""
        return len(npy_header(spec))

    def header(self, spec: ClipSpec) -> bytes:
        """The ``.npy`` header itself, in front of every clip of this spec."""
        return npy_header(spec)

    def encode(self, clip_SCHW: NDArray[Any], spec: ClipSpec) -> bytes:
        """Header and pixels.

        Raises:
            ValueError: Another shape or dtype than the spec's.
        """
        check_clip(clip_SCHW, spec)
        return npy_header(spec) + clip_SCHW.astype(_DESCR[spec.dtype], order="C", copy=False).tobytes()

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], spec: ClipSpec) -> None:
        """Copy the pixels into the slot.

        Raises:
            ShardError: Another number of bytes than header and clip, or another header.
        """
        header = npy_header(spec)
        if len(data) != len(header) + spec.num_bytes:
            raise ShardError(
                f"raw clip has {len(data):,} bytes, expected {len(header) + spec.num_bytes:,} ({spec})",
                fix="the shard was cut short or belongs to another corpus; convert again",
            )
        if bytes(data[: len(header)]) != header:
            raise ShardError(
                f"raw clip starts with {bytes(data[:80])!r}, expected the .npy header of {spec}",
                fix="the shard is damaged or belongs to another corpus; convert again",
            )
        flat = np.frombuffer(data, dtype=_DESCR[spec.dtype], offset=len(header))
        np.copyto(out, flat.reshape(spec.shape_SCHW))


def npy_header(spec: ClipSpec) -> bytes:
    """The header of a ``.npy`` file (format 1.0) for one clip, the same bytes whatever numpy is installed.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html: magic, version, the size of what follows
    as uint16, a Python literal padded with spaces, a newline; all of it a multiple of 64 bytes.
    """
    literal = f"{{'descr': '{_DESCR[spec.dtype]}', 'fortran_order': False, 'shape': {spec.shape_SCHW}, }}"
    size = -(-max(10 + len(literal) + 1, 128) // 64) * 64
    return b"\x93NUMPY\x01\x00" + (size - 10).to_bytes(2, "little") + literal.ljust(size - 11).encode() + b"\n"
