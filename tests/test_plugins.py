from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest

from clipfold import PluginError, plugins

TABLE = {"ordered": "collections:OrderedDict", "missing": "no_such_module:Thing"}


def test_a_name_leads_to_its_object() -> None:
    assert plugins.load("things", "ordered", TABLE) is OrderedDict
    assert plugins.load("things", "collections:OrderedDict.fromkeys", TABLE) == OrderedDict.fromkeys


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PluginError, match=r"expected one of missing, ordered(.|\n)*did you mean 'ordered'"):
        plugins.load("things", "ordred", TABLE)


def test_an_import_that_fails_says_so() -> None:
    with pytest.raises(PluginError, match="cannot import 'missing'"):
        plugins.load("things", "missing", TABLE)
    with pytest.raises(PluginError, match="no attribute"):
        plugins.load("things", "collections:Nothing", TABLE)


def test_a_name_from_a_file_cannot_import_code() -> None:
    assert plugins.load_builtin("things", "ordered", TABLE) is OrderedDict
    with pytest.raises(PluginError, match="only be one of ours"):
        plugins.load_builtin("things", "os:system", TABLE)


def test_a_module_in_the_current_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_things_of_test_plugins.py").write_text("class Thing: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    assert plugins.load("things", "my_things_of_test_plugins:Thing", TABLE).__name__ == "Thing"


def test_an_entry_point_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dist = tmp_path / "outside-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (dist / "entry_points.txt").write_text("[clipfold.things]\noutside = collections:OrderedDict\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.load("things", "outside", TABLE) is OrderedDict
    assert plugins.known_names("things", TABLE) == ["missing", "ordered", "outside"]
