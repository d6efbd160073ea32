"""Killed, crashed, interrupted, out of space, started twice: the same command goes on, and the bytes are the same."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from clipfold.errors import ClipfoldError, SourceError
from clipfold.shards import completion, wanted
from clipfold.shards import conversion as module
from clipfold.shards.convert import convert
from clipfold.shards.manifest import Manifest
from clipfold.shards.staging import Staging
from clipfold.shards.writer import ShardWriter
from clipfold.worker import cpu_type


def undisturbed(scripted, tmp_path, src="src"):
    convert(tmp_path / src, out=tmp_path / "undisturbed", num_workers=2, **scripted.OPTIONS)
    return scripted.content(tmp_path / "undisturbed")


def run_killed_after(command, seconds):
    """Exit code and messages of a command that is killed after so many seconds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 3])
def test_killed_again_and_again(scripted, tmp_path, monkeypatch, num_workers):
    log = tmp_path / "log"
    monkeypatch.setenv("SCRIPTED_LOG", str(log))
    sources = scripted.good_sources(30, then="sleep 0.1") | {"a/bad.mp4": {"open": "broken"}}
    scripted.write_sources(tmp_path / "src", sources)
    expected = undisturbed(scripted, tmp_path)
    log.unlink()
    command = scripted.command(tmp_path / "src", tmp_path / "out", "--num-workers", str(num_workers))
    num_kills = 0
    # importing, listing and the first sources take about a second: kills fall into all phases
    for seconds in 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8, 3.2, 3.6, 300:
        code, errors = run_killed_after(command, seconds)
        if code == 0:
            break
        assert code == -signal.SIGKILL, errors
        num_kills += 1
        if (tmp_path / "out/dataset.json").exists():  # killed after its last step, or between the last two
            kept = scripted.content(tmp_path / "out").items()
            assert {name: data for name, data in kept if not name.startswith(".converting")} == expected
    assert code == 0
    assert num_kills >= 3
    assert scripted.content(tmp_path / "out") == expected
    decoded = Counter(log.read_text().split())
    # a kill loses at most what each worker is at and what waits in its pipe; nothing that was staged
    assert sum(decoded.values()) <= 30 + num_kills * 2 * num_workers


def test_killed_between_every_two_steps_of_the_parent(scripted, tmp_path, monkeypatch):
    """The process ends, as by a kill, at each step that changes the disk, one step later every time."""
    scripted.write_sources(tmp_path / "src", scripted.good_sources(6) | {"a/bad.mp4": {"open": "broken"}})
    expected = undisturbed(scripted, tmp_path)

    class Killed(BaseException):
        pass

    steps_left = 0

    def killing(function):
        def step(*args, **kwargs):
            nonlocal steps_left
            if steps_left == 0:
                raise Killed
            steps_left -= 1
            return function(*args, **kwargs)

        return step

    for owner, name in (
        (Staging, "set_plan"),
        (Staging, "add_source"),
        (Staging, "add_shard"),
        (Staging, "remove_part"),
        (Staging, "remove"),
        (ShardWriter, "append"),
        (module, "save_source_list"),
        (completion, "save_source_list"),
        (completion, "write_whole"),
        (completion.Manifest, "save"),
    ):
        monkeypatch.setattr(owner, name, killing(getattr(owner, name)))
    for num_steps in (*range(6), *range(6, 80, 3)):
        steps_left = num_steps
        try:
            convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
            break
        except Killed:
            continue
    else:
        pytest.fail("never ended")
    assert scripted.content(tmp_path / "out") == expected


def test_what_a_decoder_does_to_its_process_costs_one_file(scripted, tmp_path):
    bad = {
        "a/segfault.mp4": {"then": "segfault"},
        "a/loop.mp4": {"then": "loop"},
        "b/memory.mp4": {"then": "blow up"},
    }
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8) | bad)
    options = {**scripted.OPTIONS, "deadline_seconds": 1, "memory_bytes": 600_000_000}
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **options)
    assert {each.name: each.reason for each in summary.skipped} == {
        "a/segfault.mp4": "crash",
        "a/loop.mp4": "cpu_deadline",
        "b/memory.mp4": "out_of_memory",
    }
    assert summary.num_converted == 8


