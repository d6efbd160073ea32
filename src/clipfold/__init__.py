"""Videos and image sequences as clips, streamed as bytes and folded over time into one image.

The public names are imported when they are first used: ``import clipfold`` loads nothing but this file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipfold.clip import Clip, ClipBatch, ClipSpec
    from clipfold.errors import (
        ClipfoldError,
        DecodeError,
        PluginError,
        ResumeError,
        ShardError,
        SourceError,
        TrainingError,
    )
    from clipfold.world import World

_HOMES = {
    "Clip": "clip",
    "ClipBatch": "clip",
    "ClipSpec": "clip",
    "ClipfoldError": "errors",
    "DecodeError": "errors",
    "PluginError": "errors",
    "ResumeError": "errors",
    "ShardError": "errors",
    "SourceError": "errors",
    "TrainingError": "errors",
    "World": "world",
}

__all__ = [
    "Clip",
    "ClipBatch",
    "ClipSpec",
    "ClipfoldError",
    "DecodeError",
    "PluginError",
    "ResumeError",
    "ShardError",
    "SourceError",
    "TrainingError",
    "World",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipfold' has no attribute {name!r}")
    return getattr(import_module(f"clipfold.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
