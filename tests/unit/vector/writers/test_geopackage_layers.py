"""Several styled layers in one GeoPackage, and centres read in pieces."""

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely

from geo_retina.errors import LabelError, OutputError
from geo_retina.vector import (
    layer_crs,
    plain_style,
    read_detections,
    stream_centres,
    write_layers,
)
from geo_retina.vector.writers.styles import read_styles

UTM = "EPSG:32633"


def frame(shapes, **columns):
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=UTM)


def test_layers_come_back_in_order_with_styles(tmp_path):
    boxes = frame([shapely.box(0, 0, 2, 1), shapely.box(3, 3, 4, 5)], **{"class": ["a", "b"]})
    points = frame([shapely.Point(1, 2)], score=[0.25])
    empty = frame([], score=np.empty(0))
    path = tmp_path / "a.gpkg"
    styles = {"right": plain_style("#010203"), "far": plain_style("#040506", kind="Point")}
    write_layers(
        path, {"right": boxes, "far": points, "none": empty}, styles=styles, overwrite=False
    )
    assert [name for name, _ in pyogrio.list_layers(path)][:3] == ["right", "far", "none"]
    for name, wanted in (("right", boxes), ("far", points), ("none", empty)):
        found = gpd.read_file(path, layer=name)
        assert found.crs == wanted.crs
        assert found.geometry.geom_equals(wanted.geometry).all()
        assert found.drop(columns="geometry").equals(wanted.drop(columns="geometry"))
    assert read_styles(path) == styles
    assert list(tmp_path.iterdir()) == [path]


def test_a_polygon_in_parts_makes_all_of_its_layer_such(tmp_path):
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)])
    layer = frame([shapely.box(5, 5, 6, 6), parts])
    write_layers(tmp_path / "a.gpkg", {"one": layer}, styles={}, overwrite=False)
    assert pyogrio.read_info(tmp_path / "a.gpkg", layer="one")["geometry_type"] == "MultiPolygon"
    found = gpd.read_file(tmp_path / "a.gpkg", layer="one")
    assert found.geometry.area.tolist() == [1, 2]


def test_layers_need_a_geopackage_of_a_free_name(tmp_path):
    layers = {"one": frame([shapely.Point(1, 2)])}
    with pytest.raises(OutputError, match=r"\.gpkg"):
        write_layers(tmp_path / "a.shp", layers, styles={}, overwrite=False)
    (tmp_path / "a.gpkg").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_layers(tmp_path / "a.gpkg", layers, styles={}, overwrite=False)
    assert (tmp_path / "a.gpkg").read_text() == "mine"
    write_layers(tmp_path / "a.gpkg", layers, styles={}, overwrite=True)
    assert len(gpd.read_file(tmp_path / "a.gpkg", layer="one")) == 1


def test_a_failure_leaves_the_folder_as_it_was(tmp_path):
    bad = frame([shapely.Point(1, 2)], name=[1], NAME=[2])
    with pytest.raises(OutputError, match="could not be written"):
        write_layers(tmp_path / "a.gpkg", {"one": bad}, styles={}, overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".shp", ".parquet"])
def test_centres_are_those_of_the_rows(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("geo_retina.vector.readers.positions._BATCH_ROWS", 4)
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 50, (11, 2))
    names = np.array(["a", "b", "c"])[rng.integers(0, 3, 11)]
    shapes = shapely.box(*low.T, *(low + rng.uniform(1, 2, (11, 2))).T)
    rows = frame(shapes, **{"class": names, "score": np.linspace(0, 1, 11)})
    rows = rows.to_crs("EPSG:4326") if suffix == ".geojson" else rows
    path = tmp_path / f"d{suffix}"
    rows.to_parquet(path) if suffix == ".parquet" else rows.to_file(path)
    assert layer_crs(path) == pyproj.CRS(rows.crs)
    batches = list(stream_centres(path, score=0.35))
    assert len(batches) > 1
    whole = read_detections(path)
    whole = whole[whole["score"] >= 0.35]
    bounds = whole.bounds.to_numpy()
    found = np.concatenate([batch.positions for batch in batches])
    np.testing.assert_allclose(found, (bounds[:, :2] + bounds[:, 2:]) / 2, atol=1e-9)
    read = [batch.names[code] for batch in batches for code in batch.codes]
    assert read == whole["class"].tolist()


def test_rows_without_a_place_or_a_class_are_passed_over(tmp_path):
    shapes = [shapely.box(0, 0, 2, 2), None, shapely.Polygon(), shapely.Point(5, 6)]
    rows = frame(shapes, **{"class": ["a", "a", "b", None]})
    rows.to_parquet(tmp_path / "d.parquet")
    (batch,) = stream_centres(tmp_path / "d.parquet")
    assert batch.positions.tolist() == [[1, 1], [5, 6]]
    assert [batch.names[code] for code in batch.codes] == ["a", ""]


def test_what_cannot_be_streamed_says_why(tmp_path):
    with pytest.raises(LabelError, match="does not exist"):
        next(stream_centres(tmp_path / "no.parquet"))
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(LabelError, match="not a GeoParquet file"):
        next(stream_centres(tmp_path / "bad.parquet"))
    with pytest.raises(LabelError, match="not a GeoParquet file"):
        layer_crs(tmp_path / "bad.parquet")


@pytest.mark.parametrize("suffix", [".parquet", ".pq", ".PARQ", ""])
def test_the_crs_is_that_of_the_primary_geometry(tmp_path, suffix):
    frame = gpd.GeoDataFrame(
        {"middle": gpd.GeoSeries([shapely.Point(9, 48)], crs="EPSG:4326")},
        geometry=gpd.GeoSeries([shapely.box(0, 0, 1, 1)], crs="EPSG:32632"),
    )
    path = tmp_path / f"l{suffix}"
    frame.to_parquet(path)
    assert next(iter(frame.columns)) == "middle"
    assert layer_crs(path) == pyproj.CRS("EPSG:32632")
