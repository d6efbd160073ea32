from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from clipfold.cli import main
from clipfold.clip import ClipSpec
from clipfold.errors import ShardError
from clipfold.shards.codecs import CODECS
from clipfold.shards.index import load_index, load_shard_table, shard_rows, write_index, write_shard_table
from clipfold.shards.manifest import SplitTotals
from clipfold.shards.reader import Corpus
from clipfold.shards.verify import VerifyReport, verify

Make = Callable[..., Path]


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def texts(report: VerifyReport) -> str:
    return "\n".join(map(str, report.problems))


def seal(root: Path, split: str = "train") -> None:
    """Make all checksums fit what now lies on the disk, as somebody could who writes a corpus with other software."""
    table_path = root / split / "shards.npy"
    rows = []
    for row in shard_rows(load_shard_table(table_path, sha256=None)):
        stem = root / split / f"{split}-{row.number:06d}"
        tar, index = (stem.with_suffix(end).read_bytes() for end in (".tar", ".index.npy"))
        rows.append(
            replace(
                row,
                num_bytes=len(tar),
                num_samples=len(load_index(stem.with_suffix(".index.npy"), sha256=None)),
                sha256=hashlib.sha256(tar).digest(),
                index_sha256=hashlib.sha256(index).digest(),
            )
        )
    sha256 = write_shard_table(table_path, rows)
    manifest = Corpus(root).manifest
    totals = SplitTotals.of(load_shard_table(table_path, sha256=None), sha256)
    replace(manifest, splits={**manifest.splits, split: totals}).save(root)


def edit_index(root: Path, change: Callable[[Any], Any], number: int = 0) -> None:
    path = root / "train" / f"train-{number:06d}.index.npy"
    index = load_index(path, sha256=None).copy()
    changed = change(index)
    write_index(path, index if changed is None else changed)
    seal(root)


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_all_is_well(make_corpus: Make, codec: str) -> None:
    root = make_corpus(codec=codec)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    report = verify(root, num_workers=2)
    assert report.ok, texts(report)
    assert (report.num_shards, report.num_samples) == (6, 16)
    assert report.num_bytes == sum(len(data) for path, data in before.items() if path.suffix == ".tar")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_unlabelled_corpora_splits_and_urls(make_corpus: Make) -> None:
    root = make_corpus(labelled=False, meta={"speed": 1.5, "place": "x"})
    assert verify(root).ok
    assert verify(root, splits=["val"], num_workers=1).num_samples == 8
    fsspec.filesystem("memory").put(str(root), "/verify-corpus", recursive=True)
    assert verify("memory://verify-corpus").num_samples == 16


def test_a_flipped_bit_in_any_byte_of_a_tar_is_found(make_corpus: Make) -> None:
    root = make_corpus(codec="lossless", splits=["train"])
    path = root / "train" / "train-000001.tar"
    data = path.read_bytes()
    index = Corpus(root).index("train", 1)
    for at in [*range(0, 7000, 97), *range(7000, len(data), 1009), len(data) - 1]:
        flip(path, at, at % 8)
        report = verify(root, num_workers=1)
        assert "train/train-000001.tar" in texts(report)
        assert all("train-000001" in problem.file for problem in report.problems), texts(report)
        named = {problem.key for problem in report.problems} - {None}
        inside = [row for row in index if row["offset"] <= at < row["offset"] + row["size"]]
        for row in inside:
            assert named == {f"{row['source']:08d}-{row['clip']:04d}"}, texts(report)
            assert "xxh3" in texts(report)
        path.write_bytes(data)


def test_the_samples_behind_a_damaged_header_are_still_checked(make_corpus: Make) -> None:
    root = make_corpus(splits=["train"])
    path = root / "train" / "train-000000.tar"
    index = Corpus(root).index("train", 0)
    flip(path, 3)  # name in the very first header
    flip(path, int(index[2]["offset"]) + 200)
    report = verify(root)
    assert report.num_samples == 8
    assert {problem.key for problem in report.problems} == {None, "00000000-0000", "00000001-0000"}, texts(report)


