"""Draw cases and cells by status in a GIS, and let them be edited by a form."""

from __future__ import annotations

from collections.abc import Sequence

from geo_retina.review.values import Texts
from geo_retina.vector import class_style
from geo_retina.vector.review_layers import CELL_STATUSES, CELLS, REVIEW, STATUSES
from geo_retina.vector.writers.forms import FormField, with_form
from geo_retina.vector.writers.styles import Kind

_CASE_COLOURS = {
    "new": "#ffd400",
    "accepted": "#44bb77",
    "rejected": "#e31a1c",
    "changed": "#4da6ff",
    "added": "#ff55ff",
}
_CELL_COLOURS = {"new": "#ffffff", "done": "#44bb77"}


def review_styles(kind: Kind, classes: Sequence[str]) -> dict[str, str]:
    """Make the styles of both layers.

    Args:
        kind: of the cases' geometries.
        classes: known ones; an object that a person adds is of the only one, or it is asked for.

    Returns:
        QML by name of layer.
    """
    cases = class_style(STATUSES, column="status", kind=kind, colours=_CASE_COLOURS)
    cells = class_style(CELL_STATUSES, column="status", colours=_CELL_COLOURS)
    locked, hidden = FormField(is_locked=True), FormField(is_locked=True, is_hidden=True)
    only = _text(classes[0]) if len(classes) == 1 else ""
    case_fields = {
        "status": FormField(choices=STATUSES, default=_text("added"), is_required=True),
        "class": FormField(choices=tuple(classes), is_open=True, default=only, is_required=True),
        "note": FormField(is_long=True),
        "weight": FormField(default="1"),
        "reason": locked,
        "score": locked,
        "priority": locked,
        "cell": locked,
        "fid": hidden,
        "case_id": hidden,
    }
    cell_fields = {
        "status": FormField(choices=CELL_STATUSES, is_required=True),
        "note": FormField(is_long=True),
        **dict.fromkeys(("use", "stratum", "place", "zone", "cell"), locked),
        "fid": hidden,
    }
    case_title = "\"status\" || ' ' || coalesce(\"class\", '')"
    cell_title = '"status" || \', \' || "use"'
    by_priority = '("status" <> \'new\') * 1e9 + coalesce("priority", 0)'
    by_place = '("status" <> \'new\') * 1e9 + "place"'
    return {
        REVIEW: with_form(cases, case_fields, sort=by_priority, title=case_title),
        CELLS: with_form(cells, cell_fields, sort=by_place, title=cell_title),
    }


def known_classes(named: Sequence[str], *columns: Texts) -> tuple[str, ...]:
    """List the model's classes, then others that rows have, sorted."""
    others = {name for column in columns for name in column if name}
    return (*named, *sorted(others - set(named)))


def _text(value: str) -> str:
    """Quote a text as an expression of QGIS."""
    return "'" + value.replace("'", "''") + "'"
