"""Surfaces of triangles and faces are read as the polygons that they cover."""

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from geo_retina import FilterOptions, LabelError, filter_detections
from geo_retina.options import LabelOptions
from geo_retina.vector import read_area, read_labels
from geo_retina.vector.readers.label_layers import read_source
from geo_retina.vector.readers.surfaces import surfaces_from_wkb

SQUARE = shapely.box(0, 0, 1, 1)
TIN = "TIN(((0 0,0 1,1 1,0 0)),((0 0,1 1,1 0,0 0)))"
CUBE = (
    "POLYHEDRALSURFACE Z(((0 0 0,0 1 0,1 1 0,1 0 0,0 0 0)),((0 0 0,0 1 0,0 1 1,0 0 1,0 0 0)),"
    "((0 0 1,1 0 1,1 1 1,0 1 1,0 0 1)))"
)
WALL = "TIN Z(((0 0 0,0 1 0,0 1 1,0 0 0)))"
TRIANGLE = "TRIANGLE Z((0 0 3,0 1 3,1 1 3,0 0 3))"
HALF = shapely.Polygon([(0, 0), (0, 1), (1, 1)])


def layer(folder, *wkt):
    """A table of WKT as GDAL reads it, with a CRS beside it."""
    rows = "".join(f'"{text}",{number}\n' for number, text in enumerate(wkt))
    (folder / "s.csv").write_text("WKT,kind\n" + rows)
    vrt = (
        "<OGRVRTDataSource><OGRVRTLayer name='s'><SrcDataSource relativeToVRT='1'>s.csv"
        "</SrcDataSource><LayerSRS>EPSG:32632</LayerSRS></OGRVRTLayer></OGRVRTDataSource>"
    )
    (folder / "s.vrt").write_text(vrt)
    return folder / "s.vrt"


@pytest.mark.parametrize(
    ("wkt", "wanted"),
    [
        (TIN, SQUARE),
        (CUBE, SQUARE),
        (TRIANGLE, HALF),
        (f"GEOMETRYCOLLECTION({TIN},POLYGON((5 5,6 5,6 6,5 6,5 5)))", None),
    ],
)
def test_a_surface_is_one_object_seen_from_above(tmp_path, wkt, wanted):
    labels = read_labels(layer(tmp_path, wkt, "POLYGON((8 8,9 8,9 9,8 8))"), class_column="kind")
    if wanted is None:  # a surface, and a polygon beside it
        assert labels.class_names.tolist() == ["0", "0", "1"]
        wanted = SQUARE
    else:
        assert labels.class_names.tolist() == ["0", "1"]
    assert shapely.equals(labels.geometries[0], wanted)
    assert labels.crs.to_epsg() == 32632


def test_an_upright_wall_is_counted_as_empty(tmp_path):
    labels = read_labels(layer(tmp_path, WALL, TIN))
    assert len(labels) == 1
    assert labels.dropped_empty == 1


def test_a_filter_and_an_area_meet_surfaces_too(tmp_path):
    path = layer(tmp_path, TIN, TRIANGLE)
    assert len(read_labels(path, where="kind = '1'")) == 1
    assert shapely.area(read_area(path).polygons).tolist() == [1.0, 0.5]


def test_big_endian_and_srid_are_understood():
    flat = [shapely.to_wkb(HALF, byte_order=order, include_srid=True) for order in (0, 1)]
    triangles = [
        bytearray(shapely.to_wkb(shapely.set_srid(HALF, 4326), byte_order=order, include_srid=True))
        for order in (0, 1)
    ]
    triangles[0][4] = triangles[1][1] = 17
    read = surfaces_from_wkb(np.array([*map(bytes, triangles), None, flat[0]], dtype=object))
    assert shapely.equals(read[[0, 1, 3]], HALF).all()
    assert read[2] is None


@pytest.mark.parametrize("end", [1, 7, 12, 40])
def test_a_damaged_surface_is_an_error(end):
    whole = bytearray(shapely.to_wkb(HALF))
    whole[1] = 17
    with pytest.raises(ValueError, match="cannot be read"):
        surfaces_from_wkb(np.array([bytes(whole[:end])], dtype=object))


def test_a_layer_of_lines_still_says_what_is_wanted(tmp_path):
    with pytest.raises(LabelError, match="geometries such as lines, expected points or polygons"):
        read_labels(layer(tmp_path, TIN, "LINESTRING(0 0,1 1)"))


@pytest.mark.parametrize(("multi", "wanted"), [("explode", 2), ("box", 1)])
def test_a_collection_of_polygons_may_be_one_label(tmp_path, multi, wanted):
    parts = shapely.GeometryCollection([SQUARE, shapely.MultiPolygon([shapely.box(5, 0, 6, 2)])])
    mixed = shapely.GeometryCollection([shapely.Polygon(), SQUARE])  # an empty part is left out
    path = tmp_path / "c.gpkg"
    gpd.GeoDataFrame(geometry=[parts, mixed], crs="EPSG:32632").to_file(path)
    labels = read_source(LabelOptions(path=str(path), multi=multi))
    assert len(labels) == wanted + 1
    total = shapely.total_bounds(labels.geometries[:wanted]).tolist()
    assert total == [0, 0, 6, 2]


def test_a_surface_in_geoparquet_is_refused_with_the_way_out(tmp_path):
    """GeoParquet allows none, so nothing but a damaged or odd file holds one."""
    path = tmp_path / "t.parquet"
    gpd.GeoDataFrame(geometry=[HALF], crs="EPSG:32632").to_parquet(path)
    table = pq.read_table(path)
    wkb = bytearray(table["geometry"][0].as_py())
    wkb[1] = 17
    column = pa.array([bytes(wkb)], pa.binary())
    pq.write_table(table.set_column(0, table.schema.field("geometry"), column), path)
    with pytest.raises(LabelError, match=r"cannot be used .*Unknown WKB type 17.*ogr2ogr"):
        read_labels(path)


def test_a_filter_of_detections_refuses_surfaces(tmp_path):
    """No detections are surfaces, and a layer of polygons could not hold them."""
    path = layer(tmp_path, TIN)
    with pytest.raises(LabelError, match=r"Unknown WKB type 16.*ogr2ogr"):
        filter_detections(path, tmp_path / "o.gpkg", FilterOptions(score=0.5))
