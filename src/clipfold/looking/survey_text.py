"""A survey as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clipfold.looking.findings import Spread, Survey
from clipfold.looking.tables import Table, bar
from clipfold.shards.summary import size_text

__all__ = ["survey_tables", "time_text"]

_MOST_ROWS = 20
_MOST_VALUES = 8


def survey_tables(report: Survey) -> list[Table]:
    """All there is to say, in the order in which to read it."""
    return [
        Table(title=report.root, rows=_overview(report)),
        Table(title="sizes (width x height)", rows=_histogram(report.sizes), numbers=(1,)),
        Table(title="frame rates", rows=_histogram(report.frame_rates), numbers=(1,)),
        Table(
            title="classes",
            columns=("class", "sources", "clips", ""),
            rows=_class_rows(report),
            numbers=(1, 2),
        ),
        Table(
            title=f"broken: {len(report.broken)}",
            rows=_cut([(each.name, each.reason, each.text) for each in report.broken]),
        ),
        Table(
            title=f"identical: {len(report.duplicates)} groups",
            rows=_cut([(" = ".join(names),) for names in report.duplicates]),
        ),
        Table(
            title=f"estimated from {report.num_samples} clips of {report.spec}, {report.num_workers} processes",
            columns=("codec", "exact", "kB/clip", "encode ms", "all clips", "time"),
            rows=_estimate_rows(report),
            numbers=(2, 3, 4, 5),
        ),
        Table(title="advice", rows=[(f"- {line}",) for line in report.advice]),
    ]


def time_text(seconds: float) -> str:
    """``42 s``, ``3 min 10 s``, ``5 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def _overview(report: Survey) -> list[tuple[str, str]]:
    kinds = ", ".join(
        f"{num:,} {'image folders' if kind == 'frames' else 'videos'}" for kind, num in report.kinds.items()
    )
    rows = [
        ("sources", f"{kinds}, {size_text(report.num_bytes)}"),
        ("can be read", f"{report.num_readable:,} of {report.num_sources:,}"),
        ("containers", _list(report.containers)),
        ("codecs", _list(report.codecs)),
        ("pixels", _list(report.pixel_formats)),
        ("frames", _spread(report.num_frames, "{:,.0f}")),
        ("seconds", _spread(report.duration_seconds, "{:,.1f}")),
        ("clips", f"{report.num_clips:,} of {report.spec}"),
        ("splits", _list(report.splits)),
    ]
    for name, names in (
        ("shorter than a clip", report.too_short),
        ("variable frame rate", report.variable_rate),
        ("turned by metadata", report.rotated),
        ("interlaced", report.interlaced),
        ("several video streams", report.several_streams),
        ("edit list hides frames", report.hidden_frames),
        ("grey", report.grey),
    ):
        rows.append((name, _names(names)))
    rows += [("ignored", f"{reason}: {_names(names)}") for reason, names in report.ignored.items()]
    rows.append(("looked at in", f"{time_text(report.seconds)}{', headers only' if report.is_quick else ''}"))
    return [(name, text) for name, text in rows if text]


def _class_rows(report: Survey) -> list[tuple[str, str, str, str]]:
    most = max((count.num_clips for count in report.classes.values()), default=0)
    rows = [
        (label or "(no class)", f"{count.num_sources:,}", f"{count.num_clips:,}", bar(count.num_clips, most))
        for label, count in report.classes.items()
    ]
    if len(rows) > _MOST_ROWS:
        rows.sort(key=lambda row: -int(row[2].replace(",", "")))
        half = _MOST_ROWS // 2
        rows = [*rows[:half], (f"... {len(rows) - _MOST_ROWS} more", "", "", ""), *rows[-half:]]
    return rows


def _estimate_rows(report: Survey) -> list[tuple[str, ...]]:
    return [
        (
            each.codec,
            "yes" if each.exact else "no",
            f"{each.clip_bytes / 1e3:,.1f}",
            f"{each.encode_ms:,.1f}",
            size_text(each.num_bytes),
            time_text(each.seconds),
        )
        if each.fits
        else (each.codec, "", "", "", "", each.why_not.split(",")[0])
        for each in report.estimates
    ]


def _histogram(counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    most = max(counts.values(), default=0)
    rows = [(value, f"{num:,}", bar(num, most)) for value, num in list(counts.items())[:_MOST_ROWS]]
    if len(counts) > _MOST_ROWS:
        left = sum(list(counts.values())[_MOST_ROWS:])
        rows.append((f"{len(counts) - _MOST_ROWS} others", f"{left:,}", bar(left, most)))
    return rows


def _list(counts: Mapping[str, int]) -> str:
    text = ", ".join(f"{value} {num:,}" for value, num in list(counts.items())[:_MOST_VALUES])
    return text + (f", {len(counts) - _MOST_VALUES} others" if len(counts) > _MOST_VALUES else "")


def _spread(found: Spread | None, style: str) -> str:
    if found is None:
        return ""
    least, median, most, total = (style.format(value) for value in (found.least, found.median, found.most, found.total))
    return f"{least} to {most}, median {median}, {total} in all"


def _names(names: Sequence[str], most: int = 3) -> str:
    if not names:
        return ""
    return f"{len(names):,} ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"


def _cut(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    if len(rows) <= _MOST_ROWS:
        return list(rows)
    filling = [""] * (len(rows[0]) - 1)
    return [*rows[:_MOST_ROWS], (f"... and {len(rows) - _MOST_ROWS:,} more (--json lists all)", *filling)]
