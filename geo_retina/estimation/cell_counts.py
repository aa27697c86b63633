"""Read what a file says of its cells: detections in all of them, objects in the completed ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely

from geo_retina.errors import LabelError
from geo_retina.evaluation.inputs.names import check_classes
from geo_retina.files import parse_json
from geo_retina.geodesy import missing_crs, reproject
from geo_retina.options import EstimateOptions, LabelOptions
from geo_retina.review import (
    NO_CELL,
    Cases,
    Frame,
    Review,
    Sample,
    fitted_cells,
    read_review,
    refuse_trained_cells,
    samples_of,
)
from geo_retina.review.detections import check_objects, pair_places
from geo_retina.review.values import Flags, Floats, Ints, Texts
from geo_retina.vector import PROBABILITY, LabelLayer, read_detections, read_metadata
from geo_retina.vector.readers.frames import read_frame
from geo_retina.vector.readers.label_layers import layer_of
from geo_retina.vector.review_layers import TRUE_STATUSES


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """Detections, or true objects, (K,) each.

    Attributes:
        cell: number of the cell that holds its centre; none lies in no cell.
        name: class.
        points: (K, 2) centres in the CRS of the review.
        weight: what it counts as a prediction: its probability, or score; 1 of a true object.
        counts: whether it is reported, from the score threshold on.
        is_hit: an object that was found, as one of its class; of detections, all false.
    """

    cell: Ints
    name: Texts
    points: Floats
    weight: Floats
    counts: Flags
    is_hit: Flags

    def __len__(self) -> int:
        return len(self.cell)

    def per_cell(self, cells: int, chosen: Flags) -> Floats:
        """Count the chosen ones in each cell."""
        return np.asarray(np.bincount(self.cell[chosen], minlength=cells), dtype=np.float64)

    def weight_per_cell(self, cells: int, chosen: Flags) -> Floats:
        """Sum the weights of the chosen ones in each cell."""
        sums = np.bincount(self.cell[chosen], self.weight[chosen], minlength=cells)
        return np.asarray(sums, dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class CellCounts:
    """All that an estimate is made of.

    Attributes:
        crs: of the centres.
        frame: all cells.
        samples: the completed cells of each stratum to count by, samples of all cells but the
            ``learnt`` ones.
        learnt: completed cells to learn from, by stratum, where the model was fitted to some:
            detections in them are better than elsewhere, so they count as what is there.
        fitted_otherwise: cells that the model was fitted to and that are not among the ``learnt``.
        found: detections in all cells.
        true: objects in the completed cells, of both kinds.
        outside: reported detections that lie in no cell.
        is_matched: whether hits come from matching centres, not from a person's entries.
        notes: what of the entries is not among all this, a sentence each.
    """

    crs: pyproj.CRS | None
    frame: Frame
    samples: tuple[Sample, ...]
    learnt: tuple[Ints, ...]
    fitted_otherwise: Ints
    found: Objects
    true: Objects
    outside: int
    is_matched: bool
    notes: tuple[str, ...]

    @property
    def cells(self) -> Ints:
        """(n,) numbers of the completed cells to count by, by stratum."""
        return np.concatenate([s.cells for s in self.samples]).astype(np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes among detections that count and objects, sorted."""
        return tuple(sorted({*self.found.name[self.found.counts], *self.true.name}))


def read_counts(
    path: str | Path,
    options: EstimateOptions,
    review: Review | None = None,
    fitted: Ints | None = None,
) -> CellCounts:
    """Read detections and the cells that were completed.

    Args:
        path: a GeoPackage under review, or any detections where the review is given.
        options: what counts.
        review: of another file of detections of the same ground.
        fitted: cells that some model was fitted to; left out, the model behind these detections.

    Raises:
        LabelError: the file, or that of the labels, cannot be read, or has no review; or the
            model was trained on cells to count by.
    """
    is_own = review is None
    review = read_review(path) if review is None else review
    found, sides = _read_found(path, review, options)
    if options.labels is not None:
        review, notes = _labelled(path, review, options, set(found.name))
    else:
        notes = review.notes
    samples = samples_of(review)
    cells = np.concatenate([s.cells for s in samples]).astype(np.int64)
    refuse_trained_cells(path, review.frame, cells)
    fitted = fitted_cells(path, review.frame) if fitted is None else fitted
    learnt = _learnt_cells(review, fitted)
    every = np.concatenate([cells, *learnt])
    cases = review.cases
    is_true = np.isin(cases.status.astype(str), (*TRUE_STATUSES, "new"))
    true = _true_objects(cases, np.isin(cases.cell, every) & is_true)
    as_handed_out = is_own and options.labels is None and _is_as_handed_out(found, cases, cells)
    if not as_handed_out:
        by_name = options.labels is None or options.class_column is not None
        reach = _reach(sides, review, options)
        true = _with_matched_hits(review.frame, found, true, reach, by_name=by_name)
    inside = found.cell != NO_CELL
    outside = int((~inside & found.counts).sum())
    return CellCounts(
        crs=review.crs,
        frame=review.frame,
        samples=tuple(
            replace(s, population=s.population - len(own))
            for s, own in zip(samples, learnt, strict=True)
        ),
        learnt=learnt,
        fitted_otherwise=np.setdiff1d(fitted, every),
        found=_take(found, inside),
        true=true,
        outside=outside,
        is_matched=not as_handed_out,
        notes=notes,
    )


