"""What must not change when the same ground comes in another form, with both bundled models.

Ground of ``trees-naip`` is real: each scene of the shared data beside its mirror images, so that no
seam shows; it is slow. Ground of ``demo`` is drawn. Positions are pixels of the files throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.shutil import copy as copy_raster
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment

import geo_retina

OUTER_PX = 16
SAME_PX = 6.0
"""Centres of the same object lie within half of a tree's crown of each other."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Ground:
    """Larger ground to cut crops from."""

    model: str
    paths: tuple[Path, ...]
    options: geo_retina.DetectOptions
    pixel_m: float

    def write(self, path: Path, pixels: np.ndarray, **how: object) -> Path:
        """Write pixels at this ground's resolution, unless told otherwise."""
        affine = Affine(self.pixel_m, 0, 4e5, 0, -self.pixel_m, 4e6)
        return write(path, pixels, **{"transform": affine, **how})

    def found(self, paths: Sequence[Path], **changes: object) -> list[NDArray[np.float64]]:
        """(N, 4) boxes in pixels of each file."""
        options = geo_retina.DetectOptions(**{**vars(self.options), **changes})
        frame = geo_retina.detect([str(path) for path in paths], self.model, options)
        columns = ["x_min_px", "y_min_px", "x_max_px", "y_max_px"]
        return [frame.loc[frame["scene"] == path.stem, columns].to_numpy(float) for path in paths]


def write(
    path: Path, pixels: np.ndarray, valid: np.ndarray | None = None, **profile: object
) -> Path:
    """Write (bands, height, width) pixels, and what is valid as a mask inside the file."""
    bands, height, width = pixels.shape
    shape = {"height": height, "width": width, "count": bands, "dtype": pixels.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", crs="EPSG:26911", **shape, **profile) as dataset,
    ):
        dataset.write(pixels)
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
        dataset.colorinterp = colours[:bands]
        if valid is not None and not valid.all():
            dataset.write_mask((valid * 255).astype(np.uint8))
    return path


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def squares(ground: Ground, count: int) -> list[np.ndarray]:
    """Pieces of ground of 512 x 512 px."""
    found = [
        pixels[:, row : row + 512, col : col + 512]
        for pixels in map(read, ground.paths[:count])
        for row in range(0, pixels.shape[1] - 511, 512)
        for col in range(0, pixels.shape[2] - 511, 512)
    ]
    return found[:count]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("demo")
    drawn = geo_retina.SynthOptions(
        height=1600, width=1600, density=700, nodata_corner=False, seed=7
    )
    geo_retina.draw_scene(folder / "ground.tif", drawn)
    return Ground("demo", (folder / "ground.tif",), geo_retina.DetectOptions(runtime="torch"), 0.3)


@pytest.fixture(scope="module")
def trees(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("trees")
    paths = []
    for source in sorted((data_root / "naip_trees" / "val").glob("*.tif"))[::8]:
        pixels = read(source)
        row = np.concatenate([pixels, pixels[:, :, ::-1]], axis=2)
        mosaic = np.concatenate([row, row[:, ::-1]], axis=1)
        affine = Affine(0.6, 0, 4e5, 0, -0.6, 4e6)
        paths.append(write(folder / source.name, mosaic, transform=affine))
    return Ground(
        "trees-naip",
        tuple(paths),
        geo_retina.DetectOptions(bands=(1, 2, 3, 4), runtime="torch"),
        0.6,
    )


@pytest.fixture(params=["demo", pytest.param("trees", marks=pytest.mark.slow)])
def ground(request: pytest.FixtureRequest) -> Ground:
    found: Ground = request.getfixturevalue(request.param)
    return found


def valid_shape(kind: int, height: int, width: int) -> np.ndarray:
    """All of a crop, or what a slanted edge, a missing corner or a hole leaves of it."""
    y, x = np.mgrid[:height, :width]
    return (
        np.ones((height, width), np.bool_),
        x * np.cos(0.3) + y * np.sin(0.3) < 0.8 * width,
        ~((x > 0.6 * width) & (y > 0.6 * height)),
        (x - width / 2) ** 2 + (y - height / 2) ** 2 > (0.15 * width) ** 2,
    )[kind]


def centres(boxes: NDArray[np.float64]) -> Points:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def matched(a: Points, b: Points) -> int:
    """Objects of one set that the other has too, one to one."""
    apart = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    rows, cols = linear_sum_assignment(np.minimum(apart, 99))
    return int((apart[rows, cols] <= SAME_PX).sum())


def at(points: Points, values: np.ndarray) -> np.ndarray:
    col, row = np.floor(points).astype(int).T
    height, width = values.shape
    return values[np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)]


