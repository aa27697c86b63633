"""What a run says about its result: the ground it scanned, and how it came about."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import to_polygons
from geo_retina.geodesy import are_expressible, is_connected, is_same
from geo_retina.grid import TilePlan, Window, rectangles
from geo_retina.model import Model
from geo_retina.options import DetectOptions
from geo_retina.run.detection_run import DetectionRun
from geo_retina.run.plan import Failure, ScenePlan
from geo_retina.scene import Mosaic
from geo_retina.vector import SCENE_DATE, Companions, outline_table, turn_to

_PACKAGES = (
    *("geo-retina", "torch", "torchvision", "timm", "numpy", "rasterio", "shapely", "pyproj"),
    *("pyogrio", "pyarrow", "openvino"),
)


def explain(run: DetectionRun) -> Companions:
    """Build the layers and metadata that explain the detections of a run."""
    plan = run.plan
    plans = {plan.names[each.index]: each for each in plan.scene_plans}
    return Companions(
        scanned=scanned_table(
            plans, run.failures, plan.crs, screened=_screened(run), empty=_with_empty_tiles(run)
        ),
        not_covered=not_covered_table(run.failures, plan.crs),
        metadata=describe_run(plan.model, plan.options, [scene.path for scene in plan.scenes])
        | {"out_of_range_tiles": json.dumps(run.totals.out_of_range_tiles)},
    )


def scanned_table(
    plans: Mapping[str, ScenePlan],
    failures: Sequence[Failure],
    crs: pyproj.CRS | None,
    *,
    screened: Mapping[int, NDArray[np.int64]] | None = None,
    empty: Container[int] = (),
) -> pa.Table:
    """Outline the ground that a run scanned: where it holds no detections, there are no objects.

    Args:
        plans: by the name that the scene has in the output.
        failures: ground to leave out.
        crs: CRS of the result.
        screened: tiles that a first look screened out, by the index of the scene's plan.
        empty: indices of the scenes' plans in which a tile had no valid pixel.

    Returns:
        One row per scene, without those of which nothing was covered, and one more for what of it
        was only looked at first: geometry, ``scene``, ``path``, and the grid its boxes were found
        on: ``width_px``, ``height_px``, ``gsd_m``, ``grid_crs`` (WKT, null without one),
        ``affine`` (a b c d e f), ``tile_px``, ``overlap_px``; ``screened``, true in the latter;
        ``whole``, false where the scene has or may have pixels without ground, which the outline
        holds all the same; and where any scene has a date, ``scene_date``.
    """
    tables = []
    for name, plan in plans.items():
        windows = [f.window for f in failures if f.plan is plan]
        tiles = (screened or {}).get(plan.index, np.empty(0, np.int64))
        for ground, is_screened in [] if plan.is_outside else _grounds(plan, windows, tiles):
            about = {**_about_scene(name, plan), "screened": is_screened}
            about["whole"] = plan.index not in empty and not any(
                scene.tells_gaps for scene in plan.scenes
            )
            about[SCENE_DATE] = plan.scene.day
            columns = {k: [v] for k, v in about.items()}
            polygons = np.array([ground], dtype=object)
            table = outline_table(polygons, columns, plan.scene.grid.crs, crs)
            tables.append(as_counted(table, plan, crs))
    if not tables:
        return _EMPTY
    schema = _EMPTY.schema.append(pa.field(SCENE_DATE, pa.date32()))
    table = pa.concat_tables([table.cast(schema) for table in tables])
    return table if any(table[SCENE_DATE].is_valid()) else table.drop_columns([SCENE_DATE])


def _screened(run: DetectionRun) -> dict[int, NDArray[np.int64]]:
    """Gather the tiles that a first look screened out, by the index of the scene's plan."""
    return {
        record.scene_index: np.array(
            [tile for result in record.results for tile in result.screened], np.int64
        )
        for record in run.records
    }


def _with_empty_tiles(run: DetectionRun) -> set[int]:
    """Gather the indices of the scenes' plans in which a tile had no valid pixel."""
    return {r.scene_index for r in run.records if any(each.skipped for each in r.results)}


def _grounds(
    plan: ScenePlan, missing: Sequence[Window | None], screened: NDArray[np.int64]
) -> Iterator[tuple[Any, bool]]:
    """Cut windows out of the ground of interest, and tell what of it was looked at only first.

    Yields:
        Multi-polygons in the scene's CRS, and whether a first look screened them out; none where
        nothing is left.
    """
    left = None if None in missing else _remaining(plan, missing)
    first = _outline(plan.tiles, screened)
    for ground, is_screened in (
        (left if first is None else shapely.difference(left, first), False),
        (None if first is None else shapely.intersection(left, first), True),
    ):
        parts = [each for each in shapely.get_parts(ground) if shapely.get_dimensions(each) == 2]
        if parts:
            polygons = shapely.multipolygons(parts)
            yield shapely.transform(polygons, plan.scene.grid.pixels_to_crs), is_screened


