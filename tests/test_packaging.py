"""The wheel holds what the checkout holds, and its command works."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_gives_a_working_command(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next((tmp_path / "dist").glob("*.whl"))
    assert list((tmp_path / "dist").glob("*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = ROOT / "src"
    for path in [*source.rglob("*.py"), source / "clipfold" / "py.typed"]:
        assert str(path.relative_to(source)) in names
    assert not [name for name in names if name.startswith("tests")]

    place = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    others = sysconfig.get_path("purelib")
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if not p.startswith({str(source)!r})]; "
        "import clipfold; print(clipfold.__file__)"
    )
    env = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{others}"}
    where = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert where.stdout.startswith(str(place))
    command = [str(place / "bin" / "clipfold"), "--version"]
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "clipfold 0.1.0"


def test_the_top_level_holds_what_it_should() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} == {
        "LICENSE", "README.md", "pyproject.toml", "src", "tests", "tools",
    }  # fmt: skip
