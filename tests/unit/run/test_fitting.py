"""How scenes are fitted to a model, or refused."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from support.rasters import write_raster
from support.stubs import NORTH_UP, tiny_card, write_scene

from geo_retina.engine.computing import _values
from geo_retina.errors import OptionError, SceneMismatchError
from geo_retina.model import Band, Radiometry, load_card
from geo_retina.options import DetectOptions
from geo_retina.run import fit_scene, notes_on
from geo_retina.scene import sample_values

SHAPE = (3, 200, 300)
COLOURS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
RGBN = tuple(Band(name, i) for i, name in enumerate(("red", "green", "blue", "nir"), 1))


def card(dtype="uint8", low=0.0, high=255.0, bands=3, **changes):
    centre, half = ((high + low) / 2,) * bands, ((high - low) / 2,) * bands
    return tiny_card(radiometry=Radiometry(dtype, centre, half), bands=RGBN[:bands], **changes)


def scene(path, low, high, dtype="uint16", *, bands=3, scale=1.0, offset=0.0, seed=0, **how):
    values = np.random.default_rng(seed).uniform(low, high, (bands, *SHAPE[1:]))
    pixels = values.astype(dtype)

    def tags(dataset):
        dataset.scales, dataset.offsets = (scale,) * bands, (offset,) * bands

    how = {"crs": "EPSG:32633", "transform": NORTH_UP, "photometric": "MINISBLACK", **how}
    return str(write_raster(path, pixels, tags if (scale, offset) != (1, 0) else None, **how))


# Bands


def test_bands_are_found_by_name_and_a_mismatch_lists_both_sides(tmp_path):
    pixels = np.zeros((4, 64, 64), np.uint8)
    mixed = write_scene(tmp_path / "m.tif", pixels, descriptions=("NIR", "Red", "Green", "Blue"))
    four = card(bands=4)
    assert fit_scene(str(mixed), four, DetectOptions()).bands == (2, 3, 4, 1)
    assert fit_scene(str(mixed), card(), DetectOptions()).bands == (2, 3, 4)
    chosen = fit_scene(str(mixed), four, DetectOptions(bands=(4, 1, 2, 3)))
    assert chosen.bands == (4, 1, 2, 3)
    short = write_scene(tmp_path / "s.tif", pixels[:2], descriptions=("SWIR 1", "NDVI"))
    with pytest.raises(
        SceneMismatchError,
        match=r"has 2 bands \(1 SWIR 1, 2 NDVI\), model tiny needs 3 .*Options.bands",
    ):
        fit_scene(str(short), card(), DetectOptions())


def test_a_bundled_model_is_named_that_finds_the_same_in_the_bands_of_a_file(tmp_path):
    rgb = write_scene(tmp_path / "rgb.tif", np.zeros((3, 64, 64), np.uint8))
    alike = replace(card(bands=4), classes=load_card("cars").classes, thresholds=(0.5,))
    with pytest.raises(SceneMismatchError, match=r"or take the bundled model cars, which"):
        fit_scene(str(rgb), alike, DetectOptions())
    with pytest.raises(SceneMismatchError, match=r"whatever the file calls them$"):
        fit_scene(str(rgb), card(bands=4), DetectOptions())


def test_alpha_is_no_infrared_unless_it_is_named(tmp_path):
    path = write_raster(
        tmp_path / "a.tif",
        np.full((4, 64, 64), 9, np.uint8),
        lambda dataset: setattr(dataset, "colorinterp", COLOURS),
        crs="EPSG:32633",
        transform=NORTH_UP,
    )
    with pytest.raises(SceneMismatchError, match=r"4 alpha\), model .*nir.*Options.bands"):
        fit_scene(str(path), card(bands=4), DetectOptions())
    found = fit_scene(str(path), card(bands=4), DetectOptions(bands=(1, 2, 3, 4)))
    assert found.read(found.grid.window)[1].all()
    with rasterio.open(path, "r+") as dataset:
        dataset.set_band_description(4, "Near infrared")
    assert fit_scene(str(path), card(bands=4), DetectOptions()).bands == (1, 2, 3, 4)


# Values


@pytest.mark.parametrize(
    ("made", "wanted", "said"),
    [
        (("uint8", 0, 255), ("uint8", 0, 255), None),
        (("uint8", 0, 3), ("uint8", 0, 255), None),  # dark, but of the same kind
        (("uint16", 200, 3000), ("uint16", 100, 3500), None),
        (("int16", 200, 3000), ("uint16", 100, 3500), None),
        (("float32", 200, 3000), ("uint16", 100, 3500), None),
        (("uint16", 40, 500), ("uint16", 100, 3500), None),  # water
        (("uint16", 7000, 12000), ("uint16", 100, 3500), None),  # clouds
        (("float32", -20, 35), ("float32", -5, 40), None),
        (("uint16", 0, 255), ("uint8", 0, 255), None),
        (("int16", 0, 255), ("uint8", 0, 255), None),
        (("float32", 0, 255), ("uint8", 0, 255), None),
        (("uint8", 0, 255), ("uint16", 20, 400), None),
        (("uint16", 0, 2000), ("uint8", 0, 255), "uint16 pixels of 0 to .* uint8; stretch"),
        (("int8", -128, 127), ("uint8", 0, 255), "int8 pixels of -12.* uint8; stretch"),
        (("int16", -50, 200), ("uint8", 0, 255), "int16 pixels of -4.* uint8; stretch .*nodata"),
        (
            ("float32", 0, 1),
            ("uint8", 0, 255),
            "has float32 pixels .*0.9.* 0 to 255 as uint8; stretch",
        ),
        (
            ("uint16", 0, 9),
            ("uint8", 0, 255),
            "has uint16 pixels of mostly 0 to 8, .* as uint8; stretch",
        ),
        (("uint8", 0, 255), ("uint16", 100, 3500), "has uint8 pixels .* 3500 as uint16; stretch"),
        (("float32", 0, 1), ("uint16", 100, 3500), "values of mostly 0.0.* to 0.9"),
        (("uint16", 200, 3000), ("float32", 0, 0.4), "trained on 0 to 0.4; stretch"),
        (("uint16", 20_000, 65_000), ("uint16", 100, 3500), "trained on 100 to 3500"),
        (("float32", 250, 310), ("float32", -5, 40), "values of mostly 25"),
    ],
)
def test_values_that_are_far_from_training_are_refused(tmp_path, made, wanted, said):
    path = scene(tmp_path / "a.tif", made[1], made[2], made[0])
    model = card(*wanted)
    if said is None:
        assert fit_scene(path, model, DetectOptions()).values is None
        return
    with pytest.raises(SceneMismatchError, match=said) as caught:
        fit_scene(path, model, DetectOptions())
    assert "DetectOptions.stretch=(2, 98)" in str(caught.value)
    assert fit_scene(path, model, DetectOptions(force=True)).values is None
    assert fit_scene(path, model, DetectOptions(stretch=(2, 98))).values is not None


@pytest.mark.parametrize(
    ("made", "tags"),
    [
        (("float32", 0, 255), {}),
        (("uint16", 0, 255), {}),
        (("uint16", 0, 10_000), {"scale": 0.0255}),
        (("int16", -128, 127), {"offset": 128.0}),
    ],
)
def test_values_in_range_of_another_type_are_taken_with_a_note(tmp_path, made, tags):
    found = fit_scene(
        scene(tmp_path / "a.tif", *made[1:], made[0], **tags), card(), DetectOptions()
    )
    assert (found.taken_in.low, found.taken_in.high) == (0, 255)
    assert found.taken_in.looked_at == SHAPE[1] * SHAPE[2]
    (note,) = notes_on([found])
    tagged = " with scale tags" if tags else ""
    assert f"a.tif has {made[0]} pixels{tagged}, taken as they are" in note
    assert "the model's 0 to 255 at the 60,000 pixels looked at" in note


def test_bytes_of_the_models_own_type_need_no_note(tmp_path):
    found = fit_scene(scene(tmp_path / "a.tif", 0, 255, "uint8"), card(), DetectOptions())
    assert found.taken_in is None
    assert not notes_on([found])


@pytest.mark.parametrize(("outside", "taken"), [(1, True), (400, False)])
def test_a_few_values_outside_are_an_overshoot_and_more_are_not(tmp_path, outside, taken):
    pixels = np.random.default_rng(0).uniform(0, 255, SHAPE).astype(np.float32)
    pixels[:, 0, :outside] = 700
    pixels[:, 1, :outside] = 700
    path = str(write_scene(tmp_path / "a.tif", pixels))
    if taken:
        assert fit_scene(path, card(), DetectOptions()).taken_in is not None
        return
    with pytest.raises(
        SceneMismatchError, match=r"float32 pixels of .* to 700, .*DetectOptions.stretch"
    ):
        fit_scene(path, card(), DetectOptions())


def test_a_nodata_value_is_no_value(tmp_path):
    pixels = np.random.default_rng(0).uniform(0, 255, SHAPE).astype(np.int16)
    pixels[:, :50] = -9999
    bare = str(write_scene(tmp_path / "a.tif", pixels))
    with pytest.raises(SceneMismatchError, match=r"-9999 to 25.*declare its nodata value"):
        fit_scene(bare, card(), DetectOptions())
    named = str(write_scene(tmp_path / "b.tif", pixels, nodata=-9999))
    assert fit_scene(named, card(), DetectOptions()).taken_in.looked_at == 150 * 300


def test_an_empty_scene_has_no_values_to_be_far(tmp_path):
    path = scene(tmp_path / "a.tif", 0, 0.5, nodata=0)
    assert fit_scene(path, card("uint16", 100, 3500), DetectOptions()).values is None
    stretched = fit_scene(path, card(), DetectOptions(stretch=(2, 98)))
    assert not stretched.read(stretched.grid.window)[1].any()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_stretch_puts_the_percentiles_at_the_ends_of_the_models_range(tmp_path, dtype):
    path = scene(tmp_path / "a.tif", 300, 9000, dtype)
    found = fit_scene(path, card(), DetectOptions(stretch=(2, 98)))
    pixels, _ = found.read(found.grid.window)
    assert pixels.dtype == dtype
    values = found.to_values(pixels)
    low, high = np.percentile(pixels, [2, 98], axis=(1, 2))
    wanted = ((pixels - low[:, None, None]) / (high - low)[:, None, None] * 255).clip(0, 255)
    np.testing.assert_allclose(values, wanted, atol=1e-2)
    again = fit_scene(path, card(), DetectOptions(stretch=(2, 98)))
    assert again.values == found.values


def test_a_stretch_is_of_the_whole_scene_and_without_nodata(tmp_path):
    pixels = np.zeros((1, 300, 3000), np.uint16)
    pixels[0, :, 1000:] = np.linspace(1000, 2000, 2000)
    path = write_scene(tmp_path / "a.tif", pixels, nodata=0)
    model = card(bands=1)
    values = fit_scene(str(path), model, DetectOptions(stretch=(0, 100))).values
    assert values(np.array([1000.0]))[0] == pytest.approx(0, abs=0.5)
    assert values(np.array([2000.0]))[0] == pytest.approx(255, abs=0.5)
    assert sample_values(fit_scene(str(path), model, DetectOptions(force=True))).min() >= 1000


def test_a_band_of_one_value_is_put_in_the_middle(tmp_path):
    path = write_scene(tmp_path / "a.tif", np.full((3, 64, 64), 500, np.uint16))
    found = fit_scene(str(path), card(), DetectOptions(stretch=(2, 98)))
    assert (found.to_values(found.read(found.grid.window)[0]) == 127.5).all()


def test_scale_and_offset_tags_give_values(tmp_path):
    """Reflectances stored as whole numbers, for a model of reflectances."""
    path = scene(tmp_path / "a.tif", 1200, 5000, scale=1e-4, offset=-0.1)
    model = card("float32", 0.0, 0.5)
    found = fit_scene(path, model, DetectOptions())
    pixels, _ = found.read(found.grid.window)
    np.testing.assert_allclose(found.to_values(pixels), pixels * 1e-4 - 0.1, atol=1e-6)
    whole = fit_scene(path, card("uint16", 1000, 6000), DetectOptions())
    assert whole.values is None  # that model was trained on the numbers themselves
    stretched = fit_scene(path, card(), DetectOptions(stretch=(0, 100)))
    plain = fit_scene(
        scene(tmp_path / "b.tif", 1200, 5000), card(), DetectOptions(stretch=(0, 100))
    )
    np.testing.assert_allclose(stretched.to_values(pixels), plain.to_values(pixels), atol=1e-2)


def test_tags_of_another_sign_turn_no_picture_dark_side_up(tmp_path):
    path = scene(tmp_path / "a.tif", 100, 900, scale=-2.0, offset=3000.0)
    found = fit_scene(path, card(), DetectOptions(stretch=(0, 100)))
    values = found.to_values(np.array([[100.0, 900.0]] * 3))
    np.testing.assert_allclose(values[0], [255, 0], atol=1.0)


def test_the_engine_computes_values_as_the_scene_does(tmp_path):
    import torch

    path = scene(tmp_path / "a.tif", 30_000, 40_000, scale=1e-4, offset=-0.1)
    for options in (DetectOptions(force=True), DetectOptions(stretch=(2, 98))):
        found = fit_scene(path, card("float32"), options)
        pixels, _ = found.read(found.grid.window)
        engine = _values(torch.from_numpy(pixels.astype(np.int32)), found.values)
        np.testing.assert_array_equal(engine.numpy(), found.to_values(pixels))


@pytest.mark.parametrize("stretch", [(98, 2), (2, 2), (2,), (-1, 98), (2, 101)])
def test_percentiles_are_checked(stretch):
    with pytest.raises(OptionError, match="stretch"):
        DetectOptions(stretch=stretch)


# Resolution


@pytest.mark.parametrize(
    ("pixel_m", "gsd_m", "factor"),
    [(0.5, 0.5, 1), (0.3, 0.3, 1), (1.0, 1.0, 1), (0.1, 0.5, 5), (0.25, 0.5, 2), (1.9, 0.5, 0.263)],
)
def test_scenes_beyond_the_cards_range_are_resampled(tmp_path, pixel_m, gsd_m, factor):
    affine = NORTH_UP @ NORTH_UP.scale(pixel_m / 0.5)
    path = scene(tmp_path / "a.tif", 0, 255, "uint8", transform=affine)
    found = fit_scene(path, card(), DetectOptions())
    assert found.grid.gsd_m == pytest.approx(gsd_m, rel=0.01)
    assert found.resampling_factor == pytest.approx(factor, rel=0.01)
    notes = notes_on([found])
    assert (f"by a factor of {factor:.3g} a side" in "".join(notes)) == (factor != 1)


def test_scenes_too_coarse_to_show_the_objects_are_refused(tmp_path):
    affine = NORTH_UP @ NORTH_UP.scale(6)
    path = scene(tmp_path / "a.tif", 0, 255, "uint8", transform=affine)
    with pytest.raises(
        SceneMismatchError,
        match=r"pixels of 3 m, model tiny holds for 0.3 to 1 m.*DetectOptions.force=True",
    ):
        fit_scene(path, card(), DetectOptions())
    assert fit_scene(path, card(), DetectOptions(force=True)).grid.gsd_m == pytest.approx(0.5)
    assert fit_scene(path, card(), DetectOptions(gsd_m=2)).grid.gsd_m == pytest.approx(2)


def test_a_scene_of_no_place_is_taken_as_it_is(tmp_path):
    path = write_scene(tmp_path / "a.tif", np.zeros((3, 64, 64), np.uint8), crs=None)
    found = fit_scene(str(path), card(), DetectOptions())
    assert found.grid.crs is None
    assert (
        "a.tif has no CRS" in notes_on([found, found])[0] or "2 scenes" in notes_on([found] * 2)[0]
    )
    assert notes_on([]) == ()
