"""``write_report``: an evaluation as a page and as layers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from geo_retina.evaluation import Evaluation
from geo_retina.files import make_report_folder, write_text
from geo_retina.html_report import sections
from geo_retina.html_report.crops import count_errors, worst_places
from geo_retina.html_report.facts import Facts
from geo_retina.html_report.gis_layers import write_errors
from geo_retina.scene import Scene, scene_names

PAGE, LAYERS = "report.html", "errors.gpkg"
"""Files of a report's folder."""


def check_report(folder: str | Path, *, overwrite: bool) -> None:
    """Refuse a report that could not be written, before work is spent on it.

    Raises:
        OutputError: the folder holds a report and ``overwrite`` is false, is a file, or
            cannot be made.
    """
    make_report_folder(Path(folder), (PAGE, LAYERS), overwrite=overwrite)


def write_report(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    about: Mapping[str, Any] | None = None,
    scenes: Sequence[Scene] = (),
    overwrite: bool = False,
) -> Path:
    """Write an evaluation for people: ``report.html`` and ``errors.gpkg``.

    The page is one file that needs nothing else, no network either. Its JSON, in the element
    ``evaluation``, holds every number that it shows, and every number says where it stands
    there. ``errors.gpkg`` has the layers true_positive, false_positive and missed, which QGIS
    opens in colours.

    Args:
        evaluation: as ``evaluate`` gives it.
        folder: made where there is none.
        about: more for the JSON, such as ``detections`` and ``labels``, which name the two
            sides on the page.
        scenes: imagery for pictures of the places where most went wrong.
        overwrite: replace an earlier report.

    Returns:
        The page.

    Raises:
        OutputError: the folder holds a report already or cannot be written.
        SceneError: a scene has no CRS, or cannot be read.

    Examples:
        >>> from geo_retina import evaluate, write_report
        >>> evaluation = evaluate("detections.gpkg", "labels.gpkg")
        >>> write_report(evaluation, "report").name
        'report.html'
    """
    folder = Path(folder)
    check_report(folder, overwrite=overwrite)
    names = scene_names([scene.path for scene in scenes])
    places = worst_places(evaluation.matches, scenes, names)
    values = {
        **(about or {}),
        **evaluation.to_dict(),
        "errors": count_errors(evaluation.matches),
        "places": [place.to_dict() for place in places],
    }
    write_errors(evaluation.matches, folder / LAYERS, overwrite=overwrite)
    facts = Facts(values)
    parts = (
        sections.cards(facts),
        sections.notes(facts),
        sections.scores(facts),
        sections.curves(facts),
        sections.reliability(facts),
        sections.errors(facts),
        sections.pictures(facts, places),
        sections.confusion(facts),
        sections.sizes(facts),
        sections.counts(facts),
        sections.scenes(facts),
    )
    page = folder / PAGE
    write_text(page, _page(_title(facts), "".join(parts), values))
    return page


def _title(facts: Facts) -> str:
    detections, labels = facts.get("detections"), facts.get("labels")
    sides = ""
    if detections and labels:
        named = [escape(Path(str(side)).name) for side in (detections, labels)]
        sides = f"<b>{named[0]}</b> against <b>{named[1]}</b>, "
    score = facts.show("score", form="plain")
    since = "" if facts.get("score") is None else f", scores from {score}"
    matching = escape(str(facts.get("matching")))
    return f'<h1>Evaluation</h1><p class="lede">{sides}matched by {matching}{since}</p>'


def _page(head: str, body: str, values: Mapping[str, Any]) -> str:
    style = (
        resources.files("geo_retina.html_report").joinpath("page.css").read_text(encoding="utf-8")
    )
    # No "<" can end the element that holds the JSON.
    data = json.dumps(values, allow_nan=False).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>Evaluation</title><link rel="icon" href="data:,"><style>{style}</style></head>\n'
        f"<body><main><header>{head}</header>{body}"
        "<footer>Made by geo-retina.</footer></main>\n"
        f'<script type="application/json" id="evaluation">{data}</script></body></html>\n'
    )
