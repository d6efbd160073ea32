from __future__ import annotations

import base64
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipfold import ShardError, SourceError, cli
from clipfold.looking.preview import pick, preview
from clipfold.looking.source_clips import ClipShape
from clipfold.shards.index import load_index

SHAPE = ClipShape(num_frames=8)


@pytest.mark.parametrize("name", ["x.png", "x.gif", "x.html"])
def test_a_corpus_gives_the_same_file_twice(corpus: Path, tmp_path: Path, name: str) -> None:
    first, second = tmp_path / f"1{name}", tmp_path / f"2{name}"
    summary = preview(corpus, out=first)
    preview(corpus, out=second)
    assert first.read_bytes() == second.read_bytes()
    assert (summary.num_clips, summary.classes, summary.notes) == (4, ["left", "right"], [])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    if name != "x.html":
        with Image.open(first) as image:
            assert image.width > 250
            assert getattr(image, "n_frames", 1) == (8 if name == "x.gif" else 1)


def test_pixels_padding_and_words_are_those_of_the_corpus(corpus: Path, tree: Path) -> None:
    gallery = pick(corpus, clips_per_class=3)
    by_source = {clip.source: clip for clip in gallery.clips}
    assert sorted(by_source) == [
        f"{label}/{name}" for label in ("left", "right") for name in ("a.mp4", "pictures", "short.mp4")
    ]
    clip = by_source["right/pictures"]
    with Image.open(tree / "right" / "pictures" / "frame_3.png") as image:
        assert np.array_equal(clip.pixels_SHWC[3], np.asarray(image))
    assert (clip.label, clip.num_valid_frames, clip.frames) == ("right", 8, "0 to 7")
    short = by_source["left/short.mp4"]
    assert (short.num_valid_frames, short.fps, short.frames) == (5, 10.0, "0 to 4")
    assert gallery.facts["codec"] == "raw"


def test_sources_are_shown_as_they_would_be_converted(corpus: Path, tree: Path) -> None:
    converted = {clip.source: clip for clip in pick(corpus, clips_per_class=3).clips}
    for clip in pick(tree, clips_per_class=3, shape=ClipShape(num_frames=8), num_workers=1).clips:
        assert clip.num_valid_frames == converted[clip.source or clip.key].num_valid_frames
        if clip.key.endswith("short.mp4"):  # one clip, so its middle is its start
            assert np.array_equal(clip.pixels_SHWC, converted[clip.key].pixels_SHWC)


def test_one_shard_in_its_corpus_and_alone(corpus: Path, tmp_path: Path) -> None:
    tar = corpus / "train" / "train-000000.tar"
    inside = pick(tar, clips_per_class=2)
    assert [clip.label for clip in inside.clips] == ["left", "left", "right", "right"]
    shutil.copy(tar, tmp_path / "alone.tar")
    alone = pick(tmp_path / "alone.tar", clips_per_class=100, max_clips=100)
    assert len(alone.clips) == 8
    found = {clip.key: clip for clip in alone.clips}
    for clip in inside.clips:
        assert np.array_equal(found[clip.key].pixels_SHWC, clip.pixels_SHWC)
    assert {clip.label for clip in alone.clips} == {"class 0", "class 1"}
    assert "classes are numbers" in alone.notes[0]


def test_one_video_and_one_image_folder(tree: Path, tmp_path: Path) -> None:
    for data in (tree / "left" / "a.mp4", tree / "left" / "pictures"):
        summary = preview(data, out=tmp_path / "x.png", shape=SHAPE, num_workers=1)
        assert (summary.num_clips, summary.classes) == (1, [])
    clip = pick(tree / "left" / "pictures", shape=ClipShape(num_frames=4, height=6, width=50), num_workers=1).clips[0]
    assert clip.pixels_SHWC.shape == (4, 6, 50, 3)
    assert clip.key == "pictures"


