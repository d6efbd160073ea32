from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.errors import DecodeError
from clipfold.ingest.decoders import open_source
from clipfold.ingest.decoders.packets import scan_packets
from clipfold.ingest.decoders.pyav import PyAVDecoder
from clipfold.ingest.places import OpenPlace, Place
from clipfold.ingest.resize import Resize

RESIZE = Resize(spec=ClipSpec(height=32, width=96))


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_rotation_is_applied(tmp_path: Path, made: SimpleNamespace, rotation: int, decoder: str) -> None:
    """A display matrix of 90 turns the stored picture counter-clockwise: np.rot90(stored, 1)."""
    stored = np.zeros((48, 80, 3), dtype=np.uint8)
    stored[:24, :40] = 255  # the upper left quarter
    path = made.write_video(
        tmp_path / "v.mp4", "libx264", "yuv420p", [stored] * 3, options={"qp": "0"}, rotation=rotation
    )
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation % 360 == rotation % 360
    opened = open_source(made.source_of(path), decoder)
    upright = np.rot90(stored, rotation // 90)
    assert (opened.height, opened.width) == upright.shape[:2]
    spec = ClipSpec(height=upright.shape[0], width=upright.shape[1])
    for frame in opened.read(range(3), Resize(spec=spec)):
        np.testing.assert_array_equal(frame > 127, upright > 127)


def test_frames_before_an_edit_list_do_not_count(tmp_path: Path, made: SimpleNamespace) -> None:
    path = _with_edit_list(tmp_path, made)
    packets = scan_packets(OpenPlace(Place(str(path))))
    assert (packets.num_frames, packets.num_discarded) == (30, 10)
    for decoder in ("pyav", "decord"):
        opened = open_source(made.source_of(path), decoder)
        assert opened.name == "pyav"
        assert [made.read_number(frame) for frame in opened.read(range(30), RESIZE)] == list(range(10, 40))
        got = opened.get_frames_at([25, 1], RESIZE)
        assert [made.read_number(frame) for frame in got] == [35, 11]


def _with_edit_list(tmp_path: Path, made: SimpleNamespace) -> Path:
    pictures = [made.number_picture(number) for number in range(40)]
    return made.write_video(
        tmp_path / "edit.mp4",
        "libx264",
        "yuv444p",
        pictures,
        options={"qp": "0", "bf": "2"},
        container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"},
        first_pts=-10,
    )


def test_seeking_reads_less_than_everything(
    tmp_path: Path, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.write_number_video(tmp_path, "mp4-bframes", num_frames=200)
    opened = PyAVDecoder(made.source_of(path))
    num_decoded = 0
    decode = opened._decode

    def counting(seek_to=None):  # type: ignore[no-untyped-def]
        nonlocal num_decoded
        for frame in decode(seek_to):
            num_decoded += 1
            yield frame

    monkeypatch.setattr(opened, "_decode", counting)
    wanted = [190, 100, 3]
    assert [made.read_number(frame) for frame in opened.get_frames_at(wanted, RESIZE)] == wanted
    assert num_decoded <= 3 * 2 * 12  # at most two groups of pictures each


def test_a_file_whose_times_do_not_rise_is_read_from_the_start(tmp_path: Path, made: SimpleNamespace) -> None:
    path = made.write_number_video(tmp_path, "mp4-bframes", num_frames=60)
    opened = PyAVDecoder(made.source_of(path))
    opened._can_seek = False
    wanted = [55, 20, 40]
    assert [made.read_number(frame) for frame in opened.get_frames_at(wanted, RESIZE)] == wanted


def test_a_seek_that_lands_wrong_falls_back(
    tmp_path: Path, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.write_number_video(tmp_path, "mp4-bframes", num_frames=60)
    opened = PyAVDecoder(made.source_of(path))
    decode = opened._decode

    def landing_late(seek_to=None):  # type: ignore[no-untyped-def]
        yield from decode(None if seek_to is None else int(opened.packets.pts[-1]))

    monkeypatch.setattr(opened, "_decode", landing_late)
    wanted = [30, 31, 14]
    assert [made.read_number(frame) for frame in opened.get_frames_at(wanted, RESIZE)] == wanted
    assert not opened._can_seek


@pytest.mark.parametrize("pixel_format", ["gray", "gray16le", "gbrp16le"])
def test_lossless_video_keeps_its_values(tmp_path: Path, made: SimpleNamespace, pixel_format: str) -> None:
    dtype = np.uint8 if pixel_format == "gray" else np.uint16
    shape = (16, 70, 3) if pixel_format == "gbrp16le" else (16, 70)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype) for _ in range(4)]
    path = made.write_video(tmp_path / "v.mkv", "ffv1", pixel_format, pictures)
    channels = 3 if len(shape) == 3 else 1
    spec = ClipSpec(height=16, width=70, channels=channels, dtype=np.dtype(dtype).name)  # type: ignore[arg-type]
    for got, want in zip(open_source(made.source_of(path)).read(range(4), Resize(spec=spec)), pictures, strict=True):
        np.testing.assert_array_equal(got, want.reshape(16, 70, channels))


def test_odd_sizes(tmp_path: Path, made: SimpleNamespace) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (31, 77), dtype=np.uint8)
    path = made.write_video(tmp_path / "v.mkv", "ffv1", "gray", [picture] * 2)
    opened = open_source(made.source_of(path))
    assert (opened.height, opened.width) == (31, 77)
    assert [frame.shape for frame in opened.read([0, 1], RESIZE)] == [(32, 96, 3)] * 2


