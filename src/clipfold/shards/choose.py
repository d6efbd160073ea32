"""Which codec for these clips: every one of ours is tried on a sample of them, then a rule decides.

The rule looks at bytes, PSNR and empty pixels alone, never at the clock: they are the same in every run, so the
choice is too, however busy the machine is. Times are measured and shown because people want to see them.

::

    target      raw      lossless                  jpeg, lowrank            mp4
    size        takes the smallest of all that may be taken
    balanced    -        where exact costs little  the smaller one          - (16 ms and more to decode a clip)
    speed       else     where 16 times smaller    lowrank, where 8 times   - (a GPU reads lowrank without decoding;
                         (0.2 ms to decode)        smaller                     jpeg keeps a core busy for 4 ms a clip)

A lossy codec may be taken where at most half of the values are exactly 0 (JPEG turned 2.1 % of radar's "no return"
pixels into returns) and its PSNR is not below the floor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from clipfold.clip import ClipSpec
from clipfold.errors import ClipfoldError
from clipfold.files import Location, exists, join, read_json
from clipfold.ingest.reader import ReadOptions
from clipfold.ingest.sources import Source
from clipfold.pool import num_cpus
from clipfold.shards.codecs import CODECS, get_codec
from clipfold.shards.engines import Engine
from clipfold.shards.manifest import MANIFEST_NAME, Manifest
from clipfold.shards.measure import Totals, Trial, measure_corpus, measure_sources, read_bytes_per_second
from clipfold.shards.reader import Corpus
from clipfold.shards.staging import STAGING_NAME
from clipfold.shards.summary import size_text

__all__ = [
    "DEFAULT_MIN_PSNR",
    "DEFAULT_NUM_CLIPS",
    "CodecChoice",
    "Measurement",
    "Target",
    "check_choice_options",
    "choose",
    "choose_codec",
    "choose_codec_of_corpora",
    "earlier_choice",
]

Target = Literal["speed", "balanced", "size"]

DEFAULT_NUM_CLIPS = 24
DEFAULT_MIN_PSNR = 38.0

_MOST_ZEROS = 0.5
_LOWRANK_GAIN, _LOSSLESS_GAIN = 8, 16  # how many times smaller than raw, for speed
_EXACT_IS_WORTH = 1.25  # balanced takes what is exact where it costs at most this many times the bytes
_LOWEST_PSNR, _HIGHEST_PSNR = 20.0, 60.0  # what lowrank can be asked for


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one codec made of the sampled clips; numbers are 0 where it cannot hold them.

    Args:
        codec: Its name.
        settings: All its settings.
        exact: Whether decoding gives back every value.
        trouble: Why it cannot hold such clips; ``""`` where it can.
        clip_bytes: Mean size of a clip.
        psnr: In dB over all clips; infinite where exact.
        encode_ms: Median time to encode a clip, on one core.
        decode_ms: Median time to decode a clip, on one core.
        clips_per_second: What threads on all cores of this machine could decode, or its disk deliver, whichever is
            less.
    """

    codec: str
    settings: Mapping[str, Any]
    exact: bool
    trouble: str = ""
    clip_bytes: float = 0.0
    psnr: float = 0.0
    encode_ms: float = 0.0
    decode_ms: float = 0.0
    clips_per_second: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite PSNR is ``None``."""
        return {**asdict(self), "psnr": self.psnr if math.isfinite(self.psnr) else None}


@dataclass(frozen=True, kw_only=True)
class CodecChoice:
    """The codec for some clips, and everything that was measured.

    Args:
        codec: Name of the chosen codec.
        settings: All its settings.
        why: The reason, in one line.
        target: What it was chosen for.
        min_psnr: The floor for lossy codecs, in dB.
        num_clips: Clips that were measured.
        share_of_zeros: Of their values, in [0, 1].
        num_cores: CPU cores that the estimate counts on.
        read_bytes_per_second: Of the disk under the data; ``None`` where it was not measured.
        measurements: One a codec, in the order of the table of codecs.
        notes: What else should be known.
    """

    codec: str
    settings: Mapping[str, Any]
    why: str
    target: str
    min_psnr: float
    num_clips: int
    share_of_zeros: float
    num_cores: int
    read_bytes_per_second: float | None
    measurements: Sequence[Measurement]
    notes: Sequence[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, what was measured included."""
        value = {**asdict(self), "measurements": [each.to_json() for each in self.measurements]}
        return {name: list(each) if isinstance(each, tuple) else each for name, each in value.items()}

    def rows(self) -> list[tuple[str, ...]]:
        """The table as text: a heading, then a row a codec."""
        rows: list[tuple[str, ...]] = [("codec", "kB/clip", "PSNR dB", "encode ms", "decode ms", "clips/s", "")]
        for each in self.measurements:
            mark = "<- chosen" if each.codec == self.codec else ""
            if each.trouble:
                rows.append((each.codec, "-", "-", "-", "-", "-", each.trouble))
                continue
            rows.append(
                (
                    each.codec,
                    f"{each.clip_bytes / 1e3:,.1f}",
                    "exact" if math.isinf(each.psnr) else f"{each.psnr:.1f}",
                    f"{each.encode_ms:.2f}",
                    f"{each.decode_ms:.2f}",
                    f"{each.clips_per_second:,.0f}",
                    mark,
                )
            )
        return rows

    def lines_below(self) -> list[str]:
        """What belongs under the table."""
        speed = self.read_bytes_per_second
        disk = (
            "reading was not measured (too little to read)" if speed is None else f"the disk reads {size_text(speed)}/s"
        )
        return [
            f"{self.num_clips} clips measured, {100 * self.share_of_zeros:.1f} % of their values are exactly 0; "
            f"clips/s is an estimate for {self.num_cores} cores, {disk}",
            "lowrank needs no decoding where a linear reducer reads it on a GPU: its clips/s are for everything else",
            *(f"note: {note}" for note in self.notes),
            f"{self.codec}: {self.why}",
        ]

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        table = [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(text.rjust(width) for text, width in zip(row[1:6], widths[1:], strict=True)),
                    row[6],
                ]
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*table, *self.lines_below()])


