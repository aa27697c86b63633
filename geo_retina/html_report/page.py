"""``write_report``: an evaluation as a page and as layers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from geo_retina.evaluation import Evaluation
from geo_retina.files import make_report_folder, write_text
from geo_retina.html_report import sections
from geo_retina.html_report.crops import Place, count_errors, worst_places
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
    page = folder / PAGE
    write_text(page, _page(values, places))
    return page


def _page(values: Mapping[str, Any], places: Sequence[Place]) -> str:
    """Fill the template of the page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    facts = Facts(values)
    environment = Environment(
        loader=PackageLoader("geo_retina.html_report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    sides = [Path(str(side)).name for name in ("detections", "labels") if (side := facts.get(name))]
    return environment.get_template("page.html.jinja").render(
        facts=facts,
        sides=sides if len(sides) == 2 else None,
        cards=sections.cards(facts),
        notes=sections.notes(facts),
        scores=sections.scores(facts),
        curves=sections.curves(facts),
        rates=sections.RATES,
        reliability=sections.reliability(facts),
        false_reasons=sections.false_reasons(facts),
        missed_reasons=sections.missed_reasons(facts),
        switches=sections.SWITCHES,
        pictures=sections.pictures(places),
        confusion=sections.confusion(facts),
        sizes=sections.sizes(facts),
        counts=sections.counts(facts),
        scenes=sections.scenes(facts),
        # No "<" can end the element that holds the JSON.
        data=Markup(json.dumps(values, allow_nan=False).replace("<", "\\u003c")),
    )
