"""Whatever a task does to its process, the others' outcomes come out, in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipfold.errors import ClipfoldError, DecodeError
from clipfold.pool import Limits, Pool

TASKS = '''
import ctypes, os, signal, time
from pathlib import Path
from clipfold.errors import DecodeError
from clipfold.worker import renew_deadline

def double(n): return 2 * n
def nap(seconds): time.sleep(seconds); return seconds
def threads(_): return os.environ["OMP_NUM_THREADS"]
def pid(_): return os.getpid()

def misbehave(what):
    if what == "segfault": ctypes.string_at(0)
    if what == "loop":
        while True: pass
    if what == "hang": time.sleep(600)
    if what == "blow up":
        ctypes.CDLL(None).malloc.restype = ctypes.c_void_p
        kept = [bytearray(50_000_000) for _ in range(1000)]
    if what == "exit": raise SystemExit(0)
    if what == "hard exit": os._exit(0)
    if what == "decode": raise DecodeError("no frames", fix="look at it", file=Path("a.mp4"), frame=3)
    if what == "wrapped":
        try: raise MemoryError
        except MemoryError as error: raise DecodeError("cannot") from error
    if what == "value": raise ValueError("bad")
    if what == "unpicklable": return lambda: None
    if what == "slow but moving":
        for _ in range(8):
            end = time.process_time() + 0.3
            while time.process_time() < end: pass
            renew_deadline()
    return what

def once(path):
    """Dies the first time, lives the second."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"

def alone(folder):
    """The names of those at work at the same time."""
    mark = Path(folder) / str(os.getpid())
    mark.touch()
    time.sleep(0.2)
    names = [path.name for path in Path(folder).iterdir()]
    mark.unlink()
    return len(names)

def alone_or_die(argument):
    folder, dies = argument
    if dies and not (Path(folder).parent / "died").exists():
        (Path(folder).parent / "died").touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return dies, alone(folder)
