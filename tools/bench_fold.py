"""The reduction of clips, side by side: our kernels, the plain torch twin, and the same model as PyTorch code.

    python tools/bench_fold.py                                  # CUDA where there is one, else CPU
    python tools/bench_fold.py --device cpu --threads 1 --batches 16
    python tools/bench_fold.py --tiles --batches 256            # other tile sizes for the Triton kernels, best first

All cases of a group run in turn, again and again, and medians are taken: what disturbs one disturbs all. On CUDA each
case is captured in a CUDA graph that goes through several batches (more bytes than the cache holds), so that launches
cost nothing. Beside each case stand its floor, the bytes that have to be moved at the speed of a copy measured in the
same run, and what share of that speed it reaches. A line per case is appended to ``tools/results/fold.jsonl``.

What is compared, for clips of uint8:

    reduce            maps = weights @ pixels + bias, one set of weights per clip, hidden maps
    weight gradient   gradients of weights and bias for given gradients of the maps, per clip
    reducer           normalise, conv_temp, ReLU, conv_spatial; forward, or forward and backward (shared weights)
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from clipfold.clip import ClipSpec
from clipfold.models.classifier import ClipClassifier
from clipfold.models.kernels import reference
from clipfold.models.reducers import make_reducer

MEAN, STD = [0.45, 0.45, 0.45], [0.225, 0.225, 0.225]
RESULTS = Path(__file__).parent / "results" / "fold.jsonl"
CACHE_BYTES = 400 << 20  # batches are taken in turn until this much has gone by: 8 times an H100's L2
Step = Callable[[int], object]


class PlainReducer(nn.Module):
    """The reference model's reducer as anybody would write it."""

    def __init__(self, hidden: int, spec: ClipSpec) -> None:
        super().__init__()
        self.conv_temp = nn.Conv3d(spec.channels, hidden, kernel_size=(spec.num_frames, 1, 1))
        self.conv_spatial = nn.Conv3d(hidden, 3, kernel_size=(1, 3, 3), padding=(0, 1, 1))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 1, -1, 1, 1))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        clip = (clip.float() / 255 - self.mean) / self.std
        image: torch.Tensor = self.conv_spatial(F.relu(self.conv_temp(clip.transpose(1, 2)))).squeeze(2)
        return image


def main() -> int:
    options = parse()
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    spec = ClipSpec(num_frames=options.shape[0], channels=3, height=options.shape[1], width=options.shape[2])
    copied = copy_bytes_per_second(device, options)
    rows = [row("copy, read and written", copied / 1e9, "GB/s", options)]
    print(f"{describe(device)}; copy {copied / 1e9:.0f} GB/s; us/clip of {spec}")
    print(f"{'batch':>5} {'hidden':>6}  {'case':44} {'us/clip':>9} {'floor':>7} {'of copy':>7}")
    for batch in options.batches:
        for hidden in options.hidden:
            for part in (tile_cases,) if options.tiles else (kernel_cases, reducer_cases):
                cases = dict(part(batch, hidden, spec, device, options))
                medians = interleaved({name: step for name, (step, _) in cases.items()}, device, options)
                if options.tiles:
                    medians = dict(sorted(medians.items(), key=lambda item: (item[0].split(",")[0], item[1])))
                for name, seconds in medians.items():
                    us, floor = seconds / batch * 1e6, cases[name][1] / copied * 1e6
                    print(f"{batch:5} {hidden:6}  {name:44} {us:9.2f} {floor:7.2f} {floor / us:7.2f}", flush=True)
                    case = f"{name}, batch {batch}, hidden {hidden}"
                    rows += [row(case, us, "us/clip", options), row(f"floor of {case}", floor, "us/clip", options)]
                del cases
    if options.results:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        with options.results.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in rows)
    print(json.dumps({line["case"]: line["value"] for line in rows}))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=None, help="default: 64 256 on CUDA, 8 on CPU")
    parser.add_argument("--hidden", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--shape", type=int, nargs=3, default=[100, 16, 701], metavar=("S", "H", "W"))
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="of torch on CPU; its default where 0")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None, help="default: on CUDA only")
    parser.add_argument("--tiles", action="store_true", help="measure tile sizes of the Triton kernels instead")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where lines are appended; '' for nowhere")
    options = parser.parse_args()
    cuda = torch.device(options.device).type == "cuda"
    options.batches = options.batches or ([64, 256] if cuda else [8])
    options.compile = cuda if options.compile is None else options.compile
    options.results = None if options.tiles else options.results
    options.results = options.results if str(options.results) not in ("", ".") else None
    return options


