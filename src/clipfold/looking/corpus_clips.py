"""A few clips of a corpus, or of one shard of it, found through the index files: no tar is read as a whole."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipfold.errors import ClipfoldError, ShardError
from clipfold.files import Location, name_of, read_bytes
from clipfold.looking.clips import Gallery, ShownClip, choose, evenly
from clipfold.shards.codecs import empty_slot
from clipfold.shards.index import dali_path, sample_key, shard_name
from clipfold.shards.manifest import MANIFEST_NAME
from clipfold.shards.reader import Corpus
from clipfold.shards.tar import iter_members

__all__ = ["is_foreign_tar", "pick_from_corpus", "pick_from_shard"]

_OUR_MEMBER = re.compile(r"[0-9]{8,}-[0-9]{4,}\.")
_MOST_SHARDS = 32  # of a large corpus: enough to meet every common class


@dataclass(frozen=True, kw_only=True)
class _Place:
    split: str
    shard: int
    row: Any  # of INDEX_DTYPE


def pick_from_corpus(
    root: Location,
    *,
    split: str | None = None,
    classes: Sequence[str] = (),
    clips_per_class: int,
    max_clips: int,
    shard: int | None = None,
) -> Gallery:
    """Some clips of each class of one split. The same corpus, the same clips.

    Args:
        root: Corpus folder or URL.
        split: ``None`` is the first that has samples.
        classes: Only these; none means all.
        clips_per_class: At most so many of each.
        max_clips: At most so many in all.
        shard: Only this shard of the split.

    Raises:
        ShardError: No corpus, or none of the clips can be read.
        ValueError: No such split or class.
    """
    corpus = Corpus(root)
    split = split or next((name for name, totals in corpus.splits.items() if totals.num_samples), "train")
    if unknown := [name for name in classes if name not in corpus.classes]:
        raise ValueError(f"class: {unknown[0]!r}, expected one of {', '.join(corpus.classes)} (corpus {root})")
    table = corpus.shard_table(split)
    numbers = [shard] if shard is not None else evenly(range(len(table)), _MOST_SHARDS)
    groups = _places_by_class(corpus, split, numbers, classes)
    notes = _notes(corpus, groups, classes, numbers, len(table))
    shown = []
    for place in choose(groups, clips_per_class=clips_per_class, max_clips=max_clips):
        try:
            shown.append(_load(corpus, place))
        except (ClipfoldError, OSError) as error:
            key = sample_key(int(place.row["source"]), int(place.row["clip"]))
            what = error.what if isinstance(error, ClipfoldError) else str(error)
            notes.append(f"sample {key} of {shard_name(split, place.shard)} cannot be shown: {what}")
    if not shown:
        raise ShardError(
            f"no clip of split {split!r} can be shown: {'; '.join(notes) or 'it is empty'}", file=str(root)
        )
    title = name_of(root) if shard is None else f"{name_of(root)}: {shard_name(split, shard)}.tar"
    return Gallery(title=title, facts=_facts(corpus, split), clips=shown, notes=notes)


def is_foreign_tar(path: str) -> bool:
    """Whether a tar was clearly not written by clipfold: other keys than its own, or headers that it never writes."""
    try:
        with tarfile.open(path, "r:") as tar:
            first = tar.next()
    except (tarfile.TarError, OSError, ValueError):
        return False  # what is damaged is said by those who read it
    return first is not None and (bool(first.pax_headers) or _OUR_MEMBER.match(first.name) is None)


def pick_from_shard(path: str, *, classes: Sequence[str] = (), clips_per_class: int, max_clips: int) -> Gallery:
    """Some clips of one tar: of a corpus where it still lies in one, else of a tar of ``.npy`` clips.

    Raises:
        ShardError: It is no shard, or its clips need the corpus that is not there.
        ValueError: No such class.
    """
    tar = Path(path)
    root, split = tar.parent.parent, tar.parent.name
    number = tar.stem.rpartition("-")[2]
    if (root / MANIFEST_NAME).exists() and number.isdecimal() and tar.name == f"{shard_name(split, int(number))}.tar":
        return pick_from_corpus(
            root,
            split=split,
            classes=classes,
            clips_per_class=clips_per_class,
            max_clips=max_clips,
            shard=int(number),
        )
    return _pick_from_lone_tar(tar, clips_per_class=clips_per_class, max_clips=max_clips)


def _places_by_class(
    corpus: Corpus, split: str, numbers: Sequence[int], classes: Sequence[str]
) -> dict[str, list[_Place]]:
    """The first clip of each source by class, so that few clips show many sources; of one source all its clips."""
    tables = [corpus.index(split, number) for number in numbers]
    if not tables:
        return {}
    rows, shards = np.concatenate(tables), np.repeat(numbers, [len(table) for table in tables])
    groups: dict[str, list[_Place]] = {}
    wanted = [(corpus.classes.index(name), name) for name in classes] or [*enumerate(corpus.classes), (-1, "")]
    for label, name in wanted:
        found = np.flatnonzero(rows["label"] == label)
        found = found[np.lexsort((rows["clip"][found], rows["source"][found]))]
        firsts = found[np.unique(rows["source"][found], return_index=True)[1]]
        chosen = firsts if len(firsts) > 1 else found
        if len(chosen):
            groups[name] = [_Place(split=split, shard=int(shards[place]), row=rows[place]) for place in chosen]
    return groups


def _notes(
    corpus: Corpus, groups: Mapping[str, Any], classes: Sequence[str], numbers: Sequence[int], num_shards: int
) -> list[str]:
    missing = [name for name in classes or corpus.classes if name not in groups]
    if not missing:
        return []
    where = "this split" if len(numbers) == num_shards else f"the {len(numbers)} of {num_shards} shards looked at"
    more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    return [f"no clip in {where}: {', '.join(missing[:10])}{more}"]


def _load(corpus: Corpus, place: _Place) -> ShownClip:
    row, spec = place.row, corpus.spec
    key = sample_key(int(row["source"]), int(row["clip"]))
    location = corpus.tar_location(place.split, place.shard)
    data = read_bytes(location, offset=int(row["offset"]), size=int(row["size"]))
    if len(data) != row["size"] or xxhash.xxh3_64_intdigest(data) != int(row["xxh3"]):
        raise ShardError("its bytes do not have the checksum that the index says")
    slot, clip_SCHW = empty_slot(corpus.codec, spec)
    corpus.codec.decode_into(data, slot, spec)
    label = int(row["label"])
    meta = _meta(corpus, place, key)
    return ShownClip(
        key=key,
        label=corpus.classes[label] if label >= 0 else None,
        pixels_SHWC=clip_SCHW.transpose(0, 2, 3, 1),
        num_valid_frames=int(row["num_valid_frames"]),
        source=str(meta.get("source", "")),
        frames=_frames_text(meta.get("indices") or [], int(row["num_valid_frames"])),
        fps=float(meta.get("fps", 0.0)),
        facts={
            "stored bytes": f"{int(row['size']):,}",
            **({"original size": f"{meta['width']} x {meta['height']}"} if {"width", "height"} <= set(meta) else {}),
        },
    )


def _meta(corpus: Corpus, place: _Place, key: str) -> dict[str, Any]:
    """The sample's ``.json``, found through the shard's ``.idx``; nothing where that is not there."""
    try:
        lines = read_bytes(dali_path(corpus.root, place.split, place.shard)).decode().splitlines()
        for line in lines[1:]:
            words = line.split()
            for extension, offset, size, name in zip(*(iter(words),) * 4, strict=True):
                if extension == "json" and name == f"{key}.json":
                    tar = corpus.tar_location(place.split, place.shard)
                    value = json.loads(read_bytes(tar, offset=int(offset), size=int(size)))
                    return value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        pass  # a picture without these words is still a picture; `clipfold verify` says what is wrong
    return {}


def _frames_text(indices: Sequence[int], num_valid: int) -> str:
    valid = [int(index) for index in indices[:num_valid]]
    if not valid:
        return ""
    step = valid[1] - valid[0] if len(valid) > 1 else 1
    return f"{valid[0]} to {valid[-1]}" + (f", every {step}." if step > 1 else "")


def _facts(corpus: Corpus, split: str) -> dict[str, str]:
    manifest = corpus.manifest
    settings = ", ".join(f"{name}={value}" for name, value in manifest.codec_settings.items())
    return {
        "clips": str(corpus.spec),
        "codec": manifest.codec + (f" ({settings})" if settings else ""),
        "splits": ", ".join(f"{name} {totals.num_samples:,}" for name, totals in corpus.splits.items()),
        "shown": f"split {split}",
        "classes": f"{len(corpus.classes)}" if corpus.classes else "none",
        "mean": ", ".join(f"{value:.4f}" for value in manifest.mean),
        "std": ", ".join(f"{value:.4f}" for value in manifest.std),
    }


def _pick_from_lone_tar(tar: Path, *, clips_per_class: int, max_clips: int) -> Gallery:
    groups: dict[str, list[tuple[str, int, int]]] = {}
    labels: dict[str, str] = {}
    with open(tar, "rb") as file:
        for member, read in iter_members(file.read, os.path.getsize(tar)):
            key, _, extension = member.name.partition(".")
            if extension == "cls":
                labels[key] = read(min(member.size, 20)).decode(errors="replace").strip()
            elif extension not in ("json", "npy"):
                raise ShardError(
                    f"clips stored as .{extension} need their corpus: {MANIFEST_NAME} says how to read them",
                    fix="keep the tar inside its corpus folder and name it, or the folder, there",
                    file=str(tar),
                )
            elif extension == "npy":
                groups.setdefault(labels.get(key, ""), []).append((key, member.offset, member.size))
    chosen = choose(groups, clips_per_class=clips_per_class, max_clips=max_clips)
    if not chosen:
        raise ShardError("holds no clip", fix="name a shard that `clipfold convert` wrote", file=str(tar))
    shown = []
    for key, offset, size in chosen:
        clip_SCHW = _load_npy(read_bytes(tar, offset=offset, size=size), key, tar)
        label = f"class {labels[key]}" if key in labels else None
        pixels = clip_SCHW.transpose(0, 2, 3, 1)
        shown.append(ShownClip(key=key, label=label, pixels_SHWC=pixels, num_valid_frames=len(pixels)))
    facts = {"shape": " x ".join(map(str, shown[0].pixels_SHWC.shape)), "dtype": str(shown[0].pixels_SHWC.dtype)}
    notes = [f"no {MANIFEST_NAME} here: classes are numbers, and padding is not known"]
    return Gallery(title=tar.name, facts=facts, clips=shown, notes=notes)


def _load_npy(data: bytes, key: str, tar: Path) -> NDArray[Any]:
    try:
        clip: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ShardError(f"sample {key!r} is no array: {error}", file=str(tar)) from error
    if clip.ndim != 4 or clip.size == 0 or str(clip.dtype) not in ("uint8", "uint16", "float32"):
        raise ShardError(
            f"sample {key!r} is {clip.shape} {clip.dtype}, expected (S, C, H, W) of uint8, uint16 or float32",
            file=str(tar),
        )
    return clip
