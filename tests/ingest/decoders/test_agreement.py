"""Decoders against each other: which frame is which, and how far pixels may differ."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError, DecodeError, PluginError
from clipfold.ingest.decoders import Fallbacks, open_source
from clipfold.ingest.decoders.pyav import PyAVDecoder
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.resize import Resize
from clipfold.ingest.sources import Source, find_sources

RESIZE = Resize(spec=ClipSpec(height=32, width=96))
OTHERS = ("decord", "torchcodec")
LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest, skip_without: Any) -> str:
    name = str(request.param)
    if find_spec(name) is None:
        skip_without(name, f"{name} is not installed")
    if name == "torchcodec":
        from clipfold.ingest.decoders.torchcodec import load_torchcodec

        try:
            load_torchcodec()
        except PluginError as error:
            skip_without(name, error.what)
    return name


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def read_all(source: Source, decoder: str, spec: ClipSpec) -> tuple[str, list[np.ndarray]]:
    opened = open_source(source, decoder)
    try:
        return opened.name, list(opened.read(range(len(opened)), Resize(spec=spec)))
    finally:
        opened.close()


# The others convert YUV to RGB before our one scaling, with swscale's fast tables, which are off by up to 2 of 255 a
# channel; PyAV's frame is converted exactly. 40 dB is an RMS difference of 2.55. It holds for the luma. In colour the
# others repeat subsampled chroma where we interpolate it: 38 dB and more on camera pictures, down to 26 on drawn ones
# with hard colour edges.
MIN_LUMA_PSNR = 40.0


@pytest.mark.parametrize("at_native_size", [False, True])
def test_real_files_agree(media: Path, other: str, at_native_size: bool) -> None:
    """Every file that another decoder serves has the same frames, at the clip's size and at its own."""
    served = []
    for source in find_sources(media / "videos").sources:
        if source.name in ("decord__corrupted.mp4", "moviepy__big_buck_bunny_0_30.webm", "sam2__bedroom.mp4"):
            continue  # broken; long
        try:
            opened = open_source(source, other)
        except DecodeError:
            continue
        opened.close()
        if opened.name != other:
            continue
        size = {"height": opened.height, "width": opened.width} if at_native_size else {"height": 16, "width": 701}
        _, theirs = read_all(source, other, ClipSpec(**size))
        _, ours = read_all(source, "pyav", ClipSpec(**size))
        pairs = [(one @ LUMA, two @ LUMA) for one, two in zip(ours, theirs, strict=True)]
        assert min(psnr(one, two) for one, two in pairs) >= MIN_LUMA_PSNR, source.name
        served.append(source.name)
    assert len(served) >= 7, served


def test_files_that_they_do_not_serve(tmp_path: Path, made: SimpleNamespace, other: str) -> None:
    for name in ("avi-mpeg4", "ts-h264", "mpg-mpeg2", "mkv-ffv1"):
        (tmp_path / name).mkdir()
        source = made.source_of(made.write_number_video(tmp_path / name, name, num_frames=5))
        opened = open_source(source, other)
        assert opened.name == "pyav"
        opened.close()


def test_torchcodec_reads_out_of_a_tar(tmp_path: Path, made: SimpleNamespace, other: str) -> None:
    import tarfile

    path = made.write_number_video(tmp_path, "mp4-bframes", num_frames=20)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(path, "a.mp4")
    name, frames = read_all(find_sources(tmp_path / "a.tar").sources[0], other, RESIZE.spec)
    assert name == ("torchcodec" if other == "torchcodec" else "pyav")
    assert [made.read_number(frame) for frame in frames] == list(range(20))


@pytest.fixture
def pyav_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV's decoder fails at frame 13, as if its library did not know what comes there."""
    decode = PyAVDecoder._decode

    def breaking(self: PyAVDecoder, seek_to: int | None = None) -> Iterator[Any]:
        for number, frame in enumerate(decode(self, seek_to)):
            if number == 13:
                raise DecodeError("cannot be decoded: no", file=self.path, frame=13) from OSError("no")
            yield frame

    monkeypatch.setattr(PyAVDecoder, "_decode", breaking)


def read_numbers(source: Source, made: SimpleNamespace, **options: Any) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    options = {"spec": ClipSpec(num_frames=5, height=32, width=96), **options}
    with read_clips(source, ReadOptions(**options)) as reader:
        for clip in reader:
            out.setdefault(clip.decoder[0], []).extend(made.read_number(frame) for frame in clip.pixels_SHWC)
    return out


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("clipfold.ingest.decoders._FALLBACKS", names)


@pytest.mark.usefixtures("pyav_breaks")
def test_auto_turns_to_the_next_where_one_fails(
    tmp_path: Path, made: SimpleNamespace, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, other)
    source = made.source_of(made.write_number_video(tmp_path, "mp4-bframes", num_frames=40))
    found = read_numbers(source, made)
    assert found == {"pyav": list(range(10)), other: list(range(10, 40))}
    with pytest.raises(DecodeError, match="cannot be decoded: no"):  # who asked for PyAV gets PyAV
        read_numbers(source, made, decoder="pyav")


@pytest.mark.usefixtures("pyav_breaks")
def test_where_all_fail_every_reason_is_kept(
    tmp_path: Path, made: SimpleNamespace, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, other)
    source = made.source_of(made.write_number_video(tmp_path, "mp4-bframes", num_frames=40))
    kind = type(open_source(source, other))

    def failing(self: Any, *args: Any, **options: Any) -> Any:
        raise DecodeError("not today") from OSError()

    monkeypatch.setattr(kind, "read", failing)
    with pytest.raises(DecodeError) as caught:
        read_numbers(source, made)
    assert caught.value.what == f"cannot be decoded: no; {other}: not today"
    assert (caught.value.file, caught.value.frame) == (source.path, 13)
    kept = read_numbers(source, made, keep_partial=True)
    assert kept == {"pyav": list(range(10))}


