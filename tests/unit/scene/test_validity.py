"""What is ground, and what is not even decoded."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, Resampling
from support.rasters import write_raster
from support.stubs import NORTH_UP

from geo_retina.boxes import at_invalid
from geo_retina.errors import SceneError
from geo_retina.grid import Window
from geo_retina.scene import open_scene, sample_values
from geo_retina.scene.validity import seen_valid

SIDE = 1024
TILED = {"tiled": True, "blockxsize": 128, "blockysize": 128, "crs": "EPSG:32633",
         "transform": NORTH_UP}  # fmt: skip


@pytest.fixture
def decoded(monkeypatch):
    """Counts the pixels of bands that are decoded; masks and coarse copies are not among them."""
    counts = {"pixels": 0}
    scene_read = rasterio.DatasetReader.read

    def read(self, indexes=None, **how):
        if isinstance(indexes, list) and "out_shape" not in how:
            window = how["window"]
            counts["pixels"] += int(window.width * window.height)
        return scene_read(self, indexes, **how)

    from geo_retina.scene import reading

    class Counting:
        def __init__(self, dataset):
            self._dataset = dataset

        def __getattr__(self, name):
            return getattr(self._dataset, name)

        def read(self, indexes=None, **how):
            return read(self._dataset, indexes, **how)

    monkeypatch.setattr(
        reading, "open_dataset", lambda path, **_: Counting(rasterio.open(path, sharing=False))
    )
    monkeypatch.setattr(reading, "_handles", reading._Handles())
    return counts


def image(dtype="uint8", fill=0):
    """Noise, in the lower right quarter only."""
    pixels = np.full((3, SIDE, SIDE), fill, dtype)
    half = SIDE // 2
    noise = np.random.default_rng(0).integers(1, 200, (3, half, half))
    pixels[:, half:, half:] = noise
    return pixels


def sparse(path):
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint8",
        sparse_ok=True, **TILED,
    ) as dataset:  # fmt: skip
        half = SIDE // 2
        dataset.write(
            image()[:, half:, half:], window=rasterio.windows.Window(half, half, half, half)
        )


def masked(path, *, inside):
    def mask(dataset):
        valid = np.zeros((SIDE, SIDE), bool)
        valid[SIDE // 2 :, SIDE // 2 :] = True
        dataset.write_mask(valid)

    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        write_raster(path, image(fill=7), mask, **TILED)
    assert path.with_suffix(".tif.msk").exists() != inside


def alpha(path):
    pixels = np.concatenate([image(fill=7), (image() > 0)[:1] * np.uint8(255)])

    def declare(dataset):
        dataset.colorinterp = [
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        ]

    write_raster(path, pixels, declare, **TILED)


def nodata(path):
    write_raster(
        path,
        image(),
        lambda d: d.build_overviews([2, 4, 8, 16], Resampling.average),
        nodata=0,
        **TILED,
    )


KINDS = {
    "sparse": sparse,
    "mask inside": lambda path: masked(path, inside=True),
    "mask beside": lambda path: masked(path, inside=False),
    "alpha": alpha,
    "nodata, overviews": nodata,
    "nodata of floats": lambda p: write_raster(
        p,
        image("float32", -9999.0),
        lambda d: d.build_overviews([4], Resampling.nearest),
        nodata=-9999.0,
        **TILED,
    ),
}
WINDOWS = [
    Window(0, 0, SIDE, SIDE),
    Window(0, 0, 512, 512),
    Window(400, 300, 600, 700),
    Window(-30, 500, 540, 700),
]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_ground_is_invalid_and_but_for_nodata_not_decoded(tmp_path, decoded, kind):
    path = tmp_path / "a.tif"
    KINDS[kind](path)
    truth = np.zeros((SIDE, SIDE), bool)
    truth[SIDE // 2 :, SIDE // 2 :] = True
    scene = open_scene(path)
    assert len(scene.bands) == 3
    for window in WINDOWS:
        decoded["pixels"] = 0
        pixels, valid = scene.read(window)
        padded = np.pad(truth, 2 * SIDE)
        row, col = window.row + 2 * SIDE, window.col + 2 * SIDE
        wanted = padded[row : row + window.height, col : col + window.width]
        np.testing.assert_array_equal(valid, wanted)
        np.testing.assert_array_equal(
            pixels[:, valid],
            np.pad(image(), ((0, 0), (0, SIDE), (0, SIDE)))[
                :, max(row - 2 * SIDE, 0) :, max(col - 2 * SIDE, 0) :
            ][:, : window.height - max(-window.row, 0), : window.width][
                :, valid[max(-window.row, 0) :]
            ],
        )
        if not kind.startswith("nodata"):  # overviews may be older than the pixels
            sides = np.array([wanted.any(axis=1).sum(), wanted.any(axis=0).sum()])
            assert decoded["pixels"] <= np.prod(sides + 32 * (sides > 0))
            assert (decoded["pixels"] > 0) == wanted.any()


@pytest.mark.parametrize("kind", KINDS)
def test_views_and_samples_know_what_is_valid(tmp_path, kind):
    path = tmp_path / "a.tif"
    KINDS[kind](path)
    for gsd_m in (0.9, 1.3, 4.0):
        scene = open_scene(path, gsd_m=gsd_m)
        pixels, valid = scene.read(scene.grid.window)
        half = scene.grid.height // 2
        assert valid[half + 3 :, half + 3 :].all()
        assert not valid[: half - 3].any()
        assert pixels[:, valid].min() >= 1
        np.testing.assert_array_equal(
            scene.read(Window(half - 40, half - 40, 60, 60))[1],
            valid[half - 40 : half + 20, half - 40 : half + 20],
        )
    values = sample_values(open_scene(path))
    assert values.shape[1] > 10_000
    assert values.min() >= 1
    assert values.max() <= 199


def test_a_mask_makes_missing_blocks_honest(tmp_path):
    """Black ground that was not stored, in a file whose mask says that it is ground."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, height=256, width=256, dtype="uint8",
        sparse_ok=True, **TILED,
    ) as dataset:  # fmt: skip
        dataset.write_mask(np.ones((256, 256), bool))
    scene = open_scene(tmp_path / "a.tif")
    assert scene.read(scene.grid.window)[1].all()