def test_uint16_is_scaled_and_says_so(tmp_path: Path) -> None:
    for number in range(3):
        values = (3000 + 100 * number + np.arange(16 * 80).reshape(16, 80)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    clip = pick(tmp_path, shape=SHAPE, num_workers=1).clips[0]
    assert (clip.pixels_SHWC.dtype, clip.pixels_SHWC.shape) == (np.uint16, (8, 16, 80, 1))
    preview(tmp_path, out=tmp_path / "x.html", shape=SHAPE, num_workers=1)
    assert "uint16 values from" in (tmp_path / "x.html").read_text()


def test_a_page_needs_nothing_else(corpus: Path, tmp_path: Path) -> None:
    odd = tmp_path / "<b>odd & name"
    shutil.copytree(corpus, odd)
    preview(odd, out=tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    assert "<b>odd" not in text
    assert "&lt;b&gt;odd &amp; name" in text
    assert not re.search(r"<script|https?://|src=\"(?!data:)|@import|url\(", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    for kind, data in re.findall(r'"data:image/(png|webp);base64,([^"]+)"', text):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == kind.upper()


def test_broken_files_are_named_and_the_others_shown(broken_tree: Path) -> None:
    gallery = pick(broken_tree, clips_per_class=9, max_clips=30, shape=SHAPE, num_workers=2)
    shown, notes = {clip.key for clip in gallery.clips}, "\n".join(gallery.notes)
    assert {"walk/good.mp4", "walk/turned.mp4", "run/copy.mp4"} <= shown
    for name in ("run/empty.mp4", "run/text.mp4"):
        assert f"{name} cannot be shown" in notes
    turned = next(clip for clip in gallery.clips if clip.key == "walk/turned.mp4")
    assert turned.pixels_SHWC.shape[1:3] == (32, 24)  # upright


def test_a_damaged_sample_is_named(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(corpus, root)
    row = load_index(root / "train" / "train-000000.index.npy", sha256=None)[0]
    with open(root / "train" / "train-000000.tar", "r+b") as file:
        file.seek(int(row["offset"]) + 200)
        file.write(b"\xff\x00\xff")
    gallery = pick(root, clips_per_class=9, max_clips=99)
    assert len(gallery.clips) + len(gallery.notes) == 6
    assert "checksum" in gallery.notes[0]


def test_wrong_use_is_one_message(corpus: Path, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.png, \.gif, \.html"):
        preview(corpus, out=tmp_path / "x.jpg")
    with pytest.raises(ValueError, match="expected one of left, right"):
        pick(corpus, classes=["up"])
    with pytest.raises(ValueError, match="expected one of left, right"):
        pick(tree, classes=["up"])
    with pytest.raises(ValueError, match="expected one of train"):
        pick(corpus, split="best")
    with pytest.raises(ValueError, match="max_clips: 0"):
        pick(corpus, max_clips=0)
    with pytest.raises(ValueError, match="both or neither"):
        ClipShape(height=5)
    with pytest.raises(SourceError, match="no such file"):
        pick(tmp_path / "nowhere")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match="the file is empty"):
        pick(tmp_path / "empty.mp4", num_workers=1)
    (tmp_path / "x.tar").write_bytes(b"no tar")
    with pytest.raises(ShardError):
        pick(tmp_path / "x.tar")


def test_the_command(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.png"
    assert cli.main(["preview", str(corpus), "--out", str(out), "--classes", "left", "--json"]) == 0
    value = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (value["num_clips"], value["classes"], value["num_bytes"]) == (2, ["left"], out.stat().st_size)
    assert cli.main(["preview", str(corpus), "--out", str(tmp_path / "x.txt")]) == 2


def test_a_tar_of_somebody_else_is_shown_as_its_samples(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "stock.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(3):
            content = io.BytesIO()
            np.save(content, np.full((5, 8, 12, 3), 50 * number, np.uint8))
            entry = tarfile.TarInfo(f"sample{number}.npy")
            entry.size, entry.mtime = content.tell(), 0.5  # a fraction of a second needs a PAX header
            tar.addfile(entry, io.BytesIO(content.getvalue()))
    found = pick(tmp_path / "stock.tar", clips_per_class=3, max_clips=3, num_workers=1)
    assert len(found.clips) == 3
