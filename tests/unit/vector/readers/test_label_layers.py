"""Label layers as people have them, good and bad."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine

from geo_retina.errors import LabelError
from geo_retina.geodesy import reproject
from geo_retina.grid import Grid
from geo_retina.vector import label_boxes, label_layer, read_detections, read_ground, read_labels

UTM = pyproj.CRS("EPSG:32633")
GRID = Grid(
    UTM,
    Affine.translation(500_000, 5_300_000) @ Affine.rotation(30.0) @ Affine.scale(0.5, -0.25),
    800,
    1000,
)
DATA = Path(os.environ.get("GEO_RETINA_DATA", Path(__file__).parents[5] / "shared" / "data"))


def frame(geometries, crs=UTM, **columns):
    return gpd.GeoDataFrame(columns, geometry=list(geometries), crs=crs)


def layer(geometries, crs=UTM, **columns):
    return label_layer(frame(geometries, crs, **columns), "test")


SQUARE = shapely.box(0, 0, 2, 2)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".parquet"])
def test_every_format_reads_alike(tmp_path, suffix):
    path = tmp_path / f"labels{suffix}"
    data = frame(
        shapely.points([[13.0, 48.0], [13.1, 48.1], [13.2, 48.2]]),
        "EPSG:4326",
        kind=["oak", "elm", "oak"],
        year=[2018, 2020, 2020],
    )
    data.to_parquet(path) if suffix == ".parquet" else data.to_file(path)
    labels = read_labels(path, where="year = 2020", class_column="kind", scene_column="year")
    assert labels.is_points
    assert labels.class_names.tolist() == ["elm", "oak"]
    assert labels.scenes.tolist() == ["2020", "2020"]
    assert shapely.get_coordinates(labels.geometries).tolist() == [[13.1, 48.1], [13.2, 48.2]]
    assert labels.crs == pyproj.CRS("EPSG:4326")
    assert len(labels.take(labels.class_names == "oak")) == 1


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_filters_that_do_not_fit(tmp_path, suffix):
    path = tmp_path / f"labels{suffix}"
    data = frame([SQUARE], kind=["oak"])
    data.to_parquet(path) if suffix == ".parquet" else data.to_file(path)
    for where in ("species = 'oak'", "kind ==== 1"):
        with pytest.raises(LabelError, match=r"does not fit .*labels.*SQL's WHERE"):
            read_labels(path, where=where)
    with pytest.raises(LabelError, match="leaves none of the 1 labels"):
        read_labels(path, where="kind = 'elm'")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("fid", [7, 7, 8]),
        ("FID", ["x", "y", "z"]),
        ("geom", ["x", "y", "z"]),
        ("bbox", [{"xmin": 0.0}] * 3),
        ("outline", gpd.GeoSeries([SQUARE] * 3, crs=UTM)),
    ],
)
def test_columns_beside_the_filtered_one_do_not_matter(tmp_path, column, values):
    path = tmp_path / "labels.parquet"
    frame([SQUARE] * 3, kind=["oak", "elm", "oak"], **{column: values}).to_parquet(path)
    labels = read_labels(path, where="kind = 'oak'", class_column="kind")
    assert labels.class_names.tolist() == ["oak", "oak"]


def test_a_filter_sees_the_column_fid(tmp_path):
    path = tmp_path / "labels.parquet"
    frame([SQUARE] * 3, kind=["oak", "elm", "ash"], fid=[7, 7, 8]).to_parquet(path)
    labels = read_labels(path, where="fid = 7", class_column="kind")
    assert labels.class_names.tolist() == ["oak", "elm"]


def test_columns_that_sql_cannot_tell_apart(tmp_path):
    path = tmp_path / "labels.parquet"
    frame([SQUARE], kind=["oak"], Kind=["elm"]).to_parquet(path)
    with pytest.raises(
        LabelError, match=r"labels\.parquet cannot be filtered by .*[kK]ind.*rename"
    ):
        read_labels(path, where="kind = 'oak'")


def test_files_that_are_none(tmp_path):
    with pytest.raises(LabelError, match=r"nothing\.gpkg does not exist"):
        read_labels(tmp_path / "nothing.gpkg")
    for name in ("broken.gpkg", "broken.parquet", "broken.txt"):
        (tmp_path / name).write_text("not a layer")
        with pytest.raises(LabelError, match=name):
            read_labels(tmp_path / name)
        with pytest.raises(LabelError, match=name):
            read_detections(tmp_path / name)


def test_a_table_without_geometries(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(LabelError, match="without geometries"):
        read_labels(tmp_path / "table.csv")


def test_several_layers_need_a_choice(tmp_path):
    path = tmp_path / "labels.gpkg"
    pyogrio.write_dataframe(frame([SQUARE]), path, layer="trees")
    pyogrio.write_dataframe(frame([SQUARE] * 2), path, layer="roofs", append=True)
    with pytest.raises(LabelError, match=r"trees, roofs; say which one with data\.layer in"):
        read_labels(path)
    with pytest.raises(LabelError, match="the layers trees, roofs; ask them"):
        read_labels(path, layer_remedy="ask them")
    with pytest.raises(LabelError, match=r"trees, roofs; give a file with one layer$"):
        read_ground(path, UTM)
    assert len(read_labels(path, layer="roofs")) == 2
    with pytest.raises(LabelError, match="no layer cars; it has trees, roofs"):
        read_labels(path, layer="cars")


def test_no_crs(tmp_path):
    path = tmp_path / "labels.shp"
    frame([SQUARE]).to_file(path)
    path.with_suffix(".prj").unlink()
    with pytest.raises(LabelError, match=r"has no CRS.*ogr2ogr -a_srs"):
        read_labels(path)


def test_no_label(tmp_path):
    path = tmp_path / "labels.gpkg"
    frame([SQUARE]).iloc[:0].to_file(path)
    with pytest.raises(LabelError, match="holds no label"):
        read_labels(path)
    frame([None, shapely.Polygon()]).to_file(tmp_path / "void.gpkg")
    with pytest.raises(LabelError, match="none of the 2 features"):
        read_labels(tmp_path / "void.gpkg")


def test_columns_that_are_missing_or_have_gaps(tmp_path):
    path = tmp_path / "labels.gpkg"
    frame([SQUARE, SQUARE], kind=["oak", None], tile=["a", "b"]).to_file(path)
    with pytest.raises(LabelError, match="no class column species; its columns are kind, tile"):
        read_labels(path, class_column="species")
    with pytest.raises(LabelError, match="no scene column scene"):
        read_labels(path, scene_column="scene")
    with pytest.raises(LabelError, match=r'1 of 2 labels .*"kind IS NOT NULL"'):
        read_labels(path, class_column="kind")
    assert len(read_labels(path, class_column="kind", where="kind IS NOT NULL")) == 1
    frame([SQUARE] * 4, kind=[" oak ", None, "", "  "]).to_file(path)
    with pytest.raises(LabelError, match=r"3 of 4 labels .*\"kind NOT IN \('', '  '\)\""):
        read_labels(path, class_column="kind")
    rest = read_labels(path, class_column="kind", where="kind NOT IN ('', '  ')")
    assert rest.class_names.tolist() == ["oak"]


def test_numbers_as_classes():
    numbers = frame([SQUARE] * 2, a=[1.0, 2.0], b=[1.5, 2.0])
    assert label_layer(numbers, "x", class_column="a").class_names.tolist() == ["1", "2"]
    assert label_layer(numbers, "x", class_column="b").class_names.tolist() == ["1.5", "2.0"]


def test_mixed_and_other_geometries():
    with pytest.raises(LabelError, match="mixes points and polygons"):
        layer([SQUARE, shapely.Point(1, 1)])
    with pytest.raises(LabelError, match="such as lines"):
        layer([shapely.LineString([(0, 0), (1, 1)])])


def test_parts_are_labels_of_their_own():
    labels = label_layer(
        frame([shapely.MultiPolygon([SQUARE, shapely.box(5, 5, 6, 6)]), SQUARE], kind=["a", "b"]),
        "test",
        class_column="kind",
    )
    assert labels.class_names.tolist() == ["a", "a", "b"]
    assert shapely.area(labels.geometries).tolist() == [4, 1, 4]
    assert len(layer([shapely.MultiPoint([(0, 0), (1, 1)])])) == 2


def test_broken_geometries_are_mended_or_counted():
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    flat = shapely.Polygon([(0, 0), (1, 1), (2, 2), (0, 0)])
    labels = layer([bow_tie, flat, None, shapely.Polygon(), SQUARE])
    # Repaired, the bow tie is two triangles, and still one label.
    assert len(labels) == 2
    assert shapely.is_valid(labels.geometries).all()
    assert shapely.area(labels.geometries).tolist() == [2, 4]
    counts = (labels.dropped_null, labels.dropped_empty, labels.dropped_invalid)
    assert counts == (1, 1, 1)
    assert layer([shapely.Point(0, 0), shapely.Point(np.inf, 0)]).dropped_invalid == 1


def test_height_is_left_out():
    labels = layer([shapely.Point(1, 2, 3)])
    assert not shapely.has_z(labels.geometries).any()


def test_a_layer_without_rows_is_fine_in_memory():
    labels = layer([])
    assert len(labels) == 0
    assert not labels.is_points
    assert label_boxes(labels, GRID, point_size_m=None).shape == (0, 4)


# --- boxes --------------------------------------------------------------------------------


def test_boxes_of_polygons_are_exact_on_a_turned_grid():
    wanted = np.array([[10.0, 20.0, 30.5, 44.25], [-3.0, 700.0, 5.0, 900.0]])
    corners = wanted[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    polygons = shapely.polygons(GRID.pixels_to_crs(corners))
    for crs in (UTM, "EPSG:4326", "EPSG:32632"):
        labels = label_layer(frame(polygons).to_crs(crs), "test")
        got = label_boxes(labels, GRID, point_size_m=None)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


def test_boxes_bound_every_vertex_in_pixels():
    """On a turned grid, bounds taken on the ground and then moved would be too large."""
    diamond = np.array([[50.0, 40.0], [60.0, 50.0], [50.0, 60.0], [40.0, 50.0]])
    labels = layer([shapely.Polygon(GRID.pixels_to_crs(diamond))])
    got = label_boxes(labels, GRID, point_size_m=3.0)
    np.testing.assert_allclose(got, [[40, 40, 60, 60]], atol=1e-6)


def test_boxes_of_points_have_the_size_asked_for():
    square = Grid(UTM, Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000), 100, 100)
    labels = layer([shapely.Point(500_010, 5_299_980)])
    got = label_boxes(labels, square, point_size_m=6.0)
    np.testing.assert_allclose(got, [[14, 34, 26, 46]], atol=1e-9)
    with pytest.raises(LabelError, match="points without a size"):
        label_boxes(labels, square, point_size_m=None)


def test_boxes_of_points_are_as_wide_as_high_on_the_ground():
    """The turned grid's pixels are 0.5 m along rows and 0.25 m along columns."""
    labels = layer([shapely.Point(GRID.pixels_to_crs(np.array([100.0, 200.0])))])
    got = label_boxes(labels, GRID, point_size_m=6.0)
    np.testing.assert_allclose(got, [[94, 188, 106, 212]], atol=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:6933"])
def test_boxes_of_points_where_the_crs_stretches_the_ground(crs):
    """At 60 degrees north, degrees and equal areas draw lengths east and north differently."""
    geod = pyproj.Geod(ellps="WGS84")
    place = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    left, top = place.transform(10.0, 60.0)
    right, _ = place.transform(10.001, 60.0)
    step = (right - left) / 100
    grid = Grid(pyproj.CRS(crs), Affine(step, 0, left, 0, -step, top), 100, 100)
    centre = shapely.Point(grid.pixels_to_crs(np.array([50.0, 50.0])))
    got = label_boxes(layer([centre], crs), grid, point_size_m=6.0)[0]
    ends = np.array([[got[0], 50], [got[2], 50], [50, got[1]], [50, got[3]]])
    x, y = grid.pixels_to_crs(ends).T
    lon, lat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    _, _, sides_m = geod.inv(lon[::2], lat[::2], lon[1::2], lat[1::2])
    np.testing.assert_allclose(sides_m, 6.0, rtol=1e-3)


def test_a_grid_without_a_place_has_no_labels():
    bare = Grid(None, Affine.identity(), 10, 10)
    with pytest.raises(LabelError, match="has no CRS"):
        label_boxes(layer([SQUARE]), bare, point_size_m=None)


def test_a_label_that_the_grid_cannot_express_lies_outside():
    half = Grid(pyproj.CRS("+proj=ortho +lat_0=0 +lon_0=0"), Affine(1, 0, 0, 0, -1, 0), 100, 100)
    far_side = shapely.box(170, 0, 171, 1)
    labels = layer([far_side, shapely.box(0, 0, 1e-4, 1e-4)], "EPSG:4326")
    got = label_boxes(labels, half, point_size_m=None)
    assert np.isposinf(got[0]).all()
    np.testing.assert_allclose(got[1], [0, -11.1, 11.1, 0], atol=0.1)


# --- ground -------------------------------------------------------------------------------


def test_ground_keeps_its_edges_in_another_crs(tmp_path):
    path = tmp_path / "ground.gpkg"
    outline = shapely.box(400_000, 5_900_000, 500_000, 6_000_000)
    frame([outline, shapely.box(450_000, 5_950_000, 500_000, 6_050_000)]).to_file(path)
    ground = read_ground(path, pyproj.CRS("EPSG:4326"))
    assert ground.geom_type == "Polygon"
    # 5 m inside and outside of the middle of an edge that bends by some 100 m.
    lon, lat = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True).transform(
        [430_000, 430_000], [5_900_005, 5_899_995]
    )
    assert shapely.contains_xy(ground, lon, lat).tolist() == [True, False]
    frame([shapely.Point(0, 0)]).to_file(tmp_path / "points.gpkg")
    with pytest.raises(LabelError, match="expected polygons of ground"):
        read_ground(tmp_path / "points.gpkg", UTM)