def test_a_crash_that_does_not_come_back_leaves_no_trace(scripted, tmp_path):
    sources = {f"a/{n}.mp4": {} for n in range(5)}
    for n in (1, 3):
        sources[f"a/{n}.mp4"] = {"then": f"flaky {tmp_path}/mark{n}"}
    scripted.write_sources(tmp_path / "src", sources)
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **scripted.OPTIONS)
    assert (tmp_path / "mark3").exists()
    assert summary.num_skipped == 0
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def interrupted(scripted, tmp_path, monkeypatch, after=4):
    """A conversion that stops after some sources, as if its process had been killed."""

    class Killed(BaseException):
        pass

    add_source = Staging.add_source

    def add(self, number, record):
        if number == after:
            raise Killed
        add_source(self, number, record)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "add_source", add)
        with pytest.raises(Killed):
            convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)


def whole_files(scripted, folder):
    """The content of a folder without what a killed process was writing."""
    return {name: data for name, data in scripted.content(folder).items() if not name.endswith(".tmp")}


def test_an_unfinished_conversion_refuses_other_options(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8))
    interrupted(scripted, tmp_path, monkeypatch)
    before = whole_files(scripted, tmp_path / "out")
    with pytest.raises(ClipfoldError, match=r"unfinished conversion with other options .*shard_clips: 5 there, 7 here"):
        convert(tmp_path / "src", out=tmp_path / "out", **{**scripted.OPTIONS, "shard_clips": 7})
    assert whole_files(scripted, tmp_path / "out") == before
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_vanished_sources_are_skipped_and_new_ones_left_out(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8))
    interrupted(scripted, tmp_path, monkeypatch, after=2)
    names = [source.name for source in module.load_source_list(tmp_path / "out/sources.jsonl")]
    for part in (tmp_path / "out/.converting/parts").glob("*.part"):
        part.unlink()  # whatever was staged ahead
    (tmp_path / "src" / names[-1]).unlink()
    scripted.write_sources(tmp_path / "src", {"a/new.mp4": {}})
    summary = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert [(each.name, each.reason) for each in summary.skipped] == [(names[-1], "vanished")]
    assert summary.num_sources == 8


