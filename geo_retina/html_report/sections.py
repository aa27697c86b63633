"""What the parts of an evaluation's page show, one function each; the templates say how."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from geo_retina.html_report.crops import Place, picture
from geo_retina.html_report.facts import Facts, Form
from geo_retina.html_report.gis_layers import FALSE_COLOUR, MISSED_COLOUR, TRUE_COLOUR
from geo_retina.html_report.svg import SERIES, Plot

_COLUMNS: dict[str, tuple[str, Form]] = {
    "labels": ("labels", "count"),
    "detections": ("found", "count"),
    "matches": ("matched", "count"),
    "precision": ("precision", "rate"),
    "recall": ("recall", "rate"),
    "f1": ("F1", "rate"),
    "ap50": ("AP50", "rate"),
    "ap75": ("AP75", "rate"),
    "ap": ("AP50:95", "rate"),
    "position_error_m": ("error m", "rate"),
    "angle_error_deg": ("angle error", "rate"),
    "angle_error_95_deg": ("95 % of it", "rate"),
    "length_error_m": ("length error m", "rate"),
    "width_error_m": ("width error m", "rate"),
    "best_f1": ("best F1", "rate"),
    "best_score": ("at score", "rate"),
}
_CARDS = ("f1", "precision", "recall", "ap50", "ap", "position_error_m", "angle_error_deg")
_RATES = (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))
RATES = tuple((f"s{i}", name) for i, (_, name) in enumerate(_RATES))
"""Marks of the rates on plots, and their names."""
SWITCHES = (
    ("false", "false detection", FALSE_COLOUR),
    ("missed", "missed label", MISSED_COLOUR),
    ("true", "matched detection", TRUE_COLOUR),
    ("found", "matched label", "#ffffff"),
)
"""Marks on pictures, what they are, and their colours."""

Table = tuple[list[str], list[list[str]]]
"""Titles of columns and rows of cells, of which the first is the row's title."""
_MOST_SCENES = 15
_FALSE_REASONS = {
    "background": "nothing is labelled there",
    "location": "overlaps a label too little",
    "duplicate": "its label has a better match",
    "class": "its label is of another class",
}
_MISSED_REASONS = {
    "background": "nothing was found there",
    "location": "a detection overlaps it too little",
    "duplicate": "its detection fits another label better",
    "class": "found as another class",
}


def cards(facts: Facts) -> list[tuple[str, Markup, str]]:
    """Choose the numbers that people look at first: name, number and interval."""
    made: list[tuple[str, Markup, str]] = []
    for field in _CARDS:
        if facts.get("overall", field) is not None:
            name = "position error, m" if field == "position_error_m" else _COLUMNS[field][0]
            interval = facts.span("overall", "intervals", field)
            made.append((name, facts.show("overall", field), interval))
    found = facts.show("overall", "detections", form="count")
    labels = facts.show("overall", "labels", form="count") + " labels"
    share = facts.show("count_error", "relative", form="share")
    interval = facts.span("count_error", "interval", form="share")
    return [*made, ("found", found, labels), ("count error", share, interval)]


def scores(facts: Facts) -> Table:
    """List scores by class and over all."""
    classes = facts.get("classes") or {}
    places: dict[str, tuple[str | int, ...]] = {name: ("classes", name) for name in classes}
    places[_whole(classes)] = ("overall",)
    return _score_table("class", facts, places)


def _score_table(title: str, facts: Facts, rows: Mapping[str, tuple[str | int, ...]]) -> Table:
    """List a row of numbers for each place in the JSON, without columns that are empty."""
    fields = [f for f in _COLUMNS if any(facts.get(*at, f) is not None for at in rows.values())]
    cells = [
        [name, *(facts.show(*at, f, form=_COLUMNS[f][1]) for f in fields)]
        for name, at in rows.items()
    ]
    return [title, *(_COLUMNS[f][0] for f in fields)], cells


def curves(facts: Facts) -> dict[str, Any] | None:
    """Plot precision over recall, and the rates over score thresholds."""
    overall = facts.get("overall", "curve")
    if not overall or not overall["scores"]:
        return None
    classes = facts.get("classes") or {}
    named: dict[str, Any] = {_whole(classes): overall}
    if 1 < len(classes) < SERIES:  # more lines than colours would tell nobody anything
        named |= {name: facts.get("classes", name, "curve") for name in classes}
    ways = Plot((0, 1), (0, 1.02), "recall", "precision")
    lines = [
        ways.line(_points(curve, "recall", "precision"), f"s{i}")
        for i, curve in reversed(list(enumerate(named.values())))
    ]
    return {
        "recall": ways.svg("precision over recall", lines),
        "classes": [(f"s{i}", name) for i, name in enumerate(named)] if len(named) > 1 else [],
        "thresholds": _thresholds(facts, overall),
        "has_best": facts.get("overall", "best_score") is not None,
    }


