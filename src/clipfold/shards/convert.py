"""Videos and image folders into a corpus of shards, so that it can be killed at any moment and go on.

::

    sources.jsonl (frozen) --> workers: decode, encode --> parts --> one writer, in order --> shards --> dataset.json

Workers finish in any order, parts are appended in the order of the list: the corpus is the same, byte for byte, for
any number of workers and however often the command was interrupted. ``dataset.json`` is written last.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from clipfold import plugins
from clipfold.clip import ClipSpec
from clipfold.files import is_url
from clipfold.ingest.decoders import DECODERS
from clipfold.ingest.decoders.arrays import Axes
from clipfold.ingest.reader import ReadOptions
from clipfold.ingest.resize import Mode
from clipfold.ingest.sampling import Sampling
from clipfold.ingest.sources import Found, find_sources
from clipfold.shards.choose import DEFAULT_MIN_PSNR, Target, check_choice_options, choose_codec, earlier_choice
from clipfold.shards.class_map import ClassMap
from clipfold.shards.conversion import Conversion
from clipfold.shards.engines import Engine, open_engine
from clipfold.shards.output import check_out
from clipfold.shards.recipe import Recipe
from clipfold.shards.store import default_staging
from clipfold.shards.summary import ConvertSummary, size_text

__all__ = ["ConvertSummary", "convert"]

_LEAST_MEMORY_BYTES = 256 * 10**6  # Python, PyAV and the frames of one small clip


def convert(
    source_root: str | Path,
    *,
    out: str | Path,
    spec: ClipSpec | None = None,
    codec: str = "raw",
    codec_settings: Mapping[str, Any] | None = None,
    target: Target = "balanced",
    min_psnr: float = DEFAULT_MIN_PSNR,
    sampling: Sampling | None = None,
    resize: Mode = "stretch",
    fps: float | None = None,
    axes: Axes = "auto",
    decoder: str = "auto",
    keep_partial: bool = False,
    split: str | None = None,
    shard_bytes: int = 1 << 30,
    shard_clips: int = 10_000,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    follow_outside: bool = False,
    num_workers: int | None = None,
    classes: ClassMap | str | Path | None = None,
    append: bool = False,
    media_root: str | Path | None = None,
    staging: str | Path | None = None,
    on_error: Literal["skip", "raise"] = "skip",
    max_failures: int | None = None,
    retry_skipped: bool = False,
    allow_mixed_cpu: bool = False,
    deadline_seconds: float | None = None,
    memory_bytes: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    dry_run: bool = False,
    show_progress: bool = True,
) -> ConvertSummary:
    """Convert videos and image sequences into a corpus of shards.

    The same call again goes on where an interrupted one stopped, and does nothing once the corpus is complete. The
    options up to ``follow_outside`` decide about bytes and may not change in between; the others may.

    Args:
        source_root: Folder of class folders, of ``train``, ``val`` and ``test`` folders with class folders, or of
            unlabelled videos and image folders; see :mod:`clipfold.ingest.sources`.
        out: The corpus folder: new, empty, or left by the same call. Or its URL, of any store that fsspec can write:
            shards are made in ``staging`` and go there one by one, the manifest last.
        spec: Shape and dtype of the clips; the default of :class:`clipfold.ClipSpec` where ``None``.
        codec: ``"raw"``, ``"jpeg"``, ... or ``"my_package.module:MyCodec"``.
        codec_settings: Keyword arguments of the codec, such as ``{"quality": 95}``.
        target: What codec ``"auto"`` is to be good for: ``"speed"``, ``"balanced"`` or ``"size"``. It tries all codecs
            on a sample of the clips (:mod:`clipfold.shards.choose`); its choice is stored and not made again.
        min_psnr: Floor for the lossy codecs that ``"auto"`` may choose, in dB.
        sampling: Which frames make a clip: by default windows side by side.
        resize: How frames come to the spec's size: ``"stretch"``, ``"letterbox"`` or ``"center_crop"``.
        fps: Frames a second that sampling sees, by true timestamps; ``None`` is every frame as it is. See
            :mod:`clipfold.ingest.timeline`.
        axes: Order of the dimensions of arrays where it is not clear: ``"SCHW"``, ``"SHWC"`` or ``"SHW"``.
        decoder: ``"auto"`` or a decoder's name.
        keep_partial: Whether the clips before an error in a source are kept; otherwise the source is left out.
        split: Shares of train, val and test by source, such as ``"0.8/0.1/0.1"``, within each class. ``None`` takes
            the split folders below ``source_root``, or puts everything into train.
        shard_bytes: A shard closes before the clip that would make its tar larger.
        shard_clips: A shard closes before the clip that would be one too many.
        include, exclude, limit: Which sources; see :func:`clipfold.ingest.sources.find_sources`.
        follow_outside: Whether links that lead out of ``source_root`` are followed.
        classes: What the sources' classes become: a map, or the file of one; see
            :mod:`clipfold.shards.class_map`. Decides about bytes too.
        append: Convert what is new into a finished corpus: new sources get numbers, shards and classes behind the old
            ones, whose shards stay as they are. Without it, new sources are named in the summary and left alone.
        media_root: Where ``source_root`` is a table: what its relative paths start from, in place of its own folder.
        staging: With a URL: local folder for what is under way; ``None`` is one in the user's cache.
        num_workers: Processes that decode; ``None`` is one per CPU core.
        on_error: What to do with a source that cannot be read: leave it out, or stop. A source that changed since the
            list was frozen always stops the conversion.
        max_failures: Stop when more sources than this had to be left out; ``None`` never does.
        retry_skipped: Try sources again that were left out. In a finished corpus their clips go into new shards.
        allow_mixed_cpu: Let a codec whose bytes depend on the type of the CPU run on several types.
        deadline_seconds: CPU seconds from one clip of a source to the next; ``None`` is 300 and one more for each
            250 kB of the source. The clock may show four times as much.
        memory_bytes: Memory that all workers may use together; ``None`` is four fifths of the machine's. At least
            256 MB.
        engine: Where the work is done: ``"local"`` or ``"ray"``; see :mod:`clipfold.shards.engines`.
        ray_address: With ``"ray"``: address of the cluster; ``None`` is ``RAY_ADDRESS``, or the one on this machine.
        dry_run: Count clips and estimate bytes; write nothing.
        show_progress: Whether to show progress on the standard error.

    Returns:
        What was done.

    Raises:
        ValueError: A wrong option; the codec cannot hold such clips.
        PluginError: No codec, decoder or engine has this name.
        SourceError: Nothing to read, nothing that can be read, or a source changed since the list was frozen.
        DecodeError: A source cannot be decoded and ``on_error`` is "raise".
        ClipfoldError: ``out`` holds something else, or a conversion with other options; another command is at work
            there; too many failures; no space is left. Where work was done, the same call goes on with it.

    Example:
        >>> convert("videos", out="corpus", codec="jpeg", split="0.8/0.1/0.1")      # doctest: +SKIP
    """
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error: {on_error!r}, expected 'skip' or 'raise'")
    for name, value in (("deadline_seconds", deadline_seconds), ("memory_bytes", memory_bytes)):
        if value is not None and value <= 0:
            raise ValueError(f"{name}: {value}, expected more than 0")
    if memory_bytes is not None and memory_bytes < _LEAST_MEMORY_BYTES:
        raise ValueError(
            f"memory_bytes: {size_text(memory_bytes)}, expected at least 256 MB: with less, "
            "no worker can decode anything"
        )
    folder = _folder(out, staging)
    if not is_url(source_root) and folder.resolve().is_relative_to(Path(source_root).resolve()):
        raise ValueError(f"output folder {folder} lies in the folder of the sources, {source_root}: name one outside")
    if ray_address is not None and engine != "ray":
        raise ValueError(f"ray_address: {ray_address!r} with engine {engine!r}; it belongs to engine 'ray'")
    if decoder != "auto":
        plugins.load("decoders", decoder, DECODERS)  # an unknown one is one error, not one a source
    read = ReadOptions(
        spec=spec or ClipSpec(),
        sampling=sampling or Sampling(),
        resize=resize,
        decoder=decoder,
        keep_partial=keep_partial,
        fps=fps,
        axes=axes,
    )
    class_map = classes if isinstance(classes, ClassMap) else ClassMap.load(classes) if classes else ClassMap()
    wish = {"target": target, "min_psnr": min_psnr} if codec == "auto" else None
    check_choice_options(target=target, min_psnr=min_psnr)
    options = {} if ray_address is None else {"address": ray_address}
    with closing(open_engine(engine, num_workers=num_workers, **options)) as workers:
        if wish is not None:
            if codec_settings:
                raise ValueError("codec_settings: codec 'auto' chooses the settings as well; name the codec")
            found = earlier_choice(out, wish, folder=folder)
            if found is None:
                if not is_url(out):
                    check_out(folder)
                sources = find_sources(
                    source_root,
                    include=include,
                    exclude=exclude,
                    limit=limit,
                    follow_outside=follow_outside,
                    media_root=media_root,
                )
                found = _choose(
                    class_map.apply(sources), read, workers, target, min_psnr, deadline_seconds, show_progress
                )
            codec, codec_settings = found
        recipe = Recipe(
            read=read,
            codec=codec,
            codec_settings=codec_settings or {},
            split=split,
            shard_bytes=shard_bytes,
            shard_clips=shard_clips,
            include=tuple(include),
            exclude=tuple(exclude),
            limit=limit,
            follow_outside=follow_outside,
            classes=class_map,
            chosen_for=wish,
        )
        conversion = Conversion(
            root=source_root,
            media_root=media_root,
            out=str(out),
            folder=folder,
            recipe=recipe,
            engine=workers,
            stops=on_error == "raise",
            max_failures=max_failures,
            retry_skipped=retry_skipped,
            append=append,
            allow_mixed_cpu=allow_mixed_cpu,
            deadline_seconds=deadline_seconds,
            memory=memory_bytes,
            show_progress=show_progress,
        )
        return conversion.try_out() if dry_run else conversion.run()


def _choose(
    found: Found,
    read: ReadOptions,
    engine: Engine,
    target: Target,
    min_psnr: float,
    deadline_seconds: float | None,
    show_progress: bool,
) -> tuple[str, Mapping[str, Any]]:
    """Codec and settings that suit the clips best; the table of what was measured goes to the standard error."""
    choice = choose_codec(
        found.sources,
        read,
        engine=engine,
        target=target,
        min_psnr=min_psnr,
        deadline_seconds=deadline_seconds,
        show_progress=show_progress,
    )
    if show_progress:
        print(choice, file=sys.stderr)
    return choice.codec, choice.settings


def _folder(out: str | Path, staging: str | Path | None) -> Path:
    """The local folder where shards are made."""
    if is_url(out):
        return default_staging(str(out)) if staging is None else Path(staging)
    if staging is not None:
        raise ValueError(f"staging: {str(staging)!r}, but {out} is a local folder; it belongs to a URL")
    return Path(out)
