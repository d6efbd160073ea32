"""``clipfold convert``: flags, messages, exit codes, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from clipfold.cli import main
from clipfold.cli.convert import parse_size
from clipfold.shards.reader import Corpus

SIZES = ["--num-frames", "4", "--height", "8", "--width", "12", "--num-workers", "1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four sequences of two classes."""
    for number in range(4):
        folder = tmp_path / "src" / "ab"[number % 2] / f"seq{number}"
        folder.mkdir(parents=True)
        for frame in range(6):
            Image.new("RGB", (24, 16), (40 * number, 20 * frame, 0)).save(folder / f"{frame}.png")
    return tmp_path / "src"


def test_converts_and_says_so(root, tmp_path, capsys):
    out = str(tmp_path / "out")
    words = ["convert", str(root), "--out", out, *SIZES, "--codec", "jpeg", "--quality", "95", "--shard-bytes", "1MB"]
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    value = json.loads(printed.out.splitlines()[-1])
    assert (value["num_sources"], value["num_converted"], value["num_skipped"], value["num_clips"]) == (4, 4, 0, 4)
    assert value["clips"] == {"train": {"a": 2, "b": 2}}
    assert "4 clips from 4 of 4 sources" in printed.err
    assert Corpus(out).manifest.codec_settings == {"quality": 95}
    assert Corpus(out).manifest.provenance["options"]["shard_bytes"] == 1_000_000
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*words, "--frame-step", "2"]) == 1
    printed = capsys.readouterr()
    assert "sampling.frame_step: 1 there, 2 here" in printed.err
    assert "Traceback" not in printed.err


def test_dry_run(root, tmp_path, capsys):
    words = ["convert", str(root), "--out", str(tmp_path / "out"), *SIZES, "--dry-run", "--include", "a/*", "--json"]
    assert main(words) == 0
    value = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (value["is_dry_run"], value["num_sources"], value["num_clips"]) == (True, 2, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--codec", "jepg"], 2, "did you mean 'jpeg'?"),
        (["--split", "0.9/0.9/0.9"], 2, "expected three shares"),
        (["--shard-bytes", "large"], 2, "expected one like 512MB"),
        (["--dtype", "uint16", "--codec", "jpeg"], 2, "holds uint8 clips"),
        (["--short", "error", "--num-frames", "7"], 1, "none of 4 sources could be converted"),
        (["--include", "c/*"], 1, "none of the 4 sources passes"),
    ],
)
def test_messages_and_exit_codes(root, tmp_path, capsys, flags, code, message):
    assert main(["convert", str(root), "--out", str(tmp_path / "out"), *SIZES, *flags]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "message"), [("memory://corpus", "ends with it"), ("s3://", "without a bucket"), ("gs:///", "bucket")]
)
def test_outputs_that_are_no_place(root, tmp_path, capsys, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(root), "--out", out, *SIZES]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_too_little_memory(root, tmp_path, capsys):
    assert main(["convert", str(root), "--out", str(tmp_path / "out"), *SIZES, "--memory", "1KB"]) == 2
    assert "at least 256 MB" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_folder(tmp_path, capsys):
    (tmp_path / "src").mkdir()
    assert main(["convert", str(tmp_path / "src"), "--out", str(tmp_path / "out")]) == 1
    assert "the folder is empty" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_lists_the_flags(capsys):
    assert main(["convert", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--out", "--codec", "--split", "--shard-bytes", "--num-workers", "--on-error", "--dry-run", "--json"):
        assert flag in text


def test_sizes():
    assert parse_size("512MB") == 512_000_000
    assert parse_size("1GiB") == 1 << 30
    assert parse_size("1.5 GB") == 1_500_000_000
    assert parse_size("20k") == parse_size("20KB") == 20_000
    assert parse_size("4KiB") == 4096
    assert parse_size("1000000") == 1_000_000
    for wrong in ("", "GB", "1XB", "-1MB", "1 2"):
        with pytest.raises(ValueError, match="expected one like 512MB"):
            parse_size(wrong)


def test_a_table_beside_other_files(root, tmp_path, capsys):
    """Names, and so the order and every byte, do not depend on where the files lie."""
    (tmp_path / "t.csv").write_text("path,label\na/seq0,x\nb/seq3,y\n")
    out = tmp_path / "out"
    words = ["convert", str(tmp_path / "t.csv"), "--out", str(out), *SIZES]
    assert main(words) == 1
    assert "row 2: no such file or folder" in capsys.readouterr().err
    assert main([*words, "--media-root", str(root)]) == 0
    assert Corpus(out).classes == ["x", "y"]
    assert {json.loads(line)["name"] for line in (out / "sources.jsonl").read_text().splitlines()} == {
        "a/seq0",
        "b/seq3",
    }
    assert main(["convert", str(root), "--out", str(tmp_path / "no"), *SIZES, "--media-root", str(root)]) == 2
    assert "is none" in capsys.readouterr().err
