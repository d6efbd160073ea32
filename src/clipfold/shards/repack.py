"""A corpus from corpora: another codec, shard size or split; several merged into one; a part of one.

::

    IN, IN2, ... --look through each shard: sha256, --where--> which samples, under which numbers (repack_plan.py)
        same codec:   their bytes --------------------------> one writer, in order --> shards --> dataset.json
        another one:  workers decode, encode --> parts ------^

What convert promises holds here as well: whole or not at all, killed at any moment it goes on, the same bytes for any
number of workers. The videos are not needed. Groups are never torn: a split is given to sources, not to clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from clipfold.files import is_url
from clipfold.shards.choose import DEFAULT_MIN_PSNR, Target, check_choice_options
from clipfold.shards.engines import open_engine
from clipfold.shards.repack_inputs import Selection, open_inputs
from clipfold.shards.repack_run import RepackOptions, RepackRun
from clipfold.shards.repack_summary import RepackSummary
from clipfold.shards.source_list import parse_split
from clipfold.shards.where import Where

__all__ = ["RepackSummary", "repack"]


def repack(
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    codec: str | None = None,
    codec_settings: Mapping[str, Any] | None = None,
    target: Target = "balanced",
    min_psnr: float = DEFAULT_MIN_PSNR,
    split: str | None = None,
    shard_bytes: int = 1 << 30,
    shard_clips: int = 10_000,
    classes: Sequence[str] = (),
    keys: Sequence[str] | None = None,
    where: str = "",
    num_workers: int | None = None,
    engine: str = "local",
    show_progress: bool = True,
) -> RepackSummary:
    """Make a corpus from corpora, without going back to the videos.

    The same call again goes on where an interrupted one stopped, and does nothing once the corpus is complete. Classes
    are merged by name: the first input's, then what others add. Keys stay what they were where there is one input;
    several inputs are mixed, and their sources numbered anew. Clips whose codec and settings stay the same are copied
    byte for byte; others are decoded and encoded again. Mean and standard deviation are taken over where the train
    split holds the same clips as before, else summed up again over the clips as they are stored.

    Args:
        inputs: Corpus folders or URLs, at least one; clips of one spec.
        out: The new corpus folder: new, empty, or left by the same call.
        codec: A codec's name; ``"auto"`` measures all of them on a sample and chooses; ``None`` keeps the inputs'.
        codec_settings: Keyword arguments of the codec.
        target, min_psnr: For ``"auto"``; see :func:`clipfold.shards.choose.choose_codec`. The choice is stored, and
            used again when the call is repeated.
        split: Shares of train, val and test by source, such as ``"0.8/0.1/0.1"``, within each class; ``None`` leaves
            every source in its split.
        shard_bytes: A shard closes before the clip that would make its tar larger.
        shard_clips: A shard closes before the clip that would be one too many.
        classes: Keep only clips of these classes; the new corpus has no others.
        keys: Keep only these samples of the only input.
        where: Keep only samples that fulfil this; see :mod:`clipfold.shards.where`.
        num_workers: Processes that decode; ``None`` is one per CPU core.
        engine: Where the work is done.
        show_progress: Whether to show progress on the standard error.

    Returns:
        What was done.

    Raises:
        ValueError: A wrong option, a class or key that is not there, or a selection that takes nothing.
        PluginError: No codec has this name.
        ShardError: An input is damaged, or no corpus.
        ClipfoldError: The inputs do not fit together; ``out`` holds something else; another command is at work there;
            no space is left.

    Example:
        >>> repack("corpus", out="small", codec="lowrank", classes=["walk", "run"])          # doctest: +SKIP
    """
    roots = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if is_url(out):
        raise ValueError(f"out: {out}, expected a local folder (upload it when it is complete)")
    for root in roots:
        if not is_url(root) and Path(out).resolve() == Path(root).resolve():
            raise ValueError(f"out: {out} is one of the corpora to be repacked; name another folder")
    if split is not None:
        parse_split(split)
    if where:
        Where(where)
    if shard_bytes < 1 or shard_clips < 1:
        raise ValueError(f"shard_bytes {shard_bytes}, shard_clips {shard_clips}: expected at least 1")
    if codec == "auto":
        check_choice_options(target=target, min_psnr=min_psnr)
        if codec_settings:
            raise ValueError("codec_settings: codec 'auto' chooses the settings as well; name the codec, or leave them")
    opened = open_inputs(roots, codec=codec)
    selection = Selection(classes=tuple(classes), keys=None if keys is None else frozenset(keys), where=where)
    with closing(open_engine(engine, num_workers=num_workers)) as workers:
        run = RepackRun(inputs=opened, out=Path(out), engine=workers, show_progress=show_progress)
        run.choose_codec(codec, codec_settings, target=target, min_psnr=min_psnr)
        return run.run(
            RepackOptions(split=split, shard_bytes=shard_bytes, shard_clips=shard_clips, selection=selection)
        )
