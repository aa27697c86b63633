"""What a person entered outlives the file in which it was entered."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from support.detections import detections_of

from geo_retina.cli import main
from geo_retina.errors import OutputError
from geo_retina.options import FilterOptions, MergeOptions, ReviewOptions
from geo_retina.postprocess import combine_runs, filter_detections
from geo_retina.review import read_review, review_detections
from geo_retina.vector import write_vector
from geo_retina.vector.review_layers import REVIEW_TABLES, entries_in
from geo_retina.vector.writers.geopackage_layers import write_layers
from geo_retina.vector.writers.styles import read_styles
from tests.support.reviews import edit, rows_of, scattered, square, write_found

SMALL = ReviewOptions(budget=20, cells=20, cell_size_m=10.0)


def reviewed(path, *more, count=400):
    """Write a file with entries of each kind in it."""
    write_found(path, scattered(count))
    review_detections(path, SMALL)
    edit(
        path,
        "ALTER TABLE review ADD COLUMN photo TEXT",
        "UPDATE review SET status = 'accepted', photo = 'a.jpg' WHERE fid % 3 = 0",
        "DELETE FROM review WHERE fid = 5",
        "INSERT INTO review (geom, class, note) SELECT geom, 'b', 'by hand' FROM review LIMIT 1",
        "UPDATE cells SET status = 'done' WHERE fid < 4",
        "UPDATE layer_styles SET styleQML = 'mine' WHERE f_table_name = 'cells'",
        *more,
    )
    return {name: rows_of(path, name) for name in REVIEW_TABLES}


def test_a_new_run_keeps_the_review(tmp_path):
    path = tmp_path / "found.gpkg"
    before = reviewed(path)
    known = read_review(path)
    write_found(path, scattered(400) + 0.05)  # the same objects, and found a little elsewhere
    assert {name: rows_of(path, name) for name in REVIEW_TABLES} == before
    assert len(gpd.read_file(path, layer="detections")) == 400
    after = read_review(path)
    assert after.cases.is_touched.sum() == known.cases.is_touched.sum() > 10
    assert after.is_done.sum() == 3
    assert read_styles(path)["cells"] == "mine"
    assert set(gpd.read_file(path, layer="review")["photo"].dropna()) == {"a.jpg"}
    # Every object that has a row already is recognised by its place.
    report = review_detections(path, SMALL)
    assert report.cell_rows == 0
    assert {name: rows_of(path, name) for name in ("cells", "review_frame")} == {
        name: before[name] for name in ("cells", "review_frame")
    }


def test_ten_thousand_entries(tmp_path):
    path = tmp_path / "found.gpkg"
    write_found(path, scattered(11_000), half=0.1)
    review_detections(path, ReviewOptions(budget=11_000, cells=0))
    edit(path, "UPDATE review SET status = 'rejected', note = 'no ' || fid")
    before = rows_of(path)
    assert len(before) > 10_000
    write_found(path, scattered(11_000), half=0.1)
    assert rows_of(path) == before


def test_into_another_crs(tmp_path):
    path = tmp_path / "found.gpkg"
    before = reviewed(path)
    ground = gpd.GeoSeries([shapely.box(-1, -1, 201, 201)], crs=32633).to_crs(4326)[0]
    centre = np.array(ground.centroid.coords[0])
    write_found(path, [centre], half=1e-5, ground=ground, crs=pyproj.CRS(4326))
    after = read_review(path)
    assert after.crs.to_epsg() == 32633
    assert len(after.cases) == len(before["review_found"]) + 1
    assert gpd.read_file(path, layer="detections").crs.to_epsg() == 4326
    assert gpd.read_file(path, layer="cells").crs.to_epsg() == 32633
    review_detections(path, SMALL)


def test_a_crs_without_an_authority(tmp_path):
    """Its number in the file may be another one's in the new file; geometries name the new one."""
    local = pyproj.CRS.from_proj4("+proj=tmerc +lon_0=10.5 +k=0.9999 +x_0=0 +ellps=GRS80 +units=m")
    other = pyproj.CRS.from_proj4("+proj=tmerc +lon_0=10.5 +k=0.9998 +x_0=0 +ellps=GRS80 +units=m")
    path = tmp_path / "found.gpkg"
    write_found(path, scattered(50), crs=local)
    review_detections(path, SMALL)
    edit(path, "UPDATE review SET status = 'accepted'")
    before = gpd.read_file(path, layer="review")
    write_found(path, scattered(50), crs=other, ground=shapely.box(-9, -9, 300, 300))
    after = gpd.read_file(path, layer="review")
    assert after.crs == before.crs != gpd.read_file(path, layer="detections").crs
    assert after.geometry.geom_equals(before.geometry).all()
    blob = rows_of(path, columns="geom")[0][0]
    query = "SELECT srs_id FROM gpkg_geometry_columns WHERE table_name = 'review'"
    with closing(sqlite3.connect(path)) as database:
        (number,) = database.execute(query).fetchone()
    assert int.from_bytes(blob[4:8], "little", signed=True) == number


def test_a_review_is_discarded_when_asked(tmp_path):
    path = tmp_path / "found.gpkg"
    reviewed(path)
    filter_from = write_found(tmp_path / "all.gpkg", scattered(400))
    options = FilterOptions(score=0.5)
    filter_detections(filter_from, path, options, overwrite=True)
    assert entries_in(path) > 10
    combine_runs([_mergeable(tmp_path)], path, MergeOptions(), overwrite=True, discard_review=True)
    assert entries_in(path) == 0
    assert "review" not in set(gpd.list_layers(path)["name"])


