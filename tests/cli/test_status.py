"""``clipfold status`` from the command line."""

from __future__ import annotations

import json

from PIL import Image

from clipfold.cli import main


def test_a_finished_corpus_and_nothing(tmp_path, capsys):
    for number in range(2):
        folder = tmp_path / "src" / "a" / f"seq{number}"
        folder.mkdir(parents=True)
        for frame in range(3):
            Image.new("RGB", (24, 16), (40 * number, 20 * frame, 0)).save(folder / f"{frame}.png")
    sizes = ["--num-frames", "3", "--height", "8", "--width", "12"]
    assert main(["convert", str(tmp_path / "src"), "--out", str(tmp_path / "out"), *sizes]) == 0
    capsys.readouterr()
    assert main(["status", str(tmp_path / "out")]) == 0
    assert "finished; 2 of 2 sources converted, 0 left out; 2 clips" in capsys.readouterr().out
    assert main(["status", str(tmp_path / "out"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (value["is_finished"], value["num_clips"], value["num_left"]) == (True, 2, 0)
    assert main(["status", str(tmp_path / "src")]) == 1
    assert "no conversion was begun here" in capsys.readouterr().err