'''


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A module that the workers can import, as a user's plug-in would be."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "pool_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(folder)
    import importlib

    return importlib.reload(importlib.import_module("pool_tasks"))


def test_outcomes_are_in_order_for_any_number_of_workers(tasks):
    for num_workers in (1, 3):
        with Pool(num_workers, num_ahead=5) as pool:
            assert [outcome.value for outcome in pool.map(tasks.double, range(50))] == list(range(0, 100, 2))
            assert pool.statistics.num_done == 50
            assert [outcome.value for outcome in pool.map(tasks.nap, [0.2, 0.0, 0.1])] == [0.2, 0.0, 0.1]


def test_arguments_are_taken_only_as_needed(tasks):
    taken = []

    def arguments():
        for number in range(1000):
            taken.append(number)
            yield number

    with Pool(2, num_ahead=7) as pool:
        outcomes = pool.map(tasks.double, arguments())
        assert next(outcomes).value == 0
        assert len(taken) <= 8
        outcomes.close()


def test_large_arguments_and_results_pass(tasks):
    with Pool(1) as pool:
        texts = ["x" * 3_000_000, "y" * 3_000_000, "z" * 3_000_000]
        assert [outcome.value for outcome in pool.map(tasks.misbehave, texts)] == texts


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_each_way_to_die_costs_one_task(tasks, num_workers):
    ways = {
        "segfault": ("crashed", "Crash"),
        "loop": ("timed_out", "CpuDeadline"),
        "hang": ("timed_out", "WallDeadline"),
        "blow up": ("out_of_memory", "OutOfMemory"),
        "exit": ("failed", "SystemExit"),
        "hard exit": ("crashed", "Crash"),
        "decode": ("failed", "DecodeError"),
        "wrapped": ("out_of_memory", "OutOfMemory"),
        "value": ("failed", "ValueError"),
        "unpicklable": ("failed", None),
        "slow but moving": ("done", ""),
    }
    arguments = [word for way in ways for word in (way, "fine")]

    def limits(argument):  # a busy machine may need long for a second of CPU time
        return Limits(cpu_seconds=1, wall_seconds=2 if argument == "hang" else 120, memory_bytes=600_000_000)

    with Pool(num_workers) as pool:
        outcomes = list(pool.map(tasks.misbehave, arguments, limits=limits))
    for argument, outcome in zip(arguments, outcomes, strict=True):
        kind, name = ways.get(argument, ("done", ""))
        assert outcome.kind == kind, (argument, outcome)
        assert name is None or outcome.error_name == name, (argument, outcome)
        assert outcome.num_tries == (2 if kind in ("crashed", "timed_out", "out_of_memory") else 1)
    decode = outcomes[arguments.index("decode")].error
    assert isinstance(decode, DecodeError)
    assert str(decode) == "no frames\n  file: a.mp4   frame: 3\n  fix: look at it"
    assert pool.statistics.num_crashed == 2
    assert pool.statistics.num_retried == 6


def test_a_task_killed_from_outside_is_done_again(tasks, tmp_path):
    with Pool(2) as pool:
        outcomes = list(pool.map(tasks.once, [str(tmp_path / f"{n}") for n in range(3)]))
    assert [(outcome.kind, outcome.value, outcome.num_tries) for outcome in outcomes] == [("done", "alive", 2)] * 3


def test_the_second_try_is_alone(tasks, tmp_path):
    folder = tmp_path / "at_work"
    folder.mkdir()
    with Pool(3) as pool:
        outcomes = [
            outcome.value
            for outcome in pool.map(tasks.alone_or_die, [(str(folder), number == 2) for number in range(12)])
        ]
    assert outcomes[2] == (True, 1)
    assert max(num for _, num in outcomes) > 1  # the others were not


def test_idle_workers_may_die(tasks):
    with Pool(2) as pool:
        list(pool.map(tasks.double, range(4)))
        for worker in pool._workers:
            worker.process.kill()
            worker.process.wait()
        assert [outcome.value for outcome in pool.map(tasks.double, range(4))] == [0, 2, 4, 6]


def test_closing_leaves_no_process(tasks):
    pool = Pool(2)
    outcomes = pool.map(tasks.nap, [0.0, 60.0, 60.0])
    assert next(outcomes).value == 0.0
    processes = [worker.process for worker in pool._workers]
    outcomes.close()
    assert all(process.poll() is not None for process in processes)


def test_workers_die_with_a_killed_parent(tasks, tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(tasks.__file__).parent)!r})
import pool_tasks
from clipfold.pool import Pool
pool = Pool(2)
for outcome in pool.map(pool_tasks.pid, range(2)):
    print(outcome.value, flush=True)
list(pool.map(pool_tasks.misbehave, ["loop", "loop"]))
"""
    parent = subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    parent.stdin.write(script)
    parent.stdin.close()
    pids = {int(parent.stdout.readline()) for _ in range(2)}
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not any(_is_running(pid) for pid in pids):
            break
        time.sleep(0.05)
    assert not any(_is_running(pid) for pid in pids)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_needs_no_guard(tasks, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pool_tasks\nfrom clipfold.pool import Pool\n"
        "print([outcome.value for outcome in Pool(2).map(pool_tasks.double, [1, 2])])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(tasks.__file__).parent)}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[2, 4]\n", "")


def test_interrupt_ends_the_map_and_the_workers(tasks):
    pool = Pool(1)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            list(pool.map(tasks.nap, [60.0]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert not pool._workers


def test_a_pool_that_cannot_start_says_so(tasks, monkeypatch):
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: "/bin/false")
    with Pool(2) as pool, pytest.raises(ClipfoldError, match="do not start"):
        list(pool.map(tasks.double, [1, 2]))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="num_workers: 0"):
        Pool(0)
    with pytest.raises(ValueError, match="num_ahead: 0"):
        Pool(1, num_ahead=0)


def test_blas_has_one_thread_in_workers(tasks):
    with Pool(1) as pool:
        assert [outcome.value for outcome in pool.map(tasks.threads, [0])] == ["1"]
