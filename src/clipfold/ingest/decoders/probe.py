"""What one source is: container, codec, size, rate and number of frames; if asked, whether all of it decodes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from clipfold.clip import ClipSpec, Dtype
from clipfold.errors import DecodeError
from clipfold.ingest.decoders import Decoder, open_source
from clipfold.ingest.decoders.arrays import ArrayDecoder
from clipfold.ingest.decoders.images import load_image
from clipfold.ingest.decoders.packets import cut_short, open_video
from clipfold.ingest.decoders.pyav import PyAVDecoder
from clipfold.ingest.listing import Source, extension_of
from clipfold.ingest.places import OpenPlace, frame_places, place_of
from clipfold.ingest.resize import Resize

__all__ = ["Depth", "Probe", "has_variable_rate", "probe"]

Depth = Literal["headers", "everything"]

_MAX_UNEVENNESS = 0.1  # of the usual gap between two frames
_MAX_SHARE_UNEVEN = 0.01


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One source, as its decoder sees it.

    Args:
        num_frames: Frames; exact unless ``is_estimate``.
        is_estimate: The count comes from the header, which may be wrong, or from duration and frame rate.
        height, width: Upright native size in pixels.
        fps: Frames per second, 0.0 where unknown.
        duration_seconds: 0.0 where unknown.
        container, codec, pixel_format: FFmpeg's names; of an image folder ``"images"``, the files' extensions, and
            dtype and colours.
        dtype: Smallest dtype of a clip that keeps the values.
        is_grey: One channel.
        rotation_degrees: Counter-clockwise turn that makes it upright, which reading applies.
        is_variable_rate: Whether the gaps between frames differ; ``None`` where that was not looked at.
        is_interlaced: By its first frame.
        num_video_streams: Reading takes the best of them.
        num_hidden_frames: Frames in the file that its edit list leaves out.
    """

    num_frames: int
    is_estimate: bool = False
    height: int
    width: int
    fps: float = 0.0
    duration_seconds: float = 0.0
    container: str
    codec: str
    pixel_format: str
    dtype: Dtype = "uint8"
    is_grey: bool = False
    rotation_degrees: int = 0
    is_variable_rate: bool | None = None
    is_interlaced: bool = False
    num_video_streams: int = 1
    num_hidden_frames: int = 0

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return asdict(self)


def probe(source: Source, *, depth: Depth = "headers") -> Probe:
    """Look at one source. Native code reads it: call this in a worker process.

    Args:
        source: A video or an image folder.
        depth: ``"headers"`` reads the header and the first frame. ``"everything"`` counts the frames and decodes each
            of them, as a conversion would, without converting any.

    Raises:
        DecodeError: It cannot be opened or decoded, is cut short, or delivers another number of frames than it says.
        SourceError: It has gone, or its frames differ in size.
    """
    if source.content == "array":
        return _probe_array(source, depth)
    if source.content == "frames":
        return _probe_folder(source, depth)
    if extension_of(source.path) in (".webp", ".tif", ".tiff"):
        return _probe_animation(source, depth)
    return _probe_video(source, depth)


def has_variable_rate(pts: NDArray[np.int64]) -> bool:
    """Whether more than one in a hundred gaps is a tenth longer or shorter than the usual one.

    A clock too coarse for the frame rate makes gaps differ by one tick (30 fps in milliseconds: 33, 33, 34): that
    alone is a constant rate.
    """
    if len(pts) < 3:
        return False
    gaps = np.diff(pts)
    usual = float(np.median(gaps))
    uneven = np.abs(gaps - usual) > max(_MAX_UNEVENNESS * usual, 1.0)
    return bool(uneven.mean() > _MAX_SHARE_UNEVEN)


def _probe_video(source: Source, depth: Depth) -> Probe:
    if depth == "headers":
        found = _video_header(source)
        with closing(OpenPlace(place_of(source))) as place:
            if (defect := cut_short(place)) is not None:
                raise defect
        return found
    decoder = PyAVDecoder(source)
    if decoder.defect is not None:
        raise decoder.defect
    for _ in decoder.read([], Resize(spec=ClipSpec())):
        raise AssertionError("a frame that nobody asked for")
    header = _video_header(source)
    packets = decoder.packets
    return Probe(
        **{
            **header.to_json(),
            "num_frames": len(decoder),
            "is_estimate": False,
            "fps": decoder.fps,
            "duration_seconds": len(decoder) / decoder.fps if decoder.fps else header.duration_seconds,
            "is_variable_rate": has_variable_rate(packets.pts),
            "num_hidden_frames": packets.num_discarded,
        }
    )