def within(
    points: Points, margin_px: float, corner: Sequence[float], end: Sequence[float]
) -> Points:
    low, high = np.add(corner, margin_px), np.subtract(end, margin_px)
    return points[((points >= low) & (points <= high)).all(axis=1)]


def test_edges_of_ground_make_and_hide_nothing(ground: Ground, tmp_path: Path) -> None:
    """Crops of odd sizes, with nodata cut into them, against the ground they are cut from."""
    random = np.random.default_rng(3)
    crops = []
    for number in range(44):
        path = ground.paths[number % len(ground.paths)]
        pixels = read(path)
        height, width = random.integers(250, 420, 2).tolist()
        row, col = (
            32 * random.integers(0, (side - taken) // 32 + 1)
            for side, taken in zip(pixels.shape[1:], (height, width), strict=True)
        )
        valid = valid_shape(number % 4, height, width)
        cut = np.where(valid, pixels[:, row : row + height, col : col + width], 0)
        crops.append(
            (path, row, col, valid, ground.write(tmp_path / f"{number}.tif", cut, valid=valid))
        )
    whole = dict(zip(ground.paths, ground.found(ground.paths), strict=True))
    found = ground.found([crop[-1] for crop in crops])
    expected_near, found_near, expected_all, found_all, agreed = 0, 0, 0, 0, 0
    for (path, row, col, valid, _), boxes in zip(crops, found, strict=True):
        height, width = valid.shape
        edge_px = distance_transform_edt(np.pad(valid, 1))[1:-1, 1:-1]
        expected = whole[path] - [col, row, col, row]
        inside = (centres(expected) >= 0) & (centres(expected) < [width, height])
        expected = expected[inside.all(axis=1)]
        expected = expected[at(centres(expected), edge_px) > 0]
        expected_near += int((at(centres(expected), edge_px) <= OUTER_PX).sum())
        found_near += int((at(centres(boxes), edge_px) <= OUTER_PX).sum())
        # A crop's boxes end with it.
        expected = np.clip(expected, 0, [width, height, width, height])
        agreed += matched(centres(expected), centres(boxes))
        expected_all, found_all = expected_all + len(expected), found_all + len(boxes)
    assert expected_near >= 500
    assert 0.9 <= found_near / expected_near <= 1.15
    assert 2 * agreed / (expected_all + found_all) >= 0.95


def test_equal_pixels_in_other_files_give_equal_objects(demo: Ground, tmp_path: Path) -> None:
    pixels = read(demo.paths[0])[:, :700, :900].copy()
    pixels[:, 512:, 512:] = 0
    plain = demo.write(tmp_path / "plain.tif", pixels, nodata=0)
    tiled = {"tiled": True, "compress": "deflate", "nodata": 0}
    others = [
        demo.write(tmp_path / "striped.tif", pixels, nodata=0, compress="deflate"),
        demo.write(tmp_path / "blocks.tif", pixels, blockxsize=64, blockysize=128, **tiled),
        demo.write(
            tmp_path / "sparse.tif", pixels, blockxsize=256, blockysize=256, sparse_ok=True, **tiled
        ),
    ]
    copy_raster(plain, tmp_path / "virtual.vrt", driver="VRT")
    (expected,) = demo.found([plain])
    assert len(expected) > 100
    for path in [*others, tmp_path / "virtual.vrt"]:
        (boxes,) = demo.found([path])
        np.testing.assert_array_equal(boxes, expected)


def test_ground_moved_by_whole_strides_keeps_its_objects(ground: Ground, tmp_path: Path) -> None:
    """In one tile, away from its edges; where tiles lie matters too, as docs/merging.md says."""
    corner, end = (64, 32), (512, 512)
    agreed, objects = 0, 0
    for number, pixels in enumerate(squares(ground, 4)):
        first = ground.write(tmp_path / f"first-{number}.tif", pixels)
        moved = ground.write(tmp_path / f"moved-{number}.tif", pixels[:, 32:, 64:])
        a, b = (centres(boxes) for boxes in ground.found([first, moved], tile_px=1024))
        here, there = within(a, 32, corner, end), within(b + corner, 32, corner, end)
        agreed, objects = agreed + matched(here, there), objects + len(here) + len(there)
    assert objects > 200
    assert 2 * agreed / objects >= 0.98


def test_other_views_of_ground_differ_no_more_than_its_mirror_image(
    ground: Ground, tmp_path: Path
) -> None:
    """The yardstick is what the network itself makes of a mirror image."""
    scenes = squares(ground, 6)
    names = [f"{number}.tif" for number in range(len(scenes))]

    def found(form: str, images: Sequence[np.ndarray], **changes: object) -> list[Points]:
        (tmp_path / form).mkdir()
        files = [ground.write(tmp_path / form / n, im) for n, im in zip(names, images, strict=True)]
        return [centres(boxes) for boxes in ground.found(files, **changes)]

    def overall(others: Sequence[Points], corner: Sequence[float] = (0, 0)) -> float:
        pairs = [
            (within(a, 0, corner, (512, 512)), within(b, 0, corner, (512, 512)))
            for a, b in zip(base, others, strict=True)
        ]
        return 2 * sum(matched(*pair) for pair in pairs) / sum(len(a) + len(b) for a, b in pairs)

    base = found("base", scenes)
    mirrored = found("mirrored", [image[:, :, ::-1] for image in scenes])
    turned = found("turned", [image[:, ::-1] for image in scenes])
    yardstick = min(
        overall([points * [-1, 1] + [512, 0] for points in mirrored]),
        overall([points * [1, -1] + [0, 512] for points in turned]),
    )
    brighter = [np.clip(image * 1.1, 0, 255).astype(np.uint8) for image in scenes]
    cropped = found("cropped", [image[:, 100:, 100:] for image in scenes])
    agreements = {
        "cropped by 100 px": overall([points + 100 for points in cropped], (100, 100)),
        "another tile size": overall(found("tiles", scenes, tile_px=512)),
        "brighter by a tenth": overall(found("brighter", brighter)),
    }
    assert yardstick > 0.85
    assert {form: value for form, value in agreements.items() if value < yardstick - 0.01} == {}


def test_south_up_scene_has_the_objects_of_its_turned_image(ground: Ground, tmp_path: Path) -> None:
    """A file whose rows run north is read as it lies: the place of its objects is what counts."""
    pixels = read(ground.paths[0])[:, :512, :512]
    side_m = 512 * ground.pixel_m
    affine = Affine(ground.pixel_m, 0, 4e5, 0, ground.pixel_m, 4e6 - side_m)
    north_up = ground.write(tmp_path / "north.tif", pixels[:, ::-1])
    south_up = ground.write(tmp_path / "south.tif", pixels[:, ::-1], transform=affine)
    frames = [
        geo_retina.detect(str(path), ground.model, ground.options) for path in (north_up, south_up)
    ]
    up, down = (np.column_stack([f.geometry.centroid.x, f.geometry.centroid.y]) for f in frames)
    assert len(up) > 50
    np.testing.assert_allclose(down, up * [1, -1] + [0, 2 * 4e6 - side_m], atol=1e-6)
