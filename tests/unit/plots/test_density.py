"""Maps of counts: every object in its cell, once, whatever the CRS."""

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from support.stubs import write_scene

from geo_retina.errors import LabelError, OptionError, OutputError
from geo_retina.plots import draw_density
from geo_retina.scene import open_scene

UTM = "EPSG:32633"


def layer(path, centres, crs=UTM, half=1.0, **columns):
    low, high = np.asarray(centres, float) - half, np.asarray(centres, float) + half
    boxes = shapely.box(*low.T, *high.T)
    gpd.GeoDataFrame(columns, geometry=boxes, crs=crs).to_file(path, layer="detections")
    return path


def read(path):
    with rasterio.open(path) as file:
        return file.read(), file.profile, file.descriptions


@pytest.fixture
def scattered(tmp_path):
    rng = np.random.default_rng(5)
    centres = rng.uniform([500_003, 5_000_007], [501_950, 5_001_480], (3000, 2))
    names = rng.choice(["car", "oak"], 3000)
    scores = rng.uniform(0, 1, 3000)
    return (
        centres,
        names,
        scores,
        layer(tmp_path / "d.gpkg", centres, **{"class": names, "score": scores}),
    )


@pytest.mark.parametrize("batch", [7, 65_536])
def test_counts_are_those_of_a_histogram(scattered, tmp_path, monkeypatch, batch):
    monkeypatch.setattr("geo_retina.vector.readers.positions._BATCH_ROWS", batch)
    centres, names, _, path = scattered
    made = draw_density(path, tmp_path / "m.tif", cell_m=100)
    values, profile, titles = read(tmp_path / "m.tif")
    assert titles == ("all", "car", "oak")
    assert profile["dtype"] == "uint32"
    assert profile["crs"] == rasterio.CRS.from_string(UTM)
    assert profile["transform"] == Affine(100, 0, 500_000, 0, -100, 5_001_500)
    edges = np.arange(5_000_000, 5_001_501, 100), np.arange(500_000, 502_001, 100)
    for band, own in enumerate([np.full(3000, True), names == "car", names == "oak"]):
        wanted, *_ = np.histogram2d(centres[own, 1], centres[own, 0], bins=edges)
        np.testing.assert_array_equal(values[band], wanted[::-1])
    assert made.counts == {"car": (names == "car").sum(), "oak": (names == "oak").sum()}
    assert made.total == 3000
    assert made.most == values[0].max()


def test_an_object_on_an_edge_is_counted_once(tmp_path):
    # A corner, an edge, and the far ends of the map.
    centres = np.add([500_000, 5_000_000], [[100, 100], [100, 50], [0, 0], [200, 200]])
    made = draw_density(layer(tmp_path / "d.gpkg", centres), tmp_path / "m.tif", cell_m=100)
    values, *_ = read(made.path)
    np.testing.assert_array_equal(values[0], [[0, 0, 1], [0, 1, 0], [1, 1, 0]])


def test_low_scores_are_left_out(scattered, tmp_path):
    _, _, scores, path = scattered
    made = draw_density(path, tmp_path / "m.tif", cell_m=500, score=0.7)
    assert made.total == (scores >= 0.7).sum()
    assert read(made.path)[0][0].sum() == made.total
    with pytest.raises(LabelError, match="no column score"):
        draw_density(
            layer(tmp_path / "n.gpkg", [[5e5, 5e6]]), tmp_path / "n.tif", cell_m=5, score=0.1
        )


def test_neighbouring_maps_share_their_cells(scattered, tmp_path):
    centres, _, _, _ = scattered
    halves = [centres[centres[:, 0] < 501_000], centres[centres[:, 0] >= 501_000]]
    whole = draw_density(layer(tmp_path / "w.gpkg", centres), tmp_path / "w.tif", cell_m=100)
    total = np.zeros(whole.grid.shape, int)
    for i, half in enumerate(halves):
        part = draw_density(layer(tmp_path / f"{i}.gpkg", half), tmp_path / f"{i}.tif", cell_m=100)
        shift = ~whole.grid.affine @ part.grid.affine
        col, row = round(shift.c), round(shift.f)
        assert (shift.c, shift.f) == (col, row)
        height, width = part.grid.shape
        total[row : row + height, col : col + width] += read(part.path)[0][0]
    np.testing.assert_array_equal(total, read(whole.path)[0][0])


