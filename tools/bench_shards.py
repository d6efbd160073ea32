"""How long a clip takes to encode and to decode, and how large it is: our codecs and what people use in their place.

    tools/dev run python tools/bench_shards.py [--repetitions 9] [--clips calm,radar] [--keep]

Real clips of 100 frames at 16 x 701 from CLIPFOLD_MEDIA (default: ../shared/media, seen from the project's root), each
the first 100 frames of its video. One thread, everything in memory. Peers decode the same frames as 100 separate
JPEGs of the same quality (90, 4:4:4): Pillow, simplejpeg, torchvision, and plain webdataset (``decode("rgb8")``) from a
tar on the disk; all end with a uint8 array of the whole clip. The cases of one repetition run one after the other, so
that a slower machine is slower for all; the median counts, the spread is from the quickest to the slowest repetition.

Prints a table and, as the last line, JSON; ``--keep`` appends the lines to tools/results/shards.jsonl.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy is imported

import argparse
import gc
import io
import json
import math
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from clipfold.clip import ClipSpec
from clipfold.ingest.reader import ReadOptions, read_clips
from clipfold.ingest.sources import find_sources
from clipfold.pool import num_cpus
from clipfold.shards.codecs import CODECS, empty_slot, get_codec

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tools" / "results" / "shards.jsonl"
CLIPS = {  # name: (file below the media folder, channels)
    "calm": ("videos/tcodec__nasa_13013.mp4", 3),
    "indoors": ("videos/sam2__bedroom.mp4", 3),
    "moving": ("videos/mmaction2__demo.mp4", 3),
    "animated": ("videos/moviepy__big_buck_bunny_0_30.webm", 3),
    "radar": ("labelled/radhar/walk", 1),
}
QUALITY = 90
NUM_IN_TAR = 4
SECONDS_OF_THREADS = 0.5

Case = Callable[[], object]


def read_clip(folder: Path, name: str) -> tuple[np.ndarray, ClipSpec]:
    """The first clip of a video, (S, C, H, W) contiguous."""
    path, channels = CLIPS[name]
    spec = ClipSpec(channels=channels)
    with read_clips(find_sources(folder / path).sources[0], ReadOptions(spec=spec)) as reader:
        return np.ascontiguousarray(next(reader).pixels_SCHW), spec


def codec_cases(
    clip_SCHW: np.ndarray, spec: ClipSpec
) -> tuple[dict[str, Case], dict[str, Case], dict[str, tuple[float, float]]]:
    """For each of our codecs: how to encode, how to decode, and (kB, PSNR)."""
    encode: dict[str, Case] = {}
    decode: dict[str, Case] = {}
    sizes = {}
    for name in CODECS:
        codec = get_codec(name)
        data = codec.encode(clip_SCHW, spec)
        slot, decoded_SCHW = empty_slot(codec, spec)
        codec.decode_into(data, slot, spec)
        error = np.square(decoded_SCHW.astype(np.float64) - clip_SCHW).mean()
        sizes[name] = len(data) / 1e3, 10 * math.log10(255**2 / error) if error else math.inf
        encode[name] = lambda codec=codec: codec.encode(clip_SCHW, spec)
        decode[name] = lambda codec=codec, data=data, slot=slot: codec.decode_into(data, slot, spec)
    return encode, decode, sizes


def peer_cases(clip_SCHW: np.ndarray, spec: ClipSpec, folder: Path) -> tuple[dict[str, Case], dict[str, Case], float]:
    """The same for 100 separate JPEGs, and how many kB they are."""
    frames_SHWC = np.ascontiguousarray(clip_SCHW.transpose(0, 2, 3, 1))
    pictures = [Image.fromarray(frame if spec.channels == 3 else frame[:, :, 0]) for frame in frames_SHWC]
    kind, subsampling = ("RGB", "444") if spec.channels == 3 else ("GRAY", "Gray")

    def with_pillow() -> list[bytes]:
        files = []
        for picture in pictures:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
            files.append(file.getvalue())
        return files

    def with_simplejpeg() -> list[bytes]:
        return [simplejpeg.encode_jpeg(frame, QUALITY, kind, subsampling) for frame in frames_SHWC]

    jpegs = with_pillow()
    slot = np.empty(frames_SHWC.shape, np.uint8)

    def from_pillow() -> None:
        for place, data in enumerate(jpegs):
            slot[place] = np.asarray(Image.open(io.BytesIO(data))).reshape(slot.shape[1:])

    def from_simplejpeg() -> None:
        for place, data in enumerate(jpegs):
            simplejpeg.decode_jpeg(data, colorspace=kind, buffer=slot[place])

    encode: dict[str, Case] = {"Pillow, 100 JPEGs": with_pillow, "simplejpeg, 100 JPEGs": with_simplejpeg}
    decode: dict[str, Case] = {"Pillow, 100 JPEGs": from_pillow, "simplejpeg, 100 JPEGs": from_simplejpeg}
    add_torchvision(decode, jpegs)
    decode["webdataset, 100 JPEGs"] = webdataset_case(jpegs, folder)
    return encode, decode, sum(map(len, jpegs)) / 1e3


def add_torchvision(decode: dict[str, Case], jpegs: list[bytes]) -> None:
    """torchvision's own JPEG decoder, where this version still has one."""
    import torch

    torch.set_num_threads(1)
    try:
        from torchvision.io import decode_jpeg

        tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in jpegs]
        decode_jpeg(tensors[0])
    except (ImportError, RuntimeError, AttributeError) as error:
        print(f"torchvision decodes no JPEG here: {error}", file=sys.stderr)
        return
    decode["torchvision, 100 JPEGs"] = lambda: torch.stack([decode_jpeg(tensor) for tensor in tensors])


