"""Training on scenes of several kinds: the same bands, and values that are comparable."""

import numpy as np
import pytest
from support.rasters import write_raster
from support.stubs import NORTH_UP, write_scene

from geo_retina.errors import TrainingError
from geo_retina.options import DataOptions
from geo_retina.training.opening import open_alike
from geo_retina.training.radiometry import measure_bands


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
    assert open_alike(turned, options(band_names=("nir", "green"))).bands == (1, 3)
    unnamed = three(tmp_path / "c.tif", ())
    assert open_alike(unnamed, options(), first).bands == (1, 2, 3)
    other = three(tmp_path / "d.tif", ("red", "green", "blue"))
    with pytest.raises(TrainingError, match=r"d\.tif has the bands 1 red.*a\.tif has red, green"):
        open_alike(other, options(), first)
    with pytest.raises(TrainingError, match=r"data\.band_names has red, swir"):
        open_alike(other, options(band_names=("red", "swir")))


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
