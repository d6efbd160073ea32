"""What clipfold would run on: versions, decoders that really load, GPUs, cores, memory and free disk."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from clipfold.ingest.decoders.libraries import LIBRARIES, LibraryState, load_library
from clipfold.looking.tables import Table
from clipfold.pool import Limits, Pool, num_cpus
from clipfold.shards.summary import size_text

__all__ = ["Environment", "environment_tables", "look_at_environment"]

_PACKAGES = ("numpy", "pillow", "torchvision", "triton", "xxhash", "tyro", "rich", "pebble", "fsspec", "obstore", "ray")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """This machine and this Python.

    Args:
        versions: ``clipfold``, ``python``, the system, and packages that are installed.
        torch: Version, CUDA version it is built for, whether CUDA can be used, names and memory of the GPUs; or
            ``error``.
        libraries: Decoding libraries and codecs: whether each really loads.
        num_cpus: Cores that this process may use.
        memory_bytes: The machine's memory; a container may be allowed less.
        folder: The current folder.
        free_bytes: Free space there.
        advice: What is missing and how to get it.
    """

    versions: dict[str, str]
    torch: dict[str, Any]
    libraries: list[LibraryState]
    num_cpus: int
    memory_bytes: int
    folder: str
    free_bytes: int
    advice: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def look_at_environment() -> Environment:
    """Load what there is and say what works. Each library is loaded in a process of its own: it may crash."""
    versions = {"clipfold": _version("clipfold"), "python": platform.python_version(), "system": platform.platform()}
    versions |= {name: found for name in _PACKAGES if (found := _version(name))}
    libraries = _load_libraries()
    torch = _torch()
    return Environment(
        versions=versions,
        torch=torch,
        libraries=libraries,
        num_cpus=num_cpus(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        folder=os.getcwd(),
        free_bytes=shutil.disk_usage(os.getcwd()).free,
        advice=_advice(libraries, torch),
    )


def environment_tables(found: Environment) -> list[Table]:
    """The same for people."""
    torch = [(name, str(value)) for name, value in found.torch.items() if name != "gpus"]
    torch += [("gpu", f"{gpu['name']}, {size_text(gpu['memory_bytes'])}") for gpu in found.torch.get("gpus", [])]
    return [
        Table(title="versions", rows=list(found.versions.items())),
        Table(title="torch", rows=torch),
        Table(
            title="decoders and codecs",
            columns=("library", "version", "loads", ""),
            rows=[(each.name, each.version, "yes" if each.loads else "no", each.text) for each in found.libraries],
        ),
        Table(
            title="machine",
            rows=[
                ("cores", str(found.num_cpus)),
                ("memory", size_text(found.memory_bytes)),
                ("free disk", f"{size_text(found.free_bytes)} in {found.folder}"),
            ],
        ),
        Table(title="advice", rows=[(f"- {line}",) for line in found.advice]),
    ]


def _load_libraries() -> list[LibraryState]:
    states = []
    for name in LIBRARIES:
        with Pool(1) as pool:
            outcome = next(pool.map(load_library, [name], limits=lambda _: Limits(wall_seconds=120)))
        if outcome.error is None:
            states.append(outcome.value)
        else:
            states.append(
                LibraryState(
                    name=name,
                    version=_version(name),
                    text=f"loading it failed: {outcome.error.what}",
                    fix=LIBRARIES[name],
                )
            )
    return states


def _torch() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:
        return {"error": f"does not load: {error}"}
    found: dict[str, Any] = {
        "version": str(torch.__version__),
        "built for CUDA": str(torch.version.cuda or "no"),
        "CUDA can be used": torch.cuda.is_available(),
        "threads": torch.get_num_threads(),
        "gpus": [],
    }
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            found["gpus"].append({"name": properties.name, "memory_bytes": int(properties.total_memory)})
    return found


def _advice(libraries: list[LibraryState], torch: dict[str, Any]) -> list[str]:
    lines = [f"{each.name}: {each.text}. {each.fix}." for each in libraries if not each.loads]
    if "error" in torch:
        lines.append("torch does not load: streaming and training need it; `clipfold convert` does not.")
    elif torch["built for CUDA"] != "no" and not torch["CUDA can be used"]:
        lines.append("torch is built for CUDA but sees no GPU: training runs on the CPU; `nvidia-smi` says more.")
    if sys.platform != "linux":
        lines.append(f"this is {sys.platform}: clipfold is tested on Linux only.")
    return lines


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
