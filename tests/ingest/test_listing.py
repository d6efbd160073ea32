from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfold.errors import SourceError
from clipfold.ingest.columns import own_columns, parse_text, roles_of, unify
from clipfold.ingest.listing import Member, Source, extension_of
from clipfold.ingest.patterns import expand_braces
from clipfold.ingest.sources import find_sources

texts = st.text(max_size=8)
columns = st.dictionaries(texts, st.one_of(texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(-1, 1)))
members = st.lists(st.builds(Member, texts, st.integers(0), st.integers(0)), max_size=3).map(tuple)
seconds = st.none() | st.floats(0, 1e6)


@st.composite
def sources(draw: st.DrawFn) -> Source:
    return Source(
        name=draw(texts),
        path=draw(texts),
        kind=draw(st.sampled_from(["video", "frames", "array", "sample"])),
        label=draw(st.none() | texts),
        split=draw(st.sampled_from([None, "train", "val", "test"])),
        group=draw(texts),
        num_bytes=draw(st.integers(0)),
        mtime_ns=draw(st.integers(0, 2**63)),
        frames=tuple(draw(st.lists(texts, max_size=3))),
        members=draw(members),
        start_seconds=draw(seconds),
        stop_seconds=draw(seconds),
        columns=draw(columns),
    )


@given(sources())
def test_json_gives_back_the_very_same_source(source: Source) -> None:
    assert Source.from_json(json.loads(json.dumps(source.to_json()))) == source


def test_json_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="fields of a source"):
        Source.from_json({"name": "a"})


def test_extensions() -> None:
    assert extension_of("/a.b/c.MP4") == ".mp4"
    assert extension_of("https://host/a.mp4?signature=x.y") == ".mp4"
    assert extension_of("/a.b/c") == ""


def test_brace_patterns() -> None:
    assert expand_braces("s-{098..101}.tar") == ["s-098.tar", "s-099.tar", "s-100.tar", "s-101.tar"]
    assert expand_braces("{a,b}/{1..2}") == ["a/1", "a/2", "b/1", "b/2"]
    assert expand_braces("plain") == ["plain"]
    assert expand_braces("odd{1}.tar") == ["odd{1}.tar"]
    with pytest.raises(SourceError, match="more than 10,000,000"):
        expand_braces("{0..99999999}.tar")


@pytest.mark.parametrize("root", ["pipe:cat /etc/passwd", "pipe:curl x |"])
def test_pipes_are_refused(root: str) -> None:
    with pytest.raises(SourceError, match="a pipe is refused"):
        find_sources(root)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a b.mp4").write_bytes(b"x")
    found = find_sources(f"file://{tmp_path}/a%20b.mp4").sources[0]
    assert (found.name, found.path) == ("a b.mp4", str(tmp_path / "a b.mp4"))


def source_with(**columns: object) -> Source:
    return Source(
        name="a",
        path="/a",
        kind="video",
        label=None,
        split=None,
        group="a",
        num_bytes=0,
        mtime_ns=0,
        columns=columns,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None], [1, 0]),
        ([1, 2.5, None], [1.0, 2.5, 0.0]),
        ([True, None], [True, False]),
        ([True, 1], ["true", "1"]),
        (["x", None, 3], ["x", "", "3"]),
        ([None, None], ["", ""]),
    ],
)
def test_a_column_has_one_type(values: list[object], expected: list[object]) -> None:
    found = [source.columns["c"] for source in unify([source_with(c=value) for value in values])]
    assert found == expected
    assert len({type(value) for value in found}) == 1


def test_a_column_that_is_missing_somewhere_is_there_everywhere() -> None:
    assert [dict(s.columns) for s in unify([source_with(a=1), source_with(b="x")])] == [
        {"a": 1, "b": ""},
        {"a": 0, "b": "x"},
    ]


def test_values_of_text_tables() -> None:
    assert [parse_text(text) for text in ["7", "-3", "007", "1e3", ".5", "true", "x y", "", "nan", None]] == [
        7, -3, "007", 1000.0, 0.5, True, "x y", None, None, None,
    ]  # fmt: skip


def test_names_that_every_sample_has_are_not_taken_twice() -> None:
    assert own_columns({"fps": 3, "mine": float("inf"), "deep": {"a": [1]}}, []) == {
        "user_fps": 3,
        "mine": None,
        "deep": '{"a": [1]}',
    }


def test_roles_by_name_and_as_given() -> None:
    assert roles_of(["Video", "Label", "time_start", "time_end", "extra"]) == {
        "path": "Video",
        "label": "Label",
        "start": "time_start",
        "stop": "time_end",
    }
    assert roles_of(["filename", "path"])["path"] == "path"
    assert roles_of(["id", "video"], {"path": "id"}) == {"path": "id"}
    with pytest.raises(ValueError, match="expected a role"):
        roles_of(["a"], {"path": "b"})