def choose(
    measurements: Sequence[Measurement], *, target: Target, min_psnr: float, share_of_zeros: float
) -> tuple[Measurement, str]:
    """The rule: a function of bytes, PSNR and zeros.

    Args:
        measurements: Of the codecs; ``raw`` and ``lossless`` among them, which hold everything.
        target: ``"speed"``, ``"balanced"`` or ``"size"``.
        min_psnr: Floor for lossy codecs, in dB.
        share_of_zeros: Of the values, in [0, 1].

    Returns:
        The chosen one, and why, in one line.
    """
    by_name = {each.codec: each for each in measurements if not each.trouble}
    raw, lossless = by_name["raw"], by_name["lossless"]
    sparse = share_of_zeros > _MOST_ZEROS
    lossy = {} if sparse else {n: each for n, each in by_name.items() if not each.exact and each.psnr >= min_psnr}
    if target == "size":
        best = min([raw, lossless, *lossy.values()], key=lambda each: each.clip_bytes)
        reason = f"the smallest ({_kilobytes(best)})"
    elif target == "speed":
        best, reason = _fastest(raw, lossless, lossy.get("lowrank"))
    else:
        best, reason = _balanced(raw, lossless, [lossy[name] for name in ("jpeg", "lowrank") if name in lossy])
    return best, reason + _why_no_lossy(by_name, lossy, sparse, min_psnr, share_of_zeros)


def _fastest(raw: Measurement, lossless: Measurement, lowrank: Measurement | None) -> tuple[Measurement, str]:
    if lossless.clip_bytes * _LOSSLESS_GAIN <= raw.clip_bytes:
        return lossless, f"exact, {raw.clip_bytes / lossless.clip_bytes:.0f} times fewer bytes to read than raw"
    if lowrank is not None and lowrank.clip_bytes * _LOWRANK_GAIN <= raw.clip_bytes:
        gain = raw.clip_bytes / lowrank.clip_bytes
        return lowrank, f"{gain:.0f} times fewer bytes than raw to move, and a linear reducer reads them undecoded"
    return raw, "nothing to decode, and no codec that is as quick to read is much smaller"


