"""Runs of several scenes into one set of objects."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
from affine import Affine

from geo_retina.boxes import iou, to_polygons
from geo_retina.combine import combine_runs
from geo_retina.detections import Cut, Detections
from geo_retina.errors import LabelError, OptionError
from geo_retina.grid import Grid
from geo_retina.options import MergeOptions
from geo_retina.vector import (
    Companions,
    Target,
    detections_table,
    outline_table,
    read_detections,
    write_outputs,
)

UTM32, UTM33 = pyproj.CRS("EPSG:32632"), pyproj.CRS("EPSG:32633")
AFFINE = Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)
TURNED = (
    Affine.translation(612_345.6, 5_300_123.4) @ Affine.rotation(23.0) @ Affine.scale(0.3, -0.4)
)
NOT_COVERED = pa.schema([("geometry", pa.binary()), ("scene", pa.string()), ("error", pa.string())])
RIGHT, LEFT = int(Cut.SCENE_RIGHT), int(Cut.SCENE_LEFT)


def run(
    path, boxes, scores, grid, *, cut=0, classes=("car", "ship"), labels=0, missing=(), nms_iou=None
):
    """A file as ``detect_to_file`` writes it, of one scene named like the file."""
    count = len(boxes)
    found = Detections(
        np.array(boxes, float).reshape(-1, 4),
        np.broadcast_to(scores, count),
        np.broadcast_to(labels, count),
        np.arange(count),
        np.broadcast_to(cut, count),
        np.zeros(count),
    )
    name = path.stem
    rows = detections_table(found, grid, classes=classes, scene=name, to_file=Affine.identity())
    outline = to_polygons(np.array([[0.0, 0, grid.width, grid.height]]), grid)
    about = {
        "scene": [name],
        "path": [f"{name}.tif"],
        "width_px": [grid.width],
        "height_px": [grid.height],
        "grid_crs": [grid.crs.to_wkt()],
        "affine": [" ".join(map(repr, map(float, tuple(grid.affine)[:6])))],
    }
    seen = shapely.difference(outline[0], shapely.union_all(list(missing)))
    seen = np.array([shapely.MultiPolygon(list(shapely.get_parts(seen)))], dtype=object)
    scanned = outline_table(seen, about, grid.crs, grid.crs)
    holes = np.array([shapely.multipolygons([hole]) for hole in missing], dtype=object)
    errors = {"scene": [name] * len(missing), "error": ["x"] * len(missing)}
    nowhere = outline_table(holes, errors, grid.crs, grid.crs).cast(NOT_COVERED)
    metadata = {"thresholds": json.dumps(dict.fromkeys(classes, 0.5)), "min_score": "null"}
    if nms_iou is not None:
        metadata["options"] = json.dumps({"nms_iou": nms_iou})
    write_outputs(
        [Target(path, True)],
        [rows],
        lambda: Companions(scanned, nowhere, metadata),
        crs=grid.crs,
        classes=classes,
        geometry="polygon",
    )
    return path


def moved(affine, cols, rows=0):
    return affine @ Affine.translation(cols, rows)


def px(frame, affine):
    """Boxes of a frame in the pixels of an affine."""
    rings = shapely.get_coordinates(frame.geometry.array).reshape(-1, 5, 2)
    points = Grid(frame.crs, affine, 1, 1).crs_to_pixels(rings)
    return np.hstack([points.min(axis=1), points.max(axis=1)])


@pytest.mark.parametrize("affine", [AFFINE, TURNED], ids=["north up", "turned"])
@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_objects_of_overlapping_scenes_are_told_once(tmp_path, affine, suffix):
    rng = np.random.default_rng(0)
    truth = np.stack(np.meshgrid(np.arange(10, 980, 40.0), np.arange(10, 280, 40.0)), -1)
    truth = np.tile(truth.reshape(-1, 2), 2) + np.array([0, 0, 20, 15])
    scores = rng.uniform(0.5, 1, len(truth))
    grid = Grid(UTM32, affine, 300, 600)
    left = truth[:, 2] < 600
    right = truth[:, 0] > 400
    a = run(tmp_path / f"a{suffix}", truth[left], scores[left], grid)
    other = Grid(UTM32, moved(affine, 400), 300, 600)
    shifted = truth[right] - np.array([400, 0, 400, 0])
    b = run(tmp_path / f"b{suffix}", shifted, scores[right] - 0.01, other)
    report = combine_runs([a, b], tmp_path / "c.gpkg")
    assert report.exact
    assert report.read == left.sum() + right.sum()
    assert report.written == len(truth)
    assert report.suppressed == (left & right).sum() > 20
    got = read_detections(tmp_path / "c.gpkg")
    order = np.lexsort(px(got, affine).round(3).T)
    np.testing.assert_allclose(px(got, affine)[order], truth[np.lexsort(truth.T)], atol=1e-5)
    assert set(got["scene"]) == {"a", "b"}
    # Once more changes nothing, nor does the other order, but for the order of rows.
    again = combine_runs([tmp_path / "c.gpkg"], tmp_path / "d.gpkg")
    assert (again.written, again.suppressed) == (len(truth), 0)
    back = combine_runs([b, a], tmp_path / "e.gpkg")
    assert (back.written, back.suppressed) == (report.written, report.suppressed)


@pytest.mark.parametrize(("nms_iou", "kept"), [(None, 2), (0.5, 2), (0.3, 1)])
def test_scenes_keep_nothing_of_each_other_that_a_tile_would_suppress(tmp_path, nms_iou, kept):
    box, other = [100.0, 100, 120, 120], [109.2, 100, 129.2, 120]
    assert 0.3 < iou(np.array([box]), np.array([other]))[0] < 0.4
    grid = Grid(UTM32, AFFINE, 300, 600)
    a = run(tmp_path / "a.gpkg", [box], [0.9], grid, nms_iou=nms_iou)
    b = run(tmp_path / "b.gpkg", [other], [0.8], grid)
    assert combine_runs([a, b], tmp_path / "c.gpkg").written == kept


def test_fragments_at_a_border_become_one_object(tmp_path):
    """Two adjacent scenes, and two that overlap by 20 px; a long object in each pair."""
    for overlap in (0, 20):
        grid = Grid(UTM32, AFFINE, 300, 500)
        a = run(tmp_path / "a.gpkg", [[450, 100, 500, 120]], 0.7, grid, cut=RIGHT)
        right = Grid(UTM32, moved(AFFINE, 500 - overlap), 300, 500)
        b = run(tmp_path / "b.gpkg", [[0, 101, 60, 120]], 0.9, right, cut=LEFT)
        out = tmp_path / f"c{overlap}.gpkg"
        report = combine_runs([a, b], out)
        assert (report.written, report.joined, report.suppressed) == (1, 1, 0)
        got = read_detections(out)
        np.testing.assert_allclose(px(got, AFFINE), [[450, 100, 560 - overlap, 120]], atol=1e-5)
        assert got["score"].tolist() == pytest.approx([0.9])
        assert got["joined"].tolist() == [True]
        assert got["cut"].tolist() == [0]
        apart = combine_runs([a, b], tmp_path / "d.gpkg", MergeOptions(join=False), overwrite=True)
        assert apart.written == 2


def test_a_whole_object_outranks_a_surer_fragment(tmp_path):
    grid = Grid(UTM32, AFFINE, 300, 500)
    a = run(tmp_path / "a.gpkg", [[450, 100, 500, 120]], 0.99, grid, cut=RIGHT)
    whole = Grid(UTM32, moved(AFFINE, 400), 300, 500)
    b = run(tmp_path / "b.gpkg", [[50, 100, 150, 120]], 0.55, whole)
    assert combine_runs([a, b], tmp_path / "c.gpkg").written == 1
    got = read_detections(tmp_path / "c.gpkg")
    assert got["scene"].tolist() == ["b"]
    other = run(tmp_path / "b.gpkg", [[50, 100, 150, 120]], 0.55, whole, labels=1)
    assert combine_runs([a, other], tmp_path / "d.gpkg").written == 2
    any_class = MergeOptions(class_aware=False)
    assert combine_runs([a, other], tmp_path / "e.gpkg", any_class).written == 1


def test_across_zones_areas_decide(tmp_path):
    """The same ground in two UTM zones, at the meridian between them."""
    to_33 = pyproj.Transformer.from_crs(UTM32, UTM33, always_xy=True)
    west = Grid(UTM32, Affine(0.5, 0, 720_000, 0, -0.5, 5_400_000), 1000, 1000)
    corner = to_33.transform(720_000, 5_400_000)
    east = Grid(UTM33, Affine(0.5, 0, corner[0], 0, -0.5, corner[1]), 1000, 1000)
    rng = np.random.default_rng(1)
    boxes = rng.uniform(100, 800, (40, 2))
    boxes = np.hstack([boxes, boxes + rng.uniform(20, 60, (40, 2))])
    # Where the same ground lies in the other zone: by centres, in its own pixels.
    x, y = west.pixels_to_crs((boxes[:, :2] + boxes[:, 2:]) / 2).T
    centres = east.crs_to_pixels(np.stack(to_33.transform(x, y), axis=-1))
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    others = np.hstack([centres - half, centres + half])
    a = run(tmp_path / "a.gpkg", boxes, rng.uniform(0.5, 0.7, 40), west)
    b = run(tmp_path / "b.gpkg", others, rng.uniform(0.71, 0.9, 40), east)
    report = combine_runs([a, b], tmp_path / "c.gpkg")
    assert not report.exact
    assert report.crs == "EPSG:4326"
    got = read_detections(tmp_path / "c.gpkg")
    # The better-scored of each pair stays, as a zone turns boxes by 4 degrees and no more.
    assert set(got["scene"]) == {"b"}
    assert len(got) == 40
    asked = combine_runs([a, b], tmp_path / "d.gpkg", crs="EPSG:32632")
    assert asked.crs == "EPSG:32632"


def test_ground_that_one_missed_and_another_saw_is_covered(tmp_path):
    grid = Grid(UTM32, AFFINE, 300, 500)
    hole = shapely.box(500_150, 5_299_900, 500_250, 5_300_000)
    far = shapely.box(500_000, 5_299_850, 500_050, 5_300_000)
    a = run(tmp_path / "a.gpkg", [], 0.5, grid, missing=[hole, far])
    b = run(tmp_path / "b.gpkg", [], 0.5, Grid(UTM32, moved(AFFINE, 400), 300, 500))
    combine_runs([a, b], tmp_path / "c.gpkg")
    missing = gpd.read_file(tmp_path / "c.gpkg", layer="not_covered")
    # b begins at 500,200 m, which leaves the western half of the one and all of the other.
    assert missing.area.tolist() == pytest.approx([50 * 100, 50 * 150])
    assert len(gpd.read_file(tmp_path / "c.gpkg", layer="scanned")) == 2


def test_scenes_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "x").mkdir()
    grid = Grid(UTM32, AFFINE, 300, 500)
    a = run(tmp_path / "a.gpkg", [[10, 10, 30, 30]], 0.5, grid)
    b = run(
        tmp_path / "x" / "a.gpkg", [[10, 10, 30, 30]], 0.5, Grid(UTM32, moved(AFFINE, 900), 9, 9)
    )
    frame = gpd.read_file(b, layer="scanned")
    frame["path"] = "elsewhere/a.tif"
    frame.to_file(b, layer="scanned")
    combine_runs([a, b], tmp_path / "c.gpkg")
    assert read_detections(tmp_path / "c.gpkg")["scene"].tolist() == ["a/a", "a/a"]


def test_what_cannot_be_combined(tmp_path):
    grid = Grid(UTM32, AFFINE, 300, 500)
    a = run(tmp_path / "a.gpkg", [[10, 10, 30, 30]], 0.5, grid)
    frame = gpd.GeoDataFrame({"score": [0.1]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM32)
    frame.to_file(tmp_path / "other.gpkg", layer="detections")
    with pytest.raises(LabelError, match=r"other\.gpkg does not say which ground"):
        combine_runs([a, tmp_path / "other.gpkg"], tmp_path / "c.gpkg")
    with pytest.raises(OptionError, match="none of them"):
        combine_runs([a], a, overwrite=True)
    with pytest.raises(OptionError, match="not a CRS"):
        combine_runs([a], tmp_path / "c.gpkg", crs="EPSG:nonsense")
    assert not (tmp_path / "c.gpkg").exists()
