from __future__ import annotations

import subprocess
import sys

import pytest

from clipfold import PluginError, SourceError, cli


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip().endswith("0.1.0")


def test_an_unknown_command_names_the_close_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convrt"]) == 2
    assert "Did you mean 'convert'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", "clipfold", name, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"clipfold {name}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SourceError("nothing there", fix="look"), 1, "SourceError: nothing there\n  fix: look"),
        (PluginError("unknown"), 2, "PluginError: unknown"),
        (ValueError("batch_size: 0, expected 1"), 2, "batch_size: 0, expected 1"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (RuntimeError("surprise"), 1, "this is a bug"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_message_and_a_code(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: str, words: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["convert"]) == code
    err = capsys.readouterr().err
    assert text in err
    assert "Traceback" not in err
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            cli.main(["convert", "--debug"])


def test_ctrl_c_inside_compiled_text_still_gives_the_exit_code(tmp_path) -> None:
    """CPython would let `python -m` die of the signal; seen where it came while dataclasses were imported."""
    (tmp_path / "interrupted.py").write_text(
        "import os, signal, sys\nfrom dataclasses import dataclass\nfrom clipfold import cli\n"
        "@dataclass\nclass Command:\n    def run(self):\n"
        "        exec('kill()\\nfor i in range(100): pass', {'kill': lambda: os.kill(os.getpid(), signal.SIGINT)})\n"
        "cli.COMMANDS['interrupted'] = ('interrupted:Command', '')\n"
        "if __name__ == '__main__':\n    sys.exit(cli.main(['interrupted']))\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
