"""Pictures: the right size, the right colours in the right places, nothing half-written."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from geo_retina import boxes
from geo_retina.errors import LabelError, OutputError
from geo_retina.options import SynthOptions
from geo_retina.plots import CLASS_COLOURS, draw_preview, draw_training_curves
from geo_retina.scene import open_scene
from geo_retina.synth import CLASSES, draw_scene, truth_boxes

AFFINE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    options = SynthOptions(height=600, width=800, seed=3, rotation_deg=12)
    path = tmp_path_factory.mktemp("scenes") / "village.tif"
    draw_scene(path, options)
    scene = open_scene(path)
    truth, labels = truth_boxes(options)
    names = np.array(CLASSES)[labels]
    shapes = boxes.to_polygons(truth, scene.grid)
    return scene, geopandas.GeoDataFrame({"class": names}, geometry=shapes, crs=scene.grid.crs)


def _share(picture, colour, tolerance=0.02):
    """Of the pixels, those of a colour."""
    return (np.abs(picture[..., :3] - to_rgb(colour)).max(axis=-1) < tolerance).mean()


def _plain_scene(path, value, dtype="uint8", crs="EPSG:32632", bands=3, affine=AFFINE):
    """A scene of 200 x 300 pixels of one value but for a brighter half."""
    pixels = np.full((bands, 200, 300), value, dtype)
    pixels[:, :, 150:] = value * 2
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=200,
        width=300,
        count=bands,
        dtype=dtype,
        crs=crs,
        transform=affine,
    ) as file:
        file.write(pixels)
    return open_scene(path)


def _frame(scene, boxes_px, names, crs=None):
    shapes = boxes.to_polygons(np.array(boxes_px, dtype=float).reshape(-1, 4), scene.grid)
    return geopandas.GeoDataFrame({"class": names}, geometry=shapes, crs=crs or scene.grid.crs)


def test_the_preview_shows_every_class_in_its_colour(drawn, tmp_path):
    scene, truth = drawn
    out = draw_preview(scene, truth, tmp_path / "p.png")
    assert out == tmp_path / "p.png"
    picture = imread(out)
    height, width = picture.shape[:2]
    assert 600 < height < 2000
    assert 1000 < width < 3000
    bare = imread(draw_preview(scene, truth[:0], tmp_path / "bare.png"))
    for colour in CLASS_COLOURS[: truth["class"].nunique()]:
        assert _share(picture, colour) > 5e-4
        assert _share(bare, colour) < 1e-4
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["bare.png", "p.png"]


def test_a_box_is_drawn_where_it_lies(tmp_path):
    scene = _plain_scene(tmp_path / "a.tif", 50)
    frame = _frame(scene, [[30, 40, 90, 160]], ["x"])
    picture = imread(draw_preview(scene, frame, tmp_path / "p.png", crops=0))
    # The scene on the page: rows and columns that are mostly of its two greys.
    grey = [np.abs(picture[..., :3] - g / 255).max(axis=-1) < 0.01 for g in (50, 100)]
    across, down = np.any(grey, axis=0).mean(axis=0), np.any(grey, axis=0).mean(axis=1)
    left, right = np.flatnonzero(across > 0.3)[[0, -1]]
    top = np.flatnonzero(down > 0.3)[0]
    yellow = np.abs(picture[..., :3] - to_rgb(CLASS_COLOURS[0])).max(axis=-1) < 0.3
    rows, cols = np.nonzero(yellow[top:, left:])
    found = np.array([cols.min(), rows.min(), cols.max(), rows.max()])
    scale = (right + 1 - left) / 300
    np.testing.assert_allclose(found / scale, [30, 40, 90, 160], atol=1.5)


def test_a_turned_box_is_drawn_turned(tmp_path):
    scene = _plain_scene(tmp_path / "a.tif", 50)
    shape = boxes.oriented.to_polygons(np.array([[80.0, 100, 100, 40, 45]]), scene.grid)
    frame = geopandas.GeoDataFrame({"class": ["x"]}, geometry=shape, crs=scene.grid.crs)
    picture = imread(draw_preview(scene, frame, tmp_path / "p.png", crops=0))
    yellow = np.abs(picture[..., :3] - to_rgb(CLASS_COLOURS[0])).max(axis=-1) < 0.3
    yellow[:60] = False  # the legend
    rows, cols = np.nonzero(yellow)
    high, wide = rows - rows.min(), cols - cols.min()
    side = np.ptp(rows)
    assert np.ptp(cols) == pytest.approx(side, abs=2)
    # The hull's corners at the upper right and lower left stay empty: 100 to 40 of 140.
    assert (high - wide).max() == pytest.approx(side * 40 / 140, abs=3)
    assert (wide - high).max() == pytest.approx(side * 40 / 140, abs=3)


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 300), ("int16", 700), ("float32", 0.01)])
def test_other_types_than_bytes_are_stretched(tmp_path, dtype, value):
    scene = _plain_scene(tmp_path / "a.tif", value, dtype, bands=1)
    picture = imread(draw_preview(scene, _frame(scene, [], []), tmp_path / "p.png"))
    assert _share(picture, "black") > 0.2
    assert _share(picture, "white") > 0.2


def test_red_green_and_blue_are_found_by_name(tmp_path):
    _plain_scene(tmp_path / "a.tif", 0, bands=4)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        for band, (name, value) in enumerate(
            [("nir", 10), ("blue", 20), ("green", 120), ("red", 240)], start=1
        ):
            file.set_band_description(band, name)
            file.write(np.full((200, 300), value, "uint8"), band)
    scene = open_scene(tmp_path / "a.tif", bands=[1, 2, 3, 4])
    picture = imread(draw_preview(scene, _frame(scene, [], []), tmp_path / "p.png"))
    assert _share(picture, (240 / 255, 120 / 255, 20 / 255)) > 0.5


def test_detections_in_another_crs_are_moved_onto_the_scene(drawn, tmp_path):
    scene, truth = drawn
    here = imread(draw_preview(scene, truth, tmp_path / "a.png"))
    there = imread(draw_preview(scene, truth.to_crs("EPSG:4326"), tmp_path / "b.png"))
    assert np.abs(here - there).mean() < 2e-3


def test_of_a_layer_of_several_scenes_only_its_own_rows_are_drawn(tmp_path):
    scene = _plain_scene(tmp_path / "a.tif", 50)
    frame = _frame(scene, [[30, 40, 90, 160], [120, 40, 180, 160]], ["x", "y"])
    frame["scene"] = ["a", "other"]
    draw_preview(scene, frame, tmp_path / "both.png")
    draw_preview(scene, frame[:1], tmp_path / "own.png")
    # The same picture to the last byte, which also says that nothing of the moment is in it.
    assert (tmp_path / "both.png").read_bytes() == (tmp_path / "own.png").read_bytes()


def test_a_scene_where_nothing_was_found_shows_nothing(tmp_path):
    scene = _plain_scene(tmp_path / "a.tif", 50)
    frame = _frame(scene, [[30, 40, 90, 160], [120, 40, 180, 160]], ["x", "y"])
    frame["scene"] = ["b", "c"]
    draw_preview(scene, frame, tmp_path / "others.png")
    draw_preview(scene, frame[:0], tmp_path / "none.png")
    assert (tmp_path / "others.png").read_bytes() == (tmp_path / "none.png").read_bytes()


def test_of_a_single_scene_of_another_name_what_lies_here_is_drawn(tmp_path):
    scene = _plain_scene(tmp_path / "renamed.tif", 50)
    here = [[30, 40, 90, 160], [290, 190, 310, 210], [-20, -20, 5, 5]]
    beside = [[300, 40, 350, 90], [-50, -50, 0, 0], [20, 200, 40, 300], [20, -30, 40, -1]]
    frame = _frame(scene, here + beside, ["x"] * 7)
    draw_preview(scene, frame[:3], tmp_path / "here.png")
    frame["scene"] = "as it was"
    draw_preview(scene, frame, tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    draw_preview(scene, frame[3:], tmp_path / "beside.png")
    draw_preview(scene, frame[:0], tmp_path / "none.png")
    assert (tmp_path / "beside.png").read_bytes() == (tmp_path / "none.png").read_bytes()
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "none.png").read_bytes()


def test_masses_of_objects_become_points(tmp_path):
    scene = _plain_scene(tmp_path / "a.tif", 50)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 195, (31_000, 2)) * [1.5, 1]
    frame = _frame(scene, np.concatenate([low, low + 3], axis=1), ["x"] * len(low))
    picture = imread(draw_preview(scene, frame, tmp_path / "p.png", crops=0))
    assert 0.02 < _share(picture, CLASS_COLOURS[0], 0.3) < 0.2


def test_a_scene_without_crs_is_drawn_without_scale(tmp_path):
    path = tmp_path / "a.tif"
    scene = _plain_scene(path, 50, crs=None, affine=Affine.scale(2.0))
    inside = geopandas.GeoDataFrame({"class": ["x"]}, geometry=[shapely.box(5, 5, 12, 15)])
    assert draw_preview(scene, inside, tmp_path / "p.png").exists()
    with pytest.raises(LabelError, match="no CRS"):
        draw_preview(scene, inside.set_crs("EPSG:32632"), tmp_path / "q.png")


def test_a_picture_needs_a_place_and_the_suffix_png(drawn, tmp_path):
    with pytest.raises(OutputError, match=r"\.png"):
        draw_preview(*drawn, tmp_path / "p.txt")
    with pytest.raises(OutputError, match="missing"):
        draw_preview(*drawn, tmp_path / "missing" / "p.png")
    assert list(tmp_path.iterdir()) == []


def test_training_curves_show_losses_and_scores(tmp_path):
    history = [
        {"epoch": i, "loss": 1 / i, "class_loss": 0.7 / i, "box_loss": 0.3 / i}
        | ({"f1": 0.5 + i / 20, "ap50": float("nan")} if i % 2 == 0 else {})
        for i in range(1, 7)
    ]
    full = imread(draw_training_curves(history, tmp_path / "c.png"))
    empty = imread(draw_training_curves([], tmp_path / "d.png"))
    assert full.shape == empty.shape
    # matplotlib's first three colours: three losses above, one score below.
    upper, lower = np.array_split(full, 2)
    assert all(_share(upper, colour) > 1e-4 for colour in ("C0", "C1", "C2"))
    assert _share(lower, "C0") > 1e-4 > _share(lower, "C1")
    assert _share(empty, "C0") == 0


def test_a_bar_has_the_length_that_it_says(tmp_path, monkeypatch):
    """Along the rows, also where pixels are no squares and where the CRS stretches lengths."""
    bars = []

    def bar(transform, length_px, text, *args, **kwargs):
        bars.append((length_px, float(text.removesuffix(" m"))))
        return AnchoredSizeBar(transform, length_px, text, *args, **kwargs)

    monkeypatch.setattr("geo_retina.plots.preview.AnchoredSizeBar", bar)
    for name, crs, affine, side_m in (
        ("a", "EPSG:32632", Affine(0.5, 0, 500_000, 0, -2, 5_000_000), 0.5),
        # At 60 degrees north, Web Mercator draws everything twice as long as it is.
        ("b", "EPSG:3857", Affine(1, 0, 0, 0, -1, 8_399_737.9), 0.5),
    ):
        scene = _plain_scene(tmp_path / f"{name}.tif", 50, crs=crs, affine=affine)
        draw_preview(scene, _frame(scene, [], []), tmp_path / f"{name}.png")
        length_px, metres = bars.pop()
        assert length_px * side_m == pytest.approx(metres, rel=0.005)
        assert not bars
