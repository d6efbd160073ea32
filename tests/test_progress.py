from __future__ import annotations

import pytest

from clipfold import progress


def test_without_a_terminal_it_prints_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with progress.Progress("converting", total=3, unit="sources") as bar:
        bar.advance(2, skipped=1)
        bar.advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "converting: 2/3 sources" in err
    assert "skipped 1" in err
    assert "converting: 3/3 sources" in err


def test_it_can_be_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress("converting", total=None, unit="sources", show=False) as bar:
        bar.advance(5)
        assert bar.rate > 0
    assert capsys.readouterr() == ("", "")
