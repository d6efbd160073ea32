"""Conversion on a real Ray cluster of several nodes on this machine: the same bytes, also when a node is lost."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time

import pytest

from clipfold.errors import ClipfoldError
from clipfold.shards.codecs.lowrank import Lowrank
from clipfold.shards.convert import convert
from clipfold.shards.engines import open_engine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray.*")]

NUM_NODES = 3


@pytest.fixture
def cluster(scripted, skip_without, monkeypatch):
    """Three nodes of one CPU each, beside a head without any; they import what this process can import."""
    if importlib.util.find_spec("ray") is None:
        skip_without("ray", "ray is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
    made.workers = [made.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(NUM_NODES)]
    made.wait_for_nodes()
    yield made
    import ray

    ray.shutdown()
    made.shutdown()


def test_the_same_bytes_and_one_file_for_each_that_crashes(scripted, tmp_path, cluster, monkeypatch):
    bad = {"a/bad.mp4": {"open": "broken"}, "b/crash.mp4": {"then": "segfault"}, "a/loop.mp4": {"then": "loop"}}
    scripted.write_sources(tmp_path / "src", scripted.good_sources(10) | bad)
    options = {**scripted.OPTIONS, "deadline_seconds": 1}
    convert(tmp_path / "src", out=tmp_path / "local", num_workers=2, **options)
    ray = {"engine": "ray", "ray_address": cluster.address}
    summary = convert(tmp_path / "src", out=tmp_path / "out", **ray, **options)
    assert {each.reason for each in summary.skipped} == {"decode", "crash", "cpu_deadline"}
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "local")

    # no node sees the folder of the parts: they come through the object store
    monkeypatch.setattr("clipfold.shards.engines_ray._Mark.beside", lambda mark, part: "/nowhere/mark" if part else "")
    convert(tmp_path / "src", out=tmp_path / "apart", **ray, **options)
    assert scripted.content(tmp_path / "apart") == scripted.content(tmp_path / "local")
    scripted.write_sources(tmp_path / "src", {"a/new.mp4": {}})
    assert convert(tmp_path / "src", out=tmp_path / "apart", append=True, **ray, **options).num_appended == 1


@pytest.mark.parametrize("sees_parts", [True, False])
def test_a_lost_node_costs_time_only(scripted, tmp_path, cluster, monkeypatch, sees_parts):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(24, then="sleep 0.5"))
    convert(tmp_path / "src", out=tmp_path / "local", num_workers=4, **scripted.OPTIONS)
    if not sees_parts:
        monkeypatch.setattr("clipfold.shards.engines_ray._Mark.beside", lambda mark, part: "/x/mark" if part else "")
    lost = []

    def lose_a_node():
        journal = tmp_path / "out/.converting/journal.jsonl"
        while not journal.exists() or journal.read_text().count("num_clips") < 5:
            time.sleep(0.05)
        cluster.remove_node(cluster.workers[0], allow_graceful=False)
        lost.append(journal.read_text().count("num_clips"))

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    summary = convert(
        tmp_path / "src", out=tmp_path / "out", engine="ray", ray_address=cluster.address, **scripted.OPTIONS
    )
    thread.join()
    assert lost
    assert lost[0] < 20  # it went in the middle
    assert summary.num_skipped == 0
    assert scripted.content(tmp_path / "out") == scripted.content(tmp_path / "local")


def test_what_the_cluster_cannot_do_is_said_at_once(scripted, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr("clipfold.shards.engines_ray.version", lambda name: "99.0")
    with pytest.raises(ClipfoldError, match=r"node .* has clipfold .*, expected 99\.0"):
        open_engine("ray", num_workers=None, address=cluster.address)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="num_workers: 0"):
        open_engine("ray", num_workers=0, address=cluster.address)
    scripted.write_sources(tmp_path / "src", scripted.good_sources(2))
    assert Lowrank.depends_on_cpu
    monkeypatch.setattr(
        "clipfold.shards.engines_ray.RayEngine._probe", lambda engine: ([1, 1], ["x86_64 one", "x86_64 other"])
    )
    options = {"engine": "ray", "ray_address": cluster.address, "codec": "lowrank", "show_progress": False}
    with pytest.raises(ClipfoldError, match=r"depend on the type of the CPU, and there are 2: x86_64 one, x86_64 oth"):
        convert(tmp_path / "src", out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_cluster_and_no_ray(skip_without, monkeypatch):
    if importlib.util.find_spec("ray") is None:
        skip_without("ray", "ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ClipfoldError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        open_engine("ray", num_workers=1, address="127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClipfoldError, match=r"needs the package ray(.|\n)*clipfold\[ray\]"):
        open_engine("ray", num_workers=1)