def _balanced(raw: Measurement, lossless: Measurement, lossy: Sequence[Measurement]) -> tuple[Measurement, str]:
    exact = min(lossless, raw, key=lambda each: each.clip_bytes)
    if not lossy:
        return exact, f"the smallest of the exact ones ({_kilobytes(exact)})"
    best = min(lossy, key=lambda each: each.clip_bytes)
    if exact.clip_bytes <= _EXACT_IS_WORTH * best.clip_bytes:
        return exact, f"exact, and hardly larger than {best.codec} ({_kilobytes(exact)} and {_kilobytes(best)})"
    others = ", ".join(f"{each.codec} {_kilobytes(each)}" for each in (*lossy, exact) if each is not best)
    return best, f"the smallest that is quick to decode ({_kilobytes(best)} at {best.psnr:.1f} dB; {others})"


def _why_no_lossy(
    by_name: Mapping[str, Measurement], lossy: Mapping[str, Measurement], sparse: bool, min_psnr: float, zeros: float
) -> str:
    """What kept lossy codecs out."""
    if sparse:
        return f"; lossy codecs are out: {100 * zeros:.0f} % of the values are exactly 0, and would not stay so"
    below = [each for name, each in sorted(by_name.items()) if not each.exact and name not in lossy]
    if not below:
        return ""
    return "; below the floor of {:g} dB: {}".format(
        min_psnr, ", ".join(f"{each.codec} {each.psnr:.1f}" for each in below)
    )


def _kilobytes(each: Measurement) -> str:
    return f"{each.clip_bytes / 1e3:,.0f} kB a clip"


# ---- measuring, then choosing ----


def choose_codec(
    sources: Sequence[Source],
    options: ReadOptions,
    *,
    engine: Engine,
    target: Target = "balanced",
    min_psnr: float = DEFAULT_MIN_PSNR,
    num_clips: int = DEFAULT_NUM_CLIPS,
    deadline_seconds: float | None = None,
    show_progress: bool = False,
) -> CodecChoice:
    """Try all codecs on clips of some sources, and choose one.

    Args:
        sources: What will be converted, in any order.
        options: How they are read.
        engine: Does the work.
        target: What the codec is for; see the table above.
        min_psnr: Floor for lossy codecs, in dB; ``lowrank`` is tried at this very PSNR.
        num_clips: About how many clips are tried, of each class in turn.
        deadline_seconds: CPU seconds from one clip of a source to the next.
        show_progress: Whether to show progress on the standard error.

    Raises:
        ValueError: An unknown target, or a number out of range.
        SourceError: None of the sources that were tried can be read.
    """
    check_choice_options(target=target, min_psnr=min_psnr, num_clips=num_clips)
    trials, hopeless = _trials(options.spec, min_psnr)
    totals = measure_sources(
        sources,
        options,
        trials,
        engine=engine,
        num_clips=num_clips,
        deadline_seconds=deadline_seconds,
        show_progress=show_progress,
    )
    speed = read_bytes_per_second([path for source in sources for path in _files(source)])
    notes = [f"could not be read: {text}" for text in totals.unreadable[:5]]
    return _decide(totals, options.spec, trials, hopeless, speed, notes, target=target, min_psnr=min_psnr)


