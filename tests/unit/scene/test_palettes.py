"""Colour tables: numbers of colours are no brightness, but can be looked at."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from matplotlib.image import imread
from support.rasters import write_raster
from support.stubs import NORTH_UP

from geo_retina.cli import main
from geo_retina.errors import SceneError
from geo_retina.plots import draw_preview
from geo_retina.plots.display import Display
from geo_retina.scene import describe_scene, open_picture, open_scene

PLACED = {"crs": "EPSG:32633", "transform": NORTH_UP}
TABLE = {0: (200, 10, 20), 1: (10, 200, 20), 2: (20, 10, 200), 3: (255, 255, 0)}
NUMBERS = np.arange(4, dtype=np.uint8).repeat(24)[None].repeat(64, axis=0)


def write_palette(path, table=TABLE, numbers=NUMBERS, **how):
    def tabulate(dataset):
        dataset.write_colormap(1, table)

    return write_raster(path, numbers[None], tabulate, **{**PLACED, **how})


def test_numbers_of_colours_are_refused_with_the_way_out(tmp_path):
    path = write_palette(tmp_path / "old map.tif")
    for bands in (None, [1], [1, 1, 1]):
        with pytest.raises(SceneError, match=r"-expand rgb '.*old map\.tif' expanded\.tif"):
            open_scene(path, bands=bands)
    told = describe_scene(path)
    assert told["bands"] == "1 palette"
    assert told["colours"].startswith("a table of 256; to be expanded")


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_a_picture_has_the_tables_colours(tmp_path, crs):
    from rasterio.transform import from_origin

    place = NORTH_UP if crs == "EPSG:32633" else from_origin(15.0, 10.0, 1e-5, 1e-5)
    scene = open_picture(write_palette(tmp_path / "a.tif", crs=crs, transform=place))
    wanted = set(TABLE.values())
    for pixels, valid in (scene.read(scene.grid.window), scene.overview(30)[:2]):
        picture = Display.of(scene, pixels, valid).picture(pixels, valid)
        assert {tuple(each) for each in picture[valid].tolist()} == wanted
        assert (picture[~valid] == 225).all()


def test_a_preview_draws_such_a_file(tmp_path):
    path = write_palette(tmp_path / "a.tif")
    frame = gpd.GeoDataFrame({"class": [], "score": []}, geometry=[], crs="EPSG:32633")
    draw_preview(open_picture(path), frame, tmp_path / "p.png")
    drawn = (imread(tmp_path / "p.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)
    for colour in TABLE.values():
        assert (np.abs(drawn - colour).max(axis=1) <= 1).sum() > 1000


def test_the_command_draws_it_too(tmp_path):
    path = write_palette(tmp_path / "a.tif")
    x, y = NORTH_UP @ (20, 20)
    square = shapely.box(x, y, x + 2, y + 2)
    frame = gpd.GeoDataFrame({"class": ["a"], "score": [0.9]}, geometry=[square], crs="EPSG:32633")
    frame.to_file(tmp_path / "d.gpkg", layer="detections")
    out = tmp_path / "p.png"
    assert main(["preview", str(tmp_path / "d.gpkg"), str(path), "--out", str(out)]) == 0
    assert out.stat().st_size > 1000


def test_a_table_of_greys_is_no_table(tmp_path):
    path = write_palette(tmp_path / "a.tif", {i: (i, i, i) for i in range(256)})
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.read(scene.grid.window)[0][0], NUMBERS)
    assert describe_scene(path)["bands"] == "1 gray"
    with pytest.raises(SceneError, match="colour table"):
        open_scene(write_palette(tmp_path / "b.tif", {i: (255 - i,) * 3 for i in range(256)}))


@pytest.mark.parametrize("how", [{}, {"photometric": "MINISWHITE"}, {"compress": "CCITTFAX4"}])
def test_one_bit_is_0_and_1(tmp_path, how):
    bits = NUMBERS % 2
    path = write_raster(tmp_path / "a.tif", bits[None], NBITS=1, **PLACED, **how)
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.read(scene.grid.window)[0][0], bits)
    assert describe_scene(path)["bands"] == "1 gray"
    for wanted in (2.0, 1.0):
        view = open_scene(path, gsd_m=wanted)
        assert set(np.unique(view.read(view.grid.window)[0])) <= {0, 1}