def _mergeable(folder):
    """A run over the same ground, whose scanned layer says on which grid."""
    from affine import Affine

    from geo_retina.grid import Grid
    from geo_retina.vector import (
        Companions,
        Target,
        detections_table,
        outline_table,
        write_outputs,
    )

    path = folder / "run.gpkg"
    crs = pyproj.CRS("EPSG:32633")
    grid = Grid(crs, Affine(1, 0, 0, 0, -1, 200), 200, 200)
    found = detections_of([10, 10, 14, 14])
    columns = {
        "scene": ["s"], "path": ["s.tif"], "width_px": [200], "height_px": [200],
        "grid_crs": [crs.to_wkt()], "affine": [" ".join(map(str, grid.affine[:6]))],
    }  # fmt: skip
    ground = np.array([shapely.multipolygons([shapely.box(0, 0, 200, 200)])], dtype=object)
    scanned = outline_table(ground, columns, crs, crs)
    table = detections_table(found, grid, classes=["a"], scene="s", to_file=Affine.identity())
    write_outputs(
        [Target(path, True)],
        [table],
        Companions(scanned, None, {}),
        crs=crs,
        classes=("a",),
        geometry="polygon",
    )
    return path


def test_merge_keeps_it_and_the_command_line_discards_it(tmp_path, capsys):
    path, run = tmp_path / "found.gpkg", _mergeable(tmp_path)
    before = reviewed(path)
    command = ["merge", str(run), "--out", str(path), "--overwrite"]
    assert main(command) == 0
    assert {name: rows_of(path, name) for name in REVIEW_TABLES} == before
    assert main([*command, "--discard-review"]) == 0
    assert entries_in(path) == 0
    reviewed(path)
    capsys.readouterr()
    command = ["filter", str(run), "--score", "0.1", "--out", str(path), "--overwrite"]
    assert main([*command, "--discard-review"]) == 0
    assert entries_in(path) == 0


def test_other_ground_is_refused(tmp_path):
    path = tmp_path / "found.gpkg"
    reviewed(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="20 of 20 cells lie off the ground"):
        write_found(path, [(1010, 1010)], ground=shapely.box(1000, 1000, 1200, 1200))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["found.gpkg"]


def test_a_queue_without_entries_may_go(tmp_path):
    path = tmp_path / "found.gpkg"
    write_found(path, scattered(50))
    review_detections(path, SMALL)
    assert entries_in(path) == 0
    write_found(path, scattered(50))
    assert "review" not in set(gpd.list_layers(path)["name"])


def test_a_file_that_a_gis_has_open_is_not_replaced(tmp_path):
    """QGIS keeps a write-ahead log: it would go on with the file that was renamed away."""
    path = tmp_path / "found.gpkg"
    before = reviewed(path)
    with closing(sqlite3.connect(path)) as gis:
        gis.execute("PRAGMA journal_mode=WAL")
        gis.execute("SELECT COUNT(*) FROM review").fetchone()
        with pytest.raises(OutputError, match="in use by another program"):
            write_found(path, scattered(9))
    write_found(path, scattered(9))
    assert {name: rows_of(path, name) for name in REVIEW_TABLES} == before


def test_writers_that_cannot_keep_it_refuse(tmp_path):
    path = tmp_path / "found.gpkg"
    reviewed(path)
    frame = gpd.GeoDataFrame(geometry=[square(0, 0)], crs="EPSG:32633")
    with pytest.raises(OutputError, match=r"holds a person.s review with [0-9]+ entries"):
        write_layers(path, {"a": frame}, styles={}, overwrite=True)
    with pytest.raises(OutputError, match="name another output"):
        write_vector(path, [], crs=None, overwrite=True)


@pytest.mark.parametrize("content", [b"", b"no database at all", b"SQLite format 3\x00 cut"])
def test_a_broken_file_may_be_replaced(tmp_path, content):
    path = tmp_path / "found.gpkg"
    path.write_bytes(content)
    assert entries_in(path) == 0
    write_found(path, scattered(5))
    assert len(gpd.read_file(path, layer="detections")) == 5


def test_layers_copied_from_another_file_are_not_lost_in_silence(tmp_path, capsys):
    """A GIS copies the two layers, not the tables beside them."""
    source, path = tmp_path / "source.gpkg", write_found(tmp_path / "found.gpkg", scattered(50))
    reviewed(source)
    for layer in ("review", "cells"):
        gpd.read_file(source, layer=layer).to_file(path, layer=layer)
    assert entries_in(path) > 10
    before = path.read_bytes()
    other = write_found(tmp_path / "other.gpkg", scattered(40))
    command = ["filter", str(other), "--score", "0.3", "--out", str(path), "--overwrite"]
    assert main(command) == 1
    assert "without review_found, review_frame, review_design" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main([*command, "--discard-review"]) == 0
    assert entries_in(path) == 0


def test_a_layer_of_that_name_without_entries_is_no_review(tmp_path, capsys):
    path = write_found(tmp_path / "found.gpkg", scattered(50))
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[square(5, 5)], crs="EPSG:32633").to_file(
        path, layer="cells"
    )
    assert entries_in(path) == 0
    assert main(["review", str(path)]) == 1
    assert "rename or remove the layer" in capsys.readouterr().err
