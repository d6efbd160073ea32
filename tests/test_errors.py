from __future__ import annotations

import pickle

import pytest

import clipfold.errors as errors


def test_message_says_what_where_and_what_to_do() -> None:
    error = errors.ShardError("sample '00000170-0042' has 7 bytes, expected 8", shard="a.tar", offset=5, fix="again")
    assert str(error) == "sample '00000170-0042' has 7 bytes, expected 8\n  shard: a.tar   offset: 5\n  fix: again"
    assert (error.shard, error.offset, error.fix) == ("a.tar", 5, "again")
    with pytest.raises(AttributeError):
        _ = error.frame


@pytest.mark.parametrize("name", errors.__all__)
def test_context_survives_the_way_out_of_a_worker(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.ClipfoldError)
    error = pickle.loads(pickle.dumps(kind("broken", file="a.mp4", frame=3, fix="remove it")))
    assert type(error) is kind
    assert (error.what, error.file, error.frame, error.fix) == ("broken", "a.mp4", 3, "remove it")


def test_the_drawn_tree_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__
