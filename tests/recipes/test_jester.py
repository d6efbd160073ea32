from __future__ import annotations

from pathlib import Path

import pytest

from clipfold.shards.reader import Corpus

SIZES = ("--num-frames", "4", "--height", "8", "--width", "12", "--num-workers", "1")
LABELS = ["Swiping Left", "No gesture", "Doing other things"]


@pytest.fixture
def dataset(tmp_path: Path, write) -> Path:
    """Folders 1 to 12; 3 is missing."""
    for number in range(1, 13):
        if number != 3:
            write.frames(tmp_path / "frames" / str(number), number)
    (tmp_path / "labels.csv").write_text("\n".join(LABELS))
    (tmp_path / "train.csv").write_text("".join(f"{n};{LABELS[n % 2]}\n" for n in range(1, 8)))
    (tmp_path / "val.csv").write_text("8;No gesture\n9;Swiping Left\n10;Swiping Left\n")
    (tmp_path / "test.csv").write_text("11\n12\n")
    return tmp_path


def flags(dataset: Path, *lists: str) -> list[str]:
    words = [str(dataset / "frames"), "--labels", str(dataset / "labels.csv"), "--out", str(dataset / "corpus"), *SIZES]
    return [*words, *(word for name in lists for word in (f"--{name}", str(dataset / f"{name}.csv")))]


def test_labels_in_the_official_order(dataset, recipe, clips, capsys):
    assert recipe("jester", flags(dataset, "train", "val")) == 0
    assert "1 of 10 videos are missing: 3;" in capsys.readouterr().err
    assert Corpus(dataset / "corpus").classes == LABELS
    found = clips(dataset / "corpus")
    assert sorted(found, key=int) == ["1", "2", "4", "5", "6", "7", "8", "9", "10"]
    for name, clip in found.items():
        number = int(name)
        assert clip.split == ("train" if number < 8 else "val")
        assert clip.label == (LABELS[number % 2] if number < 8 else "No gesture" if number == 8 else "Swiping Left")
        assert clip.cls == str(LABELS.index(clip.label)).encode()
        assert (clip.videos, clip.frames, clip.meta["video_id"]) == ([number], [0, 1, 2, 3], name)


def test_a_test_list_without_labels(dataset, recipe, clips, capsys):
    assert recipe("jester", flags(dataset, "train", "test")) == 0
    assert "test has no labels: no sample of this corpus gets a .cls" in capsys.readouterr().err
    found = clips(dataset / "corpus")
    assert {name: (clip.split, clip.label, clip.videos) for name, clip in found.items() if int(name) > 7} == {
        "11": ("test", None, [11]),
        "12": ("test", None, [12]),
    }
    assert (found["1"].label, found["1"].meta["label"], found["1"].cls) == ("No gesture", "No gesture", None)


def test_errors_are_one_message(dataset, recipe, capsys):
    assert recipe("jester", flags(dataset)) == 2
    assert "no list: give --train" in capsys.readouterr().err
    (dataset / "val.csv").write_text("8;No gestures\n")
    assert recipe("jester", flags(dataset, "val")) == 1
    assert "did you mean 'No gesture'?" in capsys.readouterr().err
    (dataset / "val.csv").write_text("8,No gesture\n")
    assert recipe("jester", flags(dataset, "val")) == 1
    assert "'8,No gesture', expected 'id;label'" in capsys.readouterr().err