def kernel_cases(
    batch: int, hidden: int, spec: ClipSpec, device: torch.device, options: argparse.Namespace
) -> Iterator[tuple[str, tuple[Step, int]]]:
    """Name -> (step, compulsory bytes per clip: pixels, maps and weights)."""
    S, C, H, W = spec.shape_SCHW
    clips = make_batches(batch, spec, device)
    weights, bias = torch.randn(batch, hidden, S, C, device=device), torch.randn(batch, hidden, device=device)
    grad = torch.randn(batch, hidden, H, W, device=device)
    moved = S * C * H * W + 4 * hidden * H * W + 4 * hidden * S * C
    kernels = {"reference": reference}
    if device.type == "cuda" or options.tiles:
        from clipfold.models.kernels import triton

        kernels = {"triton": triton, "reference": reference}
    for name, kernel in kernels.items():
        yield f"reduce, {name}", (lambda i, kernel=kernel: kernel.reduce(clips[i % len(clips)], weights, bias), moved)
        yield (
            f"weight gradient, {name}",
            (lambda i, kernel=kernel: kernel.reduce_grad(clips[i % len(clips)], grad), moved),
        )


def reducer_cases(
    batch: int, hidden: int, spec: ClipSpec, device: torch.device, options: argparse.Namespace
) -> Iterator[tuple[str, tuple[Step, int]]]:
    S, C, H, W = spec.shape_SCHW
    clips = make_batches(batch, spec, device)
    grad = torch.randn(batch, 3, H, W, device=device)
    plain = PlainReducer(hidden, spec).to(device)
    ours = ClipClassifier(
        make_reducer("temporal_conv", spec, hidden=hidden), nn.Identity(), 1, spec=spec, mean=MEAN, std=STD
    ).to(device)
    models: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"ours": ours.images, "eager": plain}
    if options.compile:
        models["torch.compile"] = torch.compile(plain)
    moved = S * C * H * W + 4 * hidden * H * W
    for precision in ("fp32", "bf16") if device.type == "cuda" else ("fp32",):
        for name, model in models.items():
            parameters = [*(ours.reducer if name == "ours" else plain).parameters()]

            def forward(i: int, model=model, half=precision == "bf16") -> torch.Tensor:
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    return model(clips[i % len(clips)])

            def backward(i: int, forward=forward, parameters=parameters) -> object:
                image = forward(i)
                return torch.autograd.grad(image, parameters, grad.to(image.dtype))

            def infer(i: int, forward=forward) -> torch.Tensor:
                with torch.no_grad():
                    return forward(i)

            yield f"reducer forward, {name} {precision}", (infer, moved)
            yield f"reducer forward + backward, {name} {precision}", (backward, 2 * moved)