@pytest.mark.parametrize(
    "name", ["dataset.json", "train/shards.npy", "train/train-000001.index.npy", "train/train-000001.idx"]
)
def test_a_flipped_bit_beside_the_tars_is_found(make_corpus: Make, name: str) -> None:
    root = make_corpus(splits=["train"])
    size = (root / name).stat().st_size
    for at in range(0, size, 1 + size // 40):
        flip(root / name, at, at % 7)
        report = verify(root, num_workers=1)
        assert not report.ok
        assert {problem.file for problem in report.problems} == {name}, texts(report)
        flip(root / name, at, at % 7)
    assert verify(root).ok


def test_a_shard_that_was_cut_short(make_corpus: Make) -> None:
    root = make_corpus(splits=["train"])
    path = root / "train" / "train-000000.tar"
    data = path.read_bytes()
    index = Corpus(root).index("train", 0)
    path.write_bytes(data[: int(index[1]["offset"]) + 10])
    report = verify(root)
    assert "bytes, expected 20,480" in texts(report)
    keys = [problem.key for problem in report.problems]
    assert "00000000-0001" in keys
    assert "00000001-0000" in keys
    assert "00000000-0000" not in keys


def test_missing_and_surplus_files(make_corpus: Make) -> None:
    root = make_corpus()
    (root / "train" / "train-000000.tar").unlink()
    (root / "train" / "train-000001.index.npy").unlink()
    (root / "val" / "val-000001.idx").unlink()
    (root / "val" / "val-000003.tar").write_bytes(b"")
    (root / "old").mkdir()
    (root / "old" / "old-000000.tar").write_bytes(b"")
    (root / "README.txt").write_text("mine")
    report = verify(root)
    found = {problem.file: problem.what for problem in report.problems}
    assert set(found) == {
        "train/train-000000.tar",
        "train/train-000001.index.npy",
        "val/val-000001.idx",
        "val/val-000003.tar",
        "old",
    }
    assert found["train/train-000000.tar"] == "is missing"
    assert "left over" in found["val/val-000003.tar"]
    assert "no such split" in found["old"]


def test_further_files_under_a_checksum(make_corpus: Make) -> None:
    root = make_corpus(splits=["train"])
    (root / "sources.jsonl").write_text("{}\n")
    sha256 = hashlib.sha256(b"{}\n").hexdigest()
    replace(Corpus(root).manifest, file_sha256={"sources.jsonl": sha256}).save(root)
    assert verify(root).ok
    (root / "sources.jsonl").write_text("{ }")
    assert [problem.file for problem in verify(root).problems] == ["sources.jsonl"]
    (root / "sources.jsonl").unlink()
    assert verify(root).problems[0].what == "is missing"


def swap_rows(index: Any) -> Any:
    return index[[1, 0, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["label"].__setitem__(1, 5), r"00000000-0001 has a label outside \[-1, 2\)"),
        (lambda index: index["label"].__setitem__(1, 1), r"00000000-0001 has .cls b'0', but its index says 1"),
        (lambda index: index["num_valid_frames"].__setitem__(1, 0), r"number of valid frames outside \[1, 4\]"),
        (
            lambda index: index["num_valid_frames"].__setitem__(1, 3),
            r"0-0001 has num_valid_frames 4 in its .json, exp.* 3",
        ),
        (
            lambda index: index["offset"].__setitem__(1, 999),
            r"00000000-0001 has 848 bytes .* says 848 .* 999",
        ),
        (lambda index: index["size"].__setitem__(1, 9), r"00000000-0001 has 848 bytes at offset .* says 9 bytes"),
        (
            lambda index: index["xxh3"].__setitem__(1, 9),
            r"00000000-0001 has xxh3 .*, expected 0000000000000009",
        ),
        (lambda index: index["clip"].__setitem__(1, 7), r"00000000-0001 is in the tar, but not in the index"),
        (lambda index: index["clip"].__setitem__(1, 7), r"00000000-0007 is in the index, but not in the tar"),
        (lambda index: index["clip"].__setitem__(1, 0), r"00000000-0000 is there twice"),
        (swap_rows, r"is row 1 of the index, expected row 0"),
        (lambda index: index[:2], r"00000001-0000 is in the tar, but not in the index"),
    ],
)
def test_an_index_that_lies_under_good_checksums(make_corpus: Make, change: Callable[[Any], Any], message: str) -> None:
    root = make_corpus(splits=["train"])
    edit_index(root, change)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(texts(verify(root)))


def rewrite_tar(root: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], Any]) -> None:
    path = root / "train" / "train-000000.tar"
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    change(members)
    import io

    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    seal(root)


