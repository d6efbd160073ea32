"""The choice of a codec: a rule on bytes, PSNR and zeros, and measurements that are the same in every run."""

from __future__ import annotations

import json
import math
import os
from contextlib import closing
from itertools import permutations

import numpy as np
import pytest

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError, ShardError, SourceError
from clipfold.ingest.reader import ReadOptions
from clipfold.ingest.sampling import Sampling
from clipfold.ingest.sources import find_sources
from clipfold.shards.choose import Measurement, choose, choose_codec, choose_codec_of_corpora
from clipfold.shards.codecs import CODECS, get_codec
from clipfold.shards.convert import convert
from clipfold.shards.engines import open_engine
from clipfold.shards.measure import Totals, read_bytes_per_second
from clipfold.shards.reader import Corpus
from clipfold.shards.staging import Staging


def measured(**kilobytes_and_psnr):
    """Measurements by codec: kilobytes of the exact ones, (kilobytes, PSNR) of others; None cannot hold the clips."""
    found = []
    for codec, value in kilobytes_and_psnr.items():
        exact = codec in ("raw", "lossless")
        size, psnr = (value, math.inf) if exact else value or (0, 0)
        trouble = "" if value else "it cannot"
        found.append(
            Measurement(codec=codec, settings={}, exact=exact, trouble=trouble, clip_bytes=1e3 * size, psnr=psnr)
        )
    return found


CALM = {"raw": 3365, "lossless": 215, "jpeg": (148, 41.8), "mp4": (15, 38.1), "lowrank": (17, 38.0)}
MOVING = {"raw": 3365, "lossless": 1811, "jpeg": (225, 41.8), "mp4": (120, 37.2), "lowrank": (499, 38.0)}
RADAR = {"raw": 1122, "lossless": 5, "jpeg": (50, 51.0), "mp4": (12, 53.0), "lowrank": (10, 38.0)}
RANGES = {"raw": 2243, "lossless": 1500, "jpeg": None, "mp4": None, "lowrank": None}
NOISE = {"raw": 3365, "lossless": 3366, "jpeg": (2100, 33.0), "mp4": (1500, 29.0), "lowrank": (2900, 38.0)}


@pytest.mark.parametrize(
    ("clips", "zeros", "target", "expected", "why"),
    [
        (CALM, 0.0, "size", "mp4", "the smallest"),
        (CALM, 0.0, "balanced", "lowrank", "the smallest that is quick to decode"),
        (CALM, 0.0, "speed", "lowrank", "198 times fewer bytes"),
        (MOVING, 0.0, "size", "jpeg", "below the floor of 38 dB: mp4 37.2"),
        (MOVING, 0.0, "balanced", "jpeg", "lowrank 499 kB a clip"),
        (MOVING, 0.0, "speed", "raw", "nothing to decode"),
        (RADAR, 0.99, "size", "lossless", "lossy codecs are out: 99 %"),
        (RADAR, 0.99, "balanced", "lossless", "exact ones"),
        (RADAR, 0.99, "speed", "lossless", "224 times fewer bytes to read than raw"),
        (RADAR, 0.5, "size", "lossless", "smallest"),  # exactly half of the values is not more than half
        (RANGES, 0.3, "size", "lossless", "smallest"),
        (RANGES, 0.3, "balanced", "lossless", "exact"),
        (RANGES, 0.3, "speed", "raw", "nothing to decode"),
        (NOISE, 0.0, "size", "lowrank", "below the floor of 38 dB: jpeg 33.0, mp4 29.0"),
        (NOISE, 0.0, "balanced", "raw", "exact, and hardly larger than lowrank"),
        (NOISE, 0.0, "speed", "raw", "nothing to decode"),
    ],
)
def test_the_rule(clips, zeros, target, expected, why):
    for order in list(permutations(measured(**clips)))[::17]:
        best, text = choose(order, target=target, min_psnr=38.0, share_of_zeros=zeros)
        assert best.codec == expected
        assert why in text
        assert "\n" not in text


def test_the_floor_decides():
    best, _ = choose(measured(**MOVING), target="size", min_psnr=37.0, share_of_zeros=0.0)
    assert best.codec == "mp4"
    best, _ = choose(measured(**MOVING), target="size", min_psnr=42.0, share_of_zeros=0.0)
    assert best.codec == "lossless"


# ---- measuring ----


@pytest.fixture
def engine():
    with closing(open_engine("local", num_workers=1)) as found:
        yield found


OPTIONS = ReadOptions(
    spec=ClipSpec(num_frames=4, height=8, width=12),
    sampling=Sampling(clip_stride=2),
    decoder="scripted_decoder:Scripted",
)