def test_a_changed_source_stops_by_name(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8))
    interrupted(scripted, tmp_path, monkeypatch, after=2)
    for part in (tmp_path / "out/.converting/parts").glob("*.part"):
        part.unlink()
    name = module.load_source_list(tmp_path / "out/sources.jsonl")[-1].name
    path = tmp_path / "src" / name
    old = path.stat().st_mtime_ns
    os.utime(path, ns=(old + 1, old + 1))
    with pytest.raises(SourceError, match=rf"changed since the list was frozen(.|\n)*{name}"):
        convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    os.utime(path, ns=(old, old))
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_skipped_sources_are_tried_again_when_asked(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8))
    path = tmp_path / "src" / "a/v00.mp4"
    aside = path.rename(tmp_path / "aside")  # looks vanished after the list was frozen
    aside.rename(path)
    freeze = wanted.freeze

    def freeze_then_move(*args, **kwargs):
        listed = freeze(*args, **kwargs)
        path.rename(aside)
        return listed

    with monkeypatch.context() as patch:
        patch.setattr(wanted, "freeze", freeze_then_move)
        interrupted(scripted, tmp_path, monkeypatch, after=7)
    aside.rename(path)
    kept = convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, retry_skipped=True, **scripted.OPTIONS)
    assert kept.num_skipped == 0
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_a_full_disk_is_one_message_and_can_be_gone_on_from(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(10))
    append, num_appended = ShardWriter.append, 0

    def full(self, **kwargs):
        nonlocal num_appended
        num_appended += 1
        if num_appended > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "append", full)
        with pytest.raises(ClipfoldError, match=r"no space left on the disk(.|\n)*run the same command again"):
            convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **scripted.OPTIONS)
    assert not (tmp_path / "out/dataset.json").exists()
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=2, **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_a_disk_that_fills_in_a_worker_stops_too(scripted, tmp_path):
    """A limit on the size of files stands in for the full disk: the worker's part cannot be written."""
    scripted.write_sources(tmp_path / "src", {"a/x.mp4": {"num_frames": 400}, "a/y.mp4": {}})
    command = scripted.command(tmp_path / "src", tmp_path / "out", "--num-workers", "1")
    limited = ["/bin/sh", "-c", 'ulimit -f 40; exec "$@"', "sh", *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_too_little_space_is_said_before(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(10))
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("clipfold.shards.estimate.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ClipfoldError, match=r"not enough free space: about .* needed, 10\.0 kB free"):
        convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_stops_the_work_in_order(scripted, tmp_path, monkeypatch):
    """While there is still a little room: what is done is kept, and gone on with."""
    scripted.write_sources(tmp_path / "src", scripted.good_sources(10))
    num_looks = 0

    def usage(folder):
        nonlocal num_looks
        num_looks += 1
        return type("Usage", (), {"free": 10**9 if num_looks < 6 else 10**6, "total": 10**11})

    with monkeypatch.context() as patch:
        patch.setattr("clipfold.shards.estimate.shutil.disk_usage", usage)
        with pytest.raises(
            ClipfoldError, match=r"nearly full: 1\.0 MB free, expected at least 256\.0 MB(.|\n)*goes on"
        ):
            convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    with Staging(tmp_path / "out") as staging:
        assert 2 <= len(staging.sources) < 10
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_another_type_of_cpu_is_refused_for_codecs_that_depend_on_it(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    options = {**scripted.OPTIONS, "codec": "lowrank", "num_workers": 1}
    convert(tmp_path / "src", out=tmp_path / "out", **options)
    types = Manifest.load(tmp_path / "out").provenance["cpu_types"]
    assert types == [cpu_type()]
    scripted.write_sources(tmp_path / "src", {"a/new.mp4": {}})
    load = Manifest.load

    def load_elsewhere(root):  # as if the corpus had been made on another machine
        manifest = load(root)
        return replace(manifest, provenance={**manifest.provenance, "cpu_types": ["x86_64 other"]})

    monkeypatch.setattr(Manifest, "load", load_elsewhere)
    with pytest.raises(ClipfoldError, match="depend on the type of the CPU, and there are 2"):
        convert(tmp_path / "src", out=tmp_path / "out", append=True, **options)
    convert(tmp_path / "src", out=tmp_path / "out", append=True, allow_mixed_cpu=True, **options)
    assert load(tmp_path / "out").provenance["cpu_types"] == sorted([*types, "x86_64 other"])


def test_a_second_command_is_refused_while_the_first_runs(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    (tmp_path / "out").mkdir()
    with Staging(tmp_path / "out"), pytest.raises(ClipfoldError, match="another command is converting"):
        convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_two_commands_at_once_give_one_good_corpus(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(10, then="sleep 0.02"))
    results = []

    def run():
        try:
            results.append(convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS))
        except ClipfoldError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(each) for each in results if isinstance(each, Exception)] == [
        str(each) for each in results if isinstance(each, Exception) and "another command" in str(each)
    ]
    assert sum(not isinstance(each, Exception) for each in results) >= 1
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_parts_are_deleted_once_their_shards_are_finished(scripted, tmp_path, monkeypatch):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(20))
    most = 0
    add_source = Staging.add_source

    def add(self, number, record):
        nonlocal most
        add_source(self, number, record)
        most = max(most, sum(number >= part for part in self.part_numbers()))

    monkeypatch.setattr(Staging, "add_source", add)
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    # of three splits, each at most one shard of 5 clips and the source at its border wait; sources have 1 to 6 clips
    assert most <= 3 * 6


@pytest.mark.parametrize("place", [100, -100, -3])
def test_a_damaged_part_is_made_again(scripted, tmp_path, monkeypatch, place):
    """A flipped bit in a clip, in the footer, in the mark at the end."""
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8))
    interrupted(scripted, tmp_path, monkeypatch, after=3)
    part = max((tmp_path / "out/.converting/parts").glob("*.part"))
    data = bytearray(part.read_bytes())
    data[place] ^= 1
    part.write_bytes(data)
    convert(tmp_path / "src", out=tmp_path / "out", num_workers=1, **scripted.OPTIONS)
    assert scripted.content(tmp_path / "out") == undisturbed(scripted, tmp_path)


def test_ctrl_c_stops_in_order(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(30, then="sleep 0.3"))
    command = scripted.command(tmp_path / "src", tmp_path / "out", "--num-workers", "2")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("out/.converting/parts/*.part")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on with" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out/dataset.json").exists()
    assert not list((tmp_path / "out").glob("*/.*.tmp"))


def test_a_script_without_a_guard_converts(scripted, tmp_path):
    """From a file and from the standard input: workers do not run the caller's script again."""
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    text = (
        "from clipfold.shards.convert import convert\nfrom clipfold.clip import ClipSpec\n"
        f"spec = ClipSpec(num_frames=4, height=8, width=12)\n"
        f"summary = convert({str(tmp_path / 'src')!r}, out=OUT, spec=spec, decoder='scripted_decoder:Scripted',"
        " num_workers=2, show_progress=False)\nprint('converted', summary.num_converted)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(text.replace("OUT", repr(str(tmp_path / "one"))))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("converted 4\n", "")
    text = text.replace("OUT", repr(str(tmp_path / "two")))
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("converted 4\n", "")
    assert scripted.content(tmp_path / "one") == scripted.content(tmp_path / "two")