# --- real layers --------------------------------------------------------------------------


@pytest.mark.skipif(not (DATA / "naip_trees").is_dir(), reason=f"the shared data is not at {DATA}")
def test_real_trees():
    path = DATA / "naip_trees" / "trees.gpkg"
    labels = read_labels(path, where="split = 'val'", scene_column="tile")
    assert labels.is_points
    assert labels.crs == pyproj.CRS("EPSG:4326")
    stems = {p.stem for p in (DATA / "naip_trees" / "val").glob("*.tif")}
    assert set(labels.scenes) <= stems
    assert len(read_labels(path)) == 85_275
    ground = read_ground(DATA / "naip_trees" / "tiles.gpkg", labels.crs)
    inside = shapely.contains_xy(ground, shapely.get_coordinates(labels.geometries))
    assert inside.mean() > 0.99


@pytest.mark.skipif(not (DATA / "neon_crowns").is_dir(), reason=f"the shared data is not at {DATA}")
def test_real_crowns():
    labels = read_labels(DATA / "neon_crowns" / "crowns.gpkg", scene_column="scene")
    assert len(labels) == 960
    assert not labels.is_points
    assert {"yell_528000", "osbs_029"} <= set(labels.scenes)


def test_the_detections_of_a_run_are_labels_without_naming_their_layer(tmp_path):
    path = tmp_path / "corrected.gpkg"
    square = shapely.box(0, 0, 10, 10)
    for layer, count in (("detections", 2), ("scanned", 1)):
        frame = gpd.GeoDataFrame(geometry=[square] * count, crs="EPSG:32633")
        frame.to_file(path, layer=layer, driver="GPKG")
    assert len(read_labels(path)) == 2
    other = tmp_path / "other.gpkg"
    for layer in ("oaks", "pines"):
        gpd.GeoDataFrame(geometry=[square], crs="EPSG:32633").to_file(other, layer=layer)
    with pytest.raises(LabelError, match="has the layers"):
        read_labels(other)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_collections_within_collections_explode_to_single_parts(tmp_path, depth):
    geometry = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 7)])
    for _ in range(depth):
        geometry = shapely.GeometryCollection([geometry, shapely.box(20, 20, 21, 22)])
    path = tmp_path / "l.pq"
    gpd.GeoDataFrame(geometry=[geometry], crs="EPSG:32632").to_parquet(path)
    labels = read_labels(path)
    assert len(labels) == 2 + depth
    assert shapely.area(labels.geometries).tolist() == [1.0, 2.0] + [2.0] * depth


@pytest.mark.parametrize(
    ("code", "x", "y"),
    [(31467, 3.5e6, 5.5e6), (27700, 4e5, 3e5), (4267, -100, 40), (28992, 155e3, 463e3)],
)
def test_a_prj_without_authority_is_recognised(tmp_path, code, x, y):
    """Each is of a datum of its own, tens to hundreds of metres from WGS 84."""
    path = tmp_path / "labels.shp"
    shape = shapely.Point(x, y).buffer(1e-5 if abs(x) <= 180 else 1.0)
    frame([shape], code, kind=["a"]).to_file(path)
    path.with_suffix(".prj").write_text(pyproj.CRS(code).to_wkt("WKT1_ESRI"))
    assert "AUTHORITY" not in path.with_suffix(".prj").read_text()
    read = read_labels(path)
    found = reproject(read.geometries, read.crs, pyproj.CRS(4326))[0].centroid
    move = pyproj.Transformer.from_crs(code, 4326, always_xy=True)
    expected = shapely.Point(move.transform(x, y))
    assert found.distance(expected) < 1e-7  # a centimetre
