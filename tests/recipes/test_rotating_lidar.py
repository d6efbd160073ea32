"""Sweeps to shards: the same numbers at both ends."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from clipfold import ClipSpec, Sampling, convert
from clipfold.shards.reader import Corpus
from clipfold.shards.verify import verify

WORKERS = ("--num-workers", "1")


def write_sweep(path: Path, image_HW: np.ndarray, *, unit_metres: float = 0.002) -> None:
    """The points whose range image this is, in any order; x, y, z, intensity as KITTI has them."""
    rows, columns = np.nonzero(image_HW)
    azimuth, elevation = np.radians(70 - 0.2 * columns), np.radians(15 - 2.0 * rows)
    distance = image_HW[rows, columns] * unit_metres
    flat = distance * np.cos(elevation)
    points = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation), columns], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(0).permutation(points).astype("<f4").tobytes())


def drawn(sequence: int, frame: int) -> np.ndarray:
    """uint16 (16, 701) that says which sequence and which frame it is."""
    image = np.zeros((16, 701), np.uint16)
    image[frame % 16, sequence::50] = 500 + 1000 * sequence + frame
    return image


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four sequences of two classes in train and test, 5 sweeps each; 10 comes behind 9."""
    for number, name in enumerate(["train/walk/s1", "train/run/s2", "test/walk/s3", "test/run/s4"]):
        for frame in range(5):
            write_sweep(tmp_path / "sweeps" / name / f"{frame + 8}.bin", drawn(number, frame))
    return tmp_path / "sweeps"


@pytest.mark.parametrize("save", ["npy", "png"])
def test_arrays_and_pictures(dataset, tmp_path, recipe, clips, save):
    out = tmp_path / "corpus"
    words = [str(dataset), "--out", str(out), "--num-frames", "5", "--save", save, *WORKERS]
    assert recipe("rotating_lidar", words) == 0
    corpus = Corpus(out)
    assert corpus.spec == ClipSpec(num_frames=5, channels=1, height=16, width=701, dtype="uint16")
    assert corpus.classes == ["run", "walk"]
    found = clips(out)
    for number, name in enumerate(["train/walk/s1", "train/run/s2", "test/walk/s3", "test/run/s4"]):
        clip = found[f"{name}.npy" if save == "npy" else name]
        assert (clip.split, clip.label, clip.meta["num_sweeps"]) == (*name.split("/")[:2], 5)
        for frame in range(5):
            np.testing.assert_array_equal(clip.pixels_SCHW[frame, 0], drawn(number, frame))
    assert recipe("rotating_lidar", words) == 0, "nothing is left to do"


def test_float_with_intensity_and_two_sectors(dataset, tmp_path, recipe, clips):
    out = tmp_path / "corpus"
    words = [str(dataset), "--out", str(out), "--num-frames", "5", "--dtype", "float32", "--intensity", *WORKERS]
    geometry = ["--intensity-max", "700", "--center-degrees", "35", "-35", "--sector-degrees", "70"]
    assert recipe("rotating_lidar", [*words, *geometry, "--codec", "raw"]) == 0
    assert Corpus(out).spec == ClipSpec(num_frames=5, channels=2, height=16, width=351, dtype="float32")
    found = clips(out)
    assert len(found) == 8
    left, right = found["train/walk/s1@35.npy"], found["train/walk/s1@-35.npy"]
    assert (left.meta["center_degrees"], right.meta["center_degrees"]) == (35.0, -35.0)
    image = drawn(0, 3)
    for clip, columns in ((left, np.arange(351)), (right, np.arange(350, 701))):
        # a file's float32 coordinates are right to 6e-8 of their range, three of them and a root: 1e-6 is ample
        np.testing.assert_allclose(clip.pixels_SCHW[3, 0], image[:, columns] * 0.002, rtol=1e-6)
        shares = np.where(image[:, columns] > 0, columns / 700, 0)
        np.testing.assert_allclose(clip.pixels_SCHW[3, 1], shares, rtol=1e-6)
    groups = {json.loads(line)["group"] for line in (out / "sources.jsonl").read_text().splitlines()}
    assert groups == {"train/walk/s1", "train/run/s2", "test/walk/s3", "test/run/s4"}


def test_nuscenes_names_and_rings(tmp_path, recipe, clips):
    """Sweeps of several drives in one folder, x, y, z, intensity, ring; no classes."""
    for drive in ("n015-a", "n008-b"):
        for frame in range(3):
            distance = 10.0 + frame + (5 if drive == "n008-b" else 0)
            points = np.array([[0, distance, 0, 9, ring] for ring in range(32)], "<f4")
            path = tmp_path / "LIDAR_TOP" / f"{drive}__LIDAR_TOP__153240{frame}.pcd.bin"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(points.tobytes())
    out = tmp_path / "corpus"
    words = [str(tmp_path / "LIDAR_TOP"), "--out", str(out), "--num-frames", "3", "--labels", "none", *WORKERS]
    assert recipe("rotating_lidar", [*words, "--rings", "32", "--center-degrees", "90", "--split", "0.5/0.5/0"]) == 0
    found = clips(out)
    assert sorted(found) == ["n008-b.npy", "n015-a.npy"]
    assert sorted(clip.split for clip in found.values()) == ["train", "val"]
    column = found["n008-b.npy"].pixels_SCHW[:, 0, :, 350]
    assert column.tolist() == [[7500] * 16, [8000] * 16, [8500] * 16]
    assert np.count_nonzero(found["n008-b.npy"].pixels_SCHW) == column.size