def _whole(classes: Collection[str]) -> str:
    """Name all classes together by a name that no class has."""
    return "all" if "all" not in classes else "all classes"


def _thresholds(facts: Facts, curve: Mapping[str, Any]) -> Markup:
    """Plot the rates over score thresholds."""
    # Scores of other tools may go beyond 1.
    span = min(0, curve["scores"][-1]), max(1, curve["scores"][0])
    by_score = Plot(span, (0, 1.02), "score threshold", "rate")
    marks = [
        by_score.line(_points(curve, "scores", field), f"s{i}")
        for i, (field, _) in enumerate(_RATES)
    ]
    best, at = facts.get("overall", "best_f1"), facts.get("overall", "best_score")
    if at is not None:
        marks.append(by_score.dot(at, best, "best s2", f"best F1 {best:.3f} at {at:.3f}", 5))
    if facts.get("score") is not None:
        marks.append(by_score.upright(facts.get("score"), f"used: {facts.get('score'):g}"))
    return by_score.svg("rates by threshold", marks)


def reliability(facts: Facts) -> Markup | None:
    """Plot the share of true detections over their score."""
    known = facts.get("reliability")
    if not known:
        return None
    plane = Plot((0, 1), (0, 1.02), "score", "share of true ones")
    points = zip(known["predicted"], known["share"], known["detections"], strict=True)
    marks = [
        plane.line([(0, 0), (1, 1)], "s1"),
        *(
            plane.dot(x, y, "s0", f"{n:,} detections of mean score {x:.3f}: {y:.1%} are true")
            for x, y, n in points
        ),
    ]
    return plane.svg("reliability of scores", marks)


