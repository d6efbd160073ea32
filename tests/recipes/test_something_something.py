from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipfold.shards.reader import Corpus

SIZES = ("--num-frames", "4", "--height", "8", "--width", "12", "--num-workers", "1")
HOLDING, OPENING = "Holding something next to something", "Opening something"


@pytest.fixture
def dataset(tmp_path: Path, write) -> Path:
    """Version 2: videos 1 to 3, frames of 4."""
    for number in (1, 2, 3):
        write.video(tmp_path / "videos" / f"{number}.webm", number)
    write.frames(tmp_path / "videos" / "4", 4)
    (tmp_path / "labels.json").write_text(json.dumps({HOLDING: "1", OPENING: "0"}))
    entries = [
        {
            "id": "1",
            "label": 'holding a, b next to "c"',
            "template": "Holding [something] next to [something]",
            "placeholders": ["a, b", '"c"'],
        },
        {"id": "2", "label": "opening été", "template": "Opening [something]", "placeholders": ["été"]},
    ]
    (tmp_path / "train.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False))
    (tmp_path / "validation.json").write_text(json.dumps([{**entries[1], "id": "4"}, {**entries[0], "id": "99"}]))
    (tmp_path / "test.json").write_text(json.dumps([{"id": "3"}]))
    return tmp_path


def flags(dataset: Path, *lists: str) -> list[str]:
    words = [
        str(dataset / "videos"),
        "--out",
        str(dataset / "corpus"),
        *SIZES,
        "--labels",
        str(dataset / "labels.json"),
    ]
    return [*words, *(str(dataset / each) if each.endswith((".json", ".csv")) else each for each in lists)]


def test_version_2(dataset, recipe, clips, capsys):
    assert recipe("something_something", flags(dataset, "--train", "train.json", "--val", "validation.json")) == 0
    assert "1 of 4 videos are missing: 99;" in capsys.readouterr().err
    assert Corpus(dataset / "corpus").classes == [OPENING, HOLDING]
    found = clips(dataset / "corpus")
    assert {name: (c.split, c.label, c.videos, c.frames) for name, c in found.items()} == {
        "1.webm": ("train", HOLDING, [1], [0, 1, 2, 3]),
        "2.webm": ("train", OPENING, [2], [0, 1, 2, 3]),
        "4": ("val", OPENING, [4], [0, 1, 2, 3]),
    }
    assert found["1.webm"].meta["caption"] == 'holding a, b next to "c"'
    assert json.loads(found["1.webm"].meta["placeholders"]) == ["a, b", '"c"']


def test_the_test_split_and_version_1(dataset, recipe, clips):
    assert recipe("something_something", flags(dataset, "--test", "test.json")) == 0
    (clip,) = clips(dataset / "corpus").values()
    assert (clip.split, clip.label, clip.videos) == ("test", None, [3])
    (dataset / "labels.csv").write_text(f"{HOLDING}\n{OPENING}\n")
    (dataset / "train.csv").write_text(f"4;{OPENING}\n")
    words = ["--labels", "labels.csv", "--train", "train.csv", "--out", str(dataset / "v1")]
    assert recipe("something_something", flags(dataset, *words)) == 0
    (clip,) = clips(dataset / "v1").values()
    assert (clip.split, clip.label, clip.videos, clip.cls) == ("train", OPENING, [4], b"1")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.json", "[{", "no JSON"),
        ("train.json", '[{"label": "x"}]', "expected id, label"),
        ("train.json", '[{"id": "1", "template": "Openin [something]"}]', "did you mean 'Opening something'?"),
        ("labels.json", '["a"]', "expected {class: number}"),
        ("labels.json", '{"a": "1"}', "not 0, 1, 2"),
    ],
)
def test_errors_are_one_message(dataset, recipe, capsys, name, text, message):
    (dataset / name).write_text(text)
    assert recipe("something_something", flags(dataset, "--train", "train.json")) == 1
    assert message in capsys.readouterr().err
