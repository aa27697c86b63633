"""Detections to files and back: exact places, whole files or none."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
from affine import Affine
from support.detections import random_detections

from geo_retina.detections import Cut, Detections
from geo_retina.errors import GridError, LabelError, OutputError
from geo_retina.grid import Grid
from geo_retina.vector import (
    check_output,
    detections_table,
    outline_table,
    read_detections,
    to_geodataframe,
    write_vector,
)

SUFFIXES = (".gpkg", ".shp", ".geojson", ".fgb", ".parquet")
COLUMNS = [
    *("id", "class", "score", "scene", "tile", "cut", "joined", "area_m2", "longest_m"),
    *("x_min_px", "y_min_px", "x_max_px", "y_max_px", "geometry"),
]
CLASSES = ("car", "Größe")
UTM = pyproj.CRS("EPSG:32632")
TURNED = Grid(
    UTM,
    Affine.translation(612_345.6, 5_300_123.4) @ Affine.rotation(23.0) @ Affine.scale(0.3, -0.4),
    3000,
    5000,
)


def table(detections, grid=TURNED, **changes):
    settings = {"classes": CLASSES, "scene": "naïve", "to_file": Affine.identity()} | changes
    return detections_table(detections, grid, **settings)


def corners_px(frame, grid):
    """The four corners of each polygon, back in pixels: bounds, and whether it has no others."""
    rings = shapely.get_coordinates(frame.to_crs(grid.crs).geometry.array)
    assert len(rings) == 5 * len(frame)
    points = grid.crs_to_pixels(rings.reshape(-1, 5, 2))[:, :4]
    low, high = points.min(axis=1), points.max(axis=1)
    off = np.minimum(abs(points - low[:, None]), abs(points - high[:, None]))
    return np.concatenate([low, high], axis=1), off.max(initial=0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_corners_are_exact_after_a_round_trip(tmp_path, suffix):
    parts = [random_detections(300, 1), Detections.empty(), random_detections(200, 2)]
    path = tmp_path / f"found{suffix}"
    assert write_vector(path, map(table, parts), crs=UTM, overwrite=False) == 500
    frame = read_detections(path)
    want = Detections.concat(parts)
    assert list(frame.columns) == COLUMNS
    assert frame.crs == (pyproj.CRS("EPSG:4326") if suffix == ".geojson" else UTM)
    got_px, skew = corners_px(frame, TURNED)
    np.testing.assert_allclose(got_px, want.boxes_px, rtol=0, atol=1e-6)
    assert skew < 1e-6
    assert frame["id"].tolist() == list(range(500))
    np.testing.assert_array_equal(frame["score"].astype(np.float32), want.scores)
    assert frame["class"].tolist() == [CLASSES[k] for k in want.labels]
    assert set(frame["scene"]) == {"naïve"}
    np.testing.assert_array_equal(frame["tile"], want.tile)
    np.testing.assert_array_equal(frame["cut"], want.cut)
    np.testing.assert_array_equal(frame["joined"], want.joined)
    assert frame["joined"].dtype == bool
    np.testing.assert_allclose(frame["y_max_px"], want.boxes_px[:, 3], rtol=0, atol=1e-9)
    ccw = shapely.is_ccw(shapely.get_exterior_ring(frame.geometry.array))
    assert (ccw == (suffix != ".shp")).all()  # whose rings turn the other way by definition
    assert sorted(os.listdir(tmp_path)) == sorted(p.name for p in tmp_path.glob("found.*"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("tables", [[], [table(Detections.empty())] * 2], ids=["none", "empty"])
def test_no_rows_still_give_a_layer(tmp_path, suffix, tables):
    path = tmp_path / f"found{suffix}"
    assert write_vector(path, tables, crs=UTM, overwrite=False) == 0
    frame = read_detections(path)
    assert len(frame) == 0
    assert list(frame.columns) == COLUMNS
    assert frame["joined"].dtype == bool
    assert frame["score"].dtype == np.float64
    assert frame.crs == (pyproj.CRS("EPSG:4326") if suffix == ".geojson" else UTM)


def test_no_rows_keep_columns_of_others(tmp_path):
    path = tmp_path / "others.gpkg"
    to_geodataframe([table(random_detections(1)).append_column("team", [["a"]])], UTM).iloc[
        :0
    ].to_file(path)
    frame = read_detections(path)
    assert len(frame) == 0
    assert {*frame.columns} == {*COLUMNS, "team"}
    assert frame.crs == UTM


def test_reprojected_on_request():
    north = random_detections(20)
    frame = to_geodataframe([table(north, crs=pyproj.CRS("EPSG:4326"))], "EPSG:4326")
    got_px, _ = corners_px(frame, TURNED)
    np.testing.assert_allclose(got_px, north.boxes_px, atol=1e-5)
    assert frame.total_bounds[0] == pytest.approx(10.5, abs=0.1)


def test_a_crs_that_cannot_hold_the_place_is_refused():
    far_side = pyproj.CRS("+proj=ortho +lat_0=0 +lon_0=-170")
    with pytest.raises(GridError, match="choose a CRS"):
        table(random_detections(2), crs=far_side)


def test_pixels_of_the_file():
    found = random_detections(10)
    scaled = table(found, to_file=Affine.scale(0.5))
    np.testing.assert_allclose(scaled["x_max_px"].to_numpy(), found.boxes_px[:, 2] / 2)
    np.testing.assert_allclose(scaled["y_min_px"].to_numpy(), found.boxes_px[:, 1] / 2)
    warped = table(found, to_file=None)
    assert warped["x_min_px"].null_count == 10


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pixels_of_a_warped_grid_stay_null(tmp_path, suffix):
    path = tmp_path / f"found{suffix}"
    write_vector(path, [table(random_detections(3), to_file=None)], crs=UTM, overwrite=False)
    assert read_detections(path)["x_min_px"].isna().all()


def test_in_memory_is_what_a_file_holds(tmp_path):
    tables = [table(random_detections(5, 1)), table(random_detections(6, 2))]
    path = tmp_path / "found.parquet"
    write_vector(path, tables, crs=UTM, overwrite=False)
    frame, again = to_geodataframe(tables, UTM), read_detections(path)
    assert frame.equals(again)
    assert frame.crs == again.crs
    assert list(to_geodataframe([], UTM).columns) == COLUMNS


# --- whole files or none ------------------------------------------------------------------


def failing(error):
    yield table(random_detections(3_000))
    yield table(random_detections(3_000))
    raise error


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_midway_leaves_nothing(tmp_path, suffix):
    with pytest.raises(ZeroDivisionError, match="midway"):
        write_vector(
            tmp_path / f"new{suffix}",
            failing(ZeroDivisionError("midway")),
            crs=UTM,
            overwrite=False,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_midway_leaves_the_old_output(tmp_path, suffix):
    path = tmp_path / f"old{suffix}"
    write_vector(path, [table(random_detections(7))], crs=UTM, overwrite=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError):
        write_vector(path, failing(ZeroDivisionError()), crs=UTM, overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_interrupt_midway_is_passed_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_vector(tmp_path / "a.gpkg", failing(KeyboardInterrupt()), crs=UTM, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_tables_of_other_columns_are_not_half_written(tmp_path):
    other = table(random_detections(3)).drop_columns(["score"])
    with pytest.raises(KeyError):
        write_vector(
            tmp_path / "a.gpkg", [table(random_detections(3)), other], crs=UTM, overwrite=False
        )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    import pyogrio

    def refuse(*args, **kwargs):
        raise pyogrio.errors.DataSourceError("no space left on device")

    monkeypatch.setattr(pyogrio, "write_arrow", refuse)
    with pytest.raises(OutputError, match=r"a\.gpkg could not be written: no space left"):
        write_vector(tmp_path / "a.gpkg", [table(random_detections(3))], crs=UTM, overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_file_is_kept_unless_asked(tmp_path, suffix):
    path = tmp_path / f"found{suffix}"
    write_vector(path, [table(random_detections(4))], crs=UTM, overwrite=False)
    with pytest.raises(OutputError, match="exists; give overwrite=True"):
        write_vector(path, [table(random_detections(9))], crs=UTM, overwrite=False)
    assert len(read_detections(path)) == 4
    write_vector(path, [table(random_detections(9))], crs=UTM, overwrite=True)
    assert len(read_detections(path)) == 9


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "found.geojson"

    def tables():
        yield table(random_detections(2))
        path.write_text("someone else's")

    with pytest.raises(OutputError, match="appeared"):
        write_vector(path, tables(), crs=UTM, overwrite=False)
    assert path.read_text() == "someone else's"


def test_parts_of_an_older_shapefile_do_not_outlive_it(tmp_path):
    path = tmp_path / "found.shp"
    write_vector(path, [table(random_detections(4))], crs=UTM, overwrite=False)
    (tmp_path / "found.qix").write_bytes(b"an index of the old file")
    write_vector(path, [table(random_detections(4))], crs=UTM, overwrite=True)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".cpg", ".dbf", ".prj", ".shp", ".shx"]


def test_transactions_of_an_older_geopackage_are_not_replayed(tmp_path):
    """A writer that died leaves a log beside its file, which SQLite applies when it opens one."""
    path = tmp_path / "found.gpkg"
    write_vector(path, [table(random_detections(4))], crs=UTM, overwrite=False)
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    database.execute("CREATE TABLE stale AS SELECT * FROM gpkg_contents")
    database.commit()
    journals = {p: p.read_bytes() for p in tmp_path.glob("found.gpkg-*")}
    database.close()
    journals[tmp_path / "found.gpkg-journal"] = b"a rollback journal"
    assert sorted(p.name[10:] for p in journals) == ["-journal", "-shm", "-wal"]
    for journal, content in journals.items():
        journal.write_bytes(content)
    write_vector(path, [table(random_detections(9))], crs=UTM, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["found.gpkg"]
    database = sqlite3.connect(path)
    tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'stale'").fetchall()
    database.close()
    assert tables == []
    assert len(read_detections(path)) == 9


def test_outputs_that_cannot_be(tmp_path):
    for name, match in {
        "found.xyz": r"ends in \.xyz, expected one of \.gpkg, \.shp",
        "missing/found.gpkg": "missing of found.gpkg does not exist",
    }.items():
        with pytest.raises(OutputError, match=match):
            check_output(tmp_path / name, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "file" / "found.gpkg", overwrite=True)
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path / "folder.gpkg", overwrite=True)
    check_output(tmp_path / "found.GPKG", overwrite=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / "found.gpkg", overwrite=False)


def test_geojson_needs_a_place(tmp_path):
    with pytest.raises(OutputError, match="no CRS"):
        write_vector(tmp_path / "a.geojson", [], crs=None, overwrite=False)


BOUND = pyproj.CRS(
    "+proj=utm +zone=33 +ellps=bessel +towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7 +type=crs"
)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_datum_shift_is_kept_or_refused(tmp_path, suffix):
    """Without it these points would lie 170 m away."""
    shapes = shapely.points([[400_000.0, 5_500_000.0], [400_100.0, 5_500_000.0]])
    rows = pa.table({"geometry": pa.array(shapely.to_wkb(shapes))})
    path = tmp_path / f"found{suffix}"
    if suffix == ".shp":
        for crs in (BOUND, pyproj.crs.CompoundCRS("with heights", [BOUND, "EPSG:5773"])):
            with pytest.raises(OutputError, match="would lose the datum shift"):
                write_vector(path, [rows], crs=crs, overwrite=False)
        assert list(tmp_path.iterdir()) == []
        return
    write_vector(path, [rows], crs=BOUND, overwrite=False)
    frame = read_detections(path)
    move = pyproj.Transformer.from_crs(BOUND, "EPSG:4326", always_xy=True)
    expected = move.transform([400_000.0, 400_100.0], [5_500_000.0] * 2)
    found = frame.to_crs("EPSG:4326").geometry
    np.testing.assert_allclose([found.x, found.y], expected, atol=1e-9)


def test_an_image_without_a_place(tmp_path):
    grid = Grid(None, Affine.identity(), 3000, 3000)
    for suffix in (".gpkg", ".shp", ".parquet", ".fgb"):
        path = tmp_path / f"found{suffix}"
        write_vector(path, [table(random_detections(3), grid)], crs=None, overwrite=False)
        frame = read_detections(path)
        np.testing.assert_allclose(
            frame.total_bounds[2:], random_detections(3).boxes_px[:, 2:].max(axis=0)
        )


# --- other tables -------------------------------------------------------------------------


def test_points_and_long_names(tmp_path):
    """As synthetic truth or ground that was not covered: other columns, other geometries."""
    wkb = shapely.to_wkb(shapely.points([[1.0, 2.0], [3.0, 4.0]]))
    rows = pa.table(
        {
            "geometry": pa.array(wkb),
            "quite_a_long_name": ["a", "b"],
            "id": [7, 7],
            "quite_a_long_other": [1, 2],
        }
    )
    path = tmp_path / "points.shp"
    assert write_vector(path, [rows], crs=UTM, overwrite=False) == 2
    frame = read_detections(path)
    assert list(frame.columns) == ["id", "quite_a_lo", "quite_a_l1", "geometry"]
    assert frame["id"].tolist() == [0, 1]
    assert frame.geom_type.tolist() == ["Point", "Point"]


def test_outlines_follow_the_ground_and_may_be_missing(tmp_path):
    outline = np.array([shapely.box(400_000, 5_900_000, 600_000, 6_000_000), None], dtype=object)
    rows = outline_table(outline, {"error": ["a", "b"]}, UTM, pyproj.CRS("EPSG:4326"))
    path = tmp_path / "not_covered.gpkg"
    write_vector(path, [rows], crs=pyproj.CRS("EPSG:4326"), overwrite=False, layer="not_covered")
    frame = read_detections(path)
    assert frame.geometry.isna().tolist() == [False, True]
    # Halfway between its corners an edge bends away from the chord in longitude and latitude.
    midway = shapely.Point(450_000, 5_900_000)
    assert frame.to_crs(UTM).geometry[0].exterior.distance(midway) < 0.2
    chord = frame.geometry[0].exterior.coords
    ends = shapely.LineString([chord[0], chord[64]])
    assert shapely.hausdorff_distance(ends, shapely.LineString(chord[:65])) > 1e-4


def test_of_several_layers_the_detections_are_read(tmp_path):
    import pyogrio

    path = tmp_path / "both.gpkg"
    frame = to_geodataframe([table(random_detections(4))], UTM)
    pyogrio.write_dataframe(frame.iloc[:1], path, layer="not_covered")
    pyogrio.write_dataframe(frame, path, layer="detections", append=True)
    assert len(read_detections(path)) == 4
    pyogrio.write_dataframe(frame, tmp_path / "two.gpkg", layer="a")
    pyogrio.write_dataframe(frame, tmp_path / "two.gpkg", layer="b", append=True)
    with pytest.raises(LabelError, match=r"a, b; give a file .*one named detections"):
        read_detections(tmp_path / "two.gpkg")


# --- in the eyes of others ----------------------------------------------------------------

OGRINFO = shutil.which("ogrinfo")


@pytest.mark.skipif(OGRINFO is None, reason="ogrinfo (package gdal-bin) is not installed")
@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb"])
def test_ogrinfo_opens_it(tmp_path, suffix):
    path = tmp_path / f"found{suffix}"
    write_vector(path, [table(random_detections(50))], crs=UTM, overwrite=False)
    done = subprocess.run(
        [OGRINFO, "-ro", "-so", "-al", path], capture_output=True, text=True, check=True
    )
    assert "Feature Count: 50" in done.stdout
    assert "Geometry: Polygon" in done.stdout
    assert ("WGS 84" if suffix == ".geojson" else "UTM zone 32N") in done.stdout
    for column in COLUMNS[:-1]:
        assert re.search(rf"^{column}: ", done.stdout, re.MULTILINE), column
    assert not re.search("error|warning", done.stderr, re.IGNORECASE), done.stderr


@pytest.mark.skipif(OGRINFO is None, reason="ogrinfo (package gdal-bin) is not installed")
def test_ogrinfo_finds_valid_geometries(tmp_path):
    path = tmp_path / "found.gpkg"
    write_vector(path, [table(random_detections(50))], crs=UTM, overwrite=False)
    query = "SELECT SUM(ST_IsValid(geom)) AS valid, COUNT(*) AS n FROM detections"
    done = subprocess.run(
        [OGRINFO, "-ro", "-q", "-dialect", "SQLITE", "-sql", query, path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"valid \(Integer\w*\) = 50\b", done.stdout), done.stdout + done.stderr


def test_the_geopackage_has_a_spatial_index(tmp_path):
    path = tmp_path / "found.gpkg"
    write_vector(path, [table(random_detections(50))], crs=UTM, overwrite=False)
    with sqlite3.connect(path) as database:
        [(count,)] = database.execute("SELECT COUNT(*) FROM rtree_detections_geom")
        [(kind,)] = database.execute("SELECT geometry_type_name FROM gpkg_geometry_columns")
    database.close()
    assert (count, kind) == (50, "POLYGON")


def test_geoparquet_metadata(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "found.parquet"
    write_vector(
        path,
        [table(random_detections(50)), table(random_detections(50, 1))],
        crs=UTM,
        overwrite=False,
    )
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert geo["version"] == "1.1.0"
    assert column["geometry_types"] == ["Polygon"]
    assert column["bbox"] == pytest.approx(read_detections(path).total_bounds)
    assert pyproj.CRS.from_json_dict(column["crs"]) == UTM


def test_geojson_follows_rfc_7946(tmp_path):
    path = tmp_path / "found.geojson"
    write_vector(path, [table(random_detections(2))], crs=UTM, overwrite=False)
    parsed = json.loads(path.read_text())
    assert "crs" not in parsed
    assert parsed["features"][0]["properties"]["id"] == 0


def test_cut_keeps_its_bits():
    found = Detections([[0, 0, 5, 5]], [0.5], [0], [0], [int(Cut.SCENE_BOTTOM | Cut.LEFT)], [False])
    assert Cut(table(found)["cut"][0].as_py()) == Cut.SCENE_BOTTOM | Cut.LEFT