def test_real_ranges_survive_without_losing_a_bit(media, tmp_path, recipe):
    """A VLP-16's pictures to points, to range images, to lossless shards; and the pictures themselves to shards."""
    folder = media / "frames" / "lidar_vlp16_16x701"
    pictures = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    assert {(picture.dtype, picture.shape) for picture in pictures} == {(np.dtype("uint16"), (16, 701))}
    for number, picture in enumerate(pictures):
        write_sweep(tmp_path / "drive" / f"{number:06d}.bin", picture)
    projected, direct = tmp_path / "projected", tmp_path / "direct"
    num = len(pictures)
    words = [str(tmp_path / "drive"), "--out", str(projected), "--codec", "lossless", "--num-frames", str(num)]
    assert recipe("rotating_lidar", [*words, *WORKERS]) == 0
    spec = ClipSpec(num_frames=num, channels=1, dtype="uint16")
    convert(folder, out=direct, spec=spec, codec="lossless", sampling=Sampling(), num_workers=1, show_progress=False)
    for out in (projected, direct):
        assert Corpus(out).spec == spec
        assert verify(out).ok
        with tarfile.open(out / "train" / "train-000000.tar") as tar:
            (member,) = (member for member in tar if member.name.endswith(".npy.zst"))
            data = tar.extractfile(member).read()
        clip_SCHW = np.load(io.BytesIO(zstandard.ZstdDecompressor().decompress(data)), allow_pickle=False)
        np.testing.assert_array_equal(clip_SCHW[:, 0], np.stack(pictures))


def test_only_what_is_missing_or_out_of_date_is_made(dataset, tmp_path, recipe, capsys):
    out = tmp_path / "corpus"
    words = [str(dataset), "--out", str(out), "--num-frames", "5", *WORKERS]
    assert recipe("rotating_lidar", words) == 0
    made = {path: path.stat().st_mtime_ns for path in Path(f"{out}.ranges").rglob("*.npy")}
    changed = dataset / "test" / "run" / "s4" / "8.bin"
    later = changed.stat().st_mtime_ns + 10**12
    os.utime(changed, ns=(later, later))
    assert recipe("rotating_lidar", [*words, "--out", str(tmp_path / "new"), "--ranges", f"{out}.ranges"]) == 0
    now = {path: path.stat().st_mtime_ns for path in Path(f"{out}.ranges").rglob("*.npy")}
    assert [path.name for path in made if now[path] != made[path]] == ["s4.npy"]
    capsys.readouterr()
    assert recipe("rotating_lidar", [*words, "--step-degrees", "0.4"]) == 1
    assert "another geometry: step_degrees differ" in capsys.readouterr().err


def test_a_broken_sweep_costs_its_sequence(dataset, tmp_path, recipe, clips, capsys):
    (dataset / "train" / "walk" / "s1" / "9.bin").write_bytes(b"short")
    words = [str(dataset), "--out", str(tmp_path / "corpus"), "--num-frames", "5", *WORKERS]
    assert recipe("rotating_lidar", [*words, "--on-error", "raise"]) == 1
    assert "no whole number of points" in capsys.readouterr().err
    assert recipe("rotating_lidar", words) == 0
    assert "left out train/walk/s1: 5 bytes" in capsys.readouterr().err.replace("cannot be read as a sweep: ", "")
    assert len(clips(tmp_path / "corpus")) == 3


def test_a_dry_run_tells_where_the_points_end(dataset, tmp_path, recipe, capsys):
    words = [str(dataset), "--out", str(tmp_path / "corpus"), "--dry-run", "--json", "--sector-degrees", "70"]
    assert recipe("rotating_lidar", words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "4 sequences of 20 sweeps to range images of 16 x 351" in printed[0]
    value = json.loads(printed[-1])
    num_points = sum(np.count_nonzero(drawn(number, 0)) for number in range(4))
    assert value["points"]["shown"] + value["points"]["outside the sector"] == num_points
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweeps"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--save", "png", "--intensity"], 2, "--save png holds uint16 ranges"),
        (["--step-degrees", "0.3"], 2, "is 466.667 steps"),
        (["--rings", "16"], 1, "no ring"),
        (["--codec", "jpeg"], 2, "uint8"),
        (["--point-values", "9", "--rings", "16"], 1, "no sequence could be projected"),
    ],
)
def test_errors_are_one_message(dataset, tmp_path, recipe, capsys, flags, code, message):
    assert recipe("rotating_lidar", [str(dataset), "--out", str(tmp_path / "corpus"), *flags]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()
    if "--codec" not in flags:  # which fails only after the range images are made
        words = [str(dataset), "--out", str(tmp_path / "corpus"), "--num-frames", "5", *WORKERS]
        assert recipe("rotating_lidar", words) == 0, "what failed stands in the way of nothing"


def test_no_sweeps(tmp_path, recipe, capsys):
    assert recipe("rotating_lidar", [str(tmp_path / "nothing"), "--out", str(tmp_path / "corpus")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert recipe("rotating_lidar", [str(tmp_path), "--out", str(tmp_path / "corpus")]) == 1
    assert "no .bin or .pcd file" in capsys.readouterr().err
