"""Take what a person entered in a review as labels, labelled ground, and false positives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.dataset.regions import Regions
from geo_retina.dataset.sources import Source
from geo_retina.errors import LabelError
from geo_retina.geodesy import METRES_A_DEGREE, missing_crs, reproject, unit_m
from geo_retina.options import DataOptions, LabelOptions
from geo_retina.review import NO_CELL, Cases, Review, read_review
from geo_retina.scene import Scene
from geo_retina.vector import LabelLayer, layer_crs, read_companions
from geo_retina.vector.formats import GEOMETRY
from geo_retina.vector.review_layers import TRUE_STATUSES


@dataclass(frozen=True, eq=False)
class Reviewed:
    """What training takes of a review; cells to count by are none of it.

    Attributes:
        source: objects that a person accepted, changed or added, and all of completed cells to
            learn from; cases that nobody looked at are ignored.
        labelled: completed cells to learn from, and the places of other cases that were looked at.
        counting: drawn cells to count by, whose ground is not trained on.
        seen: all ground of the review; what of it is not ``labelled`` is unknown.
        rejected: (K,) centres of detections that are no objects, in ``crs``.
        rejected_weights: (K,) how much each counts.
        crs: of the review.
        about: for the model's card.
    """

    source: Source
    labelled: Regions
    counting: Regions
    seen: Regions
    rejected: NDArray[np.object_]
    rejected_weights: NDArray[np.float64]
    crs: pyproj.CRS
    about: dict[str, Any]

    def ground(self, scene: Scene, labelled: Any | None, *, is_only: bool) -> Any | None:
        """Add the reviewed ground to that of a scene which other layers of labels tell of.

        Args:
            scene: whose grid's pixels the result is in.
            labelled: ground labelled otherwise; None for all of it.
            is_only: there are no other labels.
        """
        if labelled is None and not is_only and shapely.is_empty(self.seen.under(scene)):
            return None
        # All ground of a review was labelled by others only where they say which.
        other = shapely.Polygon() if labelled is None else labelled
        found = shapely.union(other, self.labelled.under(scene))
        found = shapely.difference(found, self.counting.under(scene))
        shapely.prepare(found)
        return found

    def rejected_on(self, scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give (K, 2) grid pixels of the rejected detections on a scene, and (K,) weights."""
        grid = scene.grid
        moved = reproject(self.rejected, self.crs, grid.crs)
        points_px = grid.crs_to_pixels(shapely.get_coordinates(moved).reshape(-1, 2))
        inside = (points_px >= 0) & (points_px < [grid.width, grid.height])
        on = np.isfinite(points_px).all(axis=1) & inside.all(axis=1)
        return points_px[on], self.rejected_weights[on]


def read_reviewed(options: DataOptions, *, oriented: bool = False) -> Reviewed | None:
    """Read the review that a training's data name; None where they name none.

    Args:
        options: scenes and layers.
        oriented: of a case, the ground of its own shape is labelled; else that of the upright box.

    Raises:
        LabelError: it cannot be read, or holds nothing to learn from.
    """
    if options.review is None:
        return None
    review = read_review(options.review)
    if review.crs is None:
        so = "its entries have no place on the scenes"
        raise LabelError(missing_crs(options.review, so, file=options.review))
    cases = review.cases
    counting = np.append(review.is_drawn & (review.frame.use == "count"), np.False_)
    learning = np.append(review.is_done & (review.frame.use == "learn"), np.False_)
    in_learning = learning[cases.cell]
    has_place = ~(shapely.is_missing(cases.geometry) | shapely.is_empty(cases.geometry))
    usable = ~counting[cases.cell] & has_place
    is_true = np.isin(cases.status.astype(str), TRUE_STATUSES)
    is_true = usable & (is_true | ((cases.status == "new") & in_learning))
    waits = usable & (cases.status == "new") & ~in_learning
    rejected = usable & (cases.status == "rejected")
    if not (is_true | rejected).any() and not learning.any():
        raise LabelError(
            f"{options.review} holds no entry to learn from: no case that was checked outside "
            "the cells to count by, and no completed cell to learn from; review some first"
        )
    source = _source(options, review, is_true, waits)
    frame = review.frame
    shapes = [
        *frame.squares(np.flatnonzero(learning)),
        *_patches(options, cases, is_true | rejected, review.crs, oriented=oriented),
    ]
    return Reviewed(
        source=source,
        labelled=_regions(options.review, shapes, review.crs),
        counting=_regions(options.review, frame.squares(np.flatnonzero(counting)), review.crs),
        seen=_seen(options.review),
        rejected=np.asarray(shapely.centroid(cases.geometry[rejected]), dtype=object),
        rejected_weights=cases.weight[rejected],
        crs=review.crs,
        about=_about(review, learning, is_true, rejected),
    )


def _source(
    options: DataOptions, review: Review, is_true: NDArray[np.bool_], waits: NDArray[np.bool_]
) -> Source:
    """Make a layer of labels of the cases that are objects, and of those to ignore."""
    assert options.review is not None
    assert review.crs is not None
    cases = review.cases
    rows = is_true | waits
    layer = LabelLayer(
        options.review,
        cases.geometry[rows],
        review.crs,
        class_names=cases.name[rows],
        ignored=waits[rows],
        weights=cases.weight[rows],
    )
    own = LabelOptions(
        path=options.review,
        layer="review",
        class_column="class",
        point_size_m=options.point_size_m,
    )
    return Source(own, layer, len(layer), np.zeros(len(layer), np.int64))


def _patches(
    options: DataOptions, cases: Cases, rows: NDArray[np.bool_], crs: pyproj.CRS, *, oriented: bool
) -> list[Any]:
    """Outline the places of cases: what lies around them was not looked at."""
    shapes = cases.geometry[rows]
    is_point = shapely.get_dimensions(shapes) == 0
    if is_point.any() and options.point_size_m is not None:
        unit = METRES_A_DEGREE if crs.is_geographic else unit_m(crs)
        half = options.point_size_m / 2 / unit
        shapes[is_point] = shapely.buffer(shapes[is_point], half, cap_style="square")
    return list(shapely.convex_hull(shapes) if oriented else shapely.envelope(shapes))


def _regions(path: str, shapes: Iterable[Any], crs: pyproj.CRS) -> Regions:
    return Regions(LabelLayer(path, np.array([*shapes, None], dtype=object)[:-1], crs))


def _seen(path: str) -> Regions:
    """Read the ground over which detections were made."""
    companions = read_companions(path)
    crs = layer_crs(path)
    if companions is None or companions.scanned is None or crs is None:
        raise LabelError(f"{path} does not say which ground was scanned; detect again")
    outlines = shapely.from_wkb(companions.scanned[GEOMETRY].to_numpy())
    return _regions(path, list(outlines[~shapely.is_missing(outlines)]), crs)


def _about(
    review: Review,
    learning: NDArray[np.bool_],
    is_true: NDArray[np.bool_],
    rejected: NDArray[np.bool_],
) -> dict[str, Any]:
    """Tell, for the card, which cells were trained on; nobody may count by these."""
    used = review.cases.cell[is_true | rejected]
    used = used[used != NO_CELL]
    return {
        "file": review.path.name,
        "frame": review.frame.fingerprint,
        "cells": sorted({*np.flatnonzero(learning).tolist(), *used.tolist()}),
        "objects": int(is_true.sum()),
        "rejected": int(rejected.sum()),
    }