def test_a_nearly_empty_scene_is_searched_for_its_ground(tmp_path):
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, height=40_000, width=40_000,
        dtype="uint16", sparse_ok=True, bigtiff="YES", **TILED,
    ) as dataset:  # fmt: skip
        block = np.full((1, 128, 128), 321, np.uint16)
        dataset.write(block, window=rasterio.windows.Window(12_800, 25_600, 128, 128))
    values = sample_values(open_scene(tmp_path / "a.tif"))
    assert values.shape == (1, 128 * 128)
    assert (values == 321).all()


def test_each_band_has_its_own_nodata_value():
    pixels = np.array([[[0, 5, 0]], [[9, 9, 9]]], np.uint8)
    assert seen_valid(pixels, (0, 9)).tolist() == [[False, True, False]]
    assert seen_valid(pixels, (0, None)) is None
    assert seen_valid(pixels, (-9999, 300)) is None  # no uint8 is
    assert seen_valid(pixels.astype(np.int16), (0, None)).tolist() == [[False, True, False]]
    pixels = np.array([[[-3.4028234663852886e38, 1, np.nan, np.inf]]], np.float32)
    assert seen_valid(pixels, (-3.4028234663852886e38,)).tolist() == [[False, True, False, False]]


def test_a_box_at_the_end_of_ground_is_told_by_each_side():
    valid = np.ones((60, 60), bool)
    valid[:, 40:] = False
    valid[:10] = False
    boxes_tile = np.array(
        [[30.0, 20, 40, 30], [20, 10, 30, 20], [15, 25, 25, 35], [30, 12, 42, 20]]
    )
    assert at_invalid(boxes_tile, valid, 4).tolist() == [
        [False, False, True, False],
        [False, True, False, False],
        [False, False, False, False],
        [False, True, True, False],
    ]
    assert at_invalid(boxes_tile[:0], valid, 4).shape == (0, 4)