def _learnt_cells(review: Review, fitted: Ints) -> tuple[Ints, ...]:
    """Completed cells to learn from, by stratum; none where the model was fitted to none.

    The run from the start of the order is a random choice of cells, so what is left of the stratum
    is one too, of which the cells to count by are a sample.
    """
    samples = samples_of(review, "learn")
    if not len(np.intersect1d(fitted, np.concatenate([s.cells for s in samples]))):
        return tuple(np.empty(0, np.int64) for _ in samples)
    return tuple(s.cells for s in samples)


def _take(objects: Objects, index: Flags | Ints) -> Objects:
    fields = ("cell", "name", "points", "weight", "counts", "is_hit")
    return Objects(**{name: getattr(objects, name)[index] for name in fields})


def _read_found(
    path: str | Path, review: Review, options: EstimateOptions
) -> tuple[Objects, Floats]:
    """Read all detections, and the sides of squares as large as their bounds."""
    table = read_detections(path)
    geometry = _moved(table, review.crs, path)
    scores = table["score"].to_numpy(np.float64)
    check_objects(path, geometry, scores, table["class"].notna().to_numpy())
    names = np.array([str(name) for name in table["class"]], dtype=object)
    limits = parse_json(read_metadata(path).get("thresholds", "{}"))
    least = np.array([float(limits.get(name, 0.0)) for name in names])
    if options.score is not None:
        least = np.full(len(names), options.score)
    weight = scores
    if PROBABILITY in table and not table[PROBABILITY].isna().any():
        weight = table[PROBABILITY].to_numpy(np.float64)
    points = _centres(geometry)
    low, high = np.split(shapely.bounds(geometry).reshape(-1, 4), 2, axis=1)
    found = Objects(
        cell=review.frame.cell_at(points),
        name=names,
        points=points,
        weight=weight,
        counts=scores >= least,
        is_hit=np.zeros(len(names), bool),
    )
    return found, np.sqrt(np.prod(high - low, axis=1))


def _moved(table: Any, crs: pyproj.CRS | None, path: str | Path) -> Texts:
    """Geometries of a table in the CRS of the review."""
    own = None if table.crs is None else pyproj.CRS.from_user_input(table.crs)
    if (own is None) != (crs is None):
        raise LabelError(_no_crs(path))
    geometry = np.asarray(table.geometry.array, dtype=object)
    return np.asarray(reproject(geometry, own, crs), dtype=object)


def _no_crs(path: str | Path) -> str:
    return missing_crs(str(path), "it cannot be laid on the cells", file=str(path))


def _centres(geometry: Texts) -> Floats:
    points = shapely.centroid(geometry)
    return np.stack([shapely.get_x(points), shapely.get_y(points)], axis=-1).reshape(-1, 2)


