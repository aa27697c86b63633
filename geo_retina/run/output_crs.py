"""In which CRS detections are written, and which scenes can be placed there."""

from __future__ import annotations

from collections.abc import Sequence

import pyproj

from geo_retina.errors import SceneMismatchError
from geo_retina.geodesy import (
    FALLBACK_CRS,
    are_expressible,
    crs_label,
    is_connected,
    is_on_earth,
    is_same,
    missing_crs,
    parse_crs,
)
from geo_retina.run.plan import Failure, ScenePlan


def choose_output_crs(
    requested: str | None, plans: Sequence[ScenePlan]
) -> tuple[list[ScenePlan], list[Failure], pyproj.CRS | None]:
    """Choose the output's CRS, given, common or fallback, and the scenes that can be placed in it.

    Scenes without a CRS, or in a local one, share a file only with others of it; among others, they
    fail, and so do scenes where the CRS of the output has no coordinates.

    Args:
        requested: name or text of a CRS; None for the scenes' own.
        plans: of all scenes that can be used.

    Returns:
        The plans of the scenes that can be placed in the CRS, the other scenes, and the CRS; None
        for scenes that have none.

    Raises:
        OptionError: ``requested`` is no CRS.
        SceneMismatchError: no scene can be placed in it.
    """
    target = None if requested is None else parse_crs(requested)
    found = [plan.scene.crs for plan in plans if not plan.is_outside]
    found = found or [plan.scene.crs for plan in plans]
    if target is None and all(is_same(crs, found[0]) for crs in found):
        return list(plans), [], found[0]
    target = target or pyproj.CRS.from_user_input(FALLBACK_CRS)
    placed, misplaced = [], []
    for plan in plans:
        reason = _why_not(plan, target)
        if reason is None:
            placed.append(plan)
        else:
            misplaced.append(Failure(plan.scene.path, reason))
    if not placed:
        raise SceneMismatchError(misplaced[-1].error)
    return placed, misplaced, target


def _why_not(plan: ScenePlan, target: pyproj.CRS) -> str | None:
    """Say why a scene's detections have no place in a CRS; None where they have."""
    path, grid, own = plan.scene.path, plan.scene.grid, plan.scene.crs
    if own is None:
        so = "its detections cannot be placed in that of the output"
        otherwise = ", or detect it by itself and without the argument crs"
        return missing_crs(path, so, otherwise=otherwise)
    if not is_connected(own, target):
        local = own if not is_on_earth(own) else target
        return (
            f"{path} is in {crs_label(own)} and the output in {crs_label(target)}, but the local "
            f"CRS {crs_label(local)} has no place on Earth, so its detections cannot be placed in "
            "that of the output; detect it by itself and without the argument crs, or give it "
            "its right CRS, for example with gdal_edit.py -a_srs EPSG:32633"
        )
    if plan.is_outside or are_expressible(grid.lattice_crs(), grid.crs, target).all():
        return None
    return (
        f"{path} lies where {crs_label(target)}, the CRS of the output, has no coordinates; choose "
        "one that covers it with the argument crs, or leave that out"
    )
