"""Training on scenes as people name them and as they are: lists, STAC, addresses, odd files."""

from __future__ import annotations

import dataclasses
import functools
import json
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy
from support.coco import write_coco
from support.fields import AFFINE, CRS, field, squares, write_labels, write_scene
from support.http_server import serve
from support.rasters import control_points, write_raster
from support.stubs import StubPredictor, white_rectangles
from support.tiny_training import tiny

from geo_retina.detector import detect
from geo_retina.errors import TrainingError
from geo_retina.grid import Grid
from geo_retina.model import Model
from geo_retina.options import DetectOptions, RunOptions, SplitOptions
from geo_retina.scene import open_scene
from geo_retina.training import epoch_end, train

SIDE = 208


def trained(scenes: Any, labels: Path, **data: Any) -> Model:
    """One epoch, validation included; tells what was learned from by the model's card."""
    options = tiny(scenes, labels, epochs=1, samples_per_epoch=4, data=data)
    return train(options)


def facts(model: Model) -> dict[str, Any]:
    return dict(model.card.training)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Model]:
    """A scene, its labels, and the model that is learned from the plain file."""
    scene, labels, _ = field(tmp_path_factory.mktemp("whole"), side=SIDE)
    return scene, labels, trained(scene, labels)


def assert_same(one: Model, other: Model) -> None:
    """The same samples gave the same weights, so the same pixels and labels were read."""
    theirs = other.network.state_dict()
    for name, tensor in one.network.state_dict().items():
        assert tensor.equal(theirs[name]), name
    for name in ("train_labels", "labels", "scenes"):
        assert facts(one)[name] == facts(other)[name]


def write_pictures(folder: Path, scenes: dict[str, np.ndarray]) -> Path:
    """Boxes in the pixels of pictures."""
    boxes = [(i, box) for i, name in enumerate(scenes) for box in scenes[name].tolist()]
    path = folder / "coco.json"
    return write_coco(path, scenes, boxes, classes=("square",), size=(SIDE, SIDE))


def test_a_list_file_is_its_scenes(whole: tuple[Path, Path, Model]) -> None:
    scene, labels, model = whole
    listed = scene.with_name("scenes.txt")
    listed.write_text(f"# one\n{scene.name}\n", "utf-8")
    assert_same(trained(listed, labels), model)


def test_a_stac_item_collection_is_its_items_asset(whole: tuple[Path, Path, Model]) -> None:
    scene, labels, model = whole
    assets = {
        "image": {"href": f"./{scene.name}", "type": "image/tiff"},
        "mask": {"href": "./none.tif", "type": "image/tiff"},
    }
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": assets, "links": []}
    collection = scene.with_name("items.json")
    collection.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}), "utf-8")
    assert_same(trained(collection, labels, asset="image"), model)


