"""A tree of sources whose decoder does as each file says: made by code, quick to read, able to misbehave."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from clipfold.clip import ClipSpec
from clipfold.ingest.sampling import Sampling

DECODER = '''
"""Reads files such as {"num_frames": 9, "seed": 3, "then": "segfault"}: n frames of noise, then what it says."""
import ctypes, json, os, time
from pathlib import Path
import numpy as np
from clipfold.errors import DecodeError


class Scripted:
    version, fps, defect, height, width = "1", 25.0, None, 8, 12
    name = "scripted"

    def __init__(self, source):
        self.path = Path(source.path)
        self.script = json.loads(self.path.read_text())
        if self.script.get("open") == "broken":
            raise DecodeError("it is broken", file=source.path)

    def __len__(self):
        return self.script["num_frames"]

    def read(self, indices, resize):
        log = os.environ.get("SCRIPTED_LOG")
        if log:
            with open(log, "a") as file:
                file.write(f"{self.path.name}\\n")
        wanted = set(indices)
        rng = np.random.default_rng(self.script["seed"])
        for index in range(len(self)):
            frame = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
            if index == len(self) // 2:
                self.then(self.script.get("then", ""))
            if index in wanted:
                yield resize(frame, 0)

    def then(self, what):
        if what == "segfault": ctypes.string_at(0)
        if what == "loop":
            while True: pass
        if what == "blow up": kept = [bytearray(1 << 30) for _ in range(100_000)]
        if what == "broken": raise DecodeError("frames are missing", file=str(self.path))
        if what == "vanish": raise FileNotFoundError(2, "No such file", str(self.path))
        if what.startswith("sleep"): time.sleep(float(what.split()[1]))
        if what.startswith("flaky"):
            mark = Path(what.split()[1])
            if not mark.exists():
                mark.touch()
                ctypes.string_at(0)

    def close(self):
        pass
'''

SPEC = ClipSpec(num_frames=4, height=8, width=12)


def install_decoder(folder: Path) -> str:
    """Write the decoder's module; what to put on the module search path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scripted_decoder.py").write_text(DECODER)
    return str(folder)


def write_sources(root: Path, names: dict[str, dict[str, Any]]) -> None:
    """Files by name with their scripts; 9 frames unless they say otherwise."""
    for seed, (name, script) in enumerate(names.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"num_frames": 9, "seed": seed, **script}))
        os.utime(path, (1_700_000_000, 1_700_000_000))


def good_sources(num: int = 10, **script: Any) -> dict[str, dict[str, Any]]:
    """Half of class a, half of class b, of different lengths."""
    return {f"{'ab'[n % 2]}/v{n:02d}.mp4": {"num_frames": 3 + n % 11, **script} for n in range(num)}


OPTIONS: dict[str, Any] = {
    "spec": SPEC,
    "sampling": Sampling(clip_stride=2),
    "decoder": "scripted_decoder:Scripted",
    "split": "0.6/0.2/0.2",
    "shard_clips": 5,
    "show_progress": False,
}
FLAGS = {
    "--num-frames": "4",
    "--height": "8",
    "--width": "12",
    "--clip-stride": "2",
    "--decoder": "scripted_decoder:Scripted",
    "--split": "0.6/0.2/0.2",
    "--shard-clips": "5",
}


def command(root: Path, out: Path, *flags: str) -> list[str]:
    """The command line of the same conversion."""
    return [
        sys.executable,
        "-m",
        "clipfold",
        "convert",
        str(root),
        "--out",
        str(out),
        *itertools.chain(*FLAGS.items()),
        *flags,
    ]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
