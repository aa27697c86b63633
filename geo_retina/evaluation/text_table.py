"""Evaluations as text in columns, for people at a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from geo_retina.evaluation.metrics.scores import Confusion, Scores, SizeScores

if TYPE_CHECKING:
    from geo_retina.evaluation.result import Evaluation

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
    "best_f1": "best F1",
    "best_score": "at score",
}
_MOST_CLASSES = 12
_WORST_SCENES = 3
_MOST_SCENES = 5


def describe(evaluation: Evaluation) -> str:
    """Format the numbers that people look at first, under one another."""
    score = evaluation.score
    since = "" if score is None else f", scores from {score:g}"
    rows = {**evaluation.classes, "all": evaluation.overall}
    parts = [f"matched by {evaluation.matching}{since}"]
    parts += _score_table("class", rows, evaluation.overall.intervals)
    for unit in ("px", "m"):
        sizes = [s for s in evaluation.sizes if s.unit == unit]
        ranges = {
            _range_text(s): s.overall for s in sizes if s.overall.labels + s.overall.detections
        }
        if ranges:
            parts += ["", *_score_table("size", ranges, {})]
    if evaluation.confusion is not None:
        parts += _confusion_table(evaluation.confusion)
    return "\n".join([*parts, *([""] if len(parts) > 1 else []), *_notes(evaluation)])


def _score_table(
    title: str, rows: Mapping[str, Scores], intervals: Mapping[str, tuple[float, float]]
) -> list[str]:
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


def _range_text(size: SizeScores) -> str:
    if not math.isfinite(size.high):
        return f"{size.low:g} {size.unit} and more"
    if not size.low:
        return f"under {size.high:g} {size.unit}"
    return f"{size.low:g} to {size.high:g} {size.unit}"


def _confusion_table(confusion: Confusion) -> list[str]:
    """Format true classes down, found ones across; nothing where the rest says as much."""
    if not 2 <= len(confusion.names) <= _MOST_CLASSES:
        return []
    cells = [["true \\ found", *confusion.names, "nothing"]]
    for name, row in zip((*confusion.names, "nothing"), confusion.matrix.tolist(), strict=True):
        cells.append([name, *(str(x) for x in row)])
    return ["", *aligned(cells)]


def _notes(evaluation: Evaluation) -> list[str]:
    error = evaluation.count_error
    share = "" if error.relative is None else f", {error.relative:+.1%} of the labels"
    if error.interval is not None:
        share += f" (95 % from {error.interval[0]:+.1%} to {error.interval[1]:+.1%})"
    notes = [f"count error: {error.total:+d}{share}"]
    for unit, counts in evaluation.counts.items():
        r2 = "" if counts.r2 is None else f", R2 {counts.r2:.3f}"
        notes.append(
            f"count error per {unit}, over {len(counts)}: bias {counts.bias:+.2f}, "
            f"mean absolute {counts.mae:.2f}, root mean square {counts.rmse:.2f}{r2}"
        )
    notes += _worst_scenes(evaluation.scenes)
    if evaluation.overall.ignored or evaluation.ignored_labels:
        notes.append(
            f"do not count: {evaluation.overall.ignored} detections, "
            f"{evaluation.ignored_labels} labels"
        )
    if evaluation.scenes_without_labels:
        notes.append(
            f"{evaluation.scenes_without_labels} scenes have detections and no label; their "
            "detections count as false"
        )
    if alone := evaluation.scenes_without_detections:
        more = f" and {len(alone) - _MOST_SCENES:,} more" if len(alone) > _MOST_SCENES else ""
        notes.append(
            f"{len(alone):,} scenes have labels and no detection, so their labels count as missed: "
            f"{', '.join(alone[:_MOST_SCENES])}{more}; where nothing was found there this is "
            "right, else the scene column names other files than the detections do"
        )
    if evaluation.block_m is not None:
        notes.append(f"intervals drawn from ground blocks of {evaluation.block_m:g} m")
    return notes


def _worst_scenes(scenes: Mapping[str, Scores]) -> list[str]:
    """Name the scenes with the most false and missed objects."""
    if len(scenes) <= _WORST_SCENES:
        return []
    wrong = {n: s.labels + s.detections - 2 * s.matches for n, s in scenes.items()}
    worst = sorted(wrong, key=lambda name: (-wrong[name], name))[:_WORST_SCENES]
    told = ", ".join(f"{n} ({wrong[n]}, F1 {_text(scenes[n].f1)})" for n in worst)
    return [f"scenes with most false and missed objects: {told}"]


def _text(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
