from __future__ import annotations

import json

import pytest

from clipfold import cli
from clipfold.ingest.decoders.libraries import LIBRARIES, load_library
from clipfold.looking.environment import environment_tables, look_at_environment
from clipfold.looking.tables import plain_text


def test_this_machine() -> None:
    found = look_at_environment()
    states = {each.name: each for each in found.libraries}
    assert set(states) == set(LIBRARIES)
    assert states["av"].loads
    assert "libavcodec" in states["av"].text
    assert found.torch["version"]
    assert found.num_cpus >= 1
    assert found.free_bytes > 0
    json.dumps(found.to_json(), allow_nan=False)
    assert "decoders and codecs" in plain_text(environment_tables(found))


def test_a_library_that_is_there_but_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    from clipfold.ingest.decoders import libraries

    def fail(name: str) -> None:
        raise OSError("libavutil.so.59: cannot open shared object file\nmore")

    monkeypatch.setattr(libraries, "import_module", fail)
    found = load_library("av")
    assert not found.loads
    assert found.text == "does not load: libavutil.so.59: cannot open shared object file"
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    assert load_library("decord").text == "not installed"


def test_the_command_without_a_path(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from clipfold.looking import environment

    monkeypatch.setattr(environment, "LIBRARIES", {"av": ""})
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["versions"]["clipfold"]
