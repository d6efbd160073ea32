"""Small trees of real files: a bar that moves to the left or to the right, as mp4 and as numbered pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.shards.convert import convert

HEIGHT, WIDTH = 24, 32
SPEC = ClipSpec(num_frames=8, height=HEIGHT, width=WIDTH)


def bar_frames(num_frames: int, *, step: int) -> np.ndarray[Any, Any]:
    """uint8 (T, 24, 32, 3): a white column, 2 pixels wide, that moves by `step` a frame on a grey ground."""
    frames = np.full((num_frames, HEIGHT, WIDTH, 3), 40, np.uint8)
    for number in range(num_frames):
        place = (4 + step * number) % (WIDTH - 1)
        frames[number, :, place : place + 2] = 255
    return frames


def write_mp4(path: Path, frames: np.ndarray[Any, Any], *, fps: int = 25, rotation: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv444p"
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate([*frames, None]):
            frame = None
            if picture is not None:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
            for packet in stream.encode(frame):
                container.mux(packet)
    return path


def write_pictures(folder: Path, frames: np.ndarray[Any, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(frames):
        Image.fromarray(picture).save(folder / f"frame_{number}.png")
    return folder


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """left/ and right/: two mp4 and one image folder each; of the mp4 one is shorter than a clip of 8."""
    root = tmp_path_factory.mktemp("tree")
    for label, step in (("left", -1), ("right", 1)):
        write_mp4(root / label / "a.mp4", bar_frames(16, step=step))
        write_mp4(root / label / "short.mp4", bar_frames(5, step=step), fps=10)
        write_pictures(root / label / "pictures", bar_frames(9, step=step))
    return root


@pytest.fixture(scope="session")
def corpus(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree, converted: 8 clips."""
    out = tmp_path_factory.mktemp("corpora") / "corpus"
    convert(tree, out=out, spec=SPEC, codec="raw", num_workers=1, show_progress=False)
    return out


@pytest.fixture(scope="session")
def broken_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good sources of two classes among everything that goes wrong."""
    root = tmp_path_factory.mktemp("broken")
    whole = write_mp4(root / "walk" / "good.mp4", bar_frames(12, step=1))
    write_mp4(root / "walk" / "turned.mp4", bar_frames(12, step=2), rotation=90)
    (root / "run").mkdir()
    (root / "run" / "copy.mp4").write_bytes(whole.read_bytes())
    (root / "run" / "empty.mp4").write_bytes(b"")
    (root / "run" / "text.mp4").write_text("this is no video")
    (root / "run" / "cut.mp4").write_bytes(whole.read_bytes()[:-200])
    (root / "run" / "notes.txt").write_text("ignored")
    mixed = write_pictures(root / "walk" / "mixed", bar_frames(9, step=1))
    Image.new("RGB", (9, 9)).save(mixed / "frame_4.png")
    damaged = write_pictures(root / "walk" / "damaged", bar_frames(9, step=1))
    (damaged / "frame_5.png").write_bytes((damaged / "frame_5.png").read_bytes()[:50])
    (root / "nothing").mkdir()
    return root
