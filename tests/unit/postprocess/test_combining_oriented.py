"""Files of oriented boxes combined: over one seam, over zones, and what is refused."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from support.detections import detections_of, oriented_detections

from geo_retina import boxes
from geo_retina.boxes import oriented
from geo_retina.errors import LabelError
from geo_retina.grid import Grid
from geo_retina.postprocess import combine_runs
from geo_retina.vector import read_detections
from unit.postprocess.test_combining import AFFINE, TURNED, UTM32, moved, run_of

UTM33 = pyproj.CRS.from_epsg(32633)


def rotated_in(frame, grid):
    frame = frame.to_crs(grid.crs)
    return oriented.from_rings(
        shapely.get_coordinates(frame.geometry.array).reshape(-1, 5, 2), grid
    )


def lorries(angle, count=40, apart=14.0):
    """A row of lorries side by side, 40 x 12 px, whose hulls overlap each other by far."""
    radians = np.radians(angle)
    along = np.array([-np.sin(radians), np.cos(radians)])
    centres = np.array([400.0, 150.0]) + along * apart * (np.arange(count)[:, None] - count / 2)
    shape = np.tile([40.0, 12.0, angle], (count, 1))
    return oriented.normalise(np.column_stack([centres, shape]))


def in_window(rotated, window, *, cut=0):
    """What a scene over a window finds: whole boxes in it, and parts of others."""
    part = oriented.clip(rotated, window)
    part = part[oriented.area(part) > 0]
    hull = boxes.clip(oriented.hull(part), window)
    x_min, _, x_max, _ = window
    sides = np.where(hull[:, 0] <= x_min + 4, 16, 0) | np.where(hull[:, 2] >= x_max - 4, 64, 0)
    found = oriented.shift(part, -x_min, 0)
    return oriented_detections(
        found, np.linspace(0.9, 0.8, len(part)), cut=sides, window=(0, 0, x_max - x_min, 300)
    )


@pytest.mark.parametrize("affine", [AFFINE, TURNED], ids=["north up", "turned"])
@pytest.mark.parametrize("angle", [-90.0, -75.0, -20.0, 0.0, 45.0, 80.0])
def test_a_row_of_lorries_over_two_scenes_is_told_once(tmp_path, affine, angle):
    truth = lorries(angle)
    hulls = oriented.hull(truth)
    inside = (hulls[:, :2] > 0) & (hulls[:, 2:] < [800, 300])
    truth = truth[inside.all(axis=1)]
    a = run_of(
        tmp_path / "a.gpkg", in_window(truth, (0, 0, 420, 300)), Grid(UTM32, affine, 300, 420)
    )
    b = run_of(
        tmp_path / "b.gpkg",
        in_window(truth, (380, 0, 800, 300)),
        Grid(UTM32, moved(affine, 380), 300, 420),
    )
    report = combine_runs([a, b], tmp_path / "c.gpkg")
    assert report.written == len(truth) > 10
    got = read_detections(tmp_path / "c.gpkg")
    found = rotated_in(got, Grid(UTM32, affine, 300, 800))
    nearest = np.linalg.norm(found[:, None, :2] - truth[:, :2], axis=2).argmin(axis=1)
    assert sorted(nearest) == list(range(len(truth)))
    np.testing.assert_allclose(oriented.area(found), 480.0, atol=1e-3)
    np.testing.assert_allclose(found[:, :2], truth[nearest, :2], atol=1e-4)
    off = (found[:, 4] - truth[nearest, 4] + 90) % 180 - 90
    assert np.abs(off).max() < 1e-3
    assert (got["azimuth_deg"] >= 0).all()
    again = combine_runs([tmp_path / "c.gpkg"], tmp_path / "d.gpkg")
    assert (again.written, again.suppressed) == (len(truth), 0)


def test_a_long_object_over_a_border_becomes_one(tmp_path):
    whole = oriented.normalise([[400.0, 150, 300, 30, 25]])
    a = run_of(
        tmp_path / "a.gpkg", in_window(whole, (0, 0, 420, 300)), Grid(UTM32, AFFINE, 300, 420)
    )
    b = run_of(
        tmp_path / "b.gpkg",
        in_window(whole, (380, 0, 800, 300)),
        Grid(UTM32, moved(AFFINE, 380), 300, 420),
    )
    assert combine_runs([a, b], tmp_path / "c.gpkg", crs="EPSG:4326").joined == 1
    got = read_detections(tmp_path / "c.gpkg")
    found = rotated_in(got, Grid(UTM32, AFFINE, 300, 800))
    np.testing.assert_allclose(found, whole, atol=1e-3)
    # By true north, although merged by the grid's: half a degree apart here.
    middle = got.to_crs(4326).geometry.iloc[0].centroid
    convergence = pyproj.Proj(UTM32).get_factors(middle.x, middle.y).meridian_convergence
    assert got["azimuth_deg"].iloc[0] == pytest.approx((90 + 25 + convergence) % 180, abs=0.01)


def test_neighbours_of_other_zones_are_compared_by_their_rectangles(tmp_path):
    """Side by side at 45 degrees hulls overlap by two thirds, and the rectangles not at all."""
    grid = Grid(UTM32, Affine(0.3, 0, 800_000, 0, -0.3, 5_300_000), 300, 800)
    x, y = pyproj.Transformer.from_crs(UTM32, UTM33, always_xy=True).transform(800_000, 5_300_000)
    other = Grid(UTM33, Affine(0.3, 0, x, 0, -0.3, y), 300, 800)
    row = lorries(45.0, count=8)
    a = run_of(tmp_path / "a.gpkg", oriented_detections(row[::2], 0.9), grid)
    rings = boxes.place_corners(oriented.corners(row), grid)
    moved_rings = np.stack(
        pyproj.Transformer.from_crs(UTM32, UTM33, always_xy=True).transform(
            rings[..., 0], rings[..., 1]
        ),
        -1,
    )
    there = oriented.from_rings(moved_rings, other)
    b = run_of(tmp_path / "b.gpkg", oriented_detections(there, 0.8), other)
    report = combine_runs([a, b], tmp_path / "c.gpkg")
    assert not report.exact
    assert (report.read, report.written) == (12, 8)


def test_both_kinds_of_boxes_are_refused_together(tmp_path):
    grid = Grid(UTM32, AFFINE, 300, 800)
    a = run_of(tmp_path / "a.gpkg", oriented_detections([[50, 50, 40, 10, 30]]), grid)
    b = run_of(tmp_path / "b.gpkg", detections_of([[50.0, 50, 60, 70]]), grid)
    none = run_of(tmp_path / "none.gpkg", detections_of([]), grid)
    with pytest.raises(LabelError, match=r"a\.gpkg holds oriented boxes and .*b\.gpkg upright"):
        combine_runs([a, b], tmp_path / "c.gpkg")
    assert combine_runs([a, none], tmp_path / "c.gpkg").written == 1
