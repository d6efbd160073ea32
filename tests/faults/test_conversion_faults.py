"""What happens to real conversions: killed by SIGKILL at any moment, a full disk, an input that goes, a second copy.

Each ends with the same command run again, whose result is compared, byte for byte, with an undisturbed run's.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from clipfold.shards.convert import convert
from clipfold.shards.source_list import load_source_list
from clipfold.shards.verify import verify

pytestmark = pytest.mark.slow

NUM_KILLS = 5


def start(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def children(pid):
    """Worker processes of a command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def disturbed(scripted, tmp_path):
    """The command of a conversion of about two seconds, and what it gives when nothing happens."""
    sources = scripted.good_sources(24, then="sleep 0.1") | {"a/bad.mp4": {"open": "broken"}}
    scripted.write_sources(tmp_path / "src", sources)
    convert(tmp_path / "src", out=tmp_path / "undisturbed", num_workers=2, **scripted.OPTIONS)
    command = scripted.command(tmp_path / "src", tmp_path / "out", "--num-workers", "2")
    return command, scripted.content(tmp_path / "undisturbed")


def test_the_command_is_killed(scripted, tmp_path, disturbed):
    command, expected = disturbed
    moments = random.Random(1)
    for _ in range(NUM_KILLS):
        process = start(command)
        time.sleep(moments.uniform(0.2, 2.2))
        process.kill()
        process.communicate()
    finish(command)
    assert scripted.content(tmp_path / "out") == expected


def test_a_worker_is_killed(scripted, tmp_path, disturbed):
    """Whichever task it was at is done again, in the same run."""
    command, expected = disturbed
    moments = random.Random(2)
    process = start(command)
    num_killed = 0
    while num_killed < NUM_KILLS and process.poll() is None:
        time.sleep(moments.uniform(0.1, 0.4))
        workers = children(process.pid)
        if workers:
            os.kill(moments.choice(workers), signal.SIGKILL)
            num_killed += 1
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert num_killed
    if "crash" in (tmp_path / "out/skipped.jsonl").read_text():
        pytest.skip("one source was hit twice, which is an outcome of its own")
    assert scripted.content(tmp_path / "out") == expected


def test_command_and_append_are_killed(scripted, tmp_path):
    """Appending to a finished corpus, killed as often."""
    for folder in ("src", "same"):
        scripted.write_sources(tmp_path / folder, scripted.good_sources(6))
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **scripted.OPTIONS)
    convert(tmp_path / "same", out=tmp_path / "undisturbed", num_workers=2, **scripted.OPTIONS)
    for folder in ("src", "same"):
        scripted.write_sources(tmp_path / folder, {f"a/new{n:02d}.mp4": {"then": "sleep 0.1"} for n in range(16)})
    convert(tmp_path / "same", out=tmp_path / "undisturbed", num_workers=2, append=True, **scripted.OPTIONS)
    command = scripted.command(tmp_path / "src", tmp_path / "out", "--num-workers", "2", "--append")
    moments = random.Random(3)
    for _ in range(NUM_KILLS):
        process = start(command)
        time.sleep(moments.uniform(0.2, 1.6))
        process.kill()
        process.communicate()
    finish(command)
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "undisturbed")


@pytest.fixture
def small_disk(tmp_path, skip_without):
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        skip_without("mount", "a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_disk_is_full(scripted, tmp_path, small_disk):
    """The clips of most sources are far larger than the few that are looked at for the estimate."""
    scripted.write_sources(tmp_path / "src", scripted.good_sources(30) | {"a/long.mp4": {"num_frames": 3000}})
    command = scripted.command(tmp_path / "src", small_disk / "out", "--num-workers", "2")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2_000_000))
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert process.stderr.count("fix:") == 1
    assert any(text in process.stderr for text in ("no space left", "nearly full", "not enough free space"))
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    ballast.unlink()
    finish(command)
    convert(tmp_path / "src", out=tmp_path / "undisturbed", num_workers=2, **scripted.OPTIONS)
    assert scripted.content(small_disk / "out") == scripted.content(tmp_path / "undisturbed")


def test_the_disk_fills_up_while_it_runs(scripted, tmp_path, small_disk):
    """Somebody else takes the room that was there at the beginning."""
    scripted.write_sources(tmp_path / "src", scripted.good_sources(30, then="sleep 0.1"))
    command = scripted.command(tmp_path / "src", small_disk / "out", "--num-workers", "1")
    process = start(command)
    while not list(small_disk.glob("out/.converting/parts/*.part")):
        assert process.poll() is None
        time.sleep(0.02)
    with open(small_disk / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert any(text in errors for text in ("no space left", "nearly full"))
    assert "run the same command again" in errors
    (small_disk / "ballast").unlink()
    finish(command)
    convert(tmp_path / "src", out=tmp_path / "undisturbed", num_workers=2, **scripted.OPTIONS)
    assert scripted.content(small_disk / "out") == scripted.content(tmp_path / "undisturbed")


def test_an_input_goes_while_it_runs(scripted, tmp_path, disturbed):
    command, _ = disturbed
    process = start(command)
    listing = tmp_path / "out/sources.jsonl"
    while not listing.exists():
        assert process.poll() is None
        time.sleep(0.02)
    last = load_source_list(listing)[-1].name
    (tmp_path / "src" / last).rename(tmp_path / "aside")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "vanished" in (tmp_path / "out/skipped.jsonl").read_text()
    assert verify(tmp_path / "out").ok
    (tmp_path / "aside").rename(tmp_path / "src" / last)
    finish([*command, "--retry-skipped"])
    assert "vanished" not in (tmp_path / "out/skipped.jsonl").read_text()
    assert verify(tmp_path / "out").ok


def test_a_second_copy_at_once(scripted, tmp_path, disturbed):
    command, expected = disturbed
    processes = [start(command) for _ in range(3)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert any(code == 0 for _, code in ends)
    for errors, code in ends:
        assert code == 0 or "another command is converting" in errors
        assert "Traceback" not in errors
    assert scripted.content(tmp_path / "out") == expected
