"""Scenes that no label names, and labels that name no scene: both are said at any share."""

import numpy as np
import pytest
from support.coco import write_coco
from support.fields import write_labels, write_scene

from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.errors import LabelError
from geo_retina.export import export_chips
from geo_retina.options import ChipOptions, DataOptions, SplitOptions, TrainOptions
from geo_retina.scene import open_scene
from geo_retina.training import check_labels

BLACK = np.zeros((1, 100, 120), np.uint8)
BOXES = np.array([[10.0, 20, 22, 30], [50, 40, 60, 55], [90, 80, 119, 99]])


@pytest.fixture
def scenes(tmp_path):
    return [write_scene(tmp_path / f"s{n}.tif", BLACK) for n in range(8)]


@pytest.fixture
def grid(scenes):
    return open_scene(scenes[0]).grid


def options(scenes, labels, **more):
    return DataOptions(scenes=tuple(map(str, scenes)), labels=str(labels), **more)


def test_one_scene_of_many_without_an_image_is_named_and_an_empty_image_is_none(tmp_path, scenes):
    files = [f"s{n}.tif" for n in range(7)] + ["t7.tif"]
    notes = [(i, BOXES[0].tolist()) for i in range(6)] + [(7, BOXES[1].tolist())]
    path = write_coco(tmp_path / "l.json", files, notes, encoding="utf-8-sig")
    found = load_training_set(options(scenes, path))
    other, missing = found.warnings
    assert other.startswith("1 of 7 labels of ")
    assert other.endswith("none of the scenes and are left out: t7.tif")
    # s6 has an image without annotations, so it is known to be empty.
    assert missing.startswith("1 of 8 scenes are named by no image or label of ")
    assert "objects: s7; correct" in missing
    assert (found.counts.no_scene, found.counts.other_scene) == (1, 1)
    assert "1 on no scene (1 name another file)" in str(found.counts)


def test_images_are_found_however_their_paths_are_written(tmp_path, scenes):
    files = [
        *("s0.tif", r"..\label\s1.tif", r"C:\maps\s2.tif", "S3.TIF", "in/s%34.jpg"),
        *("https://host/s5.tif?sig=1", "./s6.tif", str(scenes[7])),
    ]
    notes = [(i, BOXES[i % 3].tolist()) for i in range(8)]
    found = load_training_set(options(scenes, write_coco(tmp_path / "l.json", files, notes)))
    assert found.warnings == ()
    for i, each in enumerate(found.scenes):
        np.testing.assert_allclose(each.boxes_px, BOXES[i % 3][None], atol=1e-9)


def test_an_image_that_is_listed_twice_is_refused(tmp_path, scenes):
    path = write_coco(tmp_path / "l.json", ["s0.tif", "s0.tif"], [(0, BOXES[0]), (1, BOXES[1])])
    with pytest.raises(LabelError, match=r"has 2 names that could be .*s0\.tif"):
        load_training_set(options(scenes, path))


def test_names_of_a_column_are_held_against_the_scenes(tmp_path, scenes, grid):
    names = ["s0", "s1.tif", r"old\S2.TIF"]
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, tile=names, kind=["a", "a", "b"])
    found = load_training_set(options(scenes, labels, scene_column="tile"))
    assert [len(each.labels) for each in found.scenes] == [1, 1, 1, 0, 0, 0, 0, 0]
    (missing,) = found.warnings
    assert "5 of 8 scenes are named by no label of" in missing
    assert "in its column tile, so they count as ground without objects: s3, s4, s5" in missing
    # A label of a class that is left out names its scene all the same.
    chosen = options(scenes[:3], labels, scene_column="tile", class_column="kind", classes=("a",))
    assert load_training_set(chosen).warnings == ()
    fewer = load_training_set(options(scenes[:1], labels, scene_column="tile"))
    assert fewer.counts.other_scene == 2
    assert fewer.warnings[0].endswith(r"left out: s1.tif, old\S2.TIF")


def test_many_names_are_cut_short(tmp_path, scenes, grid):
    labels = write_labels(tmp_path / "l.gpkg", BOXES[:1], grid=grid, tile=["s7"])
    (missing,) = load_training_set(options(scenes, labels, scene_column="tile")).warnings
    assert "s0, s1, s2, s3, s4 and 2 more;" in missing


def test_ground_that_names_a_scene_says_it_is_empty(tmp_path, scenes, grid):
    labels = write_labels(tmp_path / "l.gpkg", BOXES[:1], grid=grid, tile=["s0"])
    whole = [[0.0, 0, 120, 100]] * 2
    ground = write_labels(tmp_path / "g.gpkg", whole, grid=grid, tile=["s0.tif", "S1"])
    data = options(
        scenes[:2], labels, scene_column="tile", ground=str(ground), ground_scene_column="tile"
    )
    found = load_training_set(data)
    assert found.warnings == ()
    assert [each.ground_px.area for each in found.scenes] == pytest.approx([12000, 12000])


def test_labels_by_place_need_no_names(tmp_path, scenes, grid):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid)
    assert load_training_set(options(scenes, labels)).warnings == ()


def test_scenes_of_one_stem_are_told_apart_by_their_folders(tmp_path, grid):
    folders = [tmp_path / name for name in ("north", "south")]
    for folder in folders:
        folder.mkdir()
    twins = [write_scene(folder / "a.tif", BLACK) for folder in folders]
    names = ["south/a", "north/a.tif", r"south\a.tif"]
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, tile=names)
    found = load_training_set(options(twins, labels, scene_column="tile"))
    np.testing.assert_allclose(found.scenes[0].boxes_px, BOXES[1:2], atol=1e-6)
    np.testing.assert_allclose(found.scenes[1].boxes_px, BOXES[[0, 2]], atol=1e-6)
    images = write_coco(tmp_path / "l.json", ["a.tif"], [(0, BOXES[0].tolist())])
    with pytest.raises(LabelError, match=r"share the stem a, so a\.tif in .*l\.json cannot"):
        load_training_set(options(twins, images))


def test_the_report_and_the_chips_say_it_too(tmp_path, scenes, caplog):
    path = write_coco(tmp_path / "l.json", ["s0.tif", "x.tif"], [(0, BOXES[0]), (1, BOXES[1])])
    data = options(scenes[:2], path)
    train = TrainOptions(data=data, split=SplitOptions(block_m=20))
    report = check_labels(train)
    assert any("1 of 2 scenes are named by no image" in each for each in report.warnings)
    assert "1 naming a file that is no scene" in report.text()
    assert "- 1 of 2 scenes are named by no image or label" in report.text()
    assert not caplog.records  # the report has said it
    export_chips(data, tmp_path / "chips", ChipOptions(val_fraction=0))
    assert "1 of 2 scenes are named by no image" in caplog.text
