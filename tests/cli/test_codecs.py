from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipfold import cli
from clipfold.shards.codecs import CODECS
from clipfold.shards.convert import convert


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Two classes of one sequence each: a slope that moves."""
    for number, label in enumerate("ab"):
        folder = tmp_path / "src" / label / "seq"
        folder.mkdir(parents=True)
        for frame in range(6):
            rows = np.add.outer(np.arange(8) * 3, np.arange(20)) + 5 * frame + 40 * number + 20
            Image.fromarray(np.repeat(rows[..., None], 3, axis=2).astype(np.uint8)).save(folder / f"{frame}.png")
    return tmp_path / "src"


FLAGS = ["--num-frames", "6", "--height", "8", "--width", "20", "--num-workers", "1", "--num-clips", "2"]


def test_of_sources(frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["codecs", str(frames), *FLAGS]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[:6]] == ["codec", *CODECS]
    assert "2 clips measured" in shown[6]


def test_of_a_corpus_as_json(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clipfold.clip import ClipSpec

    spec = ClipSpec(num_frames=6, height=8, width=20)
    convert(frames, out=tmp_path / "corpus", spec=spec, num_workers=1, show_progress=False)
    flags = ["--target", "size", "--json", "--num-workers", "1"]
    assert cli.main(["codecs", str(tmp_path / "corpus"), *flags]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["target"] == "size"
    assert found["num_clips"] == 2
    assert [each["codec"] for each in found["measurements"]] == list(CODECS)
    assert found["measurements"][0]["psnr"] is None
    assert "<- chosen" in err


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["codecs", str(tmp_path / "nothing")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
    assert cli.main(["codecs", str(tmp_path), "--min-psnr", "5"]) in (1, 2)


def test_on_a_terminal(frames: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.main(["codecs", str(frames), *FLAGS]) == 0
    shown = capsys.readouterr().out
    assert "decode ms" in shown.replace("\n", " ")
    assert "━" in shown or "─" in shown
