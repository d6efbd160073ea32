"""The frame-number video: frame i shows i as black and white bars, readable behind any codec and any size."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import av
import numpy as np
import pytest

from clipfold.ingest.sources import Source, find_sources

NUM_BITS = 12
HEIGHT, WIDTH = 32, 8 * NUM_BITS

# name -> file name, encoder, pixel format, encoder options, container options. B-frames wherever the codec has them.
VIDEOS: dict[str, tuple[str, str, str, dict[str, str], dict[str, str]]] = {
    "mp4-bframes": ("v.mp4", "libx264", "yuv444p", {"qp": "0", "bf": "3", "g": "12"}, {}),
    "mp4-fragmented": (
        "v.mp4",
        "libx264",
        "yuv420p",
        {"bf": "2", "g": "12"},
        {"movflags": "frag_keyframe+empty_moov"},
    ),
    "mp4-hevc": ("v.mp4", "libx265", "yuv420p", {"x265-params": "log-level=none:keyint=12"}, {}),
    "mov-png": ("v.mov", "png", "rgb24", {}, {}),
    "mkv-ffv1": ("v.mkv", "ffv1", "gray", {}, {}),
    "mkv-open-gop": ("v.mkv", "libx264", "yuv420p", {"bf": "3", "g": "12", "x264-params": "open-gop=1"}, {}),
    "webm-vp9": ("v.webm", "libvpx-vp9", "yuv420p", {"lossless": "1", "g": "12"}, {}),
    "webm-vp8": ("v.webm", "libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"}, {}),
    "avi-mpeg4": ("v.avi", "mpeg4", "yuv420p", {"bf": "2", "qscale": "2"}, {}),
    "ts-h264": ("v.ts", "libx264", "yuv420p", {"bf": "3", "g": "12"}, {}),
    "mpg-mpeg2": ("v.mpg", "mpeg2video", "yuv420p", {"bf": "2"}, {}),
    "flv-h264": ("v.flv", "libx264", "yuv420p", {"bf": "2", "g": "12"}, {}),
    "gif": ("v.gif", "gif", "rgb8", {}, {}),
    "apng": ("v.png", "apng", "rgb24", {}, {"f": "apng"}),
}


def number_picture(number: int) -> np.ndarray:
    """uint8 (32, 96, 3)."""
    bits = (number >> np.arange(NUM_BITS)) & 1
    return np.broadcast_to(np.repeat(bits * 255, 8).astype(np.uint8)[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def read_number(pixels: np.ndarray) -> int:
    """The number that (H, W, C) of any size and dtype shows."""
    row = pixels[pixels.shape[0] // 2, :, 0].astype(np.float64)
    centers = ((np.arange(NUM_BITS) + 0.5) * pixels.shape[1] / NUM_BITS).astype(int)
    return int(((row[centers] > row.max() / 2) << np.arange(NUM_BITS)).sum()) if row.max() else 0


def write_video(
    path: Path,
    codec: str,
    pixel_format: str,
    pictures: Sequence[np.ndarray],
    *,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    fps: int = 25,
    rotation: int = 0,
    first_pts: int = 0,
) -> Path:
    container_options = dict(container_options or {})
    with av.open(str(path), "w", format=container_options.pop("f", None), options=container_options) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate([*pictures, None]):
            frame = None
            if picture is not None:
                source = {(2, 1): "gray", (3, 1): "rgb24", (2, 2): "gray16le", (3, 2): "rgb48le"}
                frame = av.VideoFrame.from_ndarray(picture, format=source[picture.ndim, picture.itemsize])
                frame.pts, frame.time_base = number, Fraction(1, fps)
            for packet in stream.encode(frame):
                if first_pts:
                    packet.pts += first_pts
                    packet.dts += first_pts
                container.mux(packet)
    return path


def write_number_video(folder: Path, name: str, num_frames: int = 40, **more: Any) -> Path:
    file, codec, pixel_format, options, container_options = VIDEOS[name]
    pictures = [number_picture(number) for number in range(num_frames)]
    return write_video(
        folder / file, codec, pixel_format, pictures, options=options, container_options=container_options, **more
    )


def _source_of(path: Path) -> Source:
    found = find_sources(path)
    assert len(found.sources) == 1, found
    return found.sources[0]


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """What makes test media: ``write_video``, ``write_number_video``, ``read_number``, ``source_of`` and the names."""
    return SimpleNamespace(
        number_picture=number_picture,
        read_number=read_number,
        source_of=_source_of,
        videos=VIDEOS,
        write_number_video=write_number_video,
        write_video=write_video,
    )


@pytest.fixture(scope="session", params=sorted(VIDEOS))
def number_video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Each container and codec in turn: ``name``, ``source`` and ``num_frames`` of a frame-number video."""
    path = write_number_video(tmp_path_factory.mktemp(request.param), request.param, num_frames=40)
    return SimpleNamespace(name=request.param, source=_source_of(path), num_frames=40)


class _Handler(SimpleHTTPRequestHandler):
    """Files of a folder with ranges, ETags and listings; ``no_ranges`` and ``slow`` in a path do what they say."""

    requests: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("Range", "")))
        path = Path(self.translate_path(self.path))
        if "slow" in self.path:
            time.sleep(3)
        if "broken" in self.path and self.headers.get("Range"):
            self.send_error(403)
            return
        if path.is_dir() or not path.exists():
            super().do_GET()
            return
        data = path.read_bytes()
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span and "no_ranges" not in self.path:
            start, stop = int(span[1]), min(int(span[2] or len(data)), len(data) - 1) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            data = data[start:stop]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        if "no_size" in self.path:
            self.send_response(200)
            self.end_headers()
            return
        super().do_HEAD()

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file():
            status = path.stat()
            self.send_header("ETag", f'"{status.st_mtime_ns}-{status.st_size}"')
        super().end_headers()

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A real HTTP server: ``url`` of ``folder``, and the ``requests`` (path, range) that it got."""
    folder = tmp_path / "served"
    folder.mkdir()
    _Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{serving.server_address[1]}"
        yield SimpleNamespace(url=url, folder=folder, requests=_Handler.requests)
        serving.shutdown()
        thread.join()
