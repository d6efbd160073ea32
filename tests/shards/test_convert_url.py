"""Conversion to a URL: the same files as in a folder, resumed after a kill, checked where they arrived."""

from __future__ import annotations

import importlib.util
import uuid

import pytest

from clipfold.errors import ClipfoldError
from clipfold.shards import store as module
from clipfold.shards.convert import convert
from clipfold.shards.reader import Corpus
from clipfold.shards.staging import Staging
from clipfold.shards.status import status
from clipfold.shards.store import default_staging
from clipfold.shards.verify import verify


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=pytest.mark.slow)])
def url(request, tmp_path):
    """An empty place behind a URL."""
    if request.param == "memory":
        return f"memory://corpora/{uuid.uuid4().hex}"
    if request.param == "file":
        return f"file://{tmp_path}/store/corpus"
    return request.getfixturevalue("bucket") + "/corpora/one"


@pytest.fixture
def bucket(skip_without, monkeypatch):
    """A bucket of a real S3 server."""
    for name in ("moto", "s3fs"):
        if importlib.util.find_spec(name) is None:
            skip_without(name, f"{name} is not installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def content(url):
    """Every file behind a URL, by name."""
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    found = {str(path)[len(root) :].lstrip("/"): filesystem.cat_file(path) for path in filesystem.find(root)}
    return dict(sorted(found.items()))


def test_the_same_files_as_in_a_folder(scripted, tmp_path, url):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8) | {"a/bad.mp4": {"open": "broken"}})
    convert(tmp_path / "src", out=tmp_path / "folder", **scripted.OPTIONS)
    summary = convert(tmp_path / "src", out=url, num_workers=2, **scripted.OPTIONS)
    assert content(url) == scripted.content(tmp_path / "folder")
    assert summary.out == url
    assert not default_staging(url).exists()
    assert verify(url).ok
    assert Corpus(url).classes == ["a", "b"]
    assert status(url).is_finished
    assert convert(tmp_path / "src", out=url, **scripted.OPTIONS).was_finished

    scripted.write_sources(tmp_path / "src", {"c/new.mp4": {}})
    convert(tmp_path / "src", out=tmp_path / "folder", append=True, **scripted.OPTIONS)
    assert convert(tmp_path / "src", out=url, append=True, **scripted.OPTIONS).num_appended == 1
    assert content(url) == scripted.content(tmp_path / "folder")


@pytest.mark.slow
def test_killed_between_every_two_steps(scripted, tmp_path, monkeypatch):
    url = f"memory://corpora/{uuid.uuid4().hex}"
    scripted.write_sources(tmp_path / "src", scripted.good_sources(6))
    convert(tmp_path / "src", out=tmp_path / "folder", **scripted.OPTIONS)
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
        (Staging, "add_source"),
        (Staging, "add_shard"),
        (Staging, "add_upload"),
        (Staging, "remove"),
        (module, "upload"),
        (module.os, "unlink"),
    ):
        monkeypatch.setattr(owner, name, killing(getattr(owner, name)))
    for num_steps in (*range(8), *range(8, 120, 4)):
        steps_left = num_steps
        try:
            convert(tmp_path / "src", out=url, num_workers=1, **scripted.OPTIONS)
            break
        except Killed:
            assert "dataset.json" not in content(url) or content(url) == scripted.content(tmp_path / "folder")
    else:
        pytest.fail("never ended")
    assert content(url) == scripted.content(tmp_path / "folder")


def test_staging_may_be_named_and_shows_how_far_it_is(scripted, tmp_path, monkeypatch):
    url = f"memory://corpora/{uuid.uuid4().hex}"
    scripted.write_sources(tmp_path / "src", scripted.good_sources(8))
    add_upload = Staging.add_upload

    def kill(self, split, num):
        add_upload(self, split, num)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "add_upload", kill)
        with pytest.raises(Killed):
            convert(tmp_path / "src", out=url, staging=tmp_path / "here", num_workers=1, **scripted.OPTIONS)
    found = status(url, staging=tmp_path / "here")
    assert not found.is_finished
    assert found.num_done
    with pytest.raises(ClipfoldError, match=r"a conversion that another machine began: train(.|\n)*--staging"):
        convert(tmp_path / "src", out=url, num_workers=1, **scripted.OPTIONS)
    convert(tmp_path / "src", out=url, staging=tmp_path / "here", num_workers=1, **scripted.OPTIONS)
    assert not (tmp_path / "here").exists()
    assert verify(url).ok


def test_what_cannot_be_written_is_refused_at_the_start(scripted, tmp_path):
    scripted.write_sources(tmp_path / "src", scripted.good_sources(2))
    for out, message in (
        ("http://127.0.0.1:1/corpus", "cannot be written to this URL"),
        ("nosuch://corpus", "cannot be written to this URL: ValueError: Protocol not known"),
    ):
        with pytest.raises(ClipfoldError, match=message):
            convert(tmp_path / "src", out=out, **scripted.OPTIONS)
        assert not default_staging(out).exists()
    with pytest.raises(ValueError, match="belongs to a URL"):
        convert(tmp_path / "src", out=tmp_path / "out", staging=tmp_path / "here", **scripted.OPTIONS)
    url = f"memory://other/{uuid.uuid4().hex}"
    module.upload(b"important", f"{url}/thesis.tex")
    with pytest.raises(ClipfoldError, match=r"something else is behind this URL.*: thesis\.tex"):
        convert(tmp_path / "src", out=url, **scripted.OPTIONS)
    assert list(content(url)) == ["thesis.tex"]


def test_what_arrives_damaged_is_sent_again(scripted, tmp_path, monkeypatch):
    url = f"memory://corpora/{uuid.uuid4().hex}"
    scripted.write_sources(tmp_path / "src", scripted.good_sources(4))
    upload, num_damaged = module.upload, 0

    def damage(source, location, always=False):
        nonlocal num_damaged
        if isinstance(source, bytes) or (num_damaged and not always):
            upload(source, location)
            return
        num_damaged += 1
        data = bytearray(source.read_bytes())
        data[len(data) // 2] ^= 1
        upload(bytes(data) if num_damaged % 2 else bytes(data[:-1]), location)

    monkeypatch.setattr(module, "upload", damage)
    convert(tmp_path / "src", out=url, num_workers=1, **scripted.OPTIONS)
    assert num_damaged == 1
    assert verify(url).ok
    monkeypatch.setattr(module, "upload", lambda source, location: damage(source, location, always=True))
    with pytest.raises(ClipfoldError, match=r"3 attempts to upload a file failed: OSError: .* arrived"):
        convert(tmp_path / "src", out=f"{url}2", num_workers=1, **scripted.OPTIONS)
