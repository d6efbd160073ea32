"""How one clip is stored in a shard: the contract, the table of codecs, and how to get one by name.

Every codec is a leaf that nobody subclasses. Its settings are the keyword arguments of its constructor, and
:meth:`Codec.settings` gives them back, so that ``dataset.json`` can name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from clipfold import plugins
from clipfold.clip import ClipSpec
from clipfold.errors import PluginError, ShardError

__all__ = ["CODECS", "Codec", "Layout", "codec_from_manifest", "empty_slot", "get_codec", "slot_shape"]

Layout = Literal["SCHW", "SHWC"]

CODECS: dict[str, str] = {
    "raw": "clipfold.shards.codecs.raw:Raw",
    "lossless": "clipfold.shards.codecs.lossless:Lossless",
    "jpeg": "clipfold.shards.codecs.jpeg:Jpeg",
    "mp4": "clipfold.shards.codecs.mp4:Mp4",
    "lowrank": "clipfold.shards.codecs.lowrank:Lowrank",
}


class Codec(Protocol):
    """One clip <-> the bytes of one tar member.

    A *slot* is C-contiguous memory of the spec's dtype that the caller owns: (S, C, H, W) or (S, H, W, C), as
    ``layout`` says. All methods may be called from several threads at once.
    """

    @property
    def extension(self) -> str:
        """The tar member's extension, without the leading dot (``"npy"``, ``"npy.zst"``)."""
        ...

    @property
    def layout(self) -> Layout:
        """How :meth:`decode_into` lays out its slot."""
        ...

    @property
    def exact(self) -> bool:
        """True where decoding gives back every value, False for lossy codecs."""
        ...

    def settings(self) -> dict[str, Any]:
        """The constructor's keyword arguments, as plain JSON values."""
        ...

    def check(self, spec: ClipSpec) -> None:
        """Say before any work whether clips of this spec can be held.

        Raises:
            ValueError: dtype, channels or sizes that this codec cannot hold.
        """
        ...

    def header_bytes(self, spec: ClipSpec) -> int | None:
        """Size of a fixed header in front of the slot's very bytes; ``None`` where :meth:`decode_into` is needed.

        Where it is a number n, a member is n bytes of header followed by the slot as it lies in memory, so that a
        reader may put the file's bytes straight into the slot; the first n must then equal :meth:`header`.
        """
        ...

    def encode(self, clip_SCHW: NDArray[Any], spec: ClipSpec) -> bytes:
        """The member's bytes. The same clip gives the same bytes (with equal versions of the libraries).

        Args:
            clip_SCHW: (S, C, H, W) of the spec's dtype; any strides.
            spec: Must have passed :meth:`check`.

        Raises:
            ValueError: Another shape or dtype than the spec's.
        """
        ...

    def decode_into(self, data: bytes | memoryview, out: NDArray[Any], spec: ClipSpec) -> None:
        """Decode one member into the caller's slot.

        Args:
            data: The member's bytes, all of them and nothing else.
            out: The slot, in this codec's layout. After an error its content is undefined.
            spec: Shape and dtype of the clip.

        Raises:
            ShardError: The bytes are not one clip of this spec. The message does not know the shard: callers add it.
        """
        ...


def get_codec(name: str, settings: Mapping[str, Any] | None = None) -> Codec:
    """A codec by the name that a user wrote: one of ours, an entry point, or ``my_package.module:MyCodec``.

    Args:
        name: Name of the codec.
        settings: Keyword arguments of its constructor; ``None`` takes the defaults.

    Raises:
        PluginError: Nothing has this name, or what has it lacks a part of the contract.
        ValueError: A setting that the codec does not have, or out of its range.
    """
    return _build(name, plugins.load("codecs", name, CODECS), settings or {})


def codec_from_manifest(name: str, settings: Mapping[str, Any]) -> Codec:
    """A codec by the name that a file gives: only ours, because other names would import code.

    Raises:
        ShardError: The name is not one of ours, or the settings do not fit it.
    """
    try:
        return _build(name, plugins.load_builtin("codecs", name, CODECS), settings)
    except (PluginError, ValueError) as error:
        raise ShardError(
            f"codec of the corpus: {error.what if isinstance(error, PluginError) else error}",
            fix="pass the codec object yourself, Corpus(root, codec=...), where the corpus was written with your own",
        ) from error


def slot_shape(layout: Layout, spec: ClipSpec) -> tuple[int, int, int, int]:
    """Shape of one clip's memory: (S, C, H, W) or (S, H, W, C)."""
    if layout == "SCHW":
        return spec.shape_SCHW
    return spec.num_frames, spec.height, spec.width, spec.channels


def empty_slot(codec: Codec, spec: ClipSpec) -> tuple[NDArray[Any], NDArray[Any]]:
    """New memory for one clip: the slot for :meth:`Codec.decode_into`, and the same memory seen as (S, C, H, W)."""
    slot = np.empty(slot_shape(codec.layout, spec), spec.dtype)
    return slot, slot if codec.layout == "SCHW" else slot.transpose(0, 3, 1, 2)


def check_clip(clip_SCHW: NDArray[Any], spec: ClipSpec) -> None:
    """Raise ``ValueError`` where a clip's shape or dtype is not the spec's."""
    if clip_SCHW.shape != spec.shape_SCHW or clip_SCHW.dtype != np.dtype(spec.dtype):
        raise ValueError(
            f"clip to encode: {clip_SCHW.shape} {clip_SCHW.dtype}, expected {spec.shape_SCHW} {spec.dtype}"
        )


def _build(name: str, member: Any, settings: Mapping[str, Any]) -> Codec:
    try:
        codec = member(**settings)
    except TypeError as error:
        raise ValueError(f"settings of codec {name!r}: {dict(settings)}, but {error}") from error
    parts = ("extension", "layout", "exact", "settings", "check", "header_bytes", "encode", "decode_into")
    missing = [part for part in parts if not hasattr(codec, part)]
    if missing:
        raise PluginError(
            f"codec {name!r} lacks {', '.join(missing)}",
            fix="a codec has all members of clipfold.shards.codecs.Codec",
        )
    return cast(Codec, codec)
