"""Outputs in the eyes of the programs that people open them with."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import geopandas as gpd
import matplotlib.image
import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
from affine import Affine
from support.detections import random_detections

from geo_retina.grid import Grid
from geo_retina.vector import (
    Companions,
    Target,
    detections_table,
    outline_table,
    same_days,
    with_days,
    write_outputs,
)

SYSTEM_PYTHON = "/usr/bin/python3"
CLASSES = ("car", "ship")
CRS = pyproj.CRS("EPSG:32632")
GRID = Grid(CRS, Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000), 400, 800)


def client(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; Debian has it in gdal-bin")
    return found


def system_python(module: str, package: str) -> str:
    """The Python of the system that has a module, for what pip cannot install."""
    command = [SYSTEM_PYTHON, "-c", f"import {module}"]
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"{SYSTEM_PYTHON} has no {module}; Debian has it in {package}")
    return SYSTEM_PYTHON


def call(*command: object) -> str:
    # The tests' own GDAL and PROJ settings are not those of the system's programs.
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "QT_QPA_PLATFORM", "XDG_RUNTIME_DIR")
    env = {name: value for name, value in os.environ.items() if name in kept}
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One set of objects in every format; a.gpkg and the others, and both.gpkg with points."""
    folder = tmp_path_factory.mktemp("outputs")
    found = random_detections(200, within_px=340, sides_px=(10.0, 50.0))
    found = dataclasses.replace(found, labels=np.arange(200) % 2)
    rows = detections_table(found, GRID, classes=CLASSES, scene="a", to_file=Affine.identity())
    rows = with_days(rows, {"scene_date": same_days(date(2022, 5, 19), 200)})
    outline = shapely.multipolygons([shapely.box(500_000, 5_299_800, 500_400, 5_300_000)])
    ground = outline_table(np.array([outline], dtype=object), {"scene": ["a"]}, CRS, CRS)
    for names, geometry in (
        (["a.gpkg", "a.shp", "a.geojson", "a.fgb", "a.parquet"], "polygon"),
        (["both.gpkg"], "both"),
    ):
        write_outputs(
            [Target(folder / name, False) for name in names],
            [rows],
            Companions(ground, ground.slice(0, 0), {"model": "tiny"}),
            crs=CRS,
            classes=CLASSES,
            geometry=geometry,
        )
    return folder


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.geojson", "a.fgb", "both.gpkg"])
def test_ogrinfo_reads_every_layer_without_a_word_of_complaint(folder, name):
    told = call(client("ogrinfo"), "-ro", "-al", "-so", folder / name)
    assert "Feature Count: 200" in told
    assert not re.search("error|warning", told, re.IGNORECASE), told
    assert re.search(r"scene_date: Date(Time)? \(", told), told
    if name.endswith(".gpkg"):
        for layer in ("detections", "scanned", "not_covered", "metadata", "layer_styles"):
            assert f"Layer name: {layer}\n" in told


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.geojson", "a.fgb"])
def test_ogr2ogr_converts_it(folder, tmp_path, name):
    out = tmp_path / "converted.geojson"
    layer = ["detections"] if name == "a.gpkg" else []
    call(client("ogr2ogr"), "-q", "-t_srs", "EPSG:4326", out, folder / name, *layer)
    got, want = gpd.read_file(out), gpd.read_file(folder / "a.gpkg", layer="detections")
    got = got.sort_values("id", ignore_index=True)
    assert got["class"].tolist() == want["class"].tolist()
    gap = got.to_crs(CRS).geometry.centroid.distance(want.geometry.centroid)
    assert gap.max() < 0.02  # ogr2ogr writes seven digits of a degree


@pytest.mark.parametrize("name", ["a.gpkg", "both.gpkg", "a.fgb.scanned.gpkg"])
def test_gdal_finds_the_geopackage_valid(folder, name):
    python = system_python("osgeo_utils.samples.validate_gpkg", "python3-gdal")
    call(python, "-m", "osgeo_utils.samples.validate_gpkg", folder / name)


def test_qgis_shows_classes_in_colours_at_once(folder, tmp_path):
    python = system_python("qgis.core", "python3-qgis")
    picture = tmp_path / "map.png"
    script = Path(__file__).with_name("render_in_qgis.py")
    told = call(python, script, picture, folder / "a.gpkg")
    layers = {layer["name"]: layer for layer in json.loads(told.splitlines()[0])}
    found = layers["detections"]
    assert found["features"] == 200
    assert found["renderer"] == "categorizedSymbol"
    assert found["colours"] == {"car": "#ffd400", "ship": "#00e5ff", "": "#999999"}
    assert layers["scanned"]["features"] == 1
    pixels = matplotlib.image.imread(picture)[..., :3]
    for colour in ((1.0, 0.83, 0.0), (0.0, 0.9, 1.0), (0.3, 0.65, 1.0)):
        near = np.abs(pixels - colour).max(axis=-1) < 0.05
        assert near.sum() > 300, colour


def test_qgis_loads_the_other_formats(folder, tmp_path):
    python = system_python("qgis.core", "python3-qgis")
    script = Path(__file__).with_name("render_in_qgis.py")
    paths = [folder / name for name in ("a.shp", "a.geojson", "a.fgb")]
    told = call(python, script, tmp_path / "map.png", *paths)
    layers = json.loads(told.splitlines()[0])
    assert [layer["features"] for layer in layers] == [200] * 3
    assert [layer["crs"] for layer in layers] == ["EPSG:32632", "EPSG:4326", "EPSG:32632"]
    for layer in layers:
        assert {"class", "score", "area_m2", "longest_m", "x_min_px"} <= set(layer["fields"])


def test_geopandas_reads_only_a_part_of_the_geoparquet(folder):
    whole = gpd.read_parquet(folder / "a.parquet")
    assert len(whole) == 200
    assert whole.crs == CRS
    assert "bbox" not in whole.columns  # it serves the filter below, and is no attribute
    window = (500_000, 5_299_900, 500_100, 5_300_000)
    part = gpd.read_parquet(folder / "a.parquet", bbox=window)
    assert set(part["id"]) == set(whole[whole.intersects(shapely.box(*window))]["id"])
    assert 5 < len(part) < 150


def test_duckdb_reads_the_geoparquet(folder):
    """Its spatial extension where it can be loaded; else the columns and the WKB itself."""
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    path = folder / "a.parquet"
    whole = gpd.read_parquet(path)
    with duckdb.connect() as database:
        query = f"SELECT count(*), avg(score) FROM '{path}' WHERE class = 'car'"
        [(count, score)] = database.execute(query).fetchall()
        assert count == 100
        assert score == pytest.approx(whole[whole["class"] == "car"]["score"].mean())
        query = f"SELECT id FROM '{path}' WHERE bbox.xmin >= 500100 ORDER BY id"
        ids = [row[0] for row in database.execute(query).fetchall()]
        assert ids == whole[whole.bounds["minx"] >= 500_100]["id"].tolist()
        try:
            database.execute("LOAD spatial")
        except duckdb.Error as error:
            pytest.skip(f"read without geometries, as DuckDB's spatial is absent: {error}"[:120])
        query = f"SELECT sum(ST_Area(geometry)) FROM '{path}'"
        [(area,)] = database.execute(query).fetchall()
        assert area == pytest.approx(whole.area.sum())


def test_pyarrow_sees_plain_wkb(folder):
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "a.parquet")
    assert rows.schema.field("geometry").type == pa.binary()
    boxes = shapely.bounds(shapely.from_wkb(rows["geometry"].to_numpy()))
    assert boxes.shape == (200, 4)