def test_a_scene_at_an_address_is_read_in_ranges(
    whole: tuple[Path, Path, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    scene, labels, model = whole
    copy(scene, tmp_path / scene.name, driver="COG", compress="deflate", blocksize=128)
    with serve(tmp_path) as served:
        assert_same(trained(f"{served.url}/{scene.name}", labels), model)
        assert served.ranges
        assert set(served.requests) == {scene.name}


SOUTH_UP = Affine(0.5, 0, 500_000, 0, 0.5, 5_300_000)
TURNED = AFFINE @ Affine.rotation(25)


@pytest.mark.parametrize("affine", [SOUTH_UP, TURNED], ids=["south up", "turned"])
def test_labels_lie_on_the_squares_of_any_grid(
    tmp_path: Path, whole: tuple[Path, Path, Model], affine: Affine
) -> None:
    pixels, boxes_px = squares(side=SIDE)
    scene = write_scene(tmp_path / "a.tif", pixels, affine=affine)
    labels = write_labels(tmp_path / "a.gpkg", boxes_px, grid=open_scene(scene).grid, crs=4326)
    assert facts(trained(scene, labels))["labels"]["used"] == len(boxes_px)


def test_a_scene_placed_by_control_points_is_learned_from_as_it_is_warped(tmp_path: Path) -> None:
    pixels, boxes_px = squares(side=SIDE)
    points = control_points(AFFINE, SIDE, SIDE)
    path = write_raster(tmp_path / "a.tif", pixels, gcps=points, crs=CRS)
    grid = Grid(open_scene(path).grid.crs, AFFINE, SIDE, SIDE)  # where the points say it lies
    labels = write_labels(tmp_path / "a.gpkg", boxes_px, grid=grid)
    model = trained(path, labels)
    assert facts(model)["labels"]["used"] == len(boxes_px)
    assert model.card.gsd_m == pytest.approx(0.5, rel=0.02)


def test_numbers_with_scale_and_offset_are_learned_as_values(tmp_path: Path) -> None:
    """int16, nodata in a corner: reflectance is what the card speaks of."""
    pixels, boxes_px = squares(side=SIDE)
    numbers = (pixels.astype(np.int16) - 100) * 40
    numbers[:, -40:, -40:] = -9999

    def tag(dataset: Any) -> None:
        dataset.scales, dataset.offsets = (1e-4,) * 3, (0.4,) * 3

    path = write_raster(tmp_path / "a.tif", numbers, tag, crs=CRS, transform=AFFINE, nodata=-9999)
    labels = write_labels(tmp_path / "a.gpkg", boxes_px, grid=open_scene(path).grid)
    model = trained(path, labels)
    radiometry = model.card.radiometry
    assert radiometry.dtype == "float32"
    # 100 and 220 of the picture are 0.4 and 0.88 of the values; -9999 would be -0.6.
    low = np.subtract(radiometry.offset, radiometry.scale)
    high = np.add(radiometry.offset, radiometry.scale)
    assert low == pytest.approx([0.36] * 3, abs=0.02)
    assert high == pytest.approx([0.88] * 3, abs=0.02)


def test_ground_without_data_is_not_learned_from(tmp_path: Path) -> None:
    """Labels on it, as a layer of a whole town has them, are no objects of the picture."""
    pixels, boxes_px = squares(side=SIDE)
    pixels[:, :, SIDE // 2 :] = 0  # the other half has ground that is scored
    scene = write_scene(tmp_path / "a.tif", pixels, nodata=0)
    labels = write_labels(tmp_path / "a.gpkg", boxes_px, grid=open_scene(scene).grid)
    model = trained(scene, labels)
    [record] = facts(model)["history"]
    assert all(np.isfinite(value) for value in record.values())


def bright_squares(tiles_NCHW: Any) -> Any:
    """Find every bright square, exactly."""
    found = tiles_NCHW > 0.6
    return white_rectangles(found.float() * 2 - 1)


@pytest.mark.parametrize("kind", ["bare", "affine only"])
def test_pictures_without_a_place_are_learned_from_and_scored_in_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    boxes = {}
    for seed, name in enumerate(("a.tif", "b.tif", "c.tif")):
        pixels, boxes[name] = squares(side=SIDE, seed=seed)
        how = {"transform": TURNED} if kind == "affine only" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            write_raster(tmp_path / name, pixels, **how)
    labels = write_pictures(tmp_path, boxes)
    paths = tuple(str(tmp_path / name) for name in boxes)
    options = tiny("", labels, epochs=1, samples_per_epoch=4, picture_every=1)
    data = dataclasses.replace(options.data, scenes=paths, gsd_m=0.3)
    options = dataclasses.replace(options, data=data)
    folder = tmp_path / "run"
    # With all found that there is, the score says whether labels and detections meet.
    predictor = functools.partial(StubPredictor, find=bright_squares)
    monkeypatch.setattr(epoch_end, "Model", functools.partial(Model, predictor=predictor))
    model = train(options, folder=folder)
    [scores] = facts(model)["history"]
    assert scores["f1"] == pytest.approx(1.0)
    assert scores["ap50"] == pytest.approx(1.0)
    assert model.card.gsd_m == pytest.approx(0.3)
    assert list((folder / "pictures").iterdir())
    found = model_finds(model, paths[0])
    assert found.crs is None


def model_finds(model: Model, path: str) -> gpd.GeoDataFrame:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* no CRS")
        return detect(path, model, DetectOptions(score=0.01), RunOptions(device="cpu"))


def test_scenes_with_and_without_a_place_are_not_scored_together(tmp_path: Path) -> None:
    boxes = {}
    for seed, name in enumerate(("a.tif", "b.tif")):
        pixels, boxes[name] = squares(side=SIDE, seed=seed)
        write_scene(tmp_path / name, pixels, crs=CRS if seed else None)
    options = tiny(
        "", write_pictures(tmp_path, boxes), split=SplitOptions(block_m=15.0, val_fraction=0.5)
    )
    paths = tuple(str(tmp_path / name) for name in boxes)
    data = dataclasses.replace(options.data, scenes=paths, gsd_m=0.5)
    with pytest.raises(
        TrainingError, match=r"a\.tif has no CRS, so a model cannot be scored on it .* gdal_edit"
    ):
        train(dataclasses.replace(options, data=data))