def webdataset_case(jpegs: list[bytes], folder: Path) -> Case:
    """What a plain pipeline does: a tar whose samples hold 100 JPEGs each, read and decoded by webdataset."""
    import webdataset

    path = folder / "frames.tar"
    with webdataset.TarWriter(str(path), mtime=0) as tar:
        for number in range(NUM_IN_TAR):
            members = {f"{place:03d}.jpg": data for place, data in enumerate(jpegs)}
            tar.write({"__key__": f"{number:08d}", **members, "cls": number})

    def run() -> None:
        samples = webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8")
        for sample in samples:
            np.stack([sample[name] for name in sorted(sample) if name.endswith(".jpg")])

    return run


def measure(cases: dict[str, Case], repetitions: int) -> dict[str, list[float]]:
    """Milliseconds of every repetition, the cases in turn."""
    for case in cases.values():
        case()  # the first time loads libraries and tables
    found: dict[str, list[float]] = {name: [] for name in cases}
    gc.disable()
    for _ in range(repetitions):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            found[name].append(
                1e3 * (time.perf_counter() - start) / (NUM_IN_TAR if name.startswith("webdataset") else 1)
            )
    gc.enable()
    return found


def clips_per_second(name: str, clip_SCHW: np.ndarray, spec: ClipSpec, num_threads: int) -> float:
    """Clips decoded per second by several threads, each into its own slot."""
    codec = get_codec(name)
    data = codec.encode(clip_SCHW, spec)
    start = time.perf_counter()
    stop = start + SECONDS_OF_THREADS

    def work() -> int:
        slot, _ = empty_slot(codec, spec)
        num = 0
        while time.perf_counter() < stop:
            codec.decode_into(data, slot, spec)
            num += 1
        return num

    with ThreadPoolExecutor(num_threads) as pool:
        total = sum(each.result() for each in [pool.submit(work) for _ in range(num_threads)])
    return total / (time.perf_counter() - start)


def device() -> str:
    """The CPU, as the kernel names it."""
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {num_cpus()} cores"


