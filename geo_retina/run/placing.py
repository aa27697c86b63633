"""In which CRS detections are written, and which scenes can be placed there."""

from __future__ import annotations

import pyproj

from geo_retina.errors import OptionError, SceneMismatchError
from geo_retina.run.plan import Failure, ScenePlan

FALLBACK_CRS = "EPSG:4326"
"""Where detections go whose scenes are in several CRSs."""


def choose_crs(
    wanted: str | None, plans: list[ScenePlan], failures: list[Failure]
) -> tuple[list[ScenePlan], pyproj.CRS | None]:
    """The CRS asked for, the scenes' common one, or the fallback, and the scenes that go there.

    Scenes without a CRS can share a file with each other only; among others, they fail.

    Args:
        wanted: name or text of a CRS; None for the scenes' own.
        plans: of all scenes that can be used.
        failures: scenes without a CRS among others are added.

    Returns:
        The plans of the scenes that can be placed in the CRS, and the CRS; None for scenes that
        have none.

    Raises:
        OptionError: ``wanted`` is no CRS.
        SceneMismatchError: no scene can be placed in it.
    """
    target = None if wanted is None else _parse_crs(wanted)
    found = [plan.scene.crs for plan in plans if not plan.is_outside]
    found = found or [plan.scene.crs for plan in plans]
    if target is None and all(crs == found[0] for crs in found):
        return plans, found[0]
    for plan in plans:
        if plan.scene.crs is None:
            failures.append(
                Failure(
                    plan.scene.path,
                    f"{plan.scene.path} has no CRS, so its detections cannot be placed in that of "
                    "the output; detect it by itself and without --crs, or give it a CRS, for "
                    "example with gdal_edit.py -a_srs EPSG:32633",
                )
            )
    placed = [plan for plan in plans if plan.scene.crs is not None]
    if not placed:
        raise SceneMismatchError(failures[-1].error)
    return placed, target or pyproj.CRS.from_user_input(FALLBACK_CRS)


def _parse_crs(wanted: str) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(wanted)
    except pyproj.exceptions.CRSError:
        raise OptionError(
            f"{wanted} is not a CRS that PROJ knows, wanted for example EPSG:4326"
        ) from None
