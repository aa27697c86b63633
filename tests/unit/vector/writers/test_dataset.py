"""A folder of GeoParquet files by place: what programs and commands read of it."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from affine import Affine

from geo_retina.boxes import to_polygons
from geo_retina.detections import Detections
from geo_retina.errors import LabelError, OptionError, OutputError
from geo_retina.grid import Grid
from geo_retina.options import FilterOptions
from geo_retina.plots import draw_density
from geo_retina.postprocess import combine_runs, filter_detections
from geo_retina.vector import (
    Companions,
    Target,
    detections_table,
    export_tiles,
    open_stream,
    outline_table,
    read_companions,
    read_detections,
    read_metadata,
    write_outputs,
)
from geo_retina.vector.formats import check_output
from geo_retina.vector.writers import dataset

UTM = pyproj.CRS("EPSG:32632")
GRID = Grid(UTM, Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000), 40_000, 60_000)
COUNT = 3000


def tables(count: int = COUNT) -> list[pa.Table]:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, [59_000, 39_000], (count, 2)).round(2)
    boxes = np.hstack([corner, corner + rng.uniform(5, 30, (count, 2)).round(2)])
    rest = np.zeros(count)
    scores = rng.uniform(0.3, 1, count)
    found = Detections(boxes, scores, np.arange(count) % 2, rest, rest, rest)
    how = {"classes": ["oak", "fir"], "scene": "a", "to_file": Affine.identity()}
    return [
        detections_table(found.take(at), GRID, **how) for at in np.array_split(np.arange(count), 5)
    ]


def companions() -> Companions:
    outline = to_polygons(np.array([[0.0, 0, GRID.width, GRID.height]]), GRID)
    about = {
        "scene": ["a"],
        "path": ["a.tif"],
        "width_px": [GRID.width],
        "height_px": [GRID.height],
        "grid_crs": [UTM.to_wkt()],
        "affine": [" ".join(map(repr, map(float, tuple(GRID.affine)[:6])))],
    }
    scanned = outline_table(shapely.multipolygons(outline[:, None]), about, UTM, UTM)
    metadata = {
        "written": "2026-11-29T04:00:00+00:00",
        "model": "trees",
        "thresholds": json.dumps({"oak": 0.3, "fir": 0.3}),
    }
    return Companions(scanned, None, metadata)


def write(path, parts, crs=UTM, *, overwrite=False):
    return write_outputs(
        [Target(path, overwrite)],
        parts,
        companions(),
        crs=crs,
        classes=["oak", "fir"],
        geometry="polygon",
    )


@pytest.fixture
def trees(tmp_path, monkeypatch):
    """Three thousand trees on 20 x 30 km, in files of at most 400."""
    for name, rows in {
        "_FILE_ROWS": 400,
        "_GROUP_ROWS": 100,
        "_SORTED_ROWS": 700,
        "_BATCH_ROWS": 64,
    }.items():
        monkeypatch.setattr(dataset, name, rows)
    path = tmp_path / "trees"
    assert write(path, tables()).rows == COUNT
    return path


def expected(tmp_path) -> gpd.GeoDataFrame:
    write(tmp_path / "one.parquet", tables())
    return read_detections(tmp_path / "one.parquet")


def test_what_is_read_is_what_one_file_has(trees, tmp_path):
    want = expected(tmp_path)
    got = read_detections(trees)
    assert list(got["id"]) == list(range(COUNT))
    columns = [c for c in want.columns if c != "bbox"]
    assert got[columns].equals(want[columns])
    assert got.crs == UTM
    plain = gpd.read_parquet(trees)
    assert len(plain) == COUNT
    assert plain.crs == UTM
    with open_stream(trees) as stream:
        assert stream.crs == UTM
        assert sum(part.num_rows for part in stream.tables) == COUNT
    assert read_metadata(trees)["model"] == "trees"
    assert read_companions(trees).scanned["scene"].to_pylist() == ["a"]


def test_each_file_is_a_square_of_the_earth_and_each_row_group_a_part_of_it(trees):
    footers = pq.read_metadata(trees / "_metadata")
    assert footers.num_rows == COUNT
    files = sorted(trees.glob("[0-3]*.parquet"))
    assert len(files) > 8
    assert {footers.row_group(k).column(0).file_path for k in range(footers.num_row_groups)} == {
        each.name for each in files
    }
    groups = 0.0
    for path in files:
        file = pq.ParquetFile(path)
        assert file.metadata.num_rows <= 400
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        frame = gpd.read_parquet(path).to_crs("EPSG:4326")
        centre = shapely.box(*frame.bounds.to_numpy().T)
        xy = shapely.get_coordinates(shapely.centroid(centre))
        assert {quadkey(lon, lat, len(path.stem)) for lon, lat in xy} == {path.stem}
        geo = json.loads(file.schema_arrow.metadata[b"geo"])["columns"]["geometry"]
        assert geo["bbox"] == pytest.approx(gpd.read_parquet(path).total_bounds.tolist())
        for number in range(file.metadata.num_row_groups):
            boxes = pa.Table.from_batches(
                [file.read_row_group(number, columns=["bbox"]).to_batches()[0]]
            )
            sides = boxes["bbox"].combine_chunks().flatten()
            groups += float(np.ptp(sides[0]) * np.ptp(sides[1]))
    # Along the curve, the ground of row groups hardly overlaps.
    whole = json.loads(footers.metadata[b"geo"])["columns"]["geometry"]["bbox"]
    assert groups < 1.5 * (whole[2] - whole[0]) * (whole[3] - whole[1])


def quadkey(lon: float, lat: float, level: int) -> str:
    """By the textbook, digit for digit."""
    x = (lon + 180) / 360
    sine = np.sin(np.radians(lat))
    y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)
    column, row = int(x * 2**level), int(y * 2**level)
    return "".join(str((column >> k & 1) + 2 * (row >> k & 1)) for k in reversed(range(level)))


def test_commands_take_the_folder(trees, tmp_path):
    report = filter_detections(trees, tmp_path / "sure.gpkg", FilterOptions(score=0.7))
    assert 0 < report.kept < report.read == COUNT
    again = filter_detections(trees, tmp_path / "sure", FilterOptions(score=0.7))
    assert again.kept == report.kept == len(read_detections(tmp_path / "sure"))
    assert read_companions(tmp_path / "sure").scanned.num_rows == 1
    merged = combine_runs([trees], tmp_path / "merged")
    assert (merged.read, merged.written) == (COUNT, COUNT)
    density = draw_density(trees, tmp_path / "density.tif", cell_m=1000)
    assert density.total == COUNT


def test_density_holds_one_part_of_one_file(trees, tmp_path, monkeypatch):
    monkeypatch.setattr("geo_retina.vector.readers.positions._BATCH_ROWS", 100)
    files = len([*trees.glob("*.parquet")])
    assert files > 3
    opened, rows, most = [], [], []

    class Watched(pq.ParquetFile):
        def __enter__(self):
            opened.append(self)
            return super().__enter__()

        def __exit__(self, *error):
            super().__exit__(*error)
            assert self.closed

        def iter_batches(self, *how, **more):
            most.append(sum(not each.closed for each in opened))
            for batch in super().iter_batches(*how, **more):
                rows.append(batch.num_rows)
                yield batch

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    density = draw_density(trees, tmp_path / "density.tif", cell_m=1000)
    assert density.total == COUNT == sum(rows) / 2  # first for the extent
    assert len(opened) == 2 * files
    assert max(most) == 1
    assert max(rows) <= 100


def test_duckdb_reads_it(trees):
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT count(*), sum(id), min(bbox.xmin) FROM read_parquet('{trees}/*.parquet')"
    [(count, total, west)] = duckdb.sql(query).fetchall()
    assert (count, total) == (COUNT, COUNT * (COUNT - 1) // 2)
    assert west == pytest.approx(gpd.read_parquet(trees).total_bounds[0])


def test_a_stac_item_tells_what_it_is(trees):
    pystac = pytest.importorskip("pystac")
    item = pystac.Item.from_file(trees / "_item.json")
    assert item.id == "trees"
    assert item.properties["geo_retina:thresholds"] == {"oak": 0.3, "fir": 0.3}
    assert item.properties["table:row_count"] == COUNT
    ground = gpd.read_parquet(trees).to_crs("EPSG:4326").total_bounds
    assert shapely.box(*item.bbox).buffer(1e-3).contains(shapely.box(*ground))
    for asset in item.get_assets().values():
        assert (trees / asset.href).exists()


def test_one_without_objects_has_columns(tmp_path):
    write(tmp_path / "none", [])
    frame = read_detections(tmp_path / "none")
    assert len(frame) == 0
    assert {"class", "score", "geometry"} <= set(frame.columns)
    assert read_companions(tmp_path / "none").scanned.num_rows == 1


def test_it_is_replaced_whole_and_only_by_itself(trees, tmp_path):
    with pytest.raises(OutputError, match="exists"):
        write(trees, tables(10))
    write(trees, tables(10), overwrite=True)
    assert len(read_detections(trees)) == 10
    assert len(list(trees.glob("*.parquet"))) < 8
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"x")
    with pytest.raises(OutputError, match="no folder of detections"):
        write(other, tables(10), overwrite=True)
    assert (other / "a.jpg").exists()
    with pytest.raises(LabelError, match="photos"):
        read_detections(other)


def test_files_of_others_in_the_folder_are_not_deleted_with_it(trees):
    (trees / "notes.txt").write_text("of a person")
    with pytest.raises(OutputError, match=r"holds notes\.txt, which is no part"):
        check_output(trees, overwrite=True)
    (trees / "notes.txt").unlink()
    check_output(trees, overwrite=True)


def test_places_in_degrees_and_in_a_plane_of_its_own(tmp_path):
    local = pyproj.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    for name, crs, corners in [
        ("degrees", pyproj.CRS("EPSG:4326"), [[179.9995, 10], [-179.999, 10], [0, 89.99]]),
        ("site", local, [[0, 0], [100, 100], [-50_000, 3e9]]),
        ("image", None, [[0, 0], [100, 100], [5, 7]]),
    ]:
        ring = shapely.box(0, 0, 1e-3, 1e-3)
        shapes = [shapely.transform(ring, lambda xy, c=corner: xy + c) for corner in corners]
        table = pa.table({"class": ["a"] * 3, "geometry": pa.array(shapely.to_wkb(shapes))})
        nothing = Companions(None, None, {})
        target = [Target(tmp_path / name, False)]
        write_outputs(target, [table], nothing, crs=crs, classes=["a"], geometry="polygon")
        frame = gpd.read_parquet(tmp_path / name)
        assert frame.crs == crs
        back = frame.set_index("id").sort_index().geometry
        assert back.geom_equals_exact(gpd.GeoSeries(shapes, crs=crs), 0).all()


def test_tiles_show_all_objects_of_the_folder(trees, tmp_path, monkeypatch):
    import pyogrio

    report = export_tiles(trees, tmp_path / "trees.pmtiles", min_zoom=13, max_zoom=14)
    assert report.objects == COUNT
    tiles = pyogrio.read_dataframe(report.out)  # at the greatest zoom; some lie in two tiles
    assert {"class", "score"} <= set(tiles.columns)
    assert len(tiles) >= COUNT
    want = gpd.read_parquet(trees).to_crs(tiles.crs)
    centres = shapely.STRtree(tiles.geometry.array)
    found = centres.query(want.geometry.centroid.array, predicate="intersects")[0]
    assert len(np.unique(found)) == COUNT
    with pytest.raises(OutputError, match="exists"):
        export_tiles(trees, report.out)
    with pytest.raises(OptionError, match="max_zoom are 15 and 14"):
        export_tiles(trees, report.out, min_zoom=15, max_zoom=14, overwrite=True)
    with pytest.raises(OutputError, match=r"expected \.pmtiles"):
        export_tiles(trees, tmp_path / "trees.tif")
    monkeypatch.setattr(pyogrio, "list_drivers", lambda write: {})
    with pytest.raises(OutputError, match="driver PMTiles"):
        export_tiles(trees, report.out, overwrite=True)


def test_tiles_need_a_place_on_earth(tmp_path):
    table = pa.table(
        {"class": ["a"], "geometry": pa.array(shapely.to_wkb([shapely.box(0, 0, 1, 1)]))}
    )
    nothing = Companions(None, None, {})
    target = [Target(tmp_path / "image.gpkg", False)]
    write_outputs(target, [table], nothing, crs=None, classes=["a"], geometry="polygon")
    with pytest.raises(LabelError, match="no place on a web map"):
        export_tiles(tmp_path / "image.gpkg", tmp_path / "a.pmtiles")


def test_objects_beyond_the_end_of_web_maps_are_counted_apart(tmp_path):
    squares = [shapely.box(10, lat, 10.001, lat + 0.0001) for lat in (60.0, 85.04, 85.06, 89.9)]
    out = tmp_path / "a.pmtiles"
    for name, shown in (("some", squares), ("none", squares[2:])):
        table = pa.table({"class": ["a"] * len(shown), "geometry": shapely.to_wkb(shown)})
        write_outputs(
            [Target(tmp_path / f"{name}.gpkg", False)],
            [table],
            Companions(None, None, {}),
            crs=pyproj.CRS("EPSG:4326"),
            classes=["a"],
            geometry="polygon",
        )
    report = export_tiles(tmp_path / "some.gpkg", out, min_zoom=10, max_zoom=10)
    assert (report.objects, report.beyond) == (2, 2)
    assert len(gpd.read_file(out)) == 2
    with pytest.raises(LabelError, match=r"all 2 objects of .*none\.gpkg lie beyond 85.05 degrees"):
        export_tiles(tmp_path / "none.gpkg", out, overwrite=True)
    assert len(gpd.read_file(out)) == 2