@pytest.mark.parametrize("suffix", [".parquet", ".geojson", ".fgb", ".shp"])
def test_every_format_gives_the_same_map(scattered, tmp_path, suffix):
    _, _, _, path = scattered
    frame = gpd.read_file(path)
    other = tmp_path / f"other{suffix}"
    frame.to_parquet(other) if suffix == ".parquet" else frame.to_file(other)
    first = draw_density(path, tmp_path / "a.tif", cell_m=100)
    second = draw_density(other, tmp_path / "b.tif", cell_m=100)
    assert first.counts == second.counts
    np.testing.assert_array_equal(read(first.path)[0], read(second.path)[0])


def test_cells_of_a_crs_in_feet_are_still_in_metres(tmp_path):
    feet = pyproj.CRS("EPSG:2227")  # California zone 3, in US survey feet
    centres = np.array([[6_050_000.0, 2_100_000.0], [6_052_000.0, 2_101_000.0]])
    made = draw_density(layer(tmp_path / "d.gpkg", centres, feet), tmp_path / "m.tif", cell_m=100)
    assert made.grid.crs == feet
    assert made.grid.affine.a == pytest.approx(100 * 3937 / 1200)
    assert made.grid.affine.c == pytest.approx(np.floor(6_050_000 / 328.0833333) * 328.0833333)
    assert made.total == 2


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_where_a_metre_is_none_the_map_goes_to_utm(tmp_path, crs):
    move = pyproj.Transformer.from_crs(UTM, crs, always_xy=True)
    true = np.array([[500_050.0, 6_600_050.0], [500_050.0, 6_600_061.0], [500_450.0, 6_600_950.0]])
    there = np.column_stack(move.transform(*true.T))
    path = layer(tmp_path / "d.gpkg", there, crs, half=1e-6)
    made = draw_density(path, tmp_path / "m.tif", cell_m=100)
    values, profile, _ = read(made.path)
    assert profile["crs"].to_epsg() == 32633
    assert values[0].sum() == 3
    for (x, y), count in zip(true, [2, 2, 1], strict=True):
        col, row = ~profile["transform"] @ (x, y)
        assert values[0, int(row), int(col)] == count


def test_wide_ground_goes_to_an_equal_area_crs(tmp_path):
    centres = [[-120.0, 35.0], [-75.0, 42.0], [10.0, 50.0]]
    path = layer(tmp_path / "d.gpkg", centres, "EPSG:4326", half=1e-4)
    made = draw_density(path, tmp_path / "m.tif", cell_m=50_000)
    assert made.grid.crs.to_epsg() == 6933
    assert (made.total, made.most) == (3, 1)