@pytest.mark.usefixtures("pyav_breaks")
def test_a_file_that_nobody_else_may_serve(tmp_path: Path, made: SimpleNamespace) -> None:
    source = made.source_of(made.write_number_video(tmp_path, "avi-mpeg4", num_frames=40))
    with pytest.raises(DecodeError, match=r"^cannot be decoded: no"):
        read_numbers(source, made)


def test_a_wrong_count_is_no_reason_to_ask_others(
    tmp_path: Path, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made.source_of(made.write_number_video(tmp_path, "mp4-bframes", num_frames=40))
    monkeypatch.setattr(PyAVDecoder, "__len__", lambda self: 42)
    monkeypatch.setattr(Fallbacks, "next_after", lambda *args: pytest.fail("asked"))
    with pytest.raises(ClipfoldError, match="40 frames, expected the 42"):
        read_numbers(source, made)


MATRICES = {
    "mirrored": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    "anti-transposed": ((0, -1, -1, 0), lambda picture: picture[::-1, ::-1].transpose(1, 0, 2)),
    "half a turn": ((-1, 0, 0, -1), lambda picture: picture[::-1, ::-1]),
}


@pytest.mark.parametrize("name", sorted(MATRICES))
@pytest.mark.parametrize("decoder", ["auto", *OTHERS])
def test_display_matrices(tmp_path: Path, made: SimpleNamespace, name: str, decoder: str) -> None:
    """The matrix is written into the track header: (a, b, c, d) takes the stored point (p, q) to (ap + cq, bp + dq)."""
    if decoder in OTHERS and find_spec(decoder) is None:
        pytest.skip(f"{decoder} is not installed")
    stored = np.zeros((48, 80, 3), dtype=np.uint8)
    stored[:12, :20] = 255
    path = made.write_video(tmp_path / "v.mp4", "libx264", "yuv444p", [stored] * 3, options={"qp": "0"})
    (a, b, c, d), upright_of = MATRICES[name]
    data = path.read_bytes()
    unity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    track = data.index(unity, data.index(b"tkhd"))
    matrix = struct.pack(">9i", a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:track] + matrix + data[track + 36 :])
    try:
        opened = open_source(made.source_of(path), decoder)
    except PluginError as error:
        pytest.skip(error.what)
    upright = upright_of(stored)
    assert (opened.height, opened.width) == upright.shape[:2]
    if name != "half a turn":
        assert opened.name == "pyav"
    spec = ClipSpec(height=upright.shape[0], width=upright.shape[1])
    for frame in opened.read(range(3), Resize(spec=spec)):
        np.testing.assert_array_equal(frame > 127, upright > 127)
    opened.close()


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "F"])
def test_a_tiff_of_pages_is_a_video(tmp_path: Path, made: SimpleNamespace, mode: str) -> None:
    pages = []
    for number in range(6):
        picture = made.number_picture(number)
        if mode == "I;16":
            pages.append(Image.fromarray(picture[:, :, 0].astype(np.uint16) * 257))
        elif mode == "F":
            pages.append(Image.fromarray(picture[:, :, 0].astype(np.float32)))
        else:
            pages.append(Image.fromarray(picture).convert(mode))
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    source = find_sources(tmp_path).sources[0]
    assert (source.name, source.kind) == ("pages.tif", "video")
    dtype = {"I;16": "uint16", "F": "float32"}.get(mode, "uint8")
    spec = ClipSpec(num_frames=6, height=32, width=96, dtype=dtype)  # type: ignore[arg-type]
    with read_clips(source, ReadOptions(spec=spec)) as reader:
        clip = next(reader)
    assert clip.decoder[0] == "pillow"
    assert [made.read_number(frame) for frame in clip.pixels_SHWC] == list(range(6))


def test_a_thumbnail_is_no_page(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 48))
    picture.save(tmp_path / "a.tif", save_all=True, append_images=[picture.resize((16, 12))])
    assert [source.kind for source in find_sources(tmp_path).sources] == ["frames"]


def test_fps_of_a_variable_rate(tmp_path: Path, made: SimpleNamespace) -> None:
    """GIF delays of 100, 100, 400, 100 ms: at 10 a second the third frame stays for four."""
    pictures = [Image.fromarray(made.number_picture(number)) for number in range(5)]
    durations = [100, 100, 400, 100, 100]
    for suffix in ("gif", "webp"):
        path = tmp_path / f"a.{suffix}"
        more = {"lossless": True} if suffix == "webp" else {}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, **more)
        with read_clips(
            find_sources(path).sources[0], ReadOptions(spec=ClipSpec(num_frames=8, height=32, width=96), fps=10)
        ) as reader:
            clip = next(reader)
        assert [made.read_number(frame) for frame in clip.pixels_SHWC] == [0, 1, 2, 2, 2, 2, 3, 4], suffix
        assert clip.indices.tolist() == [0, 1, 2, 2, 2, 2, 3, 4]
        assert clip.fps == 10


@pytest.mark.parametrize("name", ["mp4-bframes", "mkv-open-gop", "avi-mpeg4", "ts-h264"])
def test_half_the_rate_is_every_second_frame(tmp_path: Path, made: SimpleNamespace, name: str) -> None:
    """AVI has no times for its B-frames: there the nominal rate counts."""
    source = made.source_of(made.write_number_video(tmp_path, name, num_frames=40))
    assert read_numbers(source, made, fps=12.5) == {"pyav": list(range(0, 40, 2))}
    assert read_numbers(source, made, fps=25) == {"pyav": list(range(40))}
    assert read_numbers(source, made, fps=50)["pyav"] == [number // 2 for number in range(80)]