def bytes_and_psnr(choice):
    return [(each.codec, each.clip_bytes, each.psnr, each.trouble) for each in choice.measurements]


def test_measured_twice_gives_the_same_but_for_times(scripted, tmp_path, engine):
    names = scripted.good_sources(9) | {
        "a/bad.mp4": {"open": "broken"},
        "c/crash.mp4": {"num_frames": 4, "then": "segfault"},
    }
    scripted.write_sources(tmp_path / "src", names)
    sources = find_sources(tmp_path / "src").sources
    one = choose_codec(sources, OPTIONS, engine=engine, num_clips=8)
    with closing(open_engine("local", num_workers=3)) as three:
        other = choose_codec(sources[::-1], OPTIONS, engine=three, num_clips=8)
    assert bytes_and_psnr(one) == bytes_and_psnr(other)
    assert (one.codec, one.why, one.num_clips, one.notes) == (other.codec, other.why, other.num_clips, other.notes)
    assert one.num_clips == 8  # those that cannot be read were made up for
    assert any("c/crash.mp4: the process crashed" in note for note in one.notes)
    assert [each.codec for each in one.measurements] == list(CODECS)
    assert all(each.encode_ms > 0 and each.decode_ms > 0 and each.clips_per_second > 0 for each in one.measurements)
    assert json.loads(json.dumps(one.to_json()))["codec"] == one.codec
    lines = str(one).splitlines()
    assert lines[0].split()[:2] == ["codec", "kB/clip"]
    assert [line.split()[0] for line in lines[1:6]] == list(CODECS)
    assert lines[-1].startswith(f"{one.codec}: ")
    assert sum("<- chosen" in line for line in lines) == 1


