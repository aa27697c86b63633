"""Oriented boxes in files: their corners, and their sides and directions on the ground."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
from affine import Affine
from support.detections import oriented_detections, random_oriented

from geo_retina.boxes import oriented
from geo_retina.detections import Detections
from geo_retina.geodesy import turn_azimuths
from geo_retina.grid import Grid
from geo_retina.vector import (
    Companions,
    Target,
    detection_schema,
    detections_table,
    open_stream,
    read_detections,
    to_geodataframe,
    write_outputs,
)

UTM, OTHER_UTM, DEGREES = (pyproj.CRS.from_epsg(code) for code in (32632, 32633, 4326))
SUFFIXES = (".gpkg", ".shp", ".geojson", ".fgb", ".parquet")
COLUMNS = ("azimuth_deg", "length_m", "width_m")


def grid_of(*turns: Affine, crs=UTM, at=(612_345.6, 5_300_123.4)) -> Grid:
    affine = Affine.translation(*at)
    for turn in turns:
        affine = affine @ turn
    return Grid(crs, affine, 3000, 3000)


GRIDS = {
    "north up": grid_of(Affine.scale(0.3, -0.3)),
    "turned": grid_of(Affine.rotation(23.0), Affine.scale(0.3, -0.4)),
    "sheared": grid_of(Affine.rotation(-71.0), Affine.shear(12.0, 0), Affine.scale(0.25, 0.5)),
    "in degrees": grid_of(Affine.scale(3e-6, -2e-6), crs=DEGREES, at=(11.3, 47.8)),
}


def table(found: Detections, grid: Grid, **changes) -> pa.Table:
    return detections_table(
        found, grid, classes=("car", "ship"), scene="a", to_file=Affine.identity(), **changes
    )


def write(tables, paths, crs):
    targets = [Target(path, False) for path in paths]
    nothing = Companions(None, None, {})
    write_outputs(targets, tables, nothing, crs=crs, classes=("car",), geometry="polygon")


def assert_same(found_px, wanted_px, most_px=1e-6):
    turns = [
        np.roll(oriented.corners(wanted_px), k, 1) - oriented.corners(found_px) for k in range(4)
    ]
    assert np.abs(turns).max(axis=(2, 3)).min(axis=0).max() < most_px


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_corners_come_back_from_every_format(tmp_path, suffix, grid):
    found = random_oriented(40)
    path = tmp_path / f"found{suffix}"
    write([table(found, grid)], [path], grid.crs)
    frame = read_detections(path)
    rings = shapely.get_coordinates(frame.geometry.array).reshape(-1, 5, 2)
    if frame.crs != grid.crs:
        rings = np.stack(
            pyproj.Transformer.from_crs(frame.crs, grid.crs, always_xy=True).transform(
                rings[..., 0], rings[..., 1]
            ),
            -1,
        )
    assert_same(
        oriented.from_rings(rings, grid), found.rotated_px, 2e-6 if suffix == ".geojson" else 1e-6
    )
    np.testing.assert_allclose(frame["x_min_px"], found.boxes_px[:, 0], atol=1e-6)
    assert list(frame.columns) == ["id", *detection_schema(oriented=True).names]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
def test_sides_and_directions_are_those_of_the_polygons(grid):
    frame = to_geodataframe([table(random_oriented(60), grid)], grid.crs)
    geod = pyproj.Geod(ellps="WGS84")
    back = pyproj.Transformer.from_crs(grid.crs, DEGREES, always_xy=True)
    for row in frame.itertuples():
        corners = np.array(row.geometry.exterior.coords)
        lon, lat = back.transform(*corners.T)
        azimuths, _, sides = geod.inv(lon[:2], lat[:2], lon[1:3], lat[1:3])
        assert (row.length_m, row.width_m) == pytest.approx((sides.max(), sides.min()), rel=1e-5)
        longest = int(sides.argmax())
        if grid.crs == DEGREES:
            wanted = azimuths[longest]
        else:
            wanted = np.degrees(np.arctan2(*(corners[longest + 1] - corners[longest])))
        assert abs((row.azimuth_deg - wanted + 90) % 180 - 90) < 1e-4
        assert 0 <= row.azimuth_deg < 180
        area = abs(geod.polygon_area_perimeter(lon, lat)[0])
        assert row.area_m2 == pytest.approx(area, rel=1e-4)
        assert row.longest_m == row.length_m


def test_a_known_box_on_the_ground():
    grid = Grid(UTM, Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), 100, 100)
    # On the central meridian a metre of the grid is 1 / 0.9996 m. Clockwise as seen from the right
    # by 30 degrees is 120 degrees clockwise from north.
    row = table(oriented_detections([[50, 50, 40, 10, 30]]), grid).to_pylist()[0]
    assert row["azimuth_deg"] == pytest.approx(120)
    assert row["length_m"] == pytest.approx(20 / 0.9996, rel=1e-6)
    assert row["width_m"] == pytest.approx(5 / 0.9996, rel=1e-6)


@pytest.mark.parametrize("geometry", ["polygon", "point"])
def test_azimuths_count_from_the_north_of_each_file(tmp_path, geometry):
    grid = GRIDS["turned"]
    found = random_oriented(30, within_px=2000, sides_px=(20, 60))
    here, there = tmp_path / "a.gpkg", tmp_path / "a.geojson"
    write_outputs(
        [Target(path, False) for path in (here, there)],
        [table(found, grid)],
        Companions(None, None, {}),
        crs=UTM,
        classes=("car",),
        geometry=geometry,
    )
    by_grid = read_detections(here)["azimuth_deg"].to_numpy()
    by_pole = read_detections(there)["azimuth_deg"].to_numpy()
    wanted = table(found, grid, crs=DEGREES)["azimuth_deg"].to_numpy()
    assert np.abs((by_pole - wanted + 90) % 180 - 90).max() < 1e-4
    np.testing.assert_array_equal(by_grid, table(found, grid)["azimuth_deg"].to_numpy())
    # Grid north is off true north by about a degree there.
    assert 0.9 < np.abs((by_pole - by_grid + 90) % 180 - 90).min() < 1.3


def test_azimuths_turn_there_and_back():
    rng = np.random.default_rng(0)
    azimuths = np.append(rng.uniform(0, 180, 50), [0.0, np.nan])
    places = np.column_stack([rng.uniform(3e5, 7e5, 52), rng.uniform(1e5, 8e6, 52)])
    lon_lat = np.stack(
        pyproj.Transformer.from_crs(UTM, DEGREES, always_xy=True).transform(*places.T), 1
    )
    there = turn_azimuths(azimuths, places, UTM, DEGREES)
    convergence = [pyproj.Proj(UTM).get_factors(*at).meridian_convergence for at in lon_lat]
    off = (there - azimuths - convergence + 90) % 180 - 90
    assert np.abs(off[:-1]).max() < 1e-4
    back = turn_azimuths(there, lon_lat, DEGREES, UTM)
    assert np.abs((back - azimuths + 90) % 180 - 90)[:-1].max() < 1e-4
    assert np.isnan([there[-1], back[-1]]).all()
    assert turn_azimuths(azimuths, places, UTM, UTM) is azimuths
    assert turn_azimuths(azimuths, places, UTM, None) is azimuths


def test_a_shapefile_keeps_the_columns_whose_names_it_cuts(tmp_path):
    path = tmp_path / "a.shp"
    found = table(random_oriented(5), GRIDS["turned"])
    write([found], [path], UTM)
    with open_stream(path) as stream:
        [read] = stream.tables
    assert set(COLUMNS) <= set(read.column_names)
    np.testing.assert_allclose(read["azimuth_deg"].to_numpy(), found["azimuth_deg"].to_numpy())


def test_an_image_without_a_place_has_azimuths_from_its_top():
    grid = Grid(None, Affine.identity(), 100, 100)
    row = table(oriented_detections([[50, 50, 40, 10, -60]]), grid).to_pylist()[0]
    assert row["azimuth_deg"] == pytest.approx(30)
    assert (row["length_m"], row["width_m"]) == (None, None)
