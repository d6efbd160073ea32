from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipfold import SourceError, cli
from clipfold.clip import ClipSpec
from clipfold.ingest.reader import ReadOptions
from clipfold.ingest.sampling import Sampling
from clipfold.ingest.sources import Source
from clipfold.looking import survey as survey_module
from clipfold.looking.findings import Survey
from clipfold.looking.survey import _overlapping, survey
from clipfold.looking.survey_text import survey_tables, time_text
from clipfold.looking.tables import plain_text

OPTIONS = ReadOptions(spec=ClipSpec(num_frames=8, height=24, width=32))

CRASHES = """
import ctypes
from clipfold.looking.survey_tasks import probe_source

def probe(job):
    if job.source.name.endswith("copy.mp4"):
        ctypes.string_at(0)
    return probe_source(job)
"""


@pytest.fixture(scope="module")
def broken(broken_tree: Path) -> Survey:
    return survey(broken_tree, options=OPTIONS, num_workers=2, show_progress=False)


def test_a_good_tree(tree: Path) -> None:
    found = survey(tree, options=OPTIONS, num_workers=2, show_progress=False)
    assert found.kinds == {"video": 4, "frames": 2}
    assert (found.num_sources, found.num_readable, found.num_clips) == (6, 6, 8)
    assert found.sizes == {"32x24": 6}
    assert found.frame_rates == {"10": 2, "25": 2, "unknown": 2}
    assert found.codecs == {"h264": 4, "png": 2}
    assert found.num_frames is not None
    assert (found.num_frames.least, found.num_frames.median, found.num_frames.most) == (5, 9, 16)
    assert {label: (count.num_sources, count.num_clips) for label, count in found.classes.items()} == {
        "left": (3, 4),
        "right": (3, 4),
    }
    assert found.too_short == ["left/short.mp4", "right/short.mp4"]
    assert not found.broken
    assert not found.duplicates
    by_codec = {each.codec: each for each in found.estimates}
    assert by_codec["raw"].clip_bytes == 128 + OPTIONS.spec.num_bytes
    assert by_codec["raw"].exact
    assert 0 < by_codec["jpeg"].clip_bytes < by_codec["raw"].clip_bytes
    assert by_codec["raw"].num_bytes > 8 * OPTIONS.spec.num_bytes
    advice = "\n".join(found.advice)
    assert "2 of 6 are shorter than 8 frames: --short repeat_last" in advice
    assert "frame rates from 10 to 25" in advice
    assert "--split 0.8/0.1/0.1" in advice


def test_what_is_wrong_is_named(broken: Survey) -> None:
    reasons = {each.name: (each.reason, each.text) for each in broken.broken}
    assert set(reasons) == {"run/empty.mp4", "run/text.mp4", "run/cut.mp4", "walk/mixed", "walk/damaged"}
    assert reasons["run/empty.mp4"] == ("decode", "the file is empty: 0 bytes, expected a video")
    assert "cut short" in reasons["run/cut.mp4"][1]
    assert reasons["walk/mixed"][0] == "source"
    assert "frame_4.png is 9x9" in reasons["walk/mixed"][1]
    assert "(frame 5)" in reasons["walk/damaged"][1]
    assert broken.duplicates == broken.crossing_duplicates == [["run/copy.mp4", "walk/good.mp4"]]
    assert broken.rotated == ["walk/turned.mp4"]
    assert broken.sizes == {"32x24": 2, "24x32": 1}
    assert broken.ignored == {
        "no video or image by its name": ["run/notes.txt"],
        "a folder without videos or images": ["nothing"],
    }
    assert any("different classes" in line for line in broken.advice)


def test_it_can_be_read_and_parsed(broken: Survey) -> None:
    text = plain_text(survey_tables(broken))
    assert "broken: 5" in text
    assert "run/copy.mp4 = walk/good.mp4" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    value = json.loads(json.dumps(broken.to_json(), allow_nan=False))
    assert value["num_sources"] == 8
    assert value["classes"]["walk"] == {"num_sources": 2, "num_frames": 24, "num_clips": 2}


def test_a_quick_look_reads_headers(broken_tree: Path) -> None:
    found = survey(broken_tree, options=OPTIONS, is_quick=True, num_workers=2, show_progress=False)
    names = {each.name for each in found.broken}
    assert {"run/empty.mp4", "run/text.mp4"} <= names
    assert "walk/damaged" not in names  # its first frame is fine
    assert not found.duplicates
    assert any("quick look" in line for line in found.advice)


def test_a_file_that_crashes_the_decoder_is_one_line(
    broken_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing_probe.py").write_text(CRASHES)
    monkeypatch.syspath_prepend(str(tmp_path))
    import crashing_probe  # type: ignore[import-not-found]

    monkeypatch.setattr(survey_module, "probe_source", crashing_probe.probe)
    found = survey(
        broken_tree, options=OPTIONS, num_workers=2, show_progress=False, include=["*/good.mp4", "*/copy.mp4"]
    )
    assert [(each.name, each.reason) for each in found.broken] == [("run/copy.mp4", "crash")]
    assert found.num_readable == 1


def test_sampling_and_codecs_that_do_not_fit(tree: Path) -> None:
    options = ReadOptions(
        spec=ClipSpec(num_frames=4, channels=1, height=24, width=32, dtype="uint16"),
        sampling=Sampling(clip_stride=2, short="drop"),
    )
    found = survey(tree, options=options, num_workers=2, show_progress=False, include=["left/*"])
    assert found.num_clips == 7 + 1 + 3  # of 16, 5 and 9 frames
    by_codec = {each.codec: each for each in found.estimates}
    assert by_codec["lossless"].fits
    assert not by_codec["jpeg"].fits
    assert by_codec["jpeg"].why_not


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing to read"):
        survey(tmp_path, show_progress=False)


def test_times_for_people() -> None:
    assert [time_text(seconds) for seconds in (0.25, 42, 190, 19_200)] == ["0.2 s", "42 s", "3 min 10 s", "5 h 20 min"]


def test_the_command(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--num-frames", "8", "--height", "24", "--width", "32", "--num-workers", "2", "--quick"]
    assert cli.main(["doctor", str(tree), *flags, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1])["num_clips"] == 8
    assert "advice" in shown.err
    assert cli.main(["doctor", str(tree / "nowhere")]) == 1


def test_real_media_are_what_their_list_says(media: Path) -> None:
    found = survey(media / "videos", options=ReadOptions(spec=ClipSpec(width=64)), num_workers=2, show_progress=False)
    assert {each.name for each in found.broken} == {
        "decord__corrupted.mp4",
        "filetype__fixture-isom.mp4",
        "tcodec__sine_mono_mp3.swf",
    }
    assert found.variable_rate == ["imageio__newtonscradle.gif"]
    assert found.rotated == ["decord__video_90.mov"]
    assert found.several_streams == ["tcodec__nasa_13013.mp4"]
    assert len(found.too_short) == 5


def test_parts_of_one_file_that_lie_apart_are_no_duplicates() -> None:
    def part(start: float | None, stop: float | None) -> Source:
        return Source(
            name=f"a.mp4@{start}-{stop}",
            path="/a.mp4",
            kind="video",
            label=None,
            split=None,
            group="a.mp4",
            num_bytes=1,
            mtime_ns=0,
            start_seconds=start,
            stop_seconds=stop,
        )

    first, second, rest, whole = part(None, 1.0), part(1.0, 2.0), part(1.5, None), part(None, None)
    assert _overlapping([first, second]) == []
    assert _overlapping([first, second, rest]) == [second, rest]
    assert _overlapping([first, whole]) == [first, whole]
