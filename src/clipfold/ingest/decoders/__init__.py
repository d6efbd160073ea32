"""Whatever opens one video, image sequence or array: one contract, one member a file.

``auto`` is ``pyav`` for videos, ``images`` for folders of pictures, ``arrays`` for .npy and .npz, ``pillow`` for
animated WebP and TIFFs of several pages. ``pyav`` is the definition of which frame is which; another decoder serves a
file only where it is known to deliver the same frames, else PyAV does. Where PyAV fails within a file, ``auto`` turns
to decord, then to torchcodec, if they are installed and may serve it. ``decoder.name`` says who really served.

=========================  ==========================================================================================
what a file may have       what happens
=========================  ==========================================================================================
B-frames, open GOPs        frames in the order of presentation, as PyAV delivers them
variable frame rate        frames are chosen by index, each once; ``--fps`` and start/stop go by true timestamps
no or repeated pts         read front to back; ``--fps`` takes the nominal rate, an error where there is none
edit list                  frames that it leaves out do not count; only PyAV serves such files
rotation                   applied, rounded to quarter turns; sizes are upright
mirrored display matrix    applied; only PyAV serves such files
sample aspect ratio        ignored: pixels count as square (``--resize`` decides about the shape anyway)
interlaced                 frames as they are stored, both fields woven together; nothing is deinterlaced
10 and 12 bits             kept in uint16 and float32 clips (widened to full scale), else rounded to 8; PyAV alone
full range                 converted as such: 0 stays 0, 255 stays 255
4:2:2, 4:4:4               chroma at its full resolution
colour matrix              that of the file; BT.601 where it does not say (as FFmpeg)
alpha, palette             alpha is dropped, not blended; palettes become RGB
grey                       one channel; repeated for RGB clips, BT.601 luma the other way
several video streams      the one that FFmpeg calls the best (size, then bit rate, then order); cover art never
no duration, no count      frames are counted by their packets
odd sizes                  as they are, to the last row and column
frames change their size   videos: each is scaled to the clip's size; image folders: an error
animated GIF, PNG          PyAV; a viewer's composition of partial frames
animated WebP              Pillow
TIFF of several pages      each page a frame, by Pillow; further pages that are thumbnails do not count
cut short                  an error before anything is decoded, where header or last packet tell; ``--keep-partial``
damaged                    an error with the number of the frame; ``--keep-partial`` keeps the clips before it
more or fewer frames       an error: what was announced has to be delivered
no video stream, empty     an error
behind a URL, in a tar     PyAV (range reads), torchcodec where it may; decord never
=========================  ==========================================================================================

Decoders agree on every frame. Their pixels agree in luma to 40 dB and better (41.7 to 48.9 on real files at 16x701). In
colour decord and torchcodec repeat subsampled chroma, where PyAV's frames have it interpolated: 38 to 45 dB on camera
pictures, down to 26 dB on drawn pictures with hard colour edges.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from clipfold import plugins
from clipfold.errors import ClipfoldError, DecodeError
from clipfold.ingest.decoders.arrays import ArrayDecoder, Axes
from clipfold.ingest.listing import Source, extension_of
from clipfold.ingest.resize import Resize

__all__ = ["DECODERS", "Decoder", "Fallbacks", "open_source"]

DECODERS = {
    "pyav": "clipfold.ingest.decoders.pyav:PyAVDecoder",
    "decord": "clipfold.ingest.decoders.decord:open_decord",
    "torchcodec": "clipfold.ingest.decoders.torchcodec:open_torchcodec",
    "images": "clipfold.ingest.decoders.images:FolderDecoder",
    "pillow": "clipfold.ingest.decoders.animations:AnimationDecoder",
    "arrays": "clipfold.ingest.decoders.arrays:ArrayDecoder",
}
_FALLBACKS = ("decord", "torchcodec")


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

    def read(self, indices: Sequence[int], resize: Resize, *, whole: bool = True) -> Generator[NDArray[Any]]:
        """(H, W, C) for each of the strictly rising ``indices``, in one pass from the first frame to the last.

        Frames not asked for are decoded too, but not converted. Where ``whole`` is false, nothing behind the last one
        asked for is decoded, and what lies before the first is left out where seeking is exact.

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

    def times_seconds(self) -> NDArray[np.float64] | None:
        """float64 (len,): when each frame is shown, from 0, rising; ``None`` where the file does not say."""
        ...

    def close(self) -> None: ...


def open_source(source: Source, decoder: str = "auto", *, axes: Axes = "auto") -> Decoder:
    """Open a source with the decoder asked for, or with the one that has to serve it instead.

    Image folders are always served by ``images``, arrays by ``arrays``, WebP and TIFF by ``pillow``.

    Args:
        source: What to read.
        decoder: ``"auto"``, a name of ``DECODERS``, or ``"my_package.module:MyDecoder"``.
        axes: Order of the dimensions of an array.

    Raises:
        DecodeError: It cannot be opened: no video in it, no header, empty.
        SourceError: The file has gone or cannot be read.
        PluginError: No decoder has this name.
    """
    if decoder == "auto" or decoder in DECODERS:
        if source.content == "array":
            return ArrayDecoder(source, axes=axes)
        if source.content == "frames":
            decoder = "images"
        elif extension_of(source.path) in (".webp", ".tif", ".tiff"):
            decoder = "pillow"
        elif decoder in ("auto", "images", "arrays"):
            decoder = "pyav"
    member = plugins.load("decoders", decoder, DECODERS)
    return cast(Decoder, member(source))


class Fallbacks:
    """Other decoders for a video on which the first one failed, each tried once.

    Args:
        source: The video.
        decoder: What was asked for: only ``"auto"`` has others.
        first: Why the first one failed.
    """

    def __init__(self, source: Source, decoder: str, first: DecodeError) -> None:
        has_others = decoder == "auto" and source.content == "video"
        self._source, self._first = source, first
        self._names = [name for name in _FALLBACKS if has_others and find_spec(name) is not None]
        self._reasons: list[str] = []
        self._current = ""

    def next_after(self, error: DecodeError) -> Decoder:
        """The next that may serve the file.

        Raises:
            DecodeError: None is left. It is the first one's error, with the reasons of the others.
        """
        if error is not self._first:
            self._reasons.append(f"{self._current}: {error.what}")
        while self._names:
            self._current = self._names.pop(0)
            try:
                opened = open_source(self._source, self._current)
            except ClipfoldError as reason:
                self._reasons.append(f"{self._current}: {reason.what}")
                continue
            if opened.name == self._current:
                return opened
            opened.close()
        first = self._first
        if not self._reasons:
            raise first
        raise DecodeError("; ".join([first.what, *self._reasons]), fix=first.fix, **first.where) from first
