"""How many frames a second become 16 x 701 pixels: ours, and what people use in its place.

    tools/dev run python tools/bench_ingest.py [--repetitions 5] [--files mmaction2__demo.mp4,...] [--keep]
    tools/dev run python tools/bench_ingest.py --conversion [--keep]      whole conversions, by 1 and 2 workers

Real videos from CLIPFOLD_MEDIA (default: ../shared/media, seen from the project's root), each read whole, from opening
it to the last frame as uint8 RGB of 16 rows and 701 columns. Every case runs on one thread, in processes that are
started before:

    clipfold            read_clips: counts the packets, decodes, scales exactly, assembles clips
    pyav                container.decode, frame.reformat(..., BILINEAR).to_ndarray()
    decord              VideoReader(width=701, height=16, num_threads=1), frame after frame
    torchcodec          VideoDecoder(num_ffmpeg_threads=1, transforms=[Resize]), 8 frames a call
    ffmpeg              the command with the same scale, flags and planes as clipfold
    ffmpeg, rgb24       the command as people type it: bilinear, packed RGB
    decode only         container.decode and nothing else: the ceiling

"per core" is frames by CPU seconds, of one process; "two processes" is frames by the clock, of two at work at once. The
cases of one repetition run one after the other, so that a slower machine is slower for all; the median counts, the
spread is from the slowest repetition to the quickest. ffmpeg reads each file twice in a run, so that starting
the program weighs little.

Prints a table and, as the last line, JSON; ``--keep`` appends the lines to tools/results/ingest.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tools" / "results" / "ingest.jsonl"
FILES = (
    "mmaction2__demo.mp4",  # 340x256 H.264, a Kinetics clip
    "mmaction2__test.avi",  # 320x240 MPEG-4, a UCF101 clip
    "tcodec__nasa_13013.mp4",  # 480x270 H.264
    "sam2__bedroom.mp4",  # 960x540 H.264
    "moviepy__big_buck_bunny_0_30.webm",  # 1280x720 VP8
)
HEIGHT, WIDTH = 16, 701
NUM_LOOPS = 2  # of ffmpeg
SAME_FLAGS = "bilinear+accurate_rnd+bitexact+full_chroma_int+full_chroma_inp"


def with_clipfold(path: str) -> int:
    from clipfold.ingest.reader import ReadOptions, read_clips
    from clipfold.ingest.sources import find_sources

    with read_clips(find_sources(path).sources[0], ReadOptions()) as reader:
        for _ in reader:
            pass
        return reader.num_frames


def decoded(path: str, use: Callable[[Any], object]) -> int:
    import av

    num = 0
    with av.open(path) as container:
        stream = container.streams.best("video")
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for frame in container.decode(stream):
            use(frame)
            num += 1
    return num


def with_pyav(path: str) -> int:
    from av.video.reformatter import Interpolation

    def scaled(frame: Any) -> object:
        return frame.reformat(
            width=WIDTH, height=HEIGHT, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        ).to_ndarray()

    return decoded(path, scaled)


def decode_only(path: str) -> int:
    return decoded(path, lambda frame: None)


def with_decord(path: str) -> int:
    import decord

    reader = decord.VideoReader(path, width=WIDTH, height=HEIGHT, num_threads=1)
    for number in range(len(reader)):
        reader[number].asnumpy()
    return len(reader)


def with_torchcodec(path: str) -> int:
    import torch
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    torch.set_num_threads(1)
    decoder = VideoDecoder(path, num_ffmpeg_threads=1, transforms=[Resize((HEIGHT, WIDTH))])
    for start in range(0, len(decoder), 8):
        decoder.get_frames_in_range(start, min(start + 8, len(decoder))).data.numpy()
    return len(decoder)


def ffmpeg_command(path: str, flags: str, pixels: str) -> int:
    scale = f"scale={WIDTH}:{HEIGHT}:flags={flags},format={pixels}"
    # fmt: off
    command = [
        "ffmpeg", "-v", "quiet", "-nostdin", "-stream_loop", str(NUM_LOOPS - 1),
        "-threads", "1", "-filter_threads", "1", "-i", path, "-an", "-sn", "-vf", scale, "-sws_flags", flags,
        "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1",
    ]
    # fmt: on
    num_bytes = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 20):
            num_bytes += len(piece)
    if process.returncode:
        raise RuntimeError(f"ffmpeg ends with {process.returncode}")
    return num_bytes // (HEIGHT * WIDTH * 3)


def with_ffmpeg(path: str) -> int:
    return ffmpeg_command(path, SAME_FLAGS, "gbrp")


def with_ffmpeg_rgb(path: str) -> int:
    return ffmpeg_command(path, "bilinear", "rgb24")


CASES: dict[str, Callable[[str], int]] = {
    "clipfold": with_clipfold,
    "pyav": with_pyav,
    "decord": with_decord,
    "torchcodec": with_torchcodec,
    "ffmpeg": with_ffmpeg,
    "ffmpeg, rgb24": with_ffmpeg_rgb,
    "decode only": decode_only,
}


def cpu_seconds() -> float:
    """Of this process and of the programs that it ran."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime


def timed(subject: str, path: str) -> tuple[int, float]:
    """Frames and CPU seconds."""
    start = cpu_seconds()
    return CASES[subject](path), cpu_seconds() - start