def test_a_damaged_block_is_left_out_of_a_sample(tmp_path):
    rng = np.random.default_rng(0)
    path = write_raster(
        tmp_path / "a.tif",
        rng.integers(100, 200, (1, SIDE, SIDE)).astype(np.uint16),
        compress="deflate",
        **TILED,
    )
    whole = sample_values(open_scene(path)).shape[1]
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_3_3", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset : offset + 500] = b"\xff" * 500
    path.write_bytes(data)
    values = sample_values(open_scene(path))
    assert values.shape[1] == whole - 256 * 256
    assert values.min() >= 100
    path.write_bytes(bytes(data[:1000]))
    with pytest.raises(SceneError):
        sample_values(open_scene(path))


def test_what_no_block_holds_is_blank(tmp_path):
    sparse(tmp_path / "a.tif")
    half = SIDE // 2
    scene = open_scene(tmp_path / "a.tif")
    finer = open_scene(tmp_path / "a.tif", gsd_m=scene.grid.gsd_m / 2)
    for each, scale in ((scene, 1), (finer, 2)):
        for row, col in ((0, 0), (0, half), (half - 9, half - 9), (half - 4, half - 4)):
            window = Window(row * scale, col * scale, 8 * scale, 8 * scale)
            assert each.is_blank(window) == (not each.read(window)[1].any())
    nodata(tmp_path / "b.tif")
    full = open_scene(tmp_path / "b.tif")
    assert not full.is_blank(Window(0, 0, 8, 8))  # only reading it tells


def test_the_share_of_ground_is_counted_by_blocks(tmp_path):
    sparse(tmp_path / "a.tif")
    scene = open_scene(tmp_path / "a.tif")
    for window in (scene.grid.window, Window(400, 300, 333, 401), Window(0, 0, 9, 9)):
        expected = scene.read(window)[1].mean()
        assert scene.known_share(window) == pytest.approx(expected, abs=1e-4)


def masked_by_band(path, pixels, masks):
    """Write a file with a mask of its own for each band beside it."""
    write_raster(path, pixels, **TILED)
    tags = {f"INTERNAL_MASK_FLAGS_{band + 1}": "0" for band in range(len(masks))}
    beside = path.with_name(f"{path.name}.msk")
    write_raster(beside, masks.astype(np.uint8) * 255, lambda d: d.update_tags(**tags))


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("gsd_m", [None, 0.3, 0.9, 1.3])
def test_what_the_mask_of_any_band_hides_is_no_ground(tmp_path, gsd_m):
    masks = np.ones((3, SIDE, SIDE), bool)
    masks[0, :, : SIDE // 2] = False
    masks[1, : SIDE // 4] = False
    masked_by_band(tmp_path / "a.tif", np.full((3, SIDE, SIDE), 90, np.uint8), masks)
    for bands in ((1, 2, 3), (3,), (2, 1)):
        scene = open_scene(tmp_path / "a.tif", bands=bands, gsd_m=gsd_m)
        wanted = masks[[band - 1 for band in bands]].all(axis=0)
        valid = scene.read(scene.grid.window)[1]
        assert valid.mean() == pytest.approx(wanted.mean(), abs=0.01)
        middle = [side // 2 for side in valid.shape]
        assert valid[middle[0] + 3, middle[1] + 3]
        assert valid[middle[0], middle[1] - 3] == wanted[SIDE // 2, SIDE // 2 - 9]
        assert valid[3, middle[1] + 3] == wanted[9, -9]
