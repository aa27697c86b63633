"""A run's files: several at once, with what explains them; and choosing among what they hold."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine
from support.detections import random_detections

from geo_retina.detections import Detections
from geo_retina.errors import LabelError, OptionError, OutputError
from geo_retina.grid import Grid
from geo_retina.options import FilterOptions
from geo_retina.postprocess import filter_detections
from geo_retina.vector import (
    Companions,
    Target,
    detections_table,
    outline_table,
    read_detections,
    read_metadata,
    write_outputs,
)
from geo_retina.vector.formats import check_shapefile_size, shapefile_table_bytes
from geo_retina.vector.writers import outputs
from geo_retina.vector.writers.outputs import companion_path
from geo_retina.vector.writers.spool import Spool
from geo_retina.vector.writers.styles import read_styles

CLASSES = ("car", "ship")
UTM = pyproj.CRS("EPSG:32632")
GRID = Grid(
    UTM,
    Affine.translation(612_345.6, 5_300_123.4) @ Affine.rotation(23.0) @ Affine.scale(0.3, -0.4),
    3000,
    3000,
)
SINGLE = (".shp", ".geojson", ".fgb", ".parquet")


def some(count, seed=0):
    """In the order of their tiles, none of them cut."""
    found = random_detections(count, seed)
    return dataclasses.replace(found, tile=np.arange(count), cut=np.zeros(count, np.uint8))


def table(detections):
    return detections_table(detections, GRID, classes=CLASSES, scene="a", to_file=Affine.identity())


GROUND = np.array([shapely.box(612_000, 5_299_000, 614_000, 5_301_000)], dtype=object)
METADATA = {"model": "tiny", "thresholds": json.dumps({"car": 0.5, "ship": 0.7})}


def companions(missing=1, **changes):
    multi = shapely.multipolygons(GROUND[:, None])
    nowhere = outline_table(multi[:missing], {"error": ["x"] * missing}, UTM, UTM)
    scanned = outline_table(multi, {"scene": ["a"]}, UTM, UTM)
    return Companions(scanned, nowhere, {**METADATA, "min_score": "0.0"} | changes)


def write(paths, tables, about=None, *, overwrite=False, geometry="polygon"):
    targets = [Target(path, overwrite) for path in paths]
    about = about or companions()
    return write_outputs(targets, tables, about, crs=UTM, classes=CLASSES, geometry=geometry).rows


def layers(path):
    return {str(name): kind for name, kind in pyogrio.list_layers(path)}


# --- several files, and what explains them ------------------------------------------------


def test_every_format_from_one_pass_over_the_tables(tmp_path):
    paths = [tmp_path / f"a{suffix}" for suffix in (".gpkg", *SINGLE)]
    once = iter([table(some(300, 1)), table(Detections.empty()), table(some(40, 2))])
    assert write(paths, once) == 340
    want = read_detections(paths[0])
    for path in paths[1:]:
        got = read_detections(path)
        assert got["id"].tolist() == list(range(340))
        np.testing.assert_array_equal(got["x_min_px"], want["x_min_px"])
        np.testing.assert_allclose(got["area_m2"], want["area_m2"], rtol=1e-12)
        np.testing.assert_allclose(
            shapely.get_coordinates(got.to_crs(UTM).geometry.centroid.array),
            shapely.get_coordinates(want.geometry.centroid.array),
            atol=1e-6,
        )
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_geopackage_holds_all_of_it(tmp_path):
    path = tmp_path / "a.gpkg"
    write([path], [table(some(5))])
    assert layers(path) == {
        "detections": "Polygon",
        "scanned": "MultiPolygon",
        "not_covered": "MultiPolygon",
        "metadata": None,
        "layer_styles": None,
    }
    assert next(iter(layers(path))) == "detections"  # what readers take who ask for none
    assert read_metadata(path) == {**METADATA, "min_score": "0.0"}
    assert set(read_styles(path)) == {"detections", "scanned", "not_covered"}
    assert gpd.read_file(path, layer="scanned").geometry[0].equals(GROUND[0])
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert os.listdir(tmp_path) == ["a.gpkg"]


@pytest.mark.parametrize("suffix", SINGLE)
def test_other_formats_have_it_beside_them(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write([path], [table(some(5))])
    scanned = companion_path(path, "scanned")
    ground = gpd.read_file(scanned, layer="scanned")
    assert ground.to_crs(UTM).geometry[0].symmetric_difference(GROUND[0]).area < 0.01
    assert ground.crs == read_detections(path).crs
    assert len(gpd.read_file(companion_path(path, "not_covered"))) == 1
    assert read_metadata(path)["model"] == "tiny"
    # Once all ground is covered, nothing says that some is not.
    write([path], [table(some(5))], companions(missing=0), overwrite=True)
    assert not companion_path(path, "not_covered").exists()
    assert scanned.exists()


def test_layers_of_others_beside_detections_are_not_replaced(tmp_path):
    path = tmp_path / "a.gpkg"
    write([path], [table(some(5))], geometry="both")
    write([path], [table(some(4))], overwrite=True)
    roads = gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=UTM)
    roads.to_file(path, layer="my roads", mode="a")
    before = path.read_bytes()
    with pytest.raises(
        OutputError, match=r"a\.gpkg holds my roads, .* would be lost; name another"
    ):
        write([path], [table(some(5))], overwrite=True)
    assert path.read_bytes() == before


def test_polygons_points_or_both(tmp_path):
    found = some(30)
    middles = (found.boxes_px[:, :2] + found.boxes_px[:, 2:]) / 2
    want = GRID.pixels_to_crs(middles)
    for suffix in (".gpkg", *SINGLE):
        path = tmp_path / f"points{suffix}"
        write([path], [table(found)], geometry="point")
        got = read_detections(path)
        assert set(got.geom_type) == {"Point"}
        np.testing.assert_allclose(
            shapely.get_coordinates(got.to_crs(UTM).geometry.array), want, atol=1e-5
        )
    both = tmp_path / "both.gpkg"
    assert write([both], [table(found)], geometry="both") == 30
    assert {"detections", "detection_points"} <= set(layers(both))
    assert set(read_styles(both)) >= {"detections", "detection_points"}
    points = gpd.read_file(both, layer="detection_points")
    polygons = gpd.read_file(both, layer="detections")
    assert points["id"].tolist() == polygons["id"].tolist()
    assert points.geometry.within(polygons.geometry).all()
    with pytest.raises(OutputError, match=r"a\.shp holds one layer.*RunOptions.geometry"):
        write([tmp_path / "a.shp"], [], geometry="both")


@pytest.mark.parametrize("stage", ["tables", "metadata"])
def test_a_failure_leaves_all_old_outputs(tmp_path, stage, monkeypatch):
    paths = [tmp_path / f"a{suffix}" for suffix in (".gpkg", ".shp", ".parquet")]
    write(paths, [table(some(7))])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def tables():
        yield table(some(50))
        if stage == "tables":
            raise ZeroDivisionError

    def fail(*_):
        raise ZeroDivisionError

    if stage == "metadata":  # all detections have been written then
        monkeypatch.setattr(outputs, "_write_metadata", fail)
    with pytest.raises(ZeroDivisionError):
        write(paths, tables(), overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("names", [["a.gpkg"], ["a.parquet"], ["a.fgb", "a.shp"], []])
def test_what_was_written_is_counted_by_class_on_the_way(tmp_path, names):
    """Also where both layers of a GeoPackage, or several files, read the rows twice."""
    many = [some(150_000, 1), some(0), some(400, 2)]
    tables = iter([table(each) for each in many])
    classes = ["bus", CLASSES[1]]
    found = write_outputs(
        [Target(tmp_path / name, False) for name in names or ["both.gpkg"]],
        tables,
        companions(),
        crs=UTM,
        classes=classes,
        geometry="polygon" if names else "both",
    )
    labels = np.concatenate([each.labels for each in many])
    counts = {name: int((labels == i).sum()) for i, name in enumerate(CLASSES)}
    assert found.rows == 150_400
    assert dict(found.counts) == {"bus": 0, **counts}
    assert list(found.counts)[:2] == classes
    assert found.joined == sum(int(each.joined.sum()) for each in many) > 0


def test_a_file_that_appears_meanwhile_keeps_all_from_moving(tmp_path):
    def tables():
        yield table(some(2))
        (tmp_path / "b.parquet").write_text("someone else's")

    with pytest.raises(OutputError, match=r"b\.parquet appeared"):
        write([tmp_path / "a.gpkg", tmp_path / "b.parquet"], tables())
    assert os.listdir(tmp_path) == ["b.parquet"]


# --- limits of formats --------------------------------------------------------------------


def test_the_size_of_a_shapefile_is_known_before(tmp_path):
    path = tmp_path / "a.shp"
    rows = table(some(100)).set_column(0, "class", pa.array(["é" * 60] * 100))  # 120 bytes
    spool = Spool(tmp_path / "rows", [rows])
    assert spool.longest_texts == {"class": 120, "scene": 1}
    write([path], [rows])
    schema = pa.schema([pa.field("id", pa.int64()), *rows.schema])
    size = shapefile_table_bytes(schema, 100, spool.longest_texts)
    assert size == path.with_suffix(".dbf").stat().st_size
    with pytest.raises(OutputError, match=r"a\.shp would need .* GB for 9,000,000 objects.*gpkg"):
        check_shapefile_size(path, schema, 9_000_000, spool.longest_texts)


def test_a_shapefile_too_large_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("geo_retina.vector.formats._SHAPEFILE_BYTES", 10_000)
    with pytest.raises(OutputError, match="shapefile holds 2 GB"):
        write([tmp_path / "a.gpkg", tmp_path / "a.shp"], [table(some(100))])
    assert os.listdir(tmp_path) == []


def test_a_shapefile_has_no_missing_class(tmp_path):
    rows = table(some(2)).set_column(0, "class", pa.array([None, "car"], pa.string()))
    write([tmp_path / "a.shp", tmp_path / "a.gpkg"], [rows])
    assert gpd.read_file(tmp_path / "a.shp")["class"].tolist() == ["unknown", "car"]
    assert gpd.read_file(tmp_path / "a.gpkg")["class"].isna().tolist() == [True, False]
    # They are of no class in a legend, and in no count.
    kept = filter_detections(tmp_path / "a.gpkg", tmp_path / "b.gpkg", FilterOptions(score=0.0))
    assert (kept.kept, kept.counts) == (2, {"car": 1, "ship": 0})


def test_small_tables_share_row_groups(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    write([path], [table(some(10, seed)) for seed in range(50)])
    assert pq.read_metadata(path).num_row_groups == 1
    bbox = pq.read_table(path)["bbox"].combine_chunks()
    bounds = read_detections(path).geometry.bounds
    for ours, theirs in zip(("xmin", "ymin", "xmax", "ymax"), bounds.columns, strict=True):
        np.testing.assert_array_equal(bbox.field(ours), bounds[theirs])


# --- choosing -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gpkg", *SINGLE])
def test_a_threshold_keeps_what_it_says_in_every_format(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    found = some(400)
    write([path], [table(found)])
    out = tmp_path / "b.gpkg"
    report = filter_detections(path, out, FilterOptions(score=0.4, classes=("ship",)))
    want = (found.scores >= np.float32(0.4)) & (found.labels == 1)
    got = read_detections(out)
    assert (report.read, report.kept) == (400, want.sum())
    assert sorted(got["tile"]) == np.flatnonzero(want).tolist()  # .fgb is sorted by place
    assert report.counts == {"ship": want.sum()}
    assert len(gpd.read_file(out, layer="scanned")) == 1
    assert json.loads(read_metadata(out)["filtered"])["score"] == 0.4
    assert report.raised
    assert "note" in json.loads(read_metadata(out)["filtered"])
    # Without a score, the model's thresholds, class by class.
    filter_detections(path, out, overwrite=True)
    by_class = found.scores >= np.array([0.5, 0.7])[found.labels]
    assert sorted(read_detections(out)["tile"]) == np.flatnonzero(by_class).tolist()


def test_a_filtered_file_knows_what_it_holds_no_longer(tmp_path):
    path, sure, ships, area = (tmp_path / n for n in ("a.gpkg", "b.gpkg", "c.gpkg", "d.gpkg"))
    write([path], [table(some(400))], companions(min_score="0.1"))
    filter_detections(path, sure, FilterOptions(score=0.8))
    filter_detections(sure, ships, FilterOptions(classes=("ship",)))
    gpd.GeoSeries([GROUND[0]], crs=UTM).to_file(area)
    for file in (sure, ships):
        with pytest.raises(OptionError, match=r"from score 0.8 on.*filter the file from which"):
            filter_detections(file, tmp_path / "e.gpkg", FilterOptions(score=0.5))
        kept = filter_detections(
            file, tmp_path / "e.gpkg", FilterOptions(aoi=str(area)), overwrite=True
        )
        assert kept.thresholds == {"car": 0.8, "ship": 0.8}
    with pytest.raises(OptionError, match="filtered before and holds ship alone, so car"):
        filter_detections(ships, tmp_path / "f.gpkg", FilterOptions(classes=("car",)))


def test_an_area_keeps_centres_and_cuts_the_ground(tmp_path):
    path, out, area = (tmp_path / name for name in ("a.gpkg", "b.parquet", "area.geojson"))
    found = some(300)
    write([path], [table(found)])
    middle = GRID.pixels_to_crs(np.array([[1500.0, 1500.0]]))[0]
    circle = shapely.Point(middle).buffer(200)
    gpd.GeoSeries([circle], crs=UTM).to_crs(4326).to_file(area)
    filter_detections(path, out, FilterOptions(aoi=str(area), score=0.0))
    centres = GRID.pixels_to_crs((found.boxes_px[:, :2] + found.boxes_px[:, 2:]) / 2)
    inside = np.hypot(*(centres - middle).T) < 200
    got = set(read_detections(out)["tile"])
    assert 5 < inside.sum() < 250
    assert len(got ^ set(np.flatnonzero(inside))) <= 2  # at the rim, which is a polygon
    scanned = gpd.read_file(companion_path(out, "scanned"), layer="scanned")
    assert scanned.geometry[0].area == pytest.approx(circle.intersection(GROUND[0]).area, rel=1e-3)


def test_what_is_not_chosen_by_score_is_what_a_run_would_have_found(tmp_path):
    """So nothing is said of seams: the file was written from these thresholds on."""
    path, out, area = (tmp_path / name for name in ("a.gpkg", "b.gpkg", "area.gpkg"))
    write([path], [table(some(50))], companions(min_score="null"))
    ground = GRID.pixels_to_crs(np.array([[0.0, 0], [3000, 0], [3000, 1500], [0, 1500]]))
    gpd.GeoSeries([shapely.Polygon(ground)], crs=UTM).to_file(area, layer="north")
    gpd.GeoSeries([GROUND[0]], crs=UTM).to_file(area, layer="all")
    with pytest.raises(LabelError, match=r"all.*DetectOptions.aoi_layer"):
        filter_detections(path, out, FilterOptions(aoi=str(area)))
    kept = []
    for name in ("north", "all"):
        options = FilterOptions(aoi=str(area), aoi_layer=name)
        report = filter_detections(path, out, options, overwrite=True)
        kept.append(report.kept)
        assert not report.raised
        assert "note" not in json.loads(read_metadata(out)["filtered"])
    assert 0 < kept[0] < kept[1]


def test_points_can_be_filtered_too(tmp_path):
    write([tmp_path / "a.gpkg"], [table(some(50))], geometry="point")
    filter_detections(tmp_path / "a.gpkg", tmp_path / "b.gpkg", FilterOptions(score=0.5))
    assert layers(tmp_path / "b.gpkg")["detections"] == "Point"


def test_a_file_of_others_can_be_filtered_by_score(tmp_path):
    frame = gpd.GeoDataFrame({"score": [0.1, 0.9]}, geometry=[GROUND[0]] * 2, crs=UTM)
    frame.to_file(tmp_path / "a.gpkg", layer="anything")
    report = filter_detections(tmp_path / "a.gpkg", tmp_path / "b.gpkg", FilterOptions(score=0.5))
    assert (report.read, report.kept) == (2, 1)
    with pytest.raises(LabelError, match="no column class"):
        filter_detections(tmp_path / "a.gpkg", tmp_path / "c.gpkg", FilterOptions(classes=("car",)))
    with pytest.raises(OptionError, match="names no thresholds"):
        filter_detections(tmp_path / "a.gpkg", tmp_path / "c.gpkg")
    assert not (tmp_path / "c.gpkg").exists()


def test_an_object_without_a_score_is_refused_where_scores_choose(tmp_path):
    """A person drew it into the layer: no threshold may leave it out without a word."""
    rows = {"class": ["a", "a"], "score": [0.9, None]}
    shapes = [shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)]
    gpd.GeoDataFrame(rows, geometry=shapes, crs="EPSG:32633").to_file(
        tmp_path / "a.gpkg", layer="detections"
    )
    with pytest.raises(LabelError, match="1 objects without a score"):
        filter_detections(tmp_path / "a.gpkg", tmp_path / "b.gpkg", FilterOptions(score=0.5))
    everything = FilterOptions(classes=("a",))
    assert filter_detections(tmp_path / "a.gpkg", tmp_path / "b.gpkg", everything).kept == 2


def test_what_a_file_cannot_answer_is_refused(tmp_path):
    path = tmp_path / "a.gpkg"
    write([path], [table(some(5))], companions(min_score="0.3"))
    for options, match in {
        FilterOptions(score=0.2): r"class car from score 0\.3 on.*DetectOptions\.min_score=0\.2",
        FilterOptions(classes=("boat",)): "has no class boat; it has car, ship",
    }.items():
        with pytest.raises(OptionError, match=match):
            filter_detections(path, tmp_path / "b.gpkg", options)
    with pytest.raises(OptionError, match="would be replaced"):
        filter_detections(path, path, FilterOptions(score=0.5), overwrite=True)
    without = tmp_path / "c.gpkg"
    write([without], [table(some(5))], companions(min_score="null"))
    with pytest.raises(OptionError, match=r"class ship from score 0\.7 on"):
        filter_detections(without, tmp_path / "b.gpkg", FilterOptions(score=0.6))
    options = FilterOptions(score=0.6, classes=("car",))
    assert filter_detections(without, tmp_path / "b.gpkg", options).kept <= 5