def is_here(subject: str) -> bool:
    name = subject.split(",")[0].split(" ")[0]
    if name == "ffmpeg":
        return shutil.which(name) is not None
    return name in ("pyav", "decode") or find_spec(name) is not None


def run_file(path: Path, repetitions: int, pools: list[ProcessPoolExecutor]) -> list[dict[str, Any]]:
    """All lines about one file."""
    found: dict[tuple[str, str], list[float]] = {}
    subjects = []
    for subject in filter(is_here, CASES):
        try:  # the first time loads libraries, and shows what does not work
            for each in [pool.submit(timed, subject, str(path)) for pool in pools]:
                each.result()
            subjects.append(subject)
        except Exception as error:
            print(f"{subject}: {path.name}: {str(error).splitlines()[0]}", file=sys.stderr)
    for _ in range(repetitions):
        for subject in subjects:
            frames, seconds = pools[0].submit(timed, subject, str(path)).result()
            found.setdefault((subject, "per core"), []).append(frames / seconds)
            start = time.perf_counter()
            runs = [pool.submit(timed, subject, str(path)) for pool in pools]
            frames = sum(run.result()[0] for run in runs)
            found.setdefault((subject, "two processes"), []).append(frames / (time.perf_counter() - start))
    return [
        {
            "subject": subject,
            "case": f"{path.name}, {case}",
            "value": round(median(values)),
            "unit": "frames/s",
            "spread": [round(min(values)), round(max(values))],
            "repetitions": repetitions,
        }
        for (subject, case), values in found.items()
    ]


def run_conversion(folder: Path, repetitions: int) -> list[dict[str, Any]]:
    """Whole conversions of the folder into clips of 100x3x16x701, overlapping windows, by 1 and 2 workers."""
    from clipfold import Sampling, convert

    cases = [(codec, workers) for codec in ("raw", "jpeg") for workers in (1, 2)]
    found: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in range(repetitions):
        for codec, workers in cases:
            with tempfile.TemporaryDirectory() as out:
                summary = convert(
                    folder,
                    out=Path(out) / "corpus",
                    codec=codec,
                    sampling=Sampling(clip_stride=50),
                    num_workers=workers,
                    show_progress=False,
                )
            found[codec, workers].append(summary.num_clips / summary.seconds)
    lines = []
    for (codec, workers), values in found.items():
        spread = [round(min(values), 1), round(max(values), 1)]
        print(f"convert, {codec}, {workers} workers: {median(values):.1f} clips/s ({spread[0]}-{spread[1]})")
        lines.append(
            {
                "subject": "clipfold convert",
                "case": f"{codec}, {workers} workers",
                "value": round(median(values), 1),
                "unit": "clips/s",
                "spread": spread,
                "repetitions": repetitions,
            }
        )
    return lines


def print_table(name: str, lines: list[dict[str, Any]]) -> None:
    """One row a subject."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        rows.setdefault(line["subject"], {})[line["case"].removeprefix(f"{name}, ")] = line
    reference = rows.get("ffmpeg", rows["clipfold"])["per core"]["value"]
    print(f"\n{name}\n{'frames/s':20}{'per core':>22}{'two processes':>22}{'of ffmpeg':>11}")
    for subject, cases in rows.items():
        cells = [f"{line['value']:,} ({line['spread'][0]:,}-{line['spread'][1]:,})" for line in cases.values()]
        ratio = cases["per core"]["value"] / reference
        print(f"{subject:20}{cells[0]:>22}{cells[1]:>22}{ratio:>11.2f}")


def device() -> str:
    """The CPU, as the kernel names it."""
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str]:
    """Of what was measured."""
    found = {"python": platform.python_version()}
    for name in ("clipfold", "av", "decord", "torchcodec", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if shutil.which("ffmpeg"):
        head = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
        found["ffmpeg"] = head.split()[2]
    return found


def main() -> None:
    """Measure, print, and keep the lines if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--files", default=",".join(FILES), help="names below the media folder's videos/")
    parser.add_argument("--conversion", action="store_true", help="only whole conversions, by 1 and 2 workers")
    parser.add_argument("--keep", action="store_true", help="append the lines to tools/results/ingest.jsonl")
    options = parser.parse_args()
    folder = Path(os.environ.get("CLIPFOLD_MEDIA", ROOT.parent / "shared" / "media")) / "videos"
    if not folder.is_dir():
        sys.exit("no real media: CLIPFOLD_MEDIA names their folder")
    flags = f" --repetitions {options.repetitions} --files {options.files}"
    if options.conversion:
        flags = f" --repetitions {options.repetitions} --conversion"
    shared = {"device": device(), "versions": versions(), "command": f"python tools/bench_ingest.py{flags}"}
    lines = []
    pools = [ProcessPoolExecutor(1, mp_context=get_context("spawn")) for _ in range(2)]
    try:
        if options.conversion:
            lines += [line | shared for line in run_conversion(folder, options.repetitions)]
        for name in [] if options.conversion else options.files.split(","):
            found = run_file(folder / name, options.repetitions, pools)
            print_table(name, found)
            lines += [line | shared for line in found]
    finally:
        for pool in pools:
            pool.shutdown()
    if options.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        with open(RESULTS, "a") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    print(
        json.dumps({"lines": [{k: line[k] for k in ("subject", "case", "value", "unit")} for line in lines], **shared})
    )


if __name__ == "__main__":
    main()
