"""What to do about what a survey found: one line each, with the flag that does it."""

from __future__ import annotations

from collections.abc import Iterator

from clipfold.ingest.reader import ReadOptions
from clipfold.looking.findings import Survey

__all__ = ["advice_on"]

_FEW_SOURCES = 10  # of a class: a tenth of fewer is none
_UNBALANCED = 3.0
_UNEVEN_RATES = 1.5
_ODD_SHAPE = 4.0


def advice_on(report: Survey, options: ReadOptions) -> list[str]:
    """The lines, those about damage first."""
    return [*_damage(report), *_lengths(report, options), *_values(report, options), *_classes(report), *_cost(report)]


def _damage(report: Survey) -> Iterator[str]:
    if report.broken:
        yield (
            f"{len(report.broken)} of {report.num_sources} sources {_are(len(report.broken))} broken: `convert` leaves "
            "them out and lists them in skipped.jsonl; --keep-partial keeps the full clips before the damage, "
            "--on-error raise stops instead."
        )
    if report.crossing_duplicates:
        yield (
            f"{len(report.crossing_duplicates)} groups of identical sources have different classes or splits: a "
            "label is wrong, or test data is in train. Remove the copies."
        )
    inside = len(report.duplicates) - len(report.crossing_duplicates)
    if inside:
        yield (
            f"{inside} groups of identical sources: a random split may put copies into both train and test. Remove all "
            "but one of each (--exclude leaves them out)."
        )
    if report.is_quick:
        yield (
            "this was a quick look: frame counts come from headers; damage behind the first frame, duplicates and "
            "variable frame rates were not looked for."
        )


def _lengths(report: Survey, options: ReadOptions) -> Iterator[str]:
    S, lengths = options.spec.num_frames, report.num_frames
    if report.too_short and lengths is not None:
        line = (
            f"{len(report.too_short)} of {report.num_readable} {_are(len(report.too_short))} shorter than {S} frames"
            + (f" in steps of {options.sampling.frame_step}" if options.sampling.frame_step > 1 else "")
            + ": --short repeat_last pads them (the default), --short drop leaves them out"
        )
        if lengths.median < S:
            line += f"; --num-frames {max(1, int(lengths.median))} fits half of them"
        yield line + "."
    rates = sorted(float(rate) for rate in report.frame_rates if rate != "unknown")
    if rates and rates[-1] > _UNEVEN_RATES * rates[0]:
        yield (
            f"frame rates from {rates[0]:g} to {rates[-1]:g}: {S} frames are {S / rates[-1]:.1f} to {S / rates[0]:.1f} "
            "seconds, so the same motion looks slower or faster."
        )
    if report.variable_rate:
        yield (
            f"{len(report.variable_rate)} with a variable frame rate: clips take frames by number, so time runs "
            "unevenly in them. Encode them again at a constant rate where that matters."
        )
    if report.several_streams:
        yield f"{len(report.several_streams)} with several video streams: the best one (the largest, mostly) is read."
    if report.hidden_frames:
        yield f"{len(report.hidden_frames)} with an edit list that hides frames: those are not read, as in a player."
    if report.rotated:
        yield f"{len(report.rotated)} turned by metadata: read upright, nothing to do."
    if report.interlaced:
        yield f"{len(report.interlaced)} interlaced: frames stay as they are; deinterlace first if combs disturb."


def _values(report: Survey, options: ReadOptions) -> Iterator[str]:
    deep = {dtype: num for dtype, num in report.dtypes.items() if dtype != "uint8"}
    if deep and options.spec.dtype == "uint8":
        dtype = "float32" if "float32" in deep else "uint16"
        found = ", ".join(f"{num} of {name}" for name, num in deep.items())
        yield (
            f"{found}: 8-bit clips lose their values (floats are refused); --dtype {dtype} --codec lossless keeps them."
        )
    if report.grey and len(report.grey) == report.num_readable and options.spec.channels == 3:
        yield "all sources are grey: --channels 1 makes clips a third as large."
    if report.zero_share > 0.5:
        yield (
            f"{100 * report.zero_share:.0f} % of the pixels are exactly 0: --codec lossless is small and exact here; "
            "lossy codecs turn empty pixels into values."
        )
    odd = [size for size in report.sizes if _stretch(size, options) > _ODD_SHAPE]
    num = sum(report.sizes[size] for size in odd)
    if num and options.resize == "stretch":
        yield (
            f"{num} of {report.num_readable} {_are(num)} stretched more than {_ODD_SHAPE:g} times in one direction to "
            f"fit {options.spec.width}x{options.spec.height}: choose --height and --width, or --resize center_crop."
        )


def _stretch(size: str, options: ReadOptions) -> float:
    width, height = map(int, size.split("x"))
    ratio = (options.spec.width / options.spec.height) / (width / height)
    return max(ratio, 1 / ratio)


def _classes(report: Survey) -> Iterator[str]:
    labelled = {label: count for label, count in report.classes.items() if label}
    if not labelled:
        yield "no classes: clips get no label. One folder a class gives them labels."
        return
    if "" in report.classes:
        yield f"{report.classes[''].num_sources} sources lie outside the class folders: their clips get no label."
    empty = [label for label, count in labelled.items() if not count.num_sources]
    if empty:
        yield f"classes without a readable source: {_some(empty)}."
    clips = {label: count.num_clips for label, count in labelled.items() if count.num_clips}
    if len(labelled) == 1:
        yield "only one class: there is nothing to tell apart."
    elif clips and max(clips.values()) > _UNBALANCED * min(clips.values()):
        share = max(clips.values()) / sum(clips.values())
        yield (
            f"classes are unbalanced: the largest has {max(clips.values()) / min(clips.values()):.0f} times the clips "
            f"of the smallest; always answering it is right in {100 * share:.0f} % of the clips."
        )
    if not report.splits:
        few = [label for label, count in labelled.items() if 0 < count.num_sources < _FEW_SOURCES]
        yield (
            "no folders train/, val/, test/: --split 0.8/0.1/0.1 divides by source within each class"
            + (f"; {_some(few)} with fewer than {_FEW_SOURCES} sources may miss val or test." if few else ".")
        )
    elif "test" not in report.splits and "val" not in report.splits:
        yield "only train/ is there: nothing is left to evaluate on."


def _cost(report: Survey) -> Iterator[str]:
    for reason, names in report.ignored.items():
        yield f"{len(names)} ignored, {reason}: {_some(names)}."
    fitting = [each for each in report.estimates if each.fits]
    if len(fitting) > 1 and report.num_clips:
        smallest = min(fitting, key=lambda each: each.num_bytes)
        exact = min((each for each in fitting if each.exact), key=lambda each: each.num_bytes, default=None)
        line = f"smallest: --codec {smallest.codec}, {smallest.clip_bytes / 1e3:,.0f} kB a clip"
        if exact is not None and exact != smallest:
            line += f"; smallest that keeps every value: --codec {exact.codec}, {exact.clip_bytes / 1e3:,.0f} kB"
        yield line + "."


def _are(num: int) -> str:
    return "is" if num == 1 else "are"


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
