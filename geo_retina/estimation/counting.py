"""``estimate``: how many objects there are, from detections and completed cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geo_retina.errors import LabelError
from geo_retina.estimation.cell_counts import CellCounts, read_counts
from geo_retina.estimation.planning import plan_target
from geo_retina.estimation.result import CountEstimate, CountRow
from geo_retina.estimation.stratified import Design, Floats
from geo_retina.estimation.totals import Estimate, estimate_share, estimate_total
from geo_retina.options import EstimateOptions
from geo_retina.review import Sample
from geo_retina.review.values import Flags, Ints, Texts
from geo_retina.review.zones import read_zones, zones_at

FEWEST_OF_ZONE = 10
"""Completed cells of a zone without which its total has no interval."""

_FEWEST_OF_STRATUM = 2
_SQUARE_METRES = 10_000.0


def estimate(path: str | Path, options: EstimateOptions = EstimateOptions()) -> CountEstimate:
    """Estimate how many objects there are on all ground that was detected on.

    Objects are those of the cells of use *count* that a person completed, the run from the start
    of each stratum's random order; detections everywhere say how the other ground differs.

    Args:
        path: a GeoPackage that ``detect`` wrote and ``review`` prepared.
        options: what is counted, and how.

    Returns:
        Totals, densities, precision and recall, each with its 95 % interval.

    Raises:
        LabelError: the file has no review, or the completed cells allow no valid estimate.

    Examples:
        >>> from geo_retina import estimate
        >>> total = estimate("reviewed.gpkg").overall.total
        >>> low, high = total.interval
        >>> low <= total.value <= high
        True
    """
    counts = read_counts(path, options)
    plan = None if options.target is None else plan_target(counts, options.target)
    if plan is not None and not len(counts.cells):
        return _only(counts, options, plan)
    check_samples(counts.samples, path)
    every = _Counting(counts, options)
    overall = every.overall()
    classes = () if options.by is None else tuple(map(every.class_row, counts.class_names))
    zones = () if options.zones is None else _zone_rows(every, overall, options)
    return CountEstimate(
        overall=overall,
        classes=classes,
        zones=zones,
        objects_seen=int(np.isin(counts.true.cell, counts.cells).sum()),
        cells=len(counts.cells),
        population=len(counts.frame),
        estimator=options.estimator,
        plan=plan,
        notes=_notes(counts, zones),
    )


def count_all(counts: CellCounts, options: EstimateOptions) -> CountRow:
    """Estimate the total of all objects, without classes and zones."""
    return _Counting(counts, options).overall()


def _only(counts: CellCounts, options: EstimateOptions, plan: Any) -> CountEstimate:
    """Hold a plan alone: nothing was completed yet."""
    return CountEstimate(
        overall=None,
        classes=(),
        zones=(),
        objects_seen=0,
        cells=0,
        population=len(counts.frame),
        estimator=options.estimator,
        plan=plan,
        notes=(),
    )


def check_samples(samples: tuple[Sample, ...], path: str | Path) -> None:
    """Refuse strata from which too few cells were completed to tell of the others.

    Raises:
        LabelError: there are such.
    """
    few = [s for s in samples if len(s) < min(_FEWEST_OF_STRATUM, s.population)]
    if not few:
        return
    lacking = ", ".join(
        f"stratum {s.stratum}{'' if s.zone is None else f' (zone {s.zone})'} {len(s)} of "
        f"{s.population:,}"
        for s in few[:5]
    )
    beyond = sum(s.not_counted for s in few)
    gap = f"; {beyond} more are done out of turn, beyond a gap in the order" if beyond else ""
    raise LabelError(
        f"{path} has too few completed cells of use count, in {lacking}{gap}; expected "
        f"{_FEWEST_OF_STRATUM} or more in each of its {len(samples)} strata, in the order of "
        "place, since they say nothing of other ground otherwise; set these cells to done in the "
        "layer cells"
    )


class _Counting:
    """Rows of one file's counts, each over some of its objects."""

    def __init__(self, counts: CellCounts, options: EstimateOptions) -> None:
        self.counts, self.options = counts, options
        self.sampled = sampling_design(counts)
        self.cells, self.design = _with_learnt(counts)
        self.hectares = float(counts.frame.area_m2.sum()) / _SQUARE_METRES

    def helper(self, chosen: Flags) -> Floats:
        """(N,) what detections say of each cell.

        With a slope that the cells tell, sums of scores serve better than counts: they hold what
        lies below the threshold too, and doubtful ones weigh less.
        """
        found, n = self.counts.found, len(self.counts.frame)
        if self.options.estimator == "prediction-powered":
            return found.weight_per_cell(n, chosen)
        return found.per_cell(n, chosen & found.counts)

    def row(self, name: str, found: Flags, true: Flags) -> CountRow:
        """Estimate the total of some objects, and how well they were found."""
        counts, cells = self.counts, self.counts.cells
        total = self.total(found, true)
        n = len(counts.frame)
        reported = found & counts.found.counts
        hit = counts.true.per_cell(n, true & counts.true.is_hit)[cells]
        return CountRow(
            name=name,
            detected=int(reported.sum()),
            cells=len(cells),
            total=total,
            per_hectare=_scaled(total, self.hectares),
            precision=self.share(hit, counts.found.per_cell(n, reported)[cells]),
            recall=self.share(hit, counts.true.per_cell(n, true)[cells]),
        )

    def overall(self) -> CountRow:
        """Estimate the total of all objects."""
        found, true = self.counts.found, self.counts.true
        return self.row("all", np.ones(len(found), bool), np.ones(len(true), bool))

    def class_row(self, name: str) -> CountRow:
        """Estimate the total of a class."""
        return self.row(name, self.counts.found.name == name, self.counts.true.name == name)

    def share(self, part: Floats, whole: Floats) -> Estimate | None:
        """Estimate a share; None of nothing."""
        return estimate_share(part, whole, self.sampled) if whole.any() else None

    def total(self, found: Flags, true: Flags) -> Estimate:
        """Estimate the total of some objects."""
        helper, cells = self.helper(found), self.cells
        present = self.counts.true.per_cell(len(self.counts.frame), true)[cells]
        return estimate_total(
            present, helper[cells], float(helper.sum()), self.design, self.options.estimator
        )