def test_a_scene_gives_the_map_its_ground(tmp_path):
    # A turned scene, so that cells at the corners of its bounds lie beside it.
    affine = Affine.translation(500_000, 5_000_000) @ Affine.rotation(45) @ Affine.scale(1, -1)
    pixels = np.zeros((1, 400, 400), np.uint8)
    scene = open_scene(write_scene(tmp_path / "s.tif", pixels, affine=affine, crs=UTM))
    on = scene.grid.pixels_to_crs(np.array([[200.0, 200.0], [5.0, 5.0]]))
    off = np.array([[500_020.0, 5_000_200.0], [500_540.0, 4_999_740.0]])
    path = layer(tmp_path / "d.gpkg", np.concatenate([on, off]))
    made = draw_density(path, tmp_path / "m.tif", cell_m=50, scene=scene)
    values, profile, _ = read(made.path)
    assert made.total == 2
    counted = values[0] != profile["nodata"]
    assert values[0][counted].sum() == 2
    outline = shapely.Polygon(
        scene.grid.pixels_to_crs(np.array([[0.0, 0], [400, 0], [400, 400], [0, 400]]))
    )
    for row in range(made.grid.height):
        for col in range(made.grid.width):
            ends = [made.grid.affine @ (col + i, row + j) for i in (0, 1) for j in (0, 1)]
            cell = shapely.MultiPoint(ends).envelope
            # A cell that is touched in a corner only may fall either way by rounding.
            if outline.intersection(cell).area > 1e-6:
                assert counted[row, col]
            elif not outline.buffer(1e-6).intersects(cell):
                assert not counted[row, col]
    assert 0 < counted.mean() < 0.8


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_a_scene_that_ends_with_a_cell_has_none_beyond(tmp_path, crs):
    # 60 x 40 cells of 10 m, to the metre; objects on its outer edges are on it.
    affine = Affine(1, 0, 500_000, 0, -1, 5_000_400)
    scene = open_scene(
        write_scene(tmp_path / "s.tif", np.zeros((1, 400, 600), np.uint8), affine=affine)
    )
    corners = np.array([[500_000.5, 5_000_000.5], [500_599.5, 5_000_399.5]])
    path = layer(tmp_path / "d.gpkg", corners, half=0.25)
    if crs != UTM:
        gpd.read_file(path).to_crs(crs).to_file(path, layer="detections")
    made = draw_density(path, tmp_path / "m.tif", cell_m=10, scene=scene)
    values, profile, _ = read(made.path)
    assert (made.grid.height, made.grid.width) == (40, 60)
    assert profile["transform"] == Affine(10, 0, 500_000, 0, -10, 5_000_400)
    assert (values[0, -1, 0], values[0, 0, -1], values[0].sum()) == (1, 1, 2)


def test_an_object_on_the_edge_of_the_scene_is_in_its_last_cell(tmp_path):
    affine = Affine(1, 0, 500_000, 0, -1, 5_000_100)
    scene = open_scene(
        write_scene(tmp_path / "s.tif", np.zeros((1, 100, 100), np.uint8), affine=affine)
    )
    path = layer(tmp_path / "d.gpkg", [[500_100, 5_000_100]])
    made = draw_density(path, tmp_path / "m.tif", cell_m=50, scene=scene)
    np.testing.assert_array_equal(read(made.path)[0][0], [[0, 1], [0, 0]])


def test_nothing_found_in_a_scene_is_a_map_of_zeros(tmp_path):
    scene = open_scene(write_scene(tmp_path / "s.tif", np.zeros((1, 60, 80), np.uint8)))
    gpd.GeoDataFrame({"class": [], "score": []}, geometry=[], crs=UTM).to_file(
        tmp_path / "d.gpkg", layer="detections"
    )
    made = draw_density(tmp_path / "d.gpkg", tmp_path / "m.tif", cell_m=10, scene=scene)
    assert (made.total, made.most, made.counts) == (0, 0, {})
    assert (read(made.path)[0] == 0).all()
    with pytest.raises(LabelError, match="holds no detection, so"):
        draw_density(tmp_path / "d.gpkg", tmp_path / "n.tif", cell_m=10)


def test_what_cannot_be_mapped_says_why(scattered, tmp_path):
    *_, path = scattered
    bare = tmp_path / "bare.gpkg"
    with pytest.warns(UserWarning, match="crs"):
        layer(bare, [[1.0, 2.0]], crs=None)
    with pytest.raises(LabelError, match="no CRS"):
        draw_density(bare, tmp_path / "m.tif", cell_m=10)
    with pytest.raises(OptionError, match="give larger cells"):
        draw_density(path, tmp_path / "m.tif", cell_m=0.01)
    with pytest.raises(OptionError, match="more than 0 m"):
        draw_density(path, tmp_path / "m.tif", cell_m=0)
    with pytest.raises(OutputError, match=r"\.tif"):
        draw_density(path, tmp_path / "m.png", cell_m=10)
    with pytest.raises(LabelError, match="does not exist"):
        draw_density(tmp_path / "no.gpkg", tmp_path / "m.tif", cell_m=10)
    assert not list(tmp_path.glob("*.tif"))
    (tmp_path / "m.tif").write_text("mine")
    with pytest.raises(OutputError, match="give overwrite=True"):
        draw_density(path, tmp_path / "m.tif", cell_m=100)
    draw_density(path, tmp_path / "m.tif", cell_m=100, overwrite=True)
    assert read(tmp_path / "m.tif")[0][0].sum() == 3000
