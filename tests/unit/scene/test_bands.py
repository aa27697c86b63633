import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from support.stubs import write_scene

from geo_retina.scene import common_name, inspect_file, match_bands, open_scene
from geo_retina.scene.bands import BandLabel

RGBN = [("red", 1), ("green", 2), ("blue", 3), ("nir", 4)]


def labels(*names: str) -> tuple[BandLabel, ...]:
    return tuple(BandLabel(i, n, "undefined", common_name(n)) for i, n in enumerate(names, 1))


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (("nir", "NIR", "Near Infrared", "near-infrared", "NearInfraRed", "Infrared", "B08"),
         "near infrared"),
        (("red", "Red", "Band 1 (Red)", "R", "B04", "red_band"), "red"),
        (("green", "B03", "g", "Band 2: Green"), "green"),
        (("BLUE", "B02", "blue (490 nm)"), "blue"),
        (("red edge", "RedEdge", "Red-Edge 1"), "red edge"),
        (("pan", "Panchromatic", "grey", "Gray"), "panchromatic"),
        (("swir1", "SWIR 1"), None),
        (("B8A", "b8a"), "b8a"),
        (("NDVI", "ndvi"), "ndvi"),
        (("Band 4", "band_4", "4", "layer 2", "B4", ""), None),
    ],
)  # fmt: skip
def test_spellings(spellings, name):
    found = {common_name(text) for text in spellings}
    if spellings[0] == "swir1":
        assert found == {"swir1", "swir 1"}
    else:
        assert found == {name}


@pytest.mark.parametrize(
    ("have", "wanted", "chosen"),
    [
        (("red", "green", "blue", "nir"), RGBN, (1, 2, 3, 4)),
        (("nir", "red", "green", "blue"), RGBN, (2, 3, 4, 1)),
        (("B02", "B03", "B04", "B08"), RGBN, (3, 2, 1, 4)),
        (("", "", "", ""), RGBN, (1, 2, 3, 4)),  # no names at all
        (("", "", "", "", ""), RGBN, (1, 2, 3, 4)),
        (("red", "green", "blue", ""), RGBN, (1, 2, 3, 4)),  # nothing speaks against it
        (("blue", "green", "red", ""), RGBN, None),  # another order, so why not for the fourth
        (("red", "green", "blue", "alpha"), RGBN, None),
        (("red", "green", "blue", "swir1"), RGBN, None),
        (("red", "green", "blue"), RGBN, None),
        (("nir", "red", "green"), RGBN[:3], None),
        (("red", "red", "green", "blue"), RGBN[:3], None),  # green is not where it should be
        (("red", "green", "blue", "red"), RGBN[:3], (1, 2, 3)),
        (("red", "green", "blue", "alpha"), [("band 4", 4)], (4,)),  # the model has no name
        (("ndvi", "dsm"), [("DSM", 1)], (2,)),
    ],
)
def test_matching(have, wanted, chosen):
    assert match_bands(labels(*have), wanted) == chosen


def four_bands(tmp_path, descriptions=()):
    path = write_scene(
        tmp_path / "a.tif", np.full((4, 16, 16), 9, np.uint8), descriptions=descriptions
    )
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        ]
    return path


def test_colours_name_bands_and_descriptions_outweigh_them(tmp_path):
    file = inspect_file(four_bands(tmp_path))
    assert [label.name for label in file.labels] == ["red", "green", "blue", "alpha"]
    assert [str(label) for label in file.labels][3] == "4 alpha"
    assert open_scene(file.path).band_names == ("red", "green", "blue")
    assert open_scene(file.path, bands=(4,)).band_names == ("",)
    named = inspect_file(four_bands(tmp_path, ("nir", "red", "green", "near infrared 2")))
    assert [label.name for label in named.labels][:3] == ["near infrared", "red", "green"]


def test_infrared_that_is_declared_alpha_is_no_mask(tmp_path):
    path = four_bands(tmp_path, ("red", "green", "blue", "nir"))
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.zeros((16, 16), np.uint8), 4)
    assert open_scene(path).bands == (1, 2, 3, 4)
    colours = open_scene(path, bands=(1, 2, 3))
    assert colours.read(colours.grid.window)[1].all()
