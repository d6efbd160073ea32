"""Status: what is said of a conversion before, while and after it runs, or was killed."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from clipfold.cli import main
from clipfold.errors import ClipfoldError
from clipfold.shards.convert import convert
from clipfold.shards.staging import Staging
from clipfold.shards.status import status


def stop_after(scripted, tmp_path, monkeypatch, num, **options):
    """A conversion that stops, as by a kill, after some sources."""

    class Killed(BaseException):
        pass

    add_source = Staging.add_source
    left = num

    def add(self, number, record):
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        add_source(self, number, record)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "add_source", add)
        with pytest.raises(Killed):
            convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **{**scripted.OPTIONS, **options})


def test_stopped_finished_and_appending(scripted, tmp_path, monkeypatch, capsys):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(9) | {"a/bad.mp4": {"open": "broken"}})
    with pytest.raises(ClipfoldError, match="no conversion was begun here"):
        status(tmp_path / "out")
    stop_after(scripted, tmp_path, monkeypatch, 6)
    before = scripted.content(tmp_path / "out")
    found = status(tmp_path / "out")
    assert scripted.content(tmp_path / "out") == before
    assert (found.is_finished, found.is_running, found.is_appending) == (False, False, False)
    assert (found.num_sources, found.num_done + found.num_skipped, found.num_left) == (10, 6, 4)
    assert sum(found.left.values()) == 4
    assert found.num_clips > 0
    assert found.num_bytes > 0
    assert "not finished, and no command is at work" in str(found)
    with Staging(tmp_path / "out"):
        assert status(tmp_path / "out").is_running

    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    found = status(tmp_path / "out")
    assert (found.is_finished, found.num_done, found.num_skipped, found.num_left) == (True, 9, 1, 0)
    assert (found.num_clips, found.num_bytes) == (summary.num_clips, summary.num_bytes)
    assert [each.name for each in found.last_skipped] == ["a/bad.mp4"]

    scripted.write_sources(tmp_path / "src", {"a/x.mp4": {}, "a/y.mp4": {}})
    stop_after(scripted, tmp_path, monkeypatch, 1, append=True)
    found = status(tmp_path / "out")
    assert (found.is_finished, found.is_appending, found.num_sources, found.num_left) == (False, True, 2, 1)

    assert main(["status", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["num_left"] == 1
    assert main(["status", str(tmp_path / "nowhere")]) == 1


@pytest.mark.slow
def test_while_it_runs(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(40, then="sleep 0.05"))
    command = scripted.command(tmp_path / "src", tmp_path / "out", "--num-workers", "1")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = []
    while process.poll() is None:
        try:
            seen.append(status(tmp_path / "out"))
        except ClipfoldError as error:  # it has not begun yet
            if seen or "no conversion was begun" not in str(error):
                raise
        time.sleep(0.05)
    assert process.returncode == 0
    running = [each for each in seen if each.is_running and each.sources_per_second]
    assert running
    assert running[-1].num_done > running[0].num_done
    assert running[-1].seconds_left is not None
    assert [each.num_done for each in seen] == sorted(each.num_done for each in seen)
    assert status(tmp_path / "out").is_finished
