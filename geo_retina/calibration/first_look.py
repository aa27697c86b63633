"""Measure a first look at coarser pixels: the score from which it keeps a model's objects.

Each object has to be kept for itself, by what the first look finds inside its own box, as if there
was no other one on its tile: where objects are few, there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.detections import Detections
from geo_retina.engine import Engine, place_here, resolve_runtime
from geo_retina.errors import LabelError
from geo_retina.evaluation import TRUE, evaluate
from geo_retina.geodesy import move
from geo_retina.grid import Grid, area_of
from geo_retina.model import Card, Model, Prescreen
from geo_retina.options import RunOptions
from geo_retina.run import ScenePlan, plan_scenes, read_coarse, suited
from geo_retina.training.validation.frame import meeting_grid
from geo_retina.training.validation.ground import ValidationGround
from geo_retina.training.validation.scoring import detecting_on

if TYPE_CHECKING:
    import geopandas as gpd

FEWEST_OBJECTS = 600
"""Of fewer objects, hardly one would be lost by the share that may be, so that chance decides."""

KEPT = 0.995
"""Share of the objects that a first look has to keep."""

_FACTORS = (4, 2)
_FLOOR = 0.01
_MOST_COST = 0.8
"""A first look that leaves more of the work than this on ground without objects is none."""

_MOST_BOXES = 50_000


@dataclass(frozen=True)
class FirstLook:
    """What a first look by one factor came to.

    Attributes:
        factor: pixels along a side of which it sees one.
        score: from which on it keeps the share of objects.
        objects: that were found at full resolution, and are labelled.
        kept: of these.
        tiles_kept: share of tiles of the model's size without objects that are looked at again.
    """

    factor: int
    score: float
    objects: int
    kept: int
    tiles_kept: float

    @property
    def cost(self) -> float:
        """Share of the network's work that remains where there are no objects."""
        return 1 / self.factor**2 + self.tiles_kept


def check_objects(count: int) -> None:
    """Refuse to measure on so few objects.

    Raises:
        LabelError: they are too few.
    """
    if count < FEWEST_OBJECTS:
        raise LabelError(
            f"{count} labels lie on the scenes, expected {FEWEST_OBJECTS} or more to measure a "
            "first look on; label more, or leave out CalibrateOptions.prescreen"
        )


def with_first_look(
    model: Model, found: gpd.GeoDataFrame, ground: ValidationGround, run: RunOptions
) -> Card:
    """Measure first looks, and write on the card the one that leaves least to do.

    Args:
        model: with its thresholds.
        found: its detections on the ground, from lower scores on.
        ground: where.
        run: how detections are carried out.

    Returns:
        The card; of a first look that gains nothing, or stands on too few objects, it says so
        among the metrics, and nothing else.
    """
    card = model.card
    least = found["class"].map(dict(zip(card.classes, card.thresholds, strict=True))).astype(float)
    kept = found[found["score"] >= least].reset_index(drop=True)
    outcome = evaluate(kept, ground.truth, ground.options).matches.detections
    objects = kept.iloc[np.sort(outcome.row[outcome.outcome == TRUE])]
    every = [*kept[["scene", "geometry"]].itertuples(index=False)]
    every += ground.truth[["scene", "geometry"]].itertuples(index=False)
    tried = [_measure(model, objects, every, ground, run, factor) for factor in _FACTORS]
    best = min(tried, key=lambda each: each.cost)
    about = {
        "tried": [asdict(each) for each in tried],
        "measured_on": ground.measured_on,
        "objects": len(objects),
        "gains": best.objects >= FEWEST_OBJECTS and best.cost <= _MOST_COST,
    }
    how = None
    if about["gains"]:
        how = Prescreen(factor=best.factor, score=best.score, thresholds=card.thresholds)
    return replace(card, prescreen=how, metrics={**card.metrics, "prescreen": about})


def first_look_lines(card: Card) -> list[str]:
    """Say what was measured, where anything was."""
    about = card.metrics.get("prescreen")
    if about is None:
        return []
    lines = [
        f"first look at 1/{each['factor']} of the resolution: {each['kept']} of "
        f"{each['objects']:,} objects kept from a score of {each['score']:.3f} on, with "
        f"{each['tiles_kept']:.1%} of the tiles without objects"
        for each in about["tried"]
    ]
    if card.prescreen is None:
        few = about["objects"] < FEWEST_OBJECTS
        reason = (
            f"it stands on {about['objects']} objects that were found, expected {FEWEST_OBJECTS}"
            if few
            else "it would leave nearly all of the work"
        )
        return [*lines, f"the card has no first look, as {reason}"]
    return [*lines, f"a first look is at 1/{card.prescreen.factor} of the resolution"]


@dataclass(frozen=True, eq=False)
class _Signs:
    """What a first look finds in a scene, from low scores on.

    Attributes:
        grid: of the scene, at full resolution, where it meets labels.
        centres: (N,) points in its pixels.
        scores: (N,).
        tile: (N,) index of the tile that each was found in.
        tile_px: pixels of each tile of the scene; 0 where it was not looked at.
    """

    grid: Grid
    centres: NDArray[np.object_]
    scores: NDArray[np.float64]
    tile: NDArray[np.int64]
    tile_px: NDArray[np.int64]

    def inside(self, boxes_px: Boxes) -> NDArray[np.int64]:
        """Find (P, 2) pairs of a box and a sign in it."""
        if not len(boxes_px):
            return np.empty((0, 2), np.int64)
        return shapely.STRtree(self.centres).query(shapely.box(*boxes_px.T), "intersects").T