def choose_codec_of_corpora(
    corpora: Sequence[Corpus],
    *,
    engine: Engine,
    target: Target = "balanced",
    min_psnr: float = DEFAULT_MIN_PSNR,
    num_clips: int = DEFAULT_NUM_CLIPS,
    show_progress: bool = False,
) -> CodecChoice:
    """Try all codecs on clips of corpora of one spec, and choose one; as :func:`choose_codec`.

    Raises:
        ValueError: An unknown target, or a number out of range.
        ShardError: A corpus is damaged.
    """
    check_choice_options(target=target, min_psnr=min_psnr, num_clips=num_clips)
    spec = corpora[0].spec
    trials, hopeless = _trials(spec, min_psnr)
    totals = Totals()
    for corpus in corpora:
        each = -(-num_clips // len(corpora))
        totals.merge(measure_corpus(corpus, trials, engine=engine, num_clips=each, show_progress=show_progress))
    tars = [corpus.tar_location(split, 0) for corpus in corpora for split in corpus.splits]
    lossy = sorted({corpus.manifest.codec for corpus in corpora if not corpus.codec.exact})
    notes = [
        f"the clips have been through {codec} already: PSNR says how much more would be lost, and {codec} itself loses "
        "little the second time"
        for codec in lossy
    ]
    speed = read_bytes_per_second(tars)
    return _decide(totals, spec, trials, hopeless, speed, notes, target=target, min_psnr=min_psnr)


def earlier_choice(
    out: Location, wish: Mapping[str, Any], *, folder: Path | None = None
) -> tuple[str, Mapping[str, Any]] | None:
    """The choice that was made for a corpus before, so that what was begun with a codec goes on with it.

    Args:
        out: The corpus folder or its URL: finished, unfinished, or not yet there.
        wish: What is wished for now; the options there hold it as ``"chosen_for"``.
        folder: Where the shards of an unfinished corpus are made, where that is not ``out``.

    Returns:
        Codec and settings; ``None`` where none was chosen, or for another wish.
    """
    try:
        if exists(join(out, MANIFEST_NAME)):
            options = Manifest.load(out).provenance.get("options", {})
        else:
            options = read_json(join(folder or out, STAGING_NAME, "plan.json"))
    except (OSError, ValueError, ClipfoldError):
        return None
    return (options["codec"], options["codec_settings"]) if options.get("chosen_for") == dict(wish) else None


def check_choice_options(*, target: str, min_psnr: float, num_clips: int = DEFAULT_NUM_CLIPS) -> None:
    """Refuse options out of range before any work.

    Raises:
        ValueError: An unknown target, or a number out of range.
    """
    if target not in get_args(Target):
        raise ValueError(f"target: {target!r}, expected one of {', '.join(get_args(Target))}")
    if not _LOWEST_PSNR <= min_psnr <= _HIGHEST_PSNR:
        raise ValueError(f"min_psnr: {min_psnr}, expected {_LOWEST_PSNR:g} to {_HIGHEST_PSNR:g} (dB)")
    if num_clips < 1:
        raise ValueError(f"num_clips: {num_clips}, expected at least 1")


def _trials(spec: ClipSpec, min_psnr: float) -> tuple[list[Trial], dict[str, str]]:
    """All codecs of the table, and why some cannot hold the spec."""
    trials, hopeless = [], {}
    for name in CODECS:
        trial = Trial(codec=name, settings={"min_psnr": min_psnr} if name == "lowrank" else {})
        try:
            get_codec(name, trial.settings).check(spec)
        except ValueError as error:
            hopeless[name] = str(error)
        else:
            trials.append(trial)
    return trials, hopeless


def _decide(
    totals: Totals,
    spec: ClipSpec,
    trials: Sequence[Trial],
    hopeless: Mapping[str, str],
    speed: float | None,
    notes: Sequence[str],
    *,
    target: Target,
    min_psnr: float,
) -> CodecChoice:
    num_cores = num_cpus()
    settings = {trial.codec: trial.settings for trial in trials}
    measurements = []
    for name in CODECS:
        codec = get_codec(name, settings.get(name))
        trouble = hopeless.get(name) or totals.trouble(name)
        if trouble:
            measurements.append(Measurement(codec=name, settings=codec.settings(), exact=codec.exact, trouble=trouble))
            continue
        size, decode_ms = totals.clip_bytes(name), totals.decode_ms(name)
        decoded = 1e3 * totals.num_busy_cores.get(name, 1.0) / max(decode_ms, 1e-6)
        measurements.append(
            Measurement(
                codec=name,
                settings=codec.settings(),
                exact=codec.exact,
                clip_bytes=size,
                psnr=totals.psnr(name, spec),
                encode_ms=totals.encode_ms(name),
                decode_ms=decode_ms,
                clips_per_second=decoded if speed is None else min(decoded, speed / size),
            )
        )
    best, why = choose(measurements, target=target, min_psnr=min_psnr, share_of_zeros=totals.share_of_zeros)
    return CodecChoice(
        codec=best.codec,
        settings=best.settings,
        why=why,
        target=target,
        min_psnr=min_psnr,
        num_clips=totals.num_clips,
        share_of_zeros=totals.share_of_zeros,
        num_cores=num_cores,
        read_bytes_per_second=speed,
        measurements=measurements,
        notes=list(notes),
    )


def _files(source: Source) -> list[str]:
    return [str(Path(source.path) / name) for name in source.frames] or [source.path]
