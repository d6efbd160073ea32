"""What holds for all recipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "tools" / "recipes"
SCRIPTS = sorted(path for path in RECIPES.glob("*.py") if "__main__" in path.read_text())


def test_the_readme_names_them_all():
    text = (RECIPES / "README.md").read_text()
    assert len(SCRIPTS) == 6
    assert [path.name for path in SCRIPTS if f"`{path.name}`" not in text] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_as_a_script(script):
    found = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "--codec" in found.stdout
    assert "dataset" in found.stdout or "sweeps" in found.stdout
    wrong = subprocess.run([sys.executable, str(script), "x", "--no-such-flag"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
