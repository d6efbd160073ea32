from __future__ import annotations

from pathlib import Path

import pytest

from clipfold.shards.reader import Corpus

SIZES = ("--num-frames", "4", "--height", "8", "--width", "12", "--num-workers", "1")
CLASSES = ["brush_hair", "wave"]


@pytest.fixture
def dataset(tmp_path: Path, write) -> tuple[Path, Path]:
    """Two classes of six films with two clips each: films 0 to 3 train, 4 test, 5 unused; film 3 also a test clip."""
    root, lists = tmp_path / "hmdb51", tmp_path / "splits"
    lists.mkdir()
    for number, name in enumerate(CLASSES):
        lines = []
        for film in range(6):
            for clip in (0, 1):
                file = f"(HQ)_#{film}_of_April_{name}_u_nm_np1_ba_goo_{clip}.avi"
                write.video(root / name / file, 100 * number + 2 * film + clip)
                split = 2 if (film, clip) == (3, 1) else [1, 1, 1, 1, 2, 0][film]
                lines.append(f"{file} {split} \n")
        (lists / f"{name}_test_split1.txt").write_text("".join(lines))
    return root, lists


def test_labels_splits_groups_and_frames(dataset, tmp_path, recipe, clips, capsys):
    out = tmp_path / "corpus"
    words = [str(dataset[0]), "--lists", str(dataset[1]), "--out", str(out), *SIZES, "--val-share", "0.25"]
    assert recipe("hmdb51", words) == 0
    assert "parts of 2 groups into different splits: brush_hair/(HQ)_#3_of_April" in capsys.readouterr().err
    assert Corpus(out).classes == CLASSES
    found = clips(out)
    assert len(found) == 2 * 10
    splits: dict[tuple[str, int], set[str]] = {}
    for name, clip in found.items():
        label, film, number = name.partition("/")[0], int(name.partition("#")[2][0]), int(name[-5])
        assert film < 5, "unused"
        assert clip.label == label
        assert clip.videos == [100 * CLASSES.index(label) + 2 * film + number]
        assert clip.frames == [0, 1, 2, 3]
        assert (clip.split == "test") == (film == 4 or (film, number) == (3, 1))
        if clip.split != "test":
            splits.setdefault((label, film), set()).add(clip.split)
    assert all(len(each) == 1 for each in splits.values()), "a film is torn"
    assert sum(each == {"val"} for each in splits.values()) == 2


def test_errors_are_one_message(dataset, tmp_path, recipe, capsys):
    words = [str(dataset[0]), "--lists", str(dataset[1]), "--out", str(tmp_path / "corpus"), *SIZES]
    assert recipe("hmdb51", [*words, "--fold", "2"]) == 1
    assert "brush_hair_test_split2.txt" in capsys.readouterr().err
    (dataset[1] / "wave_test_split1.txt").write_text("a.avi 3\n")
    assert recipe("hmdb51", words) == 1
    assert "'a.avi 3', expected a video and 0, 1 or 2" in capsys.readouterr().err