def set_json(members: list[Any], number: int, **changes: Any) -> None:
    member, data = members[3 * number + 1]
    members[3 * number + 1] = member, json.dumps(json.loads(data) | changes, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: set_json(m, 1, count=9), r"00000000-0001 has count 9 in its .json, expected 4"),
        (lambda m: set_json(m, 1, label="right"), r"00000000-0001 has label 'right' in its .json, expected 'left'"),
        (lambda m: set_json(m, 1, indices=[1]), r"00000000-0001 has no list of 4 frame indices"),
        (lambda m: set_json(m, 1, fps=None), r"00000000-0001 has a .json that is not one: meta field 'fps'"),
        (lambda m: set_json(m, 1, more=1), r"00000000-0001 has the fields of its .json unlike in sample 00000000-0000"),
        (lambda m: m.__setitem__(4, (m[4][0], b"nonsense")), r"00000000-0001 has a .json that is not one"),
        (lambda m: m.__setitem__(4, (m[4][0], b"[" * 99_000)), r"00000000-0001 has a .json that is not one"),
        (lambda m: m.__setitem__(4, (m[4][0], b" " * (2 << 20))), r"00000000-0001 has a .json of 2,097,152 bytes"),
        (lambda m: m.pop(4), r"00000000-0001 has no member .json"),
        (lambda m: m.pop(3), r"00000000-0001 has its .cls unlike in sample 00000000-0000"),
        (lambda m: m.pop(5), r"00000000-0001 has no member .npy"),
        (lambda m: m.append((tarfile.TarInfo("00000001-0000.pkl"), b"x")), r"has a member .pkl, which no sample has"),
        (lambda m: m.insert(5, m[4]), r"00000000-0001 has two members .json"),
        (lambda m: m.insert(3, m.pop(4)), r"00000000-0001 has its members in the order json, cls, npy"),
        (lambda m: m.insert(0, (tarfile.TarInfo("../../evil.npy"), b"x")), r"unsafe name '../../evil.npy'"),
    ],
)
def test_a_tar_that_lies_under_good_checksums(make_corpus: Make, change: Callable[[Any], Any], message: str) -> None:
    root = make_corpus(splits=["train"])
    rewrite_tar(root, change)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(texts(verify(root)))
    assert not (root.parent / "evil.npy").exists()


def test_samples_that_do_not_decode_under_good_checksums(make_corpus: Make) -> None:
    root = make_corpus(splits=["train"])
    replace(Corpus(root).manifest, spec=ClipSpec(num_frames=4, channels=3, height=10, width=6)).save(root)
    report = verify(root)
    assert report.num_problems == 8
    assert "expected the .npy header of S=4 C=3 H=10 W=6" in texts(report)


def test_forms_are_compared_between_shards(make_corpus: Make) -> None:
    root, other = make_corpus("a", splits=["train"]), make_corpus("b", splits=["train"], meta={"more": 1})
    for extension in (".tar", ".index.npy", ".idx"):
        shutil.copy(other / "train" / f"train-000001{extension}", root / "train" / f"train-000001{extension}")
    seal(root)
    report = verify(root, num_workers=3)
    assert [problem.key for problem in report.problems] == ["00000001-0001"], texts(report)


def test_many_problems_are_counted_and_the_first_are_kept() -> None:
    report = VerifyReport(root="x")
    for number in range(3):
        part = VerifyReport(root="x")
        for _ in range(400):
            part.add(f"problem {number}", "file")
        report.merge(part)
    assert report.num_problems == 1200
    assert len(report.problems) == 1000
    assert "and 200 more" in str(report)


def test_wrong_arguments(make_corpus: Make, tmp_path: Path) -> None:
    root = make_corpus()
    with pytest.raises(ValueError, match="'test', expected one of train, val"):
        verify(root, splits=["test"])
    with pytest.raises(ValueError, match="num_workers"):
        verify(root, num_workers=0)
    with pytest.raises(ShardError, match="no corpus here"):
        verify(tmp_path / "nothing")


def test_command(make_corpus: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = make_corpus()
    assert main(["verify", str(root), "--split", "val", "--json", "--num-workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "all is well in 3 shards, 8 samples" in lines[0]
    assert json.loads(lines[-1])["ok"] is True
    flip(root / "val" / "val-000001.tar", 2600)
    assert main(["verify", str(root), "--json"]) == 1
    out = capsys.readouterr().out
    assert "val/val-000001.tar: sample 00000001-0001" in out
    assert json.loads(out.splitlines()[-1])["problems"][0]["key"] == "00000001-0001"
    assert main(["verify", str(root), "--split", "none"]) == 2
    assert main(["verify", str(tmp_path / "nothing")]) == 1
    assert "fix:" in capsys.readouterr().err


def test_nothing_is_kept_for_each_sample(make_corpus: Make) -> None:
    """Twenty times the samples take no more memory at the peak: what grows with the corpus is one row a shard."""
    import tracemalloc

    peaks = []
    for num_sources in (10, 200):
        root = make_corpus(str(num_sources), num_sources=num_sources, splits=["train"])
        verify(root, num_workers=1)
        tracemalloc.start()
        assert verify(root, num_workers=1).num_samples == 2 * num_sources
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 127 more shards: 88 bytes a row in the table (and its copy) and under 1,000 for three names and checks begun
    assert peaks[1] - peaks[0] < 127 * 2_000
