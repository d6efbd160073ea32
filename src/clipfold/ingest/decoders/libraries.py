"""Which decoding libraries are here, and whether they really load: being installed is not enough."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

__all__ = ["LIBRARIES", "LibraryState", "load_library"]

# name -> what to do where it is missing
LIBRARIES = {
    "av": "pip install av",
    "decord": "optional: pip install 'clipfold[decord]' (x86-64 only)",
    "torchcodec": "optional: needs FFmpeg's shared libraries (apt install ffmpeg) and a version made for this torch",
    "simplejpeg": "pip install simplejpeg",
    "zstandard": "pip install zstandard",
    "webdataset": "pip install webdataset",
}


@dataclass(frozen=True, kw_only=True)
class LibraryState:
    """One library.

    Args:
        name: Name of the module.
        version: ``""`` where it is not installed.
        loads: Whether importing it works.
        text: Versions of what it carries, or why it does not load.
        fix: What to do where it does not load.
    """

    name: str
    version: str = ""
    loads: bool = False
    text: str = ""
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return asdict(self)


def load_library(name: str) -> LibraryState:
    """Import a library and see. Call it in a process of its own: what is broken may crash instead of raising.

    Args:
        name: A name of ``LIBRARIES``.
    """
    if find_spec(name) is None:
        return LibraryState(name=name, text="not installed", fix=LIBRARIES[name])
    try:
        found = version(name)
    except PackageNotFoundError:
        found = "?"
    try:
        module = import_module(name)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = lines[0] if lines else type(error).__name__
        return LibraryState(name=name, version=found, text=f"does not load: {why}", fix=LIBRARIES[name])
    return LibraryState(name=name, version=found, loads=True, text=_carries(name, module))


def _carries(name: str, module: Any) -> str:
    """FFmpeg inside PyAV: the versions that decide about frames and pixels."""
    if name != "av":
        return ""
    ffmpeg = getattr(module, "ffmpeg_version_info", "")
    wanted = ("libavcodec", "libavformat", "libswscale")
    parts = [f"{key} {'.'.join(map(str, module.library_versions[key]))}" for key in wanted]
    return ", ".join(([f"FFmpeg {ffmpeg}"] if ffmpeg else []) + parts)
