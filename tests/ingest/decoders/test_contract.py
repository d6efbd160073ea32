"""Every decoder through the same questions: how many frames, which is which, in any order, and never one too many."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import PluginError, SourceError
from clipfold.ingest.decoders import DECODERS, Decoder, open_source
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import Source, find_sources

RESIZE = Resize(spec=ClipSpec(height=16, width=96))


def check_contract(decoder: Decoder, num_frames: int, made: SimpleNamespace) -> None:
    assert len(decoder) == num_frames
    assert isinstance(decoder.fps, float)
    assert (decoder.height, decoder.width) == (32, 96)
    assert decoder.defect is None
    assert decoder.name in DECODERS
    assert decoder.version
    times = decoder.times_seconds()
    if times is not None:
        assert times.dtype == np.float64
        assert len(times) == num_frames
        assert times[0] == 0
        assert (np.diff(times) > 0).all()
    frames = list(decoder.read(range(num_frames), RESIZE))
    assert [made.read_number(frame) for frame in frames] == list(range(num_frames))
    assert all(frame.shape == (16, 96, 3) and frame.dtype == np.uint8 for frame in frames)
    some = [0, 3, 4, num_frames - 1]
    assert [made.read_number(frame) for frame in decoder.read(some, RESIZE)] == some
    assert [made.read_number(frame) for frame in decoder.read(some[1:3], RESIZE, whole=False)] == some[1:3]
    assert list(decoder.read([], RESIZE)) == []
    assert list(decoder.read([], RESIZE, whole=False)) == []
    for wanted in ([num_frames - 1, 0, 17, 17, 5], [30, 31, 12], [num_frames - 1], []):
        got = decoder.get_frames_at(wanted, RESIZE)
        assert got.shape == (len(wanted), 16, 96, 3)
        for index, frame in zip(wanted, got, strict=True):
            np.testing.assert_array_equal(frame, frames[index])
    for wrong in (-1, num_frames):
        with pytest.raises(IndexError, match=f"frame {wrong} of .*expected 0 to {num_frames - 1}"):
            decoder.get_frames_at([wrong], RESIZE)
    abandoned = decoder.read(range(num_frames), RESIZE)
    next(abandoned)
    abandoned.close()
    decoder.close()
    decoder.close()


def number_folder(folder: Path, made: SimpleNamespace, num_frames: int = 40, suffix: str = "png") -> Source:
    for number in range(num_frames):
        Image.fromarray(made.number_picture(number)).save(folder / f"frame_{number}.{suffix}")
    return find_sources(folder).sources[0]


def animation(path: Path, made: SimpleNamespace, **options: Any) -> Source:
    pictures = [Image.fromarray(made.number_picture(number)) for number in range(40)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, **options)
    return find_sources(path).sources[0]


@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord", "torchcodec"])
def test_videos(number_video: SimpleNamespace, made: SimpleNamespace, decoder: str, skip_without: Any) -> None:
    if decoder in ("decord", "torchcodec") and find_spec(decoder) is None:
        skip_without(decoder, f"{decoder} is not installed")
    try:
        opened = open_source(number_video.source, decoder)
    except PluginError as error:
        skip_without(decoder, error.what)
        raise
    if decoder in ("auto", "pyav"):
        assert opened.name == "pyav"
    elif number_video.name in ("mp4-bframes", "mkv-open-gop"):
        assert opened.name == decoder
    if number_video.name.split("-")[0] in ("avi", "ts", "mpg", "flv", "gif", "apng"):
        assert opened.name == "pyav"
    assert opened.fps in (25.0, 0.0)
    check_contract(opened, number_video.num_frames, made)


@pytest.mark.parametrize("decoder", ["auto", "images", "pyav", "decord", "pillow"])
def test_folders_are_served_by_images_whatever_is_asked(tmp_path: Path, made: SimpleNamespace, decoder: str) -> None:
    opened = open_source(number_folder(tmp_path, made), decoder)
    assert opened.name == "images"
    check_contract(opened, 40, made)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif"])
def test_image_formats(tmp_path: Path, made: SimpleNamespace, suffix: str) -> None:
    check_contract(open_source(number_folder(tmp_path, made, suffix=suffix)), 40, made)


def test_animated_webp_is_served_by_pillow(tmp_path: Path, made: SimpleNamespace) -> None:
    opened = open_source(animation(tmp_path / "a.webp", made, lossless=True))
    assert opened.name == "pillow"
    assert opened.fps == 25.0
    check_contract(opened, 40, made)


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_animated_gif_and_png_agree_with_pillow(tmp_path: Path, made: SimpleNamespace, suffix: str) -> None:
    source = animation(tmp_path / f"a.{suffix}", made)
    for decoder in ("auto", "pillow"):
        opened = open_source(source, decoder)
        assert opened.name == ("pyav" if decoder == "auto" else "pillow")
        check_contract(opened, 40, made)


def test_plugged_in_and_unknown_decoders(tmp_path: Path, made: SimpleNamespace, monkeypatch: Any) -> None:
    source = number_folder(tmp_path, made, num_frames=1)
    (tmp_path / "my_decoders.py").write_text("class Mine:\n    name = 'mine'\n    def __init__(self, source): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert open_source(source, "my_decoders:Mine").name == "mine"
    with pytest.raises(PluginError, match="unknown name among the decoders: 'pyab'"):
        open_source(source, "pyab")


@pytest.mark.parametrize("decoder", ["pyav", "decord", "pillow"])
def test_a_source_that_has_gone(tmp_path: Path, made: SimpleNamespace, decoder: str) -> None:
    path = made.write_number_video(tmp_path, "mkv-ffv1", num_frames=2)
    source = made.source_of(path)
    path.unlink()
    with pytest.raises(SourceError, match="has gone"):
        open_source(source, decoder)
