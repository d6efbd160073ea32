"""Whatever opens one video or image sequence: one contract, one member a file.

``auto`` is ``pyav`` for videos and ``images`` for folders. ``pyav`` is the definition of which frame is which; another
decoder serves a file only where it is known to deliver the same frames, else PyAV does. ``decoder.name`` says who
really served.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from clipfold import plugins
from clipfold.errors import DecodeError
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import Source

__all__ = ["DECODERS", "Decoder", "open_source"]

DECODERS = {
    "pyav": "clipfold.ingest.decoders.pyav:PyAVDecoder",
    "decord": "clipfold.ingest.decoders.decord:open_decord",
    "images": "clipfold.ingest.decoders.images:FolderDecoder",
    "pillow": "clipfold.ingest.decoders.images:AnimationDecoder",
}


class Decoder(Protocol):
    """One open video or image sequence, made by ``member(source)``.

    Frame i is the i-th frame front to back. Frames come upright, scaled by nothing but ``resize``.

    Attributes:
        name, version: Who decodes, for the manifest.
        fps: Frames per second, 0.0 where unknown.
        height, width: Upright native size in pixels.
        defect: What is known to be wrong before any frame is decoded (the file is cut short), or ``None``.
    """

    name: str
    version: str
    fps: float
    defect: DecodeError | None

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def __len__(self) -> int:
        """Frames, exact: counted, never estimated from the duration."""
        ...

    def read(self, indices: Sequence[int], resize: Resize) -> Generator[NDArray[Any]]:
        """(H, W, C) for each of the strictly rising ``indices``, in one pass from the first frame to the last.

        Frames not asked for are decoded too, but not converted.

        Raises:
            DecodeError: A frame cannot be decoded, or there are more or fewer frames than ``len`` says.
            SourceError: A frame's size differs from the first one's (image folders).
        """
        ...

    def get_frames_at(self, indices: Sequence[int], resize: Resize) -> NDArray[Any]:
        """(T, H, W, C) for any indices in [0, len), in any order, repeats allowed.

        Raises:
            IndexError: An index out of range.
            DecodeError: A frame cannot be decoded.
        """
        ...

    def close(self) -> None: ...


def open_source(source: Source, decoder: str = "auto") -> Decoder:
    """Open a source with the decoder asked for, or with the one that has to serve it instead.

    Image folders are always served by ``images``, animated WebP by ``pillow`` (FFmpeg cannot read it).

    Raises:
        DecodeError: It cannot be opened: no video in it, no header, empty.
        SourceError: The file has gone.
        PluginError: No decoder has this name.
    """
    if decoder == "auto" or decoder in DECODERS:
        if source.kind == "frames":
            decoder = "images"
        elif source.path.lower().endswith(".webp"):
            decoder = "pillow"
        elif decoder in ("auto", "images"):
            decoder = "pyav"
    member = plugins.load("decoders", decoder, DECODERS)
    return cast(Decoder, member(source))