# ---- files that are wrong


def test_zero_bytes_and_no_video(tmp_path: Path, made: SimpleNamespace) -> None:
    path = tmp_path / "empty.mp4"
    path.write_bytes(b"")
    with pytest.raises(DecodeError, match="the file is empty: 0 bytes") as caught:
        open_source(made.source_of(path))
    assert caught.value.file == str(path)
    path.write_bytes(b"this is a text, whatever its name says\n" * 99)
    with pytest.raises(DecodeError, match="cannot be opened as a video"):
        open_source(made.source_of(path))


def test_audio_only(tmp_path: Path, made: SimpleNamespace) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(DecodeError, match="holds no video stream: found audio"):
        open_source(made.source_of(path))


@pytest.mark.parametrize(
    "name", ["mkv-ffv1", "webm-vp9", "avi-mpeg4", "mp4-faststart", "mp4-bframes", "mp4-fragmented"]
)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_cut_short(tmp_path: Path, made: SimpleNamespace, name: str, share: float) -> None:
    if name == "mp4-faststart":
        pictures = [made.number_picture(number) for number in range(40)]
        options = {"movflags": "faststart"}
        path = made.write_video(tmp_path / "v.mp4", "libx264", "yuv420p", pictures, container_options=options)
    else:
        path = made.write_number_video(tmp_path, name)
    data = path.read_bytes()
    assert scan_packets(OpenPlace(Place(str(path)))).num_frames == 40
    assert open_source(made.source_of(path)).defect is None
    path.write_bytes(data[: int(len(data) * share)])
    error = None
    try:
        error = open_source(made.source_of(path)).defect
    except DecodeError as caught:  # not even the header is there
        error = caught
    if error is None:  # a fragmented file may end between two fragments, as it does while it is written
        assert name == "mp4-fragmented"
        return
    assert error.file == str(path)
    assert "cut short" in str(error)


def test_damage_in_the_middle_names_file_and_frame(media: Path, made: SimpleNamespace) -> None:
    source = made.source_of(media / "videos" / "decord__corrupted.mp4")
    opened = open_source(source)
    assert opened.defect is None
    with pytest.raises(DecodeError, match="cannot be decoded: Invalid data") as caught:
        list(opened.read(range(len(opened)), RESIZE))
    assert caught.value.file == source.path
    assert caught.value.frame == 28
    assert "keep-partial" in caught.value.fix