def sampling_design(counts: CellCounts) -> Design:
    """Tell which cells the completed ones to count by stand for."""
    strata = np.concatenate([np.full(len(s), at) for at, s in enumerate(counts.samples)])
    return Design(strata.astype(np.int64), np.array([s.population for s in counts.samples]))


def _with_learnt(counts: CellCounts) -> tuple[Ints, Design]:
    """Add completed cells to learn from, which stand for nothing but themselves."""
    sampled, own = sampling_design(counts), [each for each in counts.learnt if len(each)]
    sizes = np.array([len(each) for each in own], np.int64)
    at = len(sampled.population) + np.repeat(np.arange(len(own)), sizes)
    design = Design(
        np.concatenate([sampled.strata, at]), np.concatenate([sampled.population, sizes])
    )
    return np.concatenate([counts.cells, *own]), design


def _scaled(total: Estimate, hectares: float) -> Estimate | None:
    """Divide a total by its ground."""
    if not (np.isfinite(hectares) and hectares > 0):
        return None
    ends = total.interval
    error = total.standard_error
    return Estimate(
        total.value / hectares,
        None if ends is None else (ends[0] / hectares, ends[1] / hectares),
        None if error is None else error / hectares,
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """What lies in a zone, or in none.

    Attributes:
        name: of the zone; None of what lies in none.
        found: (K,) detections.
        true: (M,) objects.
        is_drawn_with: whether the cells were drawn with this zone, not one of the same name.
    """

    name: str | None
    found: Flags
    true: Flags
    is_drawn_with: bool


_ODD_CELLS = 0.01
"""Share of a zone's cells that may lie on the other side of its border: rounding of positions."""


def _zone_rows(
    every: _Counting, overall: CountRow, options: EstimateOptions
) -> tuple[CountRow, ...]:
    """Estimate the total of each zone; one of what lies in none comes last, if anything does."""
    counts = every.counts
    shapes = read_zones(
        str(options.zones),
        counts.crs,
        np.concatenate([counts.found.points, counts.true.points, counts.frame.middles]),
        layer=options.zones_layer,
        column=options.zone_column,
    )
    given = zones_at(shapes, counts.frame.middles)
    parts = [
        _Part(
            name,
            shapely.contains_xy(shape, counts.found.points),
            shapely.contains_xy(shape, counts.true.points),
            _is_drawn_with(name, counts.frame.zone, given),
        )
        for name, shape in shapes.items()
    ]
    rows = [_zone_row(every, overall, part) for part in parts]
    found = ~np.any([part.found for part in parts], axis=0)
    true = ~np.any([part.true for part in parts], axis=0)
    if (found & counts.found.counts).any() or true.any():
        outside = _Part(None, found, true, _is_drawn_with(None, counts.frame.zone, given))
        rows.append(_zone_row(every, overall, outside))
    return tuple(rows)


def _is_drawn_with(name: str | None, zone: Texts, given: Texts) -> bool:
    """Tell whether the cells of a zone, when they were drawn, are those that it holds now."""
    named = np.array(name, dtype=object)
    own = zone == named
    odd = int((own != (given == named)).sum())
    return bool((zone != np.array(None)).any() and odd <= _ODD_CELLS * own.sum())


def _zone_row(every: _Counting, overall: CountRow, part: _Part) -> CountRow:
    """Estimate the total of one zone.

    Where the cells were drawn with it and enough are completed, as a domain (Särndal et al. 1992,
    chapter 10): objects elsewhere count 0. Else the whole's objects a detection are taken to be
    those of the zone, of which nobody can say how far off that is.
    """
    counts, name, found, true = every.counts, part.name, part.found, part.true
    samples = counts.samples if part.is_drawn_with else ()
    cells = sum(len(s) for s in samples if s.zone == name)
    if cells >= FEWEST_OF_ZONE:
        total = every.total(found, true)
    else:
        helper = every.helper(np.ones(len(found), bool)).sum()
        own = every.helper(found).sum()
        value = overall.total.value * own / helper if helper > 0 else float(true.sum())
        total = Estimate(max(float(value), float(true.sum())), None, None)
    return CountRow(
        name="in no zone" if name is None else name,
        detected=int((found & counts.found.counts).sum()),
        cells=cells,
        total=total,
        per_hectare=None,
        precision=None,
        recall=None,
    )


def _notes(counts: CellCounts, zones: tuple[CountRow, ...]) -> tuple[str, ...]:
    notes = []
    beyond = sum(s.not_counted for s in counts.samples)
    if beyond:
        notes.append(
            f"{beyond} completed cells lie beyond a gap in the order of their stratum and were "
            "not counted; complete those before them, by place in the layer cells"
        )
    learnt = sum(map(len, counts.learnt))
    if learnt:
        notes.append(
            f"{learnt} completed cells to learn from count as what is there, since the model was "
            "fitted to such"
        )
    if len(counts.fitted_otherwise):
        notes.append(
            f"the model was fitted to objects in {len(counts.fitted_otherwise):,} more of the "
            f"{len(counts.frame):,} cells; where these are many, it may do better there than the "
            "cells to count by show"
        )
    if counts.outside:
        notes.append(
            f"{counts.outside:,} detections lie in no cell, on ground that was not there when "
            "cells were drawn; they are not in the totals"
        )
    if counts.is_matched:
        notes.append("precision and recall: detections matched with objects by their centres")
    notes += counts.notes
    bare = [z.name for z in zones if z.total.interval is None]
    if bare:
        notes.append(
            f"no interval for {len(bare)} of {len(zones)} zones, such as {bare[0]}: it takes "
            f"{FEWEST_OF_ZONE} completed cells in a zone, and cells that geo-retina review "
            "drew with these zones"
        )
    return tuple(notes)