def _outline(tiles: TilePlan, chosen: NDArray[np.int64]) -> Any:
    """Outline what some tiles of a plan own, in its pixels; None for none."""
    if not len(chosen):
        return None
    mask = np.zeros((tiles.rows, tiles.cols), np.bool_)
    mask.flat[chosen] = True
    boxes = []
    for rows, cols in rectangles(mask):
        ends = [rows[0] * tiles.cols + cols[0], rows[-1] * tiles.cols + cols[-1]]
        (x_min, y_min, _, _), (_, _, x_max, y_max) = tiles.cores_px(np.array(ends)).tolist()
        boxes.append(shapely.box(x_min, y_min, x_max, y_max))
    return shapely.union_all(boxes)


def _remaining(plan: ScenePlan, missing: Sequence[Window | None]) -> Any:
    """Cut windows out of the ground of interest, in pixels of the grid."""
    grid = plan.scene.grid
    left = shapely.box(0, 0, grid.width, grid.height)
    if isinstance(plan.scene, Mosaic):
        left = shapely.union_all(shapely.box(*plan.scene.boxes_px.T))
    if plan.area_px is not None:
        left = shapely.intersection(left, plan.area_px)
    holes = [shapely.box(*window.box_px) for window in missing if window is not None]
    return shapely.difference(left, shapely.union_all(holes)) if holes else left


def _about_scene(name: str, plan: ScenePlan) -> dict[str, Any]:
    grid = plan.scene.grid
    return {
        "scene": name,
        "path": str(plan.scene.path),
        "width_px": grid.width,
        "height_px": grid.height,
        "gsd_m": grid.gsd_m,
        "grid_crs": grid.crs.to_wkt() if grid.crs else None,
        "affine": " ".join(repr(float(v)) for v in tuple(grid.affine)[:6]),
        "tile_px": plan.tiles.tile_px,
        "overlap_px": plan.tiles.overlap_px,
    }


_EMPTY = pa.schema(
    [
        ("geometry", pa.binary()),
        *((name, pa.string()) for name in ("scene", "path")),
        *((name, pa.int64()) for name in ("width_px", "height_px")),
        ("gsd_m", pa.float64()),
        *((name, pa.string()) for name in ("grid_crs", "affine")),
        *((name, pa.int64()) for name in ("tile_px", "overlap_px")),
        ("screened", pa.bool_()),
        ("whole", pa.bool_()),
    ]
).empty_table()


def as_counted(table: pa.Table, plan: ScenePlan | None, crs: pyproj.CRS | None) -> pa.Table:
    """Count longitudes as a scene's file does, where the table is in the file's CRS.

    So polygons lie on their scene in a GIS, also where it is counted beyond 180 degrees.
    """
    if plan is None or not is_same(plan.scene.crs, crs):
        return table
    return turn_to(table, crs, plan.scene.middle_x)


def _can_show(failure: Failure, crs: pyproj.CRS | None) -> bool:
    """Check whether the ground of a failure has a place in a CRS."""
    grid = None if failure.plan is None else failure.plan.scene.grid
    if grid is None or grid.crs is None or crs is None:
        return True
    if not is_connected(grid.crs, crs):
        return False
    return bool(are_expressible(grid.lattice_crs(), grid.crs, crs).all())


def not_covered_table(failures: Sequence[Failure], crs: pyproj.CRS | None) -> pa.Table:
    """Outline the ground that a run should have covered and did not.

    Args:
        failures: what failed.
        crs: CRS of the result.

    Returns:
        One row per failure: geometry, null for a scene that could not be opened or that has no
        place in ``crs``; ``scene``,
        its path; ``error``.
    """
    tables = [_EMPTY_FAILURES]
    for failure in failures:
        polygons: NDArray[np.object_] = np.array([None], dtype=object)
        source = crs
        if failure.plan is not None:
            grid = failure.plan.scene.grid
            window = failure.window or grid.window
            polygons = to_polygons(np.array([window.box_px], np.float64), grid)
            polygons = shapely.multipolygons(polygons[:, None])
            source = grid.crs or crs
        columns = {"scene": [failure.scene], "error": [failure.error]}
        if not _can_show(failure, crs):
            polygons = np.array([None], dtype=object)
            source = crs
        table = outline_table(polygons, columns, source, crs)
        tables.append(as_counted(table, failure.plan, crs))
    return pa.concat_tables(tables)


_EMPTY_FAILURES = pa.schema(
    [("geometry", pa.binary()), ("scene", pa.string()), ("error", pa.string())]
).empty_table()


def describe_run(model: Model, options: DetectOptions, scenes: Sequence[str]) -> dict[str, str]:
    """Describe how a result came about, as texts by name; what is not text is JSON.

    Args:
        model: what found it.
        options: as the run resolved them.
        scenes: the paths of its scenes.
    """
    card = model.card
    score = options.score
    thresholds = card.thresholds if score is None else (score,) * len(card.classes)
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": card.name,
        "model_sha256": model.fingerprint,
        "model_licence": card.licence,
        "model_attribution": card.attribution,
        "thresholds": json.dumps(dict(zip(card.classes, thresholds, strict=True))),
        "min_score": json.dumps(options.min_score),
        "runtime": options.runtime,
        "precision": options.precision,
        "options": json.dumps(asdict(options)),
        "scenes": json.dumps(list(scenes)),
        "model_card": card.to_json(),
        "packages": json.dumps({name: _version(name) for name in _PACKAGES}),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its source without being installed
        return None