def _points(curve: Mapping[str, Any], x: str, y: str) -> list[tuple[float, float]]:
    pairs = zip(curve[x], curve[y], strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def false_reasons(facts: Facts) -> list[tuple[str, Markup, float]]:
    """List why detections are false: reason, count, and its percentage of the largest."""
    return _reasons(facts, "false_positive", _FALSE_REASONS)


def missed_reasons(facts: Facts) -> list[tuple[str, Markup, float]]:
    """List why labels were missed: reason, count, and its percentage of the largest."""
    return _reasons(facts, "missed", _MISSED_REASONS)


def _reasons(
    facts: Facts, side: str, reasons: Mapping[str, str]
) -> list[tuple[str, Markup, float]]:
    counts = facts.get("errors", side)
    most = max(counts.values())
    return [
        (reason, facts.show("errors", side, kind, form="count"), 100 * counts[kind] / most)
        for kind, reason in reasons.items()
        if counts[kind]
    ]


def confusion(facts: Facts) -> dict[str, Any] | None:
    """List which class was taken for which."""
    names = facts.get("confusion", "names")
    if not names:
        return None
    matrix = facts.get("confusion", "matrix")
    titles = [*names, "nothing"]
    rows = []
    for i, name in enumerate(titles):
        most = max([1, *matrix[i]])
        cells = [
            {
                "side": "right" if i == j else "wrong",
                "share": count / most,
                "shown": facts.show("confusion", "matrix", i, j, form="count"),
            }
            for j, count in enumerate(matrix[i])
        ]
        if i == len(names):
            cells[i] = {}
        rows.append((name, cells))
    return {"names": titles, "rows": rows}


def sizes(facts: Facts) -> list[dict[str, Any]]:
    """List and plot scores by the size of objects, in pixels and in metres."""
    ranges = facts.get("sizes") or []
    made = []
    for unit in ("px", "m"):
        places: dict[str, tuple[str | int, ...]]
        places = {
            _range_text(each): ("sizes", i, "overall")
            for i, each in enumerate(ranges)
            if each["unit"] == unit and each["overall"]["labels"] + each["overall"]["detections"]
        }
        if places:
            scores = _score_table("size", facts, places)
            made.append({"scores": scores, "plot": _size_plot(facts, places)})
    return made


def _range_text(each: Mapping[str, Any]) -> str:
    low, high, unit = each["low"], each["high"], each["unit"]
    if high is None:
        return f"from {low:.3g} {unit}"
    return f"{low:.3g} to {high:.3g} {unit}" if low else f"under {high:.3g} {unit}"


def _size_plot(facts: Facts, places: Mapping[str, tuple[str | int, ...]]) -> Markup:
    plot = Plot((-0.5, len(places) - 0.5), (0, 1.02), "", "rate", steps=tuple(places))
    marks = []
    for place, (name, at) in enumerate(places.items()):
        for i, (field, title) in enumerate(_RATES):
            value = facts.get(*at, field)
            if value is not None:
                start = place - 0.36 + 0.24 * i
                tip = f"{name}: {title} {value:.3f}"
                marks.append(plot.bar((start, start + 0.22), value, f"s{i}", tip))
    return plot.svg("rates by size", marks)


def counts(facts: Facts) -> list[dict[str, Any]]:
    """Plot predicted against labelled counts, by scene, cell or zone."""
    titles = {"scene": "scene", "cell": "grid cell", "zone": "zone"}
    parts = []
    for unit in facts.get("counts") or {}:
        at, title = ("counts", unit), titles.get(unit, unit)
        rows = [
            [f"{title}s", facts.show(*at, "parts", form="count")],
            ["bias", facts.show(*at, "bias")],
            ["mean absolute error", facts.show(*at, "mae")],
            ["root mean square error", facts.show(*at, "rmse")],
            ["R²", facts.show(*at, "r2")],
        ]
        parts.append({"title": title, "plot": _count_plot(facts, unit, title), "rows": rows})
    return parts


def _count_plot(facts: Facts, unit: str, title: str) -> Markup:
    """Plot one dot for every pair of counts, larger where several parts have it."""
    there, found = facts.get("counts", unit, "there"), facts.get("counts", unit, "found")
    tally: dict[tuple[int, int], int] = {}
    for pair in zip(there, found, strict=True):
        tally[pair] = tally.get(pair, 0) + 1
    high = max([1, *there, *found]) * 1.05
    plot = Plot((0, high), (0, high), f"labels per {title}", f"found per {title}")
    marks = [plot.line([(0, 0), (high, high)], "thin")]
    for (a, b), times in sorted(tally.items()):
        tip = f"{a} there, {b} found" + (f", {times} times" if times > 1 else "")
        marks.append(plot.dot(a, b, "s0", tip, min(3.2 * times**0.35, 16)))
    return plot.svg(f"counts per {title}", marks)


def scenes(facts: Facts) -> dict[str, Table] | None:
    """List scores by scene, those with most errors first."""
    known = facts.get("scenes") or {}
    if not known:
        return None

    def wrong(name: str) -> int:
        each = known[name]
        return int(each["labels"] + each["detections"] - 2 * each["matches"])

    names = sorted(known, key=lambda name: (-wrong(name), name))
    places: dict[str, tuple[str | int, ...]] = {name: ("scenes", name) for name in names}
    made = {}
    for part, chosen in (("first", names[:_MOST_SCENES]), ("rest", names[_MOST_SCENES:])):
        if chosen:
            made[part] = _score_table("scene", facts, {name: places[name] for name in chosen})
    return made


def pictures(places: Sequence[Place]) -> list[tuple[str, Markup]]:
    """Draw where most went wrong; pairs of a scene's name and a picture."""
    return [(place.name, picture(place)) for place in places]


def notes(facts: Facts) -> list[str]:
    """Write what else has to be known to read the numbers."""
    said: list[str] = []
    if facts.get("block_m") is not None:
        side = facts.show("block_m", form="plain")
        said.append(
            Markup("Intervals hold 95 % of draws of ground blocks of {} m a side.").format(side)
        )
    detections, labels = facts.get("overall", "ignored"), facts.get("ignored_labels")
    if detections or labels:
        counts = (
            facts.show("overall", "ignored", form="count"),
            facts.show("ignored_labels", form="count"),
        )
        said.append(Markup("{} detections and {} labels do not count.").format(*counts))
    if facts.get("labels_not_scanned"):
        said.append(
            Markup("Labels on ground that was not scanned: {}; they count as missed.").format(
                facts.show("labels_not_scanned", form="count")
            )
        )
    if facts.get("duplicate_labels"):
        said.append(
            Markup("Labels that repeat another exactly: {}; each counts.").format(
                facts.show("duplicate_labels", form="count")
            )
        )
    if facts.get("scenes_without_labels"):
        said.append(
            Markup(
                "Scenes with detections and no label: {}; what was found there counts as false."
            ).format(facts.show("scenes_without_labels", form="count"))
        )
    if alone := facts.get("scenes_without_detections"):
        said.append(
            f"Scenes with labels and no detection: {len(alone)}; what was labelled there counts "
            "as missed."
        )
    return said
