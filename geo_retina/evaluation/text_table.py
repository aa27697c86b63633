"""Evaluations as text in columns, for people at a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from geo_retina.evaluation.metrics.counts import CountError, Counts
from geo_retina.evaluation.metrics.scores import Confusion, Scores, SizeScores

_COLUMNS = {
    "labels": "labels",
    "detections": "found",
    "matches": "matched",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap": "AP50:95",
    "position_error_m": "error m",
    "angle_error_deg": "angle err",
    "angle_error_95_deg": "95 % of it",
    "length_error_m": "length err m",
    "width_error_m": "width err m",
    "best_f1": "best F1",
    "best_score": "at score",
}
_MOST_CLASSES = 12
_WORST_SCENES = 3
_MOST_SCENES = 5


def score_table(
    title: str, rows: Mapping[str, Scores], intervals: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Write one row of scores per name, with the columns that any of them has."""
    fields = [f for f in _COLUMNS if any(getattr(s, f) is not None for s in rows.values())]
    cells = [[title, *(_COLUMNS[f] for f in fields)]]
    cells += [[name, *(_text(getattr(s, f)) for f in fields)] for name, s in rows.items()]
    if intervals:
        for end, name in enumerate(("  95 % from", "  to")):
            ends = (intervals[f][end] if f in intervals else None for f in fields)
            cells.append([name, *("" if x is None else _text(x) for x in ends)])
    return aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Align cells in columns, the first to the left and the others to the right."""
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        "  ".join([name.ljust(first), *(c.rjust(w) for c, w in zip(rest, widths, strict=True))])
        for name, *rest in cells
    ]


def size_tables(sizes: Sequence[SizeScores]) -> list[str]:
    """Write the scores of each range of sizes that holds an object, px before m."""
    lines: list[str] = []
    for unit in ("px", "m"):
        rows = {
            _range_text(each): each.overall
            for each in sizes
            if each.unit == unit and each.overall.labels + each.overall.detections
        }
        if rows:
            lines += ["", *score_table("size", rows, {})]
    return lines


def _range_text(size: SizeScores) -> str:
    if not math.isfinite(size.high):
        return f"{size.low:g} {size.unit} and more"
    if not size.low:
        return f"under {size.high:g} {size.unit}"
    return f"{size.low:g} to {size.high:g} {size.unit}"


def confusion_table(confusion: Confusion | None) -> list[str]:
    """Format true classes down, found ones across; nothing where the rest says as much."""
    if confusion is None or not 2 <= len(confusion.names) <= _MOST_CLASSES:
        return []
    cells = [["true \\ found", *confusion.names, "nothing"]]
    for name, row in zip((*confusion.names, "nothing"), confusion.matrix.tolist(), strict=True):
        cells.append([name, *(str(x) for x in row)])
    return ["", *aligned(cells)]


def count_notes(error: CountError, counts: Mapping[str, Counts]) -> list[str]:
    """Tell how far the number found is from the number labelled, in all and by part."""
    share = "" if error.relative is None else f", {error.relative:+.1%} of the labels"
    if error.interval is not None:
        share += f" (95 % from {error.interval[0]:+.1%} to {error.interval[1]:+.1%})"
    notes = [f"count error: {error.total:+d}{share}"]
    for unit, each in counts.items():
        r2 = "" if each.r2 is None else f", R2 {each.r2:.3f}"
        notes.append(
            f"count error per {unit}, over {len(each)}: bias {each.bias:+.2f}, "
            f"mean absolute {each.mae:.2f}, root mean square {each.rmse:.2f}{r2}"
        )
    return notes


def ignored_notes(detections: int, labels: int) -> list[str]:
    """Tell how many objects do not count, if any."""
    if not detections and not labels:
        return []
    return [f"do not count: {detections} detections, {labels} labels"]


def not_scanned_notes(labels: int) -> list[str]:
    """Tell how many labels could not be found, if any."""
    if not labels:
        return []
    return [
        f"{labels:,} labels lie on ground that was not scanned, and count as missed; to leave them "
        "out, give the scanned ground, a layer of the detections' file or beside it, as the ground"
    ]


def duplicate_notes(labels: int) -> list[str]:
    """Tell how many labels repeat others, if any."""
    if not labels:
        return []
    return [f"{labels:,} labels repeat another exactly; each counts, so remove the duplicates"]


def unpaired_notes(without_labels: int, without_detections: Sequence[str]) -> list[str]:
    """Tell of scenes that one side alone names."""
    notes = []
    if without_labels:
        notes.append(
            f"{without_labels} scenes have detections and no label; their detections count as false"
        )
    if without_detections:
        count = len(without_detections)
        more = f" and {count - _MOST_SCENES:,} more" if count > _MOST_SCENES else ""
        notes.append(
            f"{count:,} scenes have labels and no detection, so their labels count as missed: "
            f"{', '.join(without_detections[:_MOST_SCENES])}{more}; where nothing was found there "
            "this is right, else the scene column names other files than the detections do"
        )
    return notes


def worst_scenes(scenes: Mapping[str, Scores]) -> list[str]:
    """Name the scenes with the most false and missed objects."""
    if len(scenes) <= _WORST_SCENES:
        return []
    wrong = {n: s.labels + s.detections - 2 * s.matches for n, s in scenes.items()}
    worst = sorted(wrong, key=lambda name: (-wrong[name], name))[:_WORST_SCENES]
    listed = ", ".join(f"{n} ({wrong[n]}, F1 {_text(scenes[n].f1)})" for n in worst)
    return [f"scenes with most false and missed objects: {listed}"]


def _text(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
