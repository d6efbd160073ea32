from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clipfold import DecodeError
from clipfold.ingest.decoders.probe import has_variable_rate, probe


def test_both_depths_see_the_same_video(number_video: SimpleNamespace) -> None:
    everything, headers = probe(number_video.source, depth="everything"), probe(number_video.source)
    assert everything.num_frames == number_video.num_frames
    assert not everything.is_estimate
    assert not everything.is_variable_rate
    assert headers.is_estimate
    for name in ("height", "width", "codec", "container", "pixel_format", "rotation_degrees", "is_grey"):
        assert getattr(everything, name) == getattr(headers, name)
    assert (everything.height, everything.width) == (32, 96)


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_sizes_are_upright(made: SimpleNamespace, tmp_path: Path, rotation: int) -> None:
    path = made.write_number_video(tmp_path, "mp4-bframes", num_frames=3, rotation=rotation)
    found = probe(made.source_of(path))
    assert (found.height, found.width) == ((96, 32) if rotation % 180 else (32, 96))
    assert bool(found.rotation_degrees) == bool(rotation)


def test_frame_rates_vary_where_gaps_differ() -> None:
    assert not has_variable_rate(np.arange(0, 1000, 40))
    assert not has_variable_rate(np.cumsum([33, 33, 34] * 30))  # 30 fps in whole milliseconds
    assert has_variable_rate(np.cumsum([33, 66, 33, 100] * 30))
    assert not has_variable_rate(np.cumsum([40] * 200 + [400] + [40] * 200))  # one pause is no variable rate
    assert not has_variable_rate(np.array([], np.int64))


def test_image_folders_tell_dtype_and_colours(made: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((4, 6), 1000 + number, np.uint16)).save(tmp_path / f"{number}.png")
    found = probe(made.source_of(tmp_path), depth="everything")
    assert (found.container, found.codec, found.pixel_format) == ("images", "png", "uint16 grey")
    assert (found.dtype, found.is_grey, found.num_frames, found.fps) == ("uint16", True, 3, 0.0)


def test_damage_behind_the_first_frame_needs_everything(made: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (6, 4)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    assert probe(made.source_of(tmp_path)).num_frames == 3
    with pytest.raises(DecodeError):
        probe(made.source_of(tmp_path), depth="everything")