def _video_header(source: Source) -> Probe:
    """The header and the first frame; which stream is read is decided as in :mod:`clipfold.ingest.decoders.pyav`."""
    try:
        with closing(OpenPlace(place_of(source))) as place, open_video(place) as container:
            stream = container.streams.best("video")
            if stream is None or stream.disposition & Disposition.attached_pic or stream.codec_context is None:
                raise DecodeError("holds no video stream", fix="remove it, or leave it out with --exclude")
            stream = cast(av.VideoStream, stream)
            stream.thread_type = "NONE"
            frame = next(container.decode(stream), None)
            if frame is None:
                raise DecodeError("holds no frame: its video stream is empty", fix="copy it again or remove it")
            fps = float(stream.average_rate or 0)
            seconds = _duration_seconds(container, stream)
            num_frames = int(stream.frames) or round(seconds * fps)
            depths = [component.bits for component in frame.format.components if not component.is_alpha]
            turned = round(frame.rotation / 90) % 2
            return Probe(
                num_frames=num_frames,
                is_estimate=True,
                height=frame.width if turned else frame.height,
                width=frame.height if turned else frame.width,
                fps=fps,
                duration_seconds=seconds or (num_frames / fps if fps else 0.0),
                container=container.format.name,
                codec=stream.codec_context.codec.canonical_name,
                pixel_format=frame.format.name,
                dtype="uint16" if max(depths) > 8 else "uint8",
                is_grey=len(depths) == 1 and not frame.format.has_palette,
                rotation_degrees=int(frame.rotation),
                is_interlaced=bool(frame.interlaced_frame),
                num_video_streams=len(container.streams.video),
            )
    except DecodeError as error:
        error.where.setdefault("file", source.path)
        raise
    except (av.FFmpegError, OSError, UnicodeDecodeError) as error:
        with closing(open_source(source)):  # what the reading decoder has to say against the file is more exact
            raise DecodeError(f"cannot be decoded: {error}", file=source.path) from error


def _duration_seconds(container: Any, stream: Any) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _probe_folder(source: Source, depth: Depth) -> Probe:
    decoder = open_source(source)
    places = frame_places(source)
    first = load_image(places[0])
    dtype = cast(Dtype, str(first.dtype))
    is_grey = first.ndim == 2
    with closing(decoder):
        if depth == "everything":
            _read_all(decoder, dtype, channels=1 if is_grey else 3)
    extensions = sorted({extension_of(each.member or each.location).removeprefix(".") for each in places})
    return Probe(
        num_frames=len(decoder),
        height=decoder.height,
        width=decoder.width,
        container="images",
        codec="+".join(extensions),
        pixel_format=f"{dtype} {'grey' if is_grey else 'RGB'}",
        dtype=dtype,
        is_grey=is_grey,
    )


def _probe_array(source: Source, depth: Depth) -> Probe:
    decoder = ArrayDecoder(source)
    with closing(decoder):
        if depth == "everything":
            _read_all(decoder, decoder.dtype, channels=decoder.channels)
    return Probe(
        num_frames=len(decoder),
        height=decoder.height,
        width=decoder.width,
        container="array",
        codec=extension_of(source.path).removeprefix("."),
        pixel_format=f"{decoder.dtype} C={decoder.channels}",
        dtype=decoder.dtype,
        is_grey=decoder.channels == 1,
    )


def _probe_animation(source: Source, depth: Depth) -> Probe:
    decoder = open_source(source)
    with closing(decoder):
        if depth == "everything":
            _read_all(decoder, "uint8", channels=3)
    return Probe(
        num_frames=len(decoder),
        height=decoder.height,
        width=decoder.width,
        fps=decoder.fps,
        duration_seconds=len(decoder) / decoder.fps if decoder.fps else 0.0,
        container=(kind := extension_of(source.path).removeprefix(".")),
        codec=kind,
        pixel_format="uint8 RGB",
    )


def _read_all(decoder: Decoder, dtype: Dtype, *, channels: int) -> None:
    """Load every frame at native size, where nothing is scaled."""
    spec = ClipSpec(num_frames=1, height=decoder.height, width=decoder.width, channels=channels, dtype=dtype)
    for _ in decoder.read(range(len(decoder)), Resize(spec=spec)):
        pass
