from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipfold.shards.reader import Corpus

SIZES = ("--num-frames", "4", "--height", "8", "--width", "12", "--num-workers", "1")
HEADER = "label,youtube_id,time_start,time_end,split\n"


@pytest.fixture
def dataset(tmp_path: Path, write) -> Path:
    """One part that was cut, two parts of a whole video of four seconds, two that are missing."""
    root = tmp_path / "videos"
    write.video(root / "train" / "abseiling" / "-0aB_00000x_000010_000020.mp4", 1)
    write.video(root / "whole" / "00000000007.mp4", 2, 100)
    (tmp_path / "train.csv").write_text(
        HEADER + '"abseiling",-0aB_00000x,10,20,train\n'
        "air drumming,00000000007,1,2,train\n"
        "air drumming,00000000007,2,4,train\n"
        "zumba,gone_gone__,0,10,train\n"
        "abseiling,-0aB_00000x,20,30,train\n"
    )
    (tmp_path / "test.csv").write_text(
        "youtube_id,time_start,time_end,split\n00000000007,0,1,test\n-0aB_00000x,10,20,test\n"
    )
    return root


def test_parts_labels_and_frames(dataset, tmp_path, recipe, clips, capsys):
    out = tmp_path / "corpus"
    assert recipe("kinetics", [str(dataset), "--lists", str(tmp_path / "train.csv"), "--out", str(out), *SIZES]) == 0
    missing = "gone_gone___000000_000010, -0aB_00000x_000020_000030"
    assert f"2 of 5 videos are missing: {missing}; " in capsys.readouterr().err
    assert Corpus(out).classes == ["abseiling", "air drumming", "zumba"]
    found = clips(out)
    cut = found["train/abseiling/-0aB_00000x_000010_000020.mp4"]
    assert (cut.label, cut.videos, cut.frames) == ("abseiling", [1], [0, 1, 2, 3])
    assert (cut.meta["youtube_id"], cut.meta["time_start"], cut.meta["time_end"]) == ("-0aB_00000x", 10.0, 20.0)
    first, second = found["whole/00000000007.mp4@1-2"], found["whole/00000000007.mp4@2-4"]
    assert (first.label, first.videos, first.frames) == ("air drumming", [2], [25, 26, 27, 28])
    assert (second.videos, second.frames, second.meta["youtube_id"]) == ([2], [50, 51, 52, 53], "00000000007")
    assert len(found) == 1 + 6 + 12  # 25 and 50 frames give 6 and 12 windows of 4
    groups = {json.loads(line)["group"] for line in (out / "sources.jsonl").read_text().splitlines()}
    assert groups == {"-0aB_00000x", "00000000007"}


def test_a_test_list_without_labels(dataset, tmp_path, recipe, clips, capsys):
    out, lists = tmp_path / "corpus", [str(tmp_path / "train.csv"), str(tmp_path / "test.csv")]
    assert recipe("kinetics", [str(dataset), "--out", str(out), *SIZES, "--limit", "3", "--lists", lists[1]]) == 0
    assert {(clip.split, clip.label) for clip in clips(out).values()} == {("test", None)}
    capsys.readouterr()
    assert recipe("kinetics", [str(dataset), "--out", str(tmp_path / "both"), *SIZES, "--lists", *lists]) == 0
    printed = capsys.readouterr().err
    assert "test has no labels: no sample of this corpus gets a .cls" in printed
    assert "parts of 2 groups into different splits: -0aB_00000x" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,id\nx,y\n", "columns label, id, expected"),
        (HEADER + "x,y,10,ten,train\n", "entry 2: could not convert string to float: 'ten'"),
        (HEADER + "x,y,10,5,train\n", "entry 2: a part from 10.0 to 5.0 seconds"),
        (HEADER + "x,y,0,5,holdout\n", "entry 2: split 'holdout'"),
        (HEADER + "x,y,0\n", "entry 2: "),
        (HEADER + "x,y,0,5,train\n", "none of the 1 videos"),
    ],
)
def test_errors_are_one_message(dataset, tmp_path, recipe, capsys, text, message):
    (tmp_path / "bad.csv").write_text(text)
    assert recipe("kinetics", [str(dataset), "--lists", str(tmp_path / "bad.csv"), "--out", str(tmp_path / "o")]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert "fix: " in printed
