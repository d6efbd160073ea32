from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipfold import cli
from clipfold.clip import ClipSpec
from clipfold.shards.convert import convert
from clipfold.shards.reader import Corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three classes of two sequences each, two clips a sequence."""
    for label in "abc":
        for number in range(2):
            folder = tmp_path / "src" / label / f"seq{number}"
            folder.mkdir(parents=True)
            for frame in range(8):
                picture = np.full((8, 20, 3), 10 * frame + number + ord(label), np.uint8)
                Image.fromarray(picture).save(folder / f"{frame}.png")
    spec = ClipSpec(num_frames=4, height=8, width=20)
    convert(tmp_path / "src", out=tmp_path / "corpus", spec=spec, num_workers=1, show_progress=False)
    return tmp_path / "corpus"


def test_all_flags(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("\n".join(f"{source:08d}-{clip:04d}" for source in range(6) for clip in range(2)) + "\n\n")
    flags = ["--codec", "jpeg", "--quality", "80", "--split", "0.5/0.5/0", "--shard-clips", "1", "--shard-bytes", "1MB"]
    select = ["--classes", "a,c", "--keys", str(keys), "--where", "start == 0 and width > 3"]
    command = ["repack", str(corpus), "--out", str(tmp_path / "out"), *flags, *select, "--num-workers", "1", "--json"]
    assert cli.main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_clips"], found["num_left_out"], found["codec_settings"]) == (4, 8, {"quality": 80})
    assert found["clips"] == {"train": {"a": 1, "c": 1}, "val": {"a": 1, "c": 1}}
    assert Corpus(tmp_path / "out").splits["train"].num_shards == 2
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out)["was_finished"]
    assert cli.main(["verify", str(tmp_path / "out")]) == 0


def test_merging_and_plain_text(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in "ab":
        command = ["repack", str(corpus), "--out", str(tmp_path / label), "--classes", label, "--num-workers", "1"]
        assert cli.main(command) == 0
    out = ["--out", str(tmp_path / "both"), "--codec", "mp4", "--codec-settings", '{"crf": 30}', "--num-workers", "1"]
    assert cli.main(["repack", str(tmp_path / "a"), str(tmp_path / "b"), *out]) == 0
    shown = capsys.readouterr().out
    assert "train: 8 clips (a 4, b 4)" in shown
    assert Corpus(tmp_path / "both").manifest.codec_settings["crf"] == 30


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--where", "labl == 'a'"], 2, "no column 'labl'; did you mean 'label'"),
        (["--where", "label.upper() == 'A'"], 2, "is not accepted"),
        (["--codec", "raw", "--codec-settings", "{"], 2, "--codec-settings: not JSON"),
        (["--codec-settings", "3"], 2, "expected an object"),
        (["--quality", "3", "--codec-settings", "{}"], 2, "expected one of them"),
        (["--shard-bytes", "much"], 2, "size: 'much'"),
        (["--keys", "nowhere.txt"], 1, "No such file"),
    ],
)
def test_wrong_use(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, message: str
) -> None:
    assert cli.main(["repack", str(corpus), "--out", str(tmp_path / "out"), "--num-workers", "1", *flags]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
