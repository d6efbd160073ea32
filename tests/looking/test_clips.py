from __future__ import annotations

from clipfold.looking.clips import choose, evenly


def test_evenly_takes_both_ends_and_no_more_than_there_are() -> None:
    assert evenly("abcdefg", 3) == ["a", "d", "g"]
    assert evenly("abc", 5) == ["a", "b", "c"]
    assert evenly("abc", 1) == ["b"]
    assert evenly("", 2) == []


def test_choose_shows_every_class_while_there_is_room() -> None:
    groups = {name: [f"{name}{number}" for number in range(5)] for name in "abcd"}
    assert choose(groups, clips_per_class=2, max_clips=8) == ["a0", "a4", "b0", "b4", "c0", "c4", "d0", "d4"]
    assert choose(groups, clips_per_class=2, max_clips=7) == ["a2", "b2", "c2", "d2"]
    assert choose(groups, clips_per_class=2, max_clips=2) == ["a2", "d2"]
    assert choose({}, clips_per_class=2, max_clips=2) == []