def versions() -> dict[str, str]:
    """Of what was measured."""
    found = {"python": platform.python_version()}
    for name in ("clipfold", "numpy", "simplejpeg", "pillow", "zstandard", "av", "torchvision", "webdataset"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run_clip(name: str, folder: Path, repetitions: int) -> list[dict[str, Any]]:
    """All lines about one clip."""
    clip_SCHW, spec = read_clip(folder, name)
    lines: list[dict[str, Any]] = []

    def add(subject: str, case: str, unit: str, values: list[float], digits: int = 3) -> None:
        value, spread = median(values), [round(min(values), digits), round(max(values), digits)]
        lines.append(
            {
                "subject": subject,
                "case": f"{name}, {case}",
                "value": round(value, digits),
                "unit": unit,
                "spread": spread,
            }
            | {"repetitions": len(values)}
        )

    with tempfile.TemporaryDirectory() as temporary:
        encode, decode, sizes = codec_cases(clip_SCHW, spec)
        peer_encode, peer_decode, kilobytes = peer_cases(clip_SCHW, spec, Path(temporary))
        for subject, (size, psnr) in sizes.items():
            add(subject, "size", "kB/clip", [size], 1)
            if math.isfinite(psnr):
                add(subject, "PSNR", "dB", [psnr], 2)
        add("100 JPEGs", "size", "kB/clip", [kilobytes], 1)
        for subject, values in measure(decode | peer_decode, repetitions).items():
            add(subject, "decode", "ms/clip", values)
        for subject, values in measure(encode | peer_encode, repetitions).items():
            add(subject, "encode", "ms/clip", values)
    num_threads = num_cpus()
    for subject in CODECS:
        values = [clips_per_second(subject, clip_SCHW, spec, num_threads) for _ in range(3)]
        add(subject, f"decode on {num_threads} threads", "clips/s", values, 0)
    return lines


def print_table(name: str, lines: list[dict[str, Any]]) -> None:
    """One row a subject."""
    columns = {"size": 0, "PSNR": 1, "encode": 2, "decode": 3}
    rows: dict[str, list[str]] = {}
    for line in lines:
        case = line["case"].removeprefix(f"{name}, ")
        cells = rows.setdefault(line["subject"], [""] * 5)
        text = f"{line['value']:,}"
        if case in ("encode", "decode"):
            text += f" ({line['spread'][0]:,}-{line['spread'][1]:,})"
        cells[columns.get(case, 4)] = text
    print(f"\n{name}: {CLIPS[name][0].rpartition('/')[2]}")
    heading = ["", "kB/clip", "PSNR dB", "encode ms", "decode ms", f"clips/s, {num_cpus()} threads"]
    widths = [23, 9, 8, 26, 24, 18]
    for row in [heading, *([subject, *cells] for subject, cells in rows.items())]:
        print(
            "  ".join(
                cell.ljust(width) if not place else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )


def main() -> None:
    """Measure, print, and keep the lines if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--clips", default=",".join(CLIPS), help="some of " + ", ".join(CLIPS))
    parser.add_argument("--keep", action="store_true", help="append the lines to tools/results/shards.jsonl")
    options = parser.parse_args()
    folder = Path(os.environ.get("CLIPFOLD_MEDIA", ROOT.parent / "shared" / "media"))
    if not folder.is_dir():
        sys.exit("no real media: CLIPFOLD_MEDIA names their folder")
    warnings.simplefilter("ignore")  # torchvision's image reading is deprecated; webdataset leaves files open
    flags = f" --repetitions {options.repetitions} --clips {options.clips}"
    shared = {"device": device(), "versions": versions(), "command": f"python tools/bench_shards.py{flags}"}
    lines = []
    for name in options.clips.split(","):
        found = run_clip(name, folder, options.repetitions)
        print_table(name, found)
        lines += [line | shared for line in found]
    if options.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        with open(RESULTS, "a") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    print(
        json.dumps({"lines": [{k: line[k] for k in ("subject", "case", "value", "unit")} for line in lines], **shared})
    )


if __name__ == "__main__":
    main()
