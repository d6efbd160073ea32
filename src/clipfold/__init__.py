"""Videos and image sequences as clips, streamed as bytes and folded over time into one image.

The public names are imported when they are first used: ``import clipfold`` loads nothing but this file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipfold.augment import Augmentation, Compose, recipe
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
    from clipfold.ingest.sampling import Sampling
    from clipfold.looking.preview import preview
    from clipfold.models.classifier import ClipClassifier, build_classifier
    from clipfold.models.reducers import TemporalReducer
    from clipfold.shards.convert import convert
    from clipfold.shards.manifest import Manifest
    from clipfold.shards.reader import Corpus
    from clipfold.shards.repack import repack
    from clipfold.shards.status import status
    from clipfold.shards.verify import verify
    from clipfold.stream.loader import ClipStream
    from clipfold.training.config import TrainConfig
    from clipfold.training.evaluate import evaluate
    from clipfold.training.loop import train
    from clipfold.world import World

_HOMES = {
    "Augmentation": "augment",
    "Clip": "clip",
    "ClipBatch": "clip",
    "ClipClassifier": "models.classifier",
    "ClipSpec": "clip",
    "ClipStream": "stream.loader",
    "ClipfoldError": "errors",
    "Compose": "augment",
    "Corpus": "shards.reader",
    "DecodeError": "errors",
    "Manifest": "shards.manifest",
    "PluginError": "errors",
    "ResumeError": "errors",
    "Sampling": "ingest.sampling",
    "ShardError": "errors",
    "SourceError": "errors",
    "TemporalReducer": "models.reducers",
    "TrainConfig": "training.config",
    "TrainingError": "errors",
    "World": "world",
    "build_classifier": "models.classifier",
    "convert": "shards.convert",
    "evaluate": "training.evaluate",
    "preview": "looking.preview",
    "recipe": "augment",
    "repack": "shards.repack",
    "status": "shards.status",
    "train": "training.loop",
    "verify": "shards.verify",
}

__all__ = [
    "Augmentation",
    "Clip",
    "ClipBatch",
    "ClipClassifier",
    "ClipSpec",
    "ClipStream",
    "ClipfoldError",
    "Compose",
    "Corpus",
    "DecodeError",
    "Manifest",
    "PluginError",
    "ResumeError",
    "Sampling",
    "ShardError",
    "SourceError",
    "TemporalReducer",
    "TrainConfig",
    "TrainingError",
    "World",
    "build_classifier",
    "convert",
    "evaluate",
    "preview",
    "recipe",
    "repack",
    "status",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipfold' has no attribute {name!r}")
    return getattr(import_module(f"clipfold.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
