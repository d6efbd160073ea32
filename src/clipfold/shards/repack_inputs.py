"""The corpora that are repacked, and what is kept of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipfold.errors import ClipfoldError, ShardError
from clipfold.files import join, read_bytes
from clipfold.shards.codecs import CODECS, get_codec
from clipfold.shards.manifest import MANIFEST_NAME, Manifest
from clipfold.shards.reader import Corpus
from clipfold.shards.source_list import ListedSource, load_source_list
from clipfold.shards.summary import SKIPPED_NAME, SOURCES_NAME, Skipped

__all__ = ["Input", "Selection", "open_inputs"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """A corpus to be repacked.

    Args:
        corpus: The corpus.
        fingerprint: sha256 of its ``dataset.json``, which covers every byte of it.
        sources: By number.
        skipped: What its conversion left out.
    """

    corpus: Corpus
    fingerprint: str
    sources: Mapping[int, ListedSource]
    skipped: Sequence[Skipped]

    @property
    def manifest(self) -> Manifest:
        """The corpus' manifest."""
        return self.corpus.manifest

    def is_stored_as(self, codec: str, settings: Mapping[str, Any]) -> bool:
        """Whether its clips' bytes are what this codec would make of them."""
        return self.manifest.codec == codec and dict(self.manifest.codec_settings) == dict(settings)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is kept; everything where nothing is given.

    Args:
        classes: Names of classes.
        keys: Keys of samples of the only input.
        where: A condition on the columns.
    """

    classes: tuple[str, ...] = ()
    keys: frozenset[str] | None = None
    where: str = ""

    @property
    def takes_all(self) -> bool:
        """Whether every sample is kept."""
        return not self.classes and self.keys is None and not self.where

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the keys by their number and hash."""
        keys = None if self.keys is None else "\n".join(sorted(self.keys)).encode()
        return {
            "classes": list(self.classes),
            "keys": None if keys is None else f"{len(self.keys or ())} keys, sha256 {hashlib.sha256(keys).hexdigest()}",
            "where": self.where,
        }


def open_inputs(roots: Sequence[str | Path], *, codec: str | None) -> list[Input]:
    """Open the corpora and see whether they fit together.

    Args:
        roots: Folders or URLs.
        codec: The codec that the user named: a corpus stored with the user's own can be read where it is the same.

    Raises:
        ClipfoldError: Their specs differ.
        ShardError: One of them is no corpus, or damaged.
        ValueError: None, or one twice.
    """
    if not roots:
        raise ValueError("repack: no corpus is named, expected at least one")
    inputs = [_open(root, codec) for root in roots]
    if twice := [roots[place] for place, each in enumerate(inputs) if each.fingerprint in _before(inputs, place)]:
        raise ValueError(f"repack: the corpus {twice[0]} is named twice, expected every one once")
    for root, each in zip(roots[1:], inputs[1:], strict=True):
        if each.corpus.spec != inputs[0].corpus.spec:
            raise ClipfoldError(
                f"the clips of the corpora differ: {each.corpus.spec} there, {inputs[0].corpus.spec} in {roots[0]}",
                fix="convert one of them again with the other's shape; clips are not resized after the fact",
                file=str(root),
            )
    return inputs


def _before(inputs: Sequence[Input], place: int) -> set[str]:
    return {each.fingerprint for each in inputs[:place]}


def _open(root: str | Path, codec: str | None) -> Input:
    manifest = Manifest.load(root)
    own = get_codec(codec, manifest.codec_settings) if codec == manifest.codec and codec not in CODECS else None
    corpus = Corpus(root, codec=own)
    assert corpus.codec is not None  # an unknown codec is an error now, not in the middle of the work
    try:
        sources = load_source_list(join(root, SOURCES_NAME))
        lines = read_bytes(join(root, SKIPPED_NAME)).splitlines()
        skipped = [Skipped(**json.loads(line)) for line in lines]
    except FileNotFoundError as error:
        raise ShardError(
            f"{Path(str(error.filename)).name} is missing",
            fix="copy the corpus again, with all its files",
            file=str(root),
        ) from error
    return Input(
        corpus=corpus,
        fingerprint=hashlib.sha256(read_bytes(join(root, MANIFEST_NAME))).hexdigest(),
        sources={source.number: source for source in sources},
        skipped=skipped,
    )
