"""What the README shows is run; the picture that it draws of the house is true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clipfold import ClipSpec, testing
from clipfold.demo.media import make_media
from clipfold.models.reducers import make_reducer

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def num_lines(code: str) -> int:
    return len([line for line in code.splitlines() if line.strip()])


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_media(tmp_path / "videos", num_sources=40, num_workers=2)


def run(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_listing_converts_streams_trains_and_evaluates(videos: Path) -> None:
    listing = blocks("python")[0]
    assert num_lines(listing) <= 20
    Path("listing.py").write_text(listing)
    out = run([sys.executable, "listing.py"])
    assert "torch.Size([2, 100, 3, 16, 64]) torch.uint8" in out
    assert Path("run/evaluation-test.json").exists()


@pytest.mark.slow
def test_the_commands_work_as_shown(videos: Path) -> None:
    (shown,) = (block for block in blocks("sh") if block.startswith("clipfold convert"))
    lines = [line.partition("#")[0].strip() for line in shown.splitlines()]
    for line in lines:
        words = shlex.split(line)
        if words[1] == "train":  # the same road with less of it
            words[words.index("--epochs") + 1] = "1"
            words += ["--batch-size", "8"]
        run([sys.executable, "-m", *words])
    assert Path("run/evaluation-test.json").exists()


def test_the_custom_reducer_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = blocks("python")[1]
    assert num_lines(listing) <= 15
    (tmp_path / "my_reducers_of_readme.py").write_text(listing)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "my_reducers_of_readme:Difference"
    testing.check_reducer(lambda spec: make_reducer(name, spec, scale=0.1))
    assert make_reducer(name, ClipSpec(num_frames=5)).weights() is not None


def test_the_picture_of_the_house_is_true() -> None:
    (picture,) = (block for block in blocks("") if "clip.py" in block)
    drawn = set(re.findall(r"^  (\w+\.py|\w+/)", picture, flags=re.MULTILINE))
    source = ROOT / "src" / "clipfold"
    there = {path.name for path in source.glob("*.py")} | {
        f"{path.parent.name}/" for path in source.glob("*/__init__.py")
    }
    assert drawn == there - {"__init__.py", "__main__.py"}


def test_every_command_is_named() -> None:
    from clipfold.cli import COMMANDS

    for name in COMMANDS:
        assert f"clipfold {name}" in TEXT, f"the README does not say what `clipfold {name}` is for"