def _measure(
    model: Model,
    objects: gpd.GeoDataFrame,
    every: Sequence[tuple[str, Any]],
    ground: ValidationGround,
    run: RunOptions,
    factor: int,
) -> FirstLook:
    """Look at the ground by one factor, and choose the score.

    Args:
        model: with its thresholds.
        objects: detections that are labelled.
        every: scene and geometry of all that may be seen, labels and detections.
        ground: where.
        run: how detections are carried out.
        factor: pixels along a side of which the first look sees one.
    """
    signs = _look(model, ground, run, factor)
    best: list[NDArray[np.float64]] = []
    false: list[NDArray[np.float64]] = []
    for name, seen in signs.items():
        own = _boxes_on(seen.grid, objects.geometry[objects["scene"] == name], ground.crs)
        scores = np.zeros(len(own))
        box, sign = seen.inside(own + factor / 2 * _OUTWARDS).T
        np.maximum.at(scores, box, seen.scores[sign])
        best.append(scores)
        there = _boxes_on(seen.grid, [shape for scene, shape in every if scene == name], ground.crs)
        side = np.maximum(there[:, 2] - there[:, 0], there[:, 3] - there[:, 1])
        least = model.card.object_px[1]  # points have no side
        away = np.ones(len(seen.scores), bool)
        away[seen.inside(there + np.maximum(side, least)[:, None] / 2 * _OUTWARDS)[:, 1]] = False
        highest = np.zeros(len(seen.tile_px))
        np.maximum.at(highest, seen.tile[away], seen.scores[away])
        false.append(highest[seen.tile_px > 0])
    scores, highest = np.sort(np.concatenate(best)), np.concatenate(false)
    lost = math.floor((1 - KEPT) * len(scores) + 1e-9)
    score = float(scores[lost]) if len(scores) else 0.0
    return FirstLook(
        factor=factor,
        score=score,
        objects=len(scores),
        kept=int((scores >= score).sum()),
        tiles_kept=_share(highest >= score, signs.values(), model.card) if score else 1.0,
    )


def _share(kept: NDArray[np.bool_], signs: Iterable[_Signs], card: Card) -> float:
    """Estimate what share of tiles of the model's size is kept by signs that are false.

    They may fall anywhere, so larger tiles are the more likely to show one.
    """
    if kept.all():
        return 1.0
    looked_at = np.concatenate([each.tile_px[each.tile_px > 0] for each in signs])
    return float(1 - (1 - kept.mean()) ** (card.tile_px**2 / looked_at.mean()))


def _look(
    model: Model, ground: ValidationGround, run: RunOptions, factor: int
) -> dict[str, _Signs]:
    """Look at the scenes of some ground through coarser pixels; signs by the scenes' names."""
    card = model.card
    how = Prescreen(factor=factor, score=_FLOOR, thresholds=card.thresholds)
    coarse = replace(card, prescreen=how)
    names = {each.scene.path: name for each, name in zip(ground.scenes, ground.names, strict=True)}
    with detecting_on(ground) as options:
        options = replace(suited(options, card), score=None, prescreen=True)
        plans, _ = plan_scenes([*names], coarse, options, run)
    options = replace(options, prescreen=False, score=_FLOOR)
    options = replace(options, candidates=_MOST_BOXES, max_per_tile=_MOST_BOXES, nms_iou=0.7)
    options = resolve_runtime(options, model, [place_here(run.device)])
    engine = Engine(model, options, device=run.device, batch=run.batch)
    return {names[plan.scene.path]: _signs(plan, coarse, engine) for plan in plans if plan.blocks}


def _signs(plan: ScenePlan, card: Card, engine: Engine) -> _Signs:
    assert card.prescreen is not None
    found = [engine.detect([read_coarse(job, card)])[0].detections for job in plan.jobs]
    every = Detections.concat(found)
    centres = (every.boxes_px[:, :2] + every.boxes_px[:, 2:]) / 2 * card.prescreen.factor
    tiles = [tile for block in plan.blocks for tile in plan.tiles.tiles_of(block)]
    tile_px = np.zeros(len(plan.tiles), np.int64)
    tile_px[[tile.index for tile in tiles]] = [area_of([tile.window]) for tile in tiles]
    return _Signs(
        meeting_grid(plan.scene.grid),
        shapely.points(centres),
        every.scores.astype(np.float64),
        every.tile,
        tile_px,
    )


_OUTWARDS = np.array([-1.0, -1.0, 1.0, 1.0])


def _boxes_on(grid: Grid, shapes: Iterable[Any], crs: pyproj.CRS) -> Boxes:
    """Bound (N,) geometries in a CRS by boxes in the pixels of a grid."""
    assert grid.crs is not None  # that is where they meet
    inner = grid.crs
    moved = shapely.transform(
        np.array(list(shapes), dtype=object),
        lambda points: grid.crs_to_pixels(move(points, crs, inner)),
    )
    return np.asarray(shapely.bounds(moved), np.float64).reshape(-1, 4)