def test_numbers_are_those_of_the_codecs(scripted, tmp_path, engine):
    scripted.write_sources(tmp_path / "src", {"a/v.mp4": {"num_frames": 4, "seed": 5}})
    choice = choose_codec(find_sources(tmp_path / "src").sources, OPTIONS, engine=engine, min_psnr=30)
    rng = np.random.default_rng(5)
    clip_SCHW = rng.integers(0, 256, (4, 8, 12, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    found = {each.codec: each for each in choice.measurements}
    assert choice.num_clips == 1
    for name in ("raw", "lossless", "jpeg"):
        codec = get_codec(name)
        data = codec.encode(clip_SCHW, OPTIONS.spec)
        assert found[name].clip_bytes == len(data)
        assert found[name].settings == codec.settings()
    out = np.empty((4, 8, 12, 3), np.uint8)
    get_codec("jpeg").decode_into(data, out, OPTIONS.spec)
    error = np.square(out.transpose(0, 3, 1, 2) - clip_SCHW.astype(float)).mean()
    assert found["jpeg"].psnr == pytest.approx(10 * math.log10(255**2 / error), rel=1e-9)
    assert found["raw"].psnr == math.inf
    assert found["lowrank"].settings["min_psnr"] == 30
    assert found["lowrank"].psnr >= 30
    assert choice.share_of_zeros == (clip_SCHW == 0).mean()


def test_codecs_that_cannot_hold_the_clips_say_why(scripted, tmp_path, engine):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(3))
    spec = ClipSpec(num_frames=4, height=8, width=12, dtype="float32")
    options = ReadOptions(spec=spec, decoder=OPTIONS.decoder)
    choice = choose_codec(find_sources(tmp_path / "src").sources, options, engine=engine, num_clips=3)
    troubles = {each.codec: each.trouble for each in choice.measurements}
    assert "holds uint8 clips" in troubles["jpeg"]
    assert troubles["raw"] == troubles["lossless"] == ""
    assert choice.codec in ("raw", "lossless")
    assert "holds uint8 clips" in str(choice)


def test_every_class_is_seen(scripted, tmp_path, engine, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("SCRIPTED_LOG", str(log))
    scripted.write_sources(tmp_path / "src", {f"{label}/{label}{n}.mp4": {} for label in "abcd" for n in range(6)})
    choose_codec(find_sources(tmp_path / "src").sources, OPTIONS, engine=engine, num_clips=4)
    assert {name[0] for name in log.read_text().split()} == set("abcd")


def test_few_sources_give_several_clips_each(scripted, tmp_path, engine):
    scripted.write_sources(tmp_path / "src", {"a/v.mp4": {"num_frames": 100}, "b/v.mp4": {"num_frames": 4}})
    choice = choose_codec(find_sources(tmp_path / "src").sources, OPTIONS, engine=engine, num_clips=7)
    assert choice.num_clips == 4 + 1  # half of the wanted ones of each, rounded up, where there are so many


def test_nothing_readable_is_an_error(scripted, tmp_path, engine):
    scripted.write_sources(tmp_path / "src", {f"a/{n}.mp4": {"open": "broken"} for n in range(3)})
    with pytest.raises(SourceError, match=r"no codec could be measured(.|\n)*a/\d\.mp4: it is broken"):
        choose_codec(find_sources(tmp_path / "src").sources, OPTIONS, engine=engine)


def test_wrong_options(engine):
    for change, message in (
        ({"target": "small"}, "target: 'small', expected one of speed, balanced, size"),
        ({"min_psnr": 10}, "min_psnr: 10, expected 20 to 60"),
        ({"num_clips": 0}, "num_clips: 0"),
    ):
        with pytest.raises(ValueError, match=message):
            choose_codec([], OPTIONS, engine=engine, **change)


def test_clips_of_a_corpus(make_corpus, engine):
    raw = choose_codec_of_corpora([Corpus(make_corpus("raw"))], engine=engine, num_clips=6)
    jpeg = choose_codec_of_corpora([Corpus(make_corpus("jpeg", codec="jpeg"))], engine=engine, num_clips=6)
    assert raw.num_clips == jpeg.num_clips == 6
    assert raw.notes == []
    assert "have been through jpeg already" in jpeg.notes[0]
    both = choose_codec_of_corpora(
        [Corpus(make_corpus("one")), Corpus(make_corpus("two", codec="lossless"))], engine=engine, num_clips=6
    )
    assert both.num_clips == 6
    path = make_corpus("bad") / "train" / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[int(Corpus(path.parent.parent).index("train", 0)[0]["offset"]) + 150] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match="does not have its checksum"):
        choose_codec_of_corpora([Corpus(path.parent.parent)], engine=engine, num_clips=16)


def test_a_codec_that_fails_on_one_clip_is_out():
    totals = Totals()
    totals.add([{"num_zeros": 1, "num_values": 4, "codecs": {"raw": (10, 0.0, 1.0, 1.0), "jpeg": "no"}}])
    totals.add([{"num_zeros": 1, "num_values": 4, "codecs": {"raw": (20, 0.0, 3.0, 2.0), "jpeg": (5, 1.0, 1.0, 1.0)}}])
    assert totals.trouble("jpeg") == "no"
    assert (totals.trouble("raw"), totals.clip_bytes("raw"), totals.share_of_zeros) == ("", 15.0, 0.25)


def test_reading_speed(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x")
    large.write_bytes(os.urandom(9 << 20))
    assert read_bytes_per_second([str(small), str(tmp_path / "missing"), "s3://bucket/x"]) is None
    assert read_bytes_per_second([str(small), str(large)]) > 0


# ---- convert --codec auto ----


def test_a_conversion_keeps_to_its_choice(scripted, tmp_path, monkeypatch, capsys):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(6))
    options = {**scripted.OPTIONS, "codec": "auto", "target": "size", "num_workers": 1}
    first = convert(tmp_path / "src", out=tmp_path / "whole", **{**options, "show_progress": True})
    assert first.num_clips
    assert "<- chosen" in capsys.readouterr().err

    class Killed(BaseException):
        pass

    add_source = Staging.add_source

    def add(self, number, record):
        if number == 3:
            raise Killed
        add_source(self, number, record)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "add_source", add)
        with pytest.raises(Killed):
            convert(tmp_path / "src", out=tmp_path / "out", **options)
    monkeypatch.setattr("clipfold.shards.convert.choose_codec", lambda *args, **kwargs: pytest.fail("measured again"))
    convert(tmp_path / "src", out=tmp_path / "out", **options)
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "whole")
    manifest = Corpus(tmp_path / "out").manifest
    assert manifest.provenance["options"]["chosen_for"] == {"target": "size", "min_psnr": 38.0}
    assert manifest.codec in CODECS
    assert convert(tmp_path / "src", out=tmp_path / "out", **options).was_finished
    with pytest.raises(ClipfoldError, match="chosen_for"):
        convert(tmp_path / "src", out=tmp_path / "out", **{**options, "codec": manifest.codec})


def test_wrong_wishes_leave_nothing_behind(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(2))
    for change, message in (
        ({"target": "small"}, "target: 'small'"),
        ({"min_psnr": 3}, "min_psnr: 3"),
        ({"codec_settings": {"quality": 3}}, "codec 'auto' chooses the settings as well"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / "src", out=tmp_path / "out", **{**scripted.OPTIONS, "codec": "auto", **change})
        assert not (tmp_path / "out").exists()
