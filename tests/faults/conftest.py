"""The scripted sources of the conversion tests, which are kept beside those."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module ``tests/shards/convert_corpus.py``; its decoder can be imported here and in worker processes."""
    path = Path(__file__).parents[1] / "shards" / "convert_corpus.py"
    spec = importlib.util.spec_from_file_location("convert_corpus", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = module.install_decoder(tmp_path / "code")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
    yield module
    sys.modules.pop("scripted_decoder", None)