def _labelled(
    path: str | Path, review: Review, options: EstimateOptions, classes: set[str]
) -> tuple[Review, tuple[str, ...]]:
    """Let labels play the person: every drawn cell is done, and what is labelled is there.

    Returns:
        The review so entered, and what of the labels is not in it, a sentence each.
    """
    labels = _read_labels(review, options)
    if labels.class_names is not None:
        check_classes(classes, set(labels.class_names), str(path), labels.path)
    elif len(classes) > 1 and options.by == "class":
        raise LabelError(
            f"{labels.path} tells no classes and the detections have {len(classes)}, expected the "
            "column with them; give EstimateOptions.class_column"
        )
    geometry = labels.geometries
    if review.crs is not None:
        geometry = np.asarray(reproject(geometry, labels.crs, review.crs), dtype=object)
    n, cell = len(geometry), review.frame.cell_at(_centres(geometry))
    if n and (cell == NO_CELL).all():
        raise LabelError(
            f"none of the {n:,} labels of {labels.path} lies on the ground of {review.path}, "
            "expected labels of that ground, since it would count as bare; check their CRS and "
            "place"
        )
    name = labels.class_names
    if name is None:
        name = np.full(n, next(iter(sorted(classes)), "object"), dtype=object)
    cases = Cases(
        status=np.full(n, "added", dtype=object),
        name=name,
        found_name=np.full(n, None, dtype=object),
        score=np.full(n, np.nan),
        weight=np.ones(n),
        geometry=geometry,
        cell=cell,
        case_id=np.full(n, -1),
        is_touched=np.ones(n, bool),
    )
    notes = () if not _dropped(labels) else (_without_place(labels),)
    return replace(review, is_done=review.is_drawn, cases=cases), notes


def _read_labels(review: Review, options: EstimateOptions) -> LabelLayer:
    """Read labels by the rules for those of a training or an evaluation."""
    path = str(options.labels)
    remedy = "choose one with EstimateOptions.labels_layer"
    table = read_frame(path, layer=options.labels_layer, layer_remedy=remedy)
    if review.crs is None:
        if table.crs is not None:
            raise LabelError(_no_crs(path))
        table = table.set_crs(_OF_PIXELS)
    source = LabelOptions(path=path, class_column=options.class_column)
    return layer_of(table, path, source, strict=True)


_OF_PIXELS = 'LOCAL_CS["pixels",UNIT["metre",1]]'
"""Stands for the CRS that labels of pictures do not have; nothing is reprojected."""


def _dropped(labels: LabelLayer) -> int:
    return labels.dropped_null + labels.dropped_empty + labels.dropped_invalid


def _without_place(labels: LabelLayer) -> str:
    dropped = _dropped(labels)
    return (
        f"{dropped:,} of {len(labels.geometries) + dropped:,} labels of {labels.path} have no "
        "usable geometry and do not count; if they are objects, all numbers are too low"
    )


def _true_objects(cases: Cases, chosen: Flags) -> Objects:
    return Objects(
        cell=cases.cell[chosen],
        name=cases.name[chosen],
        points=_centres(cases.geometry[chosen]),
        weight=np.ones(int(chosen.sum())),
        counts=np.ones(int(chosen.sum()), bool),
        is_hit=_are_hits(cases)[chosen],
    )


def _are_hits(cases: Cases) -> Flags:
    """Tell which rows are detections that are objects of their class."""
    is_true = np.isin(cases.status.astype(str), (*TRUE_STATUSES, "new"))
    was_found = cases.found_name != np.array(None)
    return np.asarray(is_true & was_found & (cases.found_name == cases.name), dtype=bool)


def _is_as_handed_out(found: Objects, cases: Cases, cells: Ints) -> bool:
    """Tell whether completed cells still hold the detections that a person judged."""
    now = np.isin(found.cell, cells) & found.counts
    then = np.isin(cases.cell, cells) & (cases.found_name != np.array(None))
    return sorted(zip(found.cell[now].tolist(), found.name[now], strict=True)) == sorted(
        zip(cases.cell[then].tolist(), cases.found_name[then], strict=True)
    )


def _reach(sides: Floats, review: Review, options: EstimateOptions) -> Floats:
    """Distances up to which a detection is an object, in evened units of the CRS."""
    if options.radius_m is None:
        return sides / 2
    return np.full(len(sides), options.radius_m * review.units_a_metre)


def _with_matched_hits(
    frame: Frame, found: Objects, true: Objects, reach: Floats, *, by_name: bool
) -> Objects:
    """Mark objects whose centres pair with those of detections, one to one, nearest first.

    Detections of all ground take part: one whose centre lies beyond the side of a cell finds an
    object in it, as often as it is the other way round. ``by_name`` a pair counts only where both
    have one class; labels may tell none.
    """
    rows = np.flatnonzero(found.counts)
    i, j = pair_places(frame.evened(found.points[rows]), frame.evened(true.points), reach[rows])
    same = (found.name[rows[i]] == true.name[j]) | (not by_name)
    is_hit = np.zeros(len(true), bool)
    is_hit[j[same]] = True
    return replace(true, is_hit=is_hit)
