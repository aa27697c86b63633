"""Training on scenes of several kinds: the same bands, and values that are comparable."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from support.rasters import control_points, write_raster
from support.stubs import NORTH_UP, paint, write_scene

from geo_retina.dataset.common_bands import open_alike
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.dataset.radiometry import measure_bands
from geo_retina.errors import TrainingError
from geo_retina.options import DataOptions


def options(**given):
    return DataOptions(scenes=("a.tif",), labels="labels.gpkg", **given)


def three(path, descriptions):
    pixels = np.stack([np.full((32, 32), i, np.uint8) for i in (1, 2, 3)])
    return str(write_scene(path, pixels, descriptions=descriptions))


def test_bands_of_later_scenes_are_those_of_the_first_by_name(tmp_path):
    first = open_alike(three(tmp_path / "a.tif", ("red", "green", "nir")), options())
    turned = three(tmp_path / "b.tif", ("Near infrared", "Red", "Green"))
    assert open_alike(turned, options(), first).bands == (2, 3, 1)
    assert open_alike(turned, options(bands=(1, 2, 3)), first).bands == (1, 2, 3)
    assert open_alike(turned, options(band_names=("nir", "green", "red"))).bands == (1, 3, 2)
    assert open_alike(turned, options(band_names=("x", "y", "z"))).bands == (1, 2, 3)
    unnamed = three(tmp_path / "c.tif", ())
    assert open_alike(unnamed, options(), first).bands == (1, 2, 3)
    other = three(tmp_path / "d.tif", ("red", "green", "blue"))
    with pytest.raises(TrainingError, match=r"d\.tif has the bands 1 red.*a\.tif has red, green"):
        open_alike(other, options(), first)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset", "kept"),
    [
        ("uint16", 1, 0, "uint16"),
        ("int16", 1, 0, "int16"),
        ("float32", 1, 0, "float32"),
        ("uint16", 1e-4, -0.1, "float32"),
    ],
)
def test_the_radiometry_of_wide_types_is_of_their_values(tmp_path, dtype, scale, offset, kept):
    numbers = np.random.default_rng(0).uniform(1000, 3000, (2, 300, 300)).astype(dtype)
    numbers[:, :100] = 0  # no data

    def tags(dataset):
        dataset.scales, dataset.offsets = (scale, scale), (offset, offset)

    path = write_raster(
        tmp_path / "a.tif", numbers, tags, nodata=0, crs="EPSG:32633", transform=NORTH_UP
    )
    bands = measure_bands([open_alike(str(path), options())], seed=0)
    assert bands.radiometry.dtype == kept
    for band in (0, 1):
        middle, half = bands.radiometry.offset[band], bands.radiometry.scale[band]
        assert middle == pytest.approx(2000 * scale + offset, rel=0.02)
        assert half == pytest.approx(980 * scale, rel=0.02)
    assert np.abs(bands.mean).max() < 0.05
    assert bands.std == pytest.approx([0.59, 0.59], abs=0.03)


DEGREE = 0.5 / 111_320
PLACES = {
    "geographic": Affine(DEGREE, 0, 15, 0, -DEGREE, 0.01),
    "control points": Affine(DEGREE, 0, 15, 0, -DEGREE, 0.01),
    "feet": Affine(1.6, 0.3, 1e6, 0.2, -1.6, 2e5),
}


@pytest.mark.parametrize("kind", PLACES)
def test_labels_lie_on_what_they_label(tmp_path, kind):
    """White objects whose labels are placed by the file's affine alone."""
    boxes_px = np.array([[20, 24, 60, 48], [150, 100, 170, 140]])
    affine, crs = PLACES[kind], "EPSG:2263" if kind == "feet" else "EPSG:4326"
    points = kind == "control points"
    placed = {"gcps": control_points(affine, 200, 300)} if points else {"transform": affine}
    path = write_raster(tmp_path / "a.tif", paint((200, 300), boxes_px), crs=crs, **placed)
    corners = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in boxes_px]
    polygons = [shapely.Polygon([affine @ corner for corner in ring]) for ring in corners]
    gpd.GeoDataFrame(geometry=polygons, crs=crs).to_file(tmp_path / "labels.gpkg")
    data = DataOptions(scenes=(str(path),), labels=str(tmp_path / "labels.gpkg"))
    (each,) = load_training_set(data).scenes
    assert each.scene.grid.gsd_m == pytest.approx(0.5, rel=0.03)
    pixels, _ = each.scene.read(each.scene.grid.window)
    assert len(each.boxes_px) == 2
    for x0, y0, x1, y1 in each.boxes_px.round().astype(int):
        assert (pixels[0, y0 + 3 : y1 - 3, x0 + 3 : x1 - 3] > 200).mean() > 0.6
        around = pixels[0, y0 - 6 : y1 + 6, x0 - 6 : x1 + 6]
        assert (around[[0, -1]] < 100).all()
