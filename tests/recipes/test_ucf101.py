from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from clipfold.cli import main
from clipfold.shards.reader import Corpus

SIZES = ("--num-frames", "4", "--height", "8", "--width", "12", "--num-workers", "1")
CLASSES = ["YoYo", "ApplyEyeMakeup"]  # not in the order of the alphabet


@pytest.fixture
def dataset(tmp_path: Path, write) -> tuple[Path, Path]:
    """Two classes of the groups g01 to g12 with two clips each, of which g01 and g02 are the test split."""
    root, lists = tmp_path / "UCF-101", tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    lines = defaultdict(list)
    for number, name in enumerate(CLASSES):
        for group in range(1, 13):
            for clip in (1, 2):
                path = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
                write.video(root / path, 100 * number + 2 * group + clip)
                lines["test" if group < 3 else "train"].append(path)
    (lists / "classInd.txt").write_text("".join(f"{n} {name}\r\n" for n, name in enumerate(CLASSES, 1)))
    numbered = [f"{path} {CLASSES.index(path.partition('/')[0]) + 1}" for path in lines["train"]]
    (lists / "trainlist02.txt").write_text("\r\n".join(numbered) + "\r\n")
    (lists / "testlist02.txt").write_text("\n".join(lines["test"]))
    return root, lists


def flags(dataset: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    return [str(dataset[0]), "--lists", str(dataset[1]), "--fold", "2", "--out", str(out), *SIZES, *more]


def test_labels_splits_groups_and_frames(dataset, tmp_path, recipe, clips, capsys):
    out = tmp_path / "corpus"
    (dataset[0] / "YoYo" / "v_YoYo_g05_c02.avi").unlink()
    assert recipe("ucf101", flags(dataset, out, "--val-share", "0.2")) == 0
    assert "1 of 48 videos are missing: YoYo/v_YoYo_g05_c02.avi; " in capsys.readouterr().err
    assert Path(f"{out}.missing.txt").read_text() == "YoYo/v_YoYo_g05_c02.avi\n"
    assert Corpus(out).classes == CLASSES
    found = clips(out)
    assert len(found) == 47
    splits = defaultdict(set)
    for name, clip in found.items():
        label, _, file = name.partition("/")
        group, number = int(file[-10:-8]), int(file[-5])
        assert clip.label == label
        assert clip.cls == str(CLASSES.index(label)).encode()
        assert clip.videos == [100 * CLASSES.index(label) + 2 * group + number]
        assert clip.frames == clip.meta["indices"] == [0, 1, 2, 3]
        assert (clip.split == "test") == (group < 3)
        splits[label, group].add(clip.split)
    assert all(len(each) == 1 for each in splits.values()), "a group is torn"
    assert sum(each == {"val"} for each in splits.values()) == 4  # 0.2 of 10 groups in each of two classes


def test_what_it_writes_is_converted_without_it(dataset, tmp_path, recipe):
    out, again = tmp_path / "corpus", tmp_path / "again"
    assert recipe("ucf101", flags(dataset, out)) == 0
    words = [f"{out}.sources.jsonl", "--media-root", str(dataset[0]), "--classes", f"{out}.classes.json"]
    assert main(["convert", *words, "--out", str(again), *SIZES]) == 0
    for path in sorted(out.rglob("*.tar")):
        assert path.read_bytes() == (again / path.relative_to(out)).read_bytes()
    assert recipe("ucf101", flags(dataset, out)) == 0, "nothing is left to do"


def test_a_dry_run_writes_nothing(dataset, tmp_path, recipe, capsys):
    before = sorted(tmp_path.iterdir())
    assert recipe("ucf101", flags(dataset, tmp_path / "corpus", "--dry-run", "--json")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["clips"]["test"] == {"ApplyEyeMakeup": 4, "YoYo": 4}
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("break_it", "code", "message"),
    [
        (lambda root, lists: (lists / "testlist02.txt").unlink(), 1, "testlist02.txt"),
        (lambda root, lists: (lists / "testlist02.txt").write_text("YoYo/other.avi"), 1, "a line 'YoYo/other.avi'"),
        (lambda root, lists: (lists / "classInd.txt").write_text("1 YoYo\n2 ApplyMakeup"), 1, "mean 'ApplyMakeup'?"),
        (lambda root, lists: root.rename(root.with_name("moved")), 1, "no such folder"),
        (lambda root, lists: [p.rename(p.with_suffix(".mp4")) for p in root.rglob("*.avi")], 1, "none of the 48"),
    ],
)
def test_errors_are_one_message(dataset, tmp_path, recipe, capsys, break_it, code, message):
    break_it(*dataset)
    assert recipe("ucf101", flags(dataset, tmp_path / "corpus")) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert "fix: " in printed
    assert not (tmp_path / "corpus").exists()


def test_a_wrong_share(dataset, tmp_path, recipe, capsys):
    assert recipe("ucf101", flags(dataset, tmp_path / "corpus", "--val-share", "1.5")) == 2
    assert "expected a share" in capsys.readouterr().err