def tile_cases(
    batch: int, hidden: int, spec: ClipSpec, device: torch.device, options: argparse.Namespace
) -> Iterator[tuple[str, tuple[Step, int]]]:
    """The kernels of :func:`kernel_cases` with every tile that compiles and fits; right ones only."""
    from clipfold.models.kernels import triton

    cases = {}
    for name, case in kernel_cases(batch, hidden, spec, device, options):
        part, kernel = name.split(", ")
        cases[part if kernel == "triton" else f"{part} expected"] = case
    maps = sorted({min(64, max(8, 1 << (hidden - 1).bit_length())), 32})
    tables = {"reduce": triton._REDUCE_TILES, "weight gradient": triton._GRAD_TILES}
    grid = itertools.product(maps, (64, 128, 256), (32, 64, 128), (0, 32), (4, 8), (2, 3, 4))
    for num, positions, rows, more_rows, num_warps, num_stages in grid:
        for part, table in tables.items():
            if positions * rows > 1 << 15 or (more_rows and (part == "reduce" or more_rows >= rows)):
                continue
            tile = triton.Tile(
                maps=num,
                positions=positions,
                rows=rows,
                more_rows=more_rows,
                num_warps=num_warps,
                num_stages=num_stages,
            )

            def step(i: int, part=part, table=table, tile=tile) -> object:
                before = dict(table)
                table.update(dict.fromkeys(table, tile))
                try:
                    return cases[part][0](i)
                finally:
                    table.update(before)

            try:
                expected, found = cases[f"{part} expected"][0](0), step(0)
            except Exception as error:  # too much shared memory, or a tile that the compiler cannot do
                print(f"{part}, {tile}: {type(error).__name__}", file=sys.stderr)
                continue
            expected, found = (value if part == "reduce" else value[0] for value in (expected, found))
            if not bool((found - expected).norm() <= 1e-5 * expected.norm()):
                print(f"{part}, {tile}: wrong numbers", file=sys.stderr)
                continue
            name = f"maps {num} positions {positions} rows {rows}+{more_rows} warps {num_warps} stages {num_stages}"
            yield f"{part}, {name}", (step, cases[part][1])


def make_batches(batch: int, spec: ClipSpec, device: torch.device) -> list[torch.Tensor]:
    num_bytes = batch * spec.num_bytes
    num = 1 if device.type == "cpu" else 1 + CACHE_BYTES // num_bytes
    return [torch.randint(0, 256, (batch, *spec.shape_SCHW), dtype=torch.uint8, device=device) for _ in range(num)]


def interleaved(steps: dict[str, Step], device: torch.device, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of one step of each."""
    runs = {name: timed_cuda(step) if device.type == "cuda" else timed_cpu(step) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repetitions):
        for name, run in runs.items():
            seconds[name].append(run())
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed_cpu(step: Step) -> Callable[[], float]:
    step(0)

    def run() -> float:
        start = time.perf_counter()
        step(0)
        return time.perf_counter() - start

    return run


def timed_cuda(step: Step, steps_per_graph: int = 4) -> Callable[[], float]:
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for i in range(3):
            step(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=graph_pool()):
        for i in range(steps_per_graph):
            step(i)

    def run() -> float:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3 / steps_per_graph

    run()
    return run


@functools.cache
def graph_pool() -> object:
    """Memory that all graphs share: they run one after the other, and nobody reads what they leave."""
    return torch.cuda.graph_pool_handle()


def copy_bytes_per_second(device: torch.device, options: argparse.Namespace) -> float:
    """What a plain copy reaches, bytes read and bytes written counted."""
    size = (1 << 30) if device.type == "cuda" else (1 << 27)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / interleaved({"copy": lambda i: target.copy_(source)}, device, options)["copy"]


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def row(case: str, value: float, unit: str, options: argparse.Namespace) -> dict[str, object]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.device(options.device).type == "cuda":
        import triton

        versions |= {"triton": triton.__version__, "cuda": str(torch.version.cuda)}
    shown = [word for word in sys.argv[1:] if "/" not in word and word != "--results"]
    return {
        "subject": "fold",
        "case": case,
        "value": round(value, 4),
        "unit": unit,
        "repetitions": options.repetitions,
        "device": describe(torch.device(options.device)),
        "versions": versions,
        "command": " ".join(["python tools/bench_fold.py", *shown]),
    }


if __name__ == "__main__":
    sys.exit(main())
