"""The parts of an evaluation's page, one function each; a part without content is empty."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

from geo_retina.html_report.crops import Place, picture
from geo_retina.html_report.facts import Facts, Form, table
from geo_retina.html_report.gis_layers import FALSE_COLOUR, MISSED_COLOUR, TRUE_COLOUR
from geo_retina.html_report.svg import SERIES, Plot, legend

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
    "best_f1": ("best F1", "rate"),
    "best_score": ("at score", "rate"),
}
_CARDS = ("f1", "precision", "recall", "ap50", "ap", "position_error_m")
_RATES = (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))
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


def cards(facts: Facts) -> str:
    """Show the numbers that people look at first, with their intervals."""
    parts = []
    for field in _CARDS:
        if facts.get("overall", field) is not None:
            name = "position error, m" if field == "position_error_m" else _COLUMNS[field][0]
            interval = facts.span("overall", "intervals", field)
            parts.append(_card(name, facts.show("overall", field), interval))
    found = facts.show("overall", "detections", form="count")
    there = facts.show("overall", "labels", form="count")
    parts.append(_card("found", found, f"{there} labels"))
    share = facts.show("count_error", "relative", form="share")
    interval = facts.span("count_error", "interval", form="share")
    parts.append(_card("count error", share, interval))
    return f'<div class="cards">{"".join(parts)}</div>'


def _card(name: str, value: str, interval: str) -> str:
    return (
        f'<div class="card"><div class="name">{escape(name)}</div><div class="value">{value}</div>'
        f'<div class="span">{interval}</div></div>'
    )


def scores(facts: Facts) -> str:
    """Show scores by class and over all."""
    classes = facts.get("classes") or {}
    places: dict[str, tuple[str | int, ...]] = {name: ("classes", name) for name in classes}
    places[_whole(classes)] = ("overall",)
    return _section("Scores", _score_table("class", facts, places, total=True))


def _score_table(
    title: str, facts: Facts, rows: Mapping[str, tuple[str | int, ...]], *, total: bool = False
) -> str:
    """Show a row of numbers for each place in the JSON, without columns that are empty."""
    fields = [f for f in _COLUMNS if any(facts.get(*at, f) is not None for at in rows.values())]
    cells = [
        [escape(name), *(facts.show(*at, f, form=_COLUMNS[f][1]) for f in fields)]
        for name, at in rows.items()
    ]
    return table([title, *(_COLUMNS[f][0] for f in fields)], cells, kind="wide", total=total)


def curves(facts: Facts) -> str:
    """Plot precision over recall, and the rates over score thresholds."""
    overall = facts.get("overall", "curve")
    if not overall or not overall["scores"]:
        return ""
    classes = facts.get("classes") or {}
    named: dict[str, Any] = {_whole(classes): overall}
    if 1 < len(classes) < SERIES:  # more lines than colours would tell nobody anything
        named |= {name: facts.get("classes", name, "curve") for name in classes}
    ways = Plot((0, 1), (0, 1.02), "recall", "precision")
    lines = [
        ways.line(_points(curve, "recall", "precision"), f"s{i}")
        for i, curve in reversed(list(enumerate(named.values())))
    ]
    keys = legend([(f"s{i}", name) for i, name in enumerate(named)]) if len(named) > 1 else ""
    left = f"<h3>Precision over recall</h3>{ways.svg('precision over recall', lines)}{keys}"
    return _section("Curves", _pair(left, _thresholds(facts, overall)))


def _whole(classes: Collection[str]) -> str:
    """Name all classes together by a name that no class has."""
    return "all" if "all" not in classes else "all classes"


def _thresholds(facts: Facts, curve: Mapping[str, Any]) -> str:
    # Scores of other tools may go beyond 1.
    span = min(0, curve["scores"][-1]), max(1, curve["scores"][0])
    by_score = Plot(span, (0, 1.02), "score threshold", "rate")
    marks = [
        by_score.line(_points(curve, "scores", field), f"s{i}")
        for i, (field, _) in enumerate(_RATES)
    ]
    note = ""
    best, at = facts.get("overall", "best_f1"), facts.get("overall", "best_score")
    if at is not None:
        marks.append(by_score.dot(at, best, "best s2", f"best F1 {best:.3f} at {at:.3f}", 5))
        note = (
            f'<p class="quiet">The best F1 is {facts.show("overall", "best_f1")}, with scores '
            f"from {facts.show('overall', 'best_score')}.</p>"
        )
    if facts.get("score") is not None:
        marks.append(by_score.upright(facts.get("score"), f"used: {facts.get('score'):g}"))
    keys = legend([(f"s{i}", name) for i, (_, name) in enumerate(_RATES)])
    return f"<h3>By score threshold</h3>{by_score.svg('rates by threshold', marks)}{keys}{note}"


def reliability(facts: Facts) -> str:
    """Plot the share of true detections over their score."""
    known = facts.get("reliability")
    if not known:
        return ""
    plane = Plot((0, 1), (0, 1.02), "score", "share of true ones")
    points = zip(known["predicted"], known["share"], known["detections"], strict=True)
    marks = [
        plane.line([(0, 0), (1, 1)], "s1"),
        *(
            plane.dot(x, y, "s0", f"{n:,} detections of mean score {x:.3f}: {y:.1%} are true")
            for x, y, n in points
        ),
    ]
    note = (
        '<p class="quiet">Each dot is a tenth of the detections, by score; on the line, scores are '
        f"probabilities. The expected calibration error is {facts.show('reliability', 'error')}; "
        "<code>geo-retina calibrate</code> fits probabilities.</p>"
    )
    return _section("Reliability of scores", plane.svg("reliability of scores", marks) + note)


def _points(curve: Mapping[str, Any], x: str, y: str) -> list[tuple[float, float]]:
    pairs = zip(curve[x], curve[y], strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def errors(facts: Facts) -> str:
    """Show why detections are false and labels were missed."""
    left = _reasons(facts, "false_positive", _FALSE_REASONS, "false")
    right = _reasons(facts, "missed", _MISSED_REASONS, "missed")
    about = (
        '<p class="quiet">Every one of them, and every match, is a feature in '
        '<a href="errors.gpkg">errors.gpkg</a>, in the colours of the pictures.'
    )
    if not facts.get("places"):
        about += (
            " Give the scenes with the report to have pictures of the places where most went wrong."
        )
    sides = _pair(f"<h3>False detections</h3>{left}", f"<h3>Missed labels</h3>{right}")
    return _section("What went wrong", f"{sides}{about}</p>")


def _reasons(facts: Facts, side: str, reasons: Mapping[str, str], mark: str) -> str:
    counts = facts.get("errors", side)
    most = max(counts.values())
    if not most:
        return '<p class="quiet">None.</p>'
    rows = []
    for kind, reason in reasons.items():
        if not counts[kind]:
            continue
        share = 100 * counts[kind] / most
        bar = f'<span class="stripe {mark}" style="width:{share:.1f}%"></span>'
        rows.append([escape(reason), facts.show("errors", side, kind, form="count"), bar])
    # The bar's cell has a class of its own, so that it takes what room there is.
    made = table(["", "", ""], rows, kind="wide bars")
    return made.replace('<td><span class="stripe', '<td class="bar"><span class="stripe')


def confusion(facts: Facts) -> str:
    """Show which class was taken for which."""
    names = facts.get("confusion", "names")
    if not names:
        return ""
    matrix = facts.get("confusion", "matrix")
    titles = [*names, "nothing"]
    rows = []
    for i, name in enumerate(titles):
        most = max([1, *matrix[i]])
        cells = []
        for j, count in enumerate(matrix[i]):
            if i == j == len(names):
                cells.append("")
                continue
            side = "right" if i == j else "wrong"
            shown = facts.show("confusion", "matrix", i, j, form="count")
            cells.append(f'<span class="{side}" style="--share:{count / most:.3f}">{shown}</span>')
        rows.append([escape(name), *cells])
    about = (
        '<p class="quiet">True classes down, found ones across; the last column was missed, the '
        "last row found where nothing is. Shades tell shares of a row.</p>"
    )
    made = table(["true \\ found", *titles], rows, kind="confusion")
    return _section("Confusion between classes", made + about)


def sizes(facts: Facts) -> str:
    """Show scores by the size of objects, in pixels and in metres."""
    ranges = facts.get("sizes") or []
    tables, plots = [], []
    for unit in ("px", "m"):
        places: dict[str, tuple[str | int, ...]]
        places = {
            _range_text(each): ("sizes", i, "overall")
            for i, each in enumerate(ranges)
            if each["unit"] == unit and each["overall"]["labels"] + each["overall"]["detections"]
        }
        if places:
            tables.append(_score_table("size", facts, places))
            plots.append(f"<div>{_size_plot(facts, places)}</div>")
    about = (
        '<p class="quiet">The size of an object is the square root of its area. Labels of other '
        "sizes need not be found in a row.</p>"
    )
    pictures = f'<div class="pair plots">{"".join(plots)}</div>'
    return _section("By size", "<br>".join(tables) + pictures + about) if tables else ""


def _range_text(each: Mapping[str, Any]) -> str:
    low, high, unit = each["low"], each["high"], each["unit"]
    if high is None:
        return f"from {low:.3g} {unit}"
    return f"{low:.3g} to {high:.3g} {unit}" if low else f"under {high:.3g} {unit}"


def _size_plot(facts: Facts, places: Mapping[str, tuple[str | int, ...]]) -> str:
    plot = Plot((-0.5, len(places) - 0.5), (0, 1.02), "", "rate", steps=tuple(places))
    marks = []
    for place, (name, at) in enumerate(places.items()):
        for i, (field, title) in enumerate(_RATES):
            value = facts.get(*at, field)
            if value is not None:
                start = place - 0.36 + 0.24 * i
                tip = f"{name}: {title} {value:.3f}"
                marks.append(plot.bar((start, start + 0.22), value, f"s{i}", tip))
    return plot.svg("rates by size", marks) + legend(
        [(f"s{i}", title) for i, (_, title) in enumerate(_RATES)]
    )


def counts(facts: Facts) -> str:
    """Show predicted against labelled counts, by scene, cell or zone."""
    titles = {"scene": "scene", "cell": "grid cell", "zone": "zone"}
    parts = []
    for unit in facts.get("counts") or {}:
        at = ("counts", unit)
        rows = [
            [f"{titles.get(unit, unit)}s", facts.show(*at, "parts", form="count")],
            ["bias", facts.show(*at, "bias")],
            ["mean absolute error", facts.show(*at, "mae")],
            ["root mean square error", facts.show(*at, "rmse")],
            ["R²", facts.show(*at, "r2")],
        ]
        made = f"<h3>Per {titles.get(unit, unit)}</h3>{table(['', ''], rows)}"
        parts.append(_pair(_count_plot(facts, unit, titles.get(unit, unit)), made))
    return _section("Counts", "".join(parts)) if parts else ""


def _count_plot(facts: Facts, unit: str, title: str) -> str:
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


def scenes(facts: Facts) -> str:
    """Show scores by scene, those with most errors first."""
    known = facts.get("scenes") or {}
    if not known:
        return ""

    def wrong(name: str) -> int:
        each = known[name]
        return int(each["labels"] + each["detections"] - 2 * each["matches"])

    names = sorted(known, key=lambda name: (-wrong(name), name))
    places: dict[str, tuple[str | int, ...]] = {name: ("scenes", name) for name in names}
    first = {name: places[name] for name in names[:_MOST_SCENES]}
    made = _score_table("scene", facts, first)
    if len(names) > _MOST_SCENES:
        rest = {name: places[name] for name in names[_MOST_SCENES:]}
        made += (
            f"<details><summary>The other {len(rest):,} scenes</summary>"
            f"{_score_table('scene', facts, rest)}</details>"
        )
    return _section("Scenes, those with most false and missed objects first", made)


def pictures(facts: Facts, places: Sequence[Place]) -> str:
    """Show where most went wrong, with switches for what is drawn."""
    if not places:
        return ""
    kinds = (
        ("false", "false detection", FALSE_COLOUR),
        ("missed", "missed label", MISSED_COLOUR),
        ("true", "matched detection", TRUE_COLOUR),
        ("found", "matched label", "#ffffff"),
    )
    switches = "".join(_switch(*each) for each in kinds)
    figures = "".join(
        f"<figure>{picture(place)}<figcaption>{escape(place.name)} "
        f"<span>{facts.show('places', i, 'false', form='count')} false, "
        f"{facts.show('places', i, 'missed', form='count')} missed</span></figcaption></figure>"
        for i, place in enumerate(places)
    )
    return _section("Where most went wrong", f'{switches}<div class="gallery">{figures}</div>')


def _switch(kind: str, name: str, colour: str) -> str:
    return (
        f'<label class="toggle"><input type="checkbox" id="show-{kind}" checked>'
        f'<span class="swatch" style="--line:{colour}"></span>{name}</label>'
    )


def notes(facts: Facts) -> str:
    """Write what else has to be known to read the numbers."""
    said = []
    if facts.get("block_m") is not None:
        said.append(
            "Intervals hold 95 % of draws of ground blocks of "
            f"{facts.show('block_m', form='plain')} m a side."
        )
    detections, labels = facts.get("overall", "ignored"), facts.get("ignored_labels")
    if detections or labels:
        said.append(
            f"{facts.show('overall', 'ignored', form='count')} detections and "
            f"{facts.show('ignored_labels', form='count')} labels do not count."
        )
    if facts.get("scenes_without_labels"):
        said.append(
            "Scenes with detections and no label: "
            f"{facts.show('scenes_without_labels', form='count')}; what was found there counts as "
            "false."
        )
    if alone := facts.get("scenes_without_detections"):
        said.append(
            f"Scenes with labels and no detection: {len(alone)}; what was labelled there counts "
            "as missed."
        )
    return f'<p class="quiet">{" ".join(said)}</p>' if said else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _pair(left: str, right: str) -> str:
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>'
