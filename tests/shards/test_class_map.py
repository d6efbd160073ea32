"""Class maps: what the three formats say, and what is made of classes."""

from __future__ import annotations

import pytest

from clipfold.errors import ClipfoldError
from clipfold.shards.class_map import ClassMap
from clipfold.shards.convert import convert
from clipfold.shards.reader import Corpus

TEXTS = {
    "classes.txt": "# a comment\nwalk\n stroll ->  walk\n\njump\nnoise -> -\n",
    "classes.csv": "walk,walk\nstroll,walk\njump\nnoise,-\n",
    "classes.json": '{"walk": "walk", "stroll": "walk", "jump": "jump", "noise": null}',
}


@pytest.mark.parametrize("name", TEXTS)
def test_three_formats_say_the_same(tmp_path, name):
    (tmp_path / name).write_text(TEXTS[name])
    classes = ClassMap.load(tmp_path / name)
    assert classes.pairs == (("walk", "walk"), ("stroll", "walk"), ("jump", "jump"), ("noise", None))
    assert [classes.label(label) for label in ("stroll", "noise", "other", None)] == [
        (True, "walk"),
        (False, None),
        (True, "other"),
        (True, None),
    ]
    assert classes.order(["zebra", "jump", "ape"]) == ["walk", "jump", "ape", "zebra"]
    assert classes.order(["zebra", "jump"], after=["jump", "old"]) == ["jump", "old", "walk", "zebra"]
    assert classes.unused(["walks", "jump"]) == ["'walk', did you mean 'walks'?", "'stroll'", "'noise'"]


def test_a_json_list_orders_and_a_star_stands_for_the_rest(tmp_path):
    (tmp_path / "a.json").write_text('["b", "a"]')
    assert ClassMap.load(tmp_path / "a.json").order(["a", "c"]) == ["b", "a", "c"]
    assert ClassMap((("a", "a"), ("*", None))).label("b") == (False, None)
    assert ClassMap((("a", "a"), ("*", "rest"))).label("b") == (True, "rest")
    assert ClassMap((("a", "a"), ("*", "*"))).label("b") == (True, "b")
    assert ClassMap((("a", "x"), ("*", "rest"))).order(["x", "rest"]) == ["x", "rest"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "", "expected a .txt, .csv or .json file"),
        ("a.txt", "walk\nwalk -> run\n", "walk named more than once"),
        ("a.json", '{"a": 1}', "expected names of classes"),
        ("a.json", '{"a": "b", "a": "c"}', "a named more than once"),
        ("a.json", "{", "Expecting property name"),
        ("a.csv", "a,b,c\n", "expected one or two columns"),
        ("a.txt", " -> b\n", "a class without a name"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ClipfoldError, match=rf"class map cannot be used: .*{message}"):
        ClassMap.load(tmp_path / name)
    with pytest.raises(ClipfoldError, match="No such file"):
        ClassMap.load(tmp_path / "missing.txt")


def test_a_corpus_with_other_classes(scripted, tmp_path):
    names = {f"{label}/{n}.mp4": {} for label in ("walk", "stroll", "noise", "ape") for n in range(2)}
    scripted.write_sources(tmp_path / "src", names)
    (tmp_path / "classes.txt").write_text("walk\njump\nstroll -> walk\nnoise -> -\n")
    options = {**scripted.OPTIONS, "split": None, "num_workers": 1}
    summary = convert(tmp_path / "src", out=tmp_path / "out", classes=tmp_path / "classes.txt", **options)
    corpus = Corpus(tmp_path / "out")
    assert corpus.classes == ["walk", "jump", "ape"]
    assert summary.clips == {"train": {"ape": 6, "walk": 12}}
    assert summary.ignored == [
        "noise/0.mp4: the class map drops 'noise'",
        "noise/1.mp4: the class map drops 'noise'",
        "class map: no source has the class 'jump'",
    ]
    labels = [label for row in range(len(corpus.shard_table("train"))) for label in corpus.index("train", row)["label"]]
    assert sorted(set(labels)) == [0, 2]
    with pytest.raises(ClipfoldError, match=r"classes: .* there, .* here"):
        convert(tmp_path / "src", out=tmp_path / "out", **options)
    (tmp_path / "classes.txt").write_text("* -> -\n")
    with pytest.raises(ClipfoldError, match="drops all of 8 sources"):
        convert(tmp_path / "src", out=tmp_path / "other", classes=tmp_path / "classes.txt", **options)
    assert not (tmp_path / "other").exists()
