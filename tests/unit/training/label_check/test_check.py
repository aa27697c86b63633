"""``check_labels``: its numbers are those of the labels, and its pictures show them."""

import json

import geopandas as gpd
import matplotlib.image
import numpy as np
import pytest
from support.fields import field, write_labels, write_scene

from geo_retina import boxes
from geo_retina.boxes import oriented
from geo_retina.cli import main
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.errors import OutputError, TrainingError
from geo_retina.grid import Window
from geo_retina.options import DataOptions, SampleOptions, SplitOptions, TrainOptions
from geo_retina.plots import LabelledView, draw_samples, draw_sizes
from geo_retina.scene import open_scene
from geo_retina.training import check_labels
from geo_retina.training.label_check.statistics import histogram, max_ious


def options_for(scene, labels, **how):
    data = DataOptions(scenes=(str(scene),), labels=str(labels), **how.pop("data", {}))
    defaults = {
        "split": SplitOptions(block_m=30.0, val_fraction=0.2, test_fraction=0.1),
        "samples": SampleOptions(window_px=128),
    }
    return TrainOptions(data=data, **{**defaults, **how})


@pytest.fixture(scope="module")
def scene_and_labels(tmp_path_factory):
    return field(tmp_path_factory.mktemp("field"))


def test_the_numbers_are_those_of_the_labels(scene_and_labels):
    scene, labels, boxes_px = scene_and_labels
    report = check_labels(options_for(scene, labels))
    assert report.counts.used == len(boxes_px)
    assert sum(part.labels for part in report.parts.values()) == len(boxes_px)
    assert set(report.parts) == {"train", "val", "test"}
    hectares = sum(part.hectares for part in report.parts.values())
    assert hectares == pytest.approx((400 * 0.5) ** 2 / 10_000, rel=0.01)
    assert report.sides_px[50] == pytest.approx(12, abs=1e-6)
    assert report.histogram_px == [(pytest.approx(11.31, abs=0.01), 16.0, len(boxes_px))]
    assert report.overlap[0.0] == 0
    assert report.levels == (2,)
    assert report.anchor_coverage == 1
    assert report.tile_px == 1024
    assert report.overlap_px == 36 or report.overlap_px == 37
    assert report.windows is not None
    assert 0 < report.windows.cut < report.windows.labels
    assert report.windows.empty == 0
    assert report.crs == {"EPSG:32632": 1}
    assert json.loads(json.dumps(report.to_dict()))["counts"]["used"] == len(boxes_px)
    text = report.text()
    for said in (f"{len(boxes_px)} read", "11.3 to   16.0", "levels [2]", "ground blocks of 30 m"):
        assert said in text


def test_share_of_cut_labels_is_that_of_windows_drawn(scene_and_labels):
    """Windows of 128 px, so a 12 px square lies across a border in about 2 * 11 of 139."""
    scene, labels, _ = scene_and_labels
    how = {
        "samples": SampleOptions(window_px=128, object_share=0.0, scale=(1.0, 1.0)),
        "split": SplitOptions(block_m=199.0, val_fraction=0.01),
    }
    windows = check_labels(options_for(scene, labels, **how)).windows
    assert windows.cut / windows.labels == pytest.approx(1 - (116 / 139) ** 2, abs=0.12)
    assert windows.ignored < windows.cut
    kept = SampleOptions(window_px=128, object_share=0.0, scale=(1.0, 1.0), min_visible=0.0)
    assert check_labels(options_for(scene, labels, **{**how, "samples": kept})).windows.ignored == 0


def test_greatest_overlap_is_that_of_all_pairs(scene_and_labels):
    scene, labels, _ = scene_and_labels
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 200, (60, 2))
    some = np.concatenate([low, low + rng.uniform(5, 40, (60, 2))], axis=1)
    each = load_training_set(DataOptions(scenes=(str(scene),), labels=str(labels))).scenes[0]
    object.__setattr__(each, "boxes_px", some)
    i, j = np.meshgrid(range(60), range(60), indexing="ij")
    table = boxes.iou(some[i.ravel()], some[j.ravel()]).reshape(60, 60)
    np.fill_diagonal(table, 0)
    np.testing.assert_allclose(max_ious(each), table.max(axis=1))


def test_histogram_by_hand():
    rows = histogram(np.array([4.0, 5.0, 5.7, 8.1]))
    assert [count for _, _, count in rows] == [2, 1, 1]
    assert rows[0][0] == 4
    assert rows[-1][1] == pytest.approx(8 * 2**0.5)
    assert histogram(np.empty(0)) == []


def test_what_should_be_looked_at_is_said(tmp_path):
    scene, _, boxes_px = field(tmp_path)
    grid = open_scene(scene).grid
    twice = np.concatenate([boxes_px, boxes_px[:50] + 0.05, boxes_px + 3000, boxes_px + 4000])
    kinds = ["rare" if i < 3 else "common" for i in range(len(twice))]
    labels = write_labels(tmp_path / "l.gpkg", twice, grid=grid, kind=kinds)
    ground = write_labels(tmp_path / "g.gpkg", [[0.0, 0, 400, 300]], grid=grid)
    report = check_labels(
        options_for(
            scene,
            labels,
            data={"class_column": "kind", "ground": str(ground)},
            samples=SampleOptions(window_px=32),
            network={"levels": [4], "anchor_sides_px": [[64.0]]},
        )
    )
    said = " | ".join(report.warnings)
    for part in (
        "labels lie on no scene",
        "labels lie on ground that was not labelled",
        "of class rare lie",
        "lie almost exactly on another one",
        "only 0.0% of labels fit an anchor (by an IoU of 0.5), expected 90% or more",
    ):
        assert part in said
    assert report.own_coverage == 0
    assert all(warning in report.text() for warning in report.warnings)


def test_a_split_that_cannot_be_made_is_one_of_the_warnings(scene_and_labels):
    scene, labels, boxes_px = scene_and_labels
    report = check_labels(options_for(scene, labels, split=SplitOptions(block_m=1e6)))
    assert any("one ground block" in warning for warning in report.warnings)
    assert report.parts["train"].labels == len(boxes_px)


def test_a_layer_elsewhere_is_an_error_that_says_where(tmp_path, scene_and_labels):
    scene, _, boxes_px = scene_and_labels
    far = write_labels(tmp_path / "l.gpkg", boxes_px + 9000, grid=open_scene(scene).grid)
    with pytest.raises(TrainingError, match=r"no label lies on any of them.*the scenes are at"):
        check_labels(options_for(scene, far))


def test_pictures_and_report_from_the_command_line(tmp_path, scene_and_labels, capsys):
    scene, labels, boxes_px = scene_and_labels
    config = tmp_path / "c.yaml"
    config.write_text(
        f"name: squares\ndata: {{scenes: [{scene}], labels: {labels}}}\n"
        "split: {block_m: 40}\nsamples: {window_px: 128}\n"
    )
    out = tmp_path / "check"
    assert main(["check-labels", str(config), "--out", str(out), "--set", "seed=3"]) == 0
    printed = capsys.readouterr().out
    assert f"{len(boxes_px)} read" in printed
    assert {path.name for path in out.iterdir()} == {
        *("report.txt", "report.json", "samples.png", "scenes.png", "sizes.png")
    }
    assert (out / "report.txt").read_text().strip() in printed
    assert main(["check-labels", str(config), "--out", str(out)]) == 1
    assert "holds an earlier report; give --overwrite" in capsys.readouterr().err
    assert main(["check-labels", str(config)]) == 0
    assert "see the labels on their imagery with --out" in capsys.readouterr().out
    assert main(["check-labels", str(config), "--set", "split.blockm=3"]) == 2
    with pytest.raises(OutputError, match=r"cannot be made"):
        check_labels(options_for(scene, labels), config / "below")


def test_boxes_in_the_picture_lie_on_their_objects(tmp_path):
    """A white square on black: the outline's pixels frame it, wherever the window is."""
    pixels = np.zeros((3, 100, 100), np.uint8)
    pixels[:, 40:60, 30:70] = 255
    scene = open_scene(write_scene(tmp_path / "a.tif", pixels))
    view = LabelledView(
        "a", scene, Window(0, 0, 100, 100), boxes.corners(np.array([[30.0, 40, 70, 60]])),
        np.array([0]),
        np.empty((0, 4)), np.zeros((10, 10), np.int8),
    )  # fmt: skip
    out = draw_samples([view], ["thing"], tmp_path / "p.png")
    image = matplotlib.image.imread(out)[..., :3]
    yellow = (image[..., 0] > 0.9) & (image[..., 1] > 0.7) & (image[..., 2] < 0.3)
    quarter = image.shape[1] // 4  # the first of four panels
    rows, cols = np.nonzero(yellow[: int(image.shape[0] * 0.85), :quarter])
    black = (image < 0.05).all(axis=2)[: int(image.shape[0] * 0.85), :quarter]
    black_cols = np.nonzero(black)[1]
    left, right = black_cols.min(), black_cols.max()
    top = np.nonzero(black.mean(axis=1) > 0.5)[0].min()
    scale = (right - left) / 100
    assert (cols.min() - left) / scale == pytest.approx(30, abs=1.5)
    assert (cols.max() - left) / scale == pytest.approx(70, abs=1.5)
    assert (rows.min() - top) / scale == pytest.approx(40, abs=1.5)
    assert (rows.max() - top) / scale == pytest.approx(60, abs=1.5)


def test_pictures_of_nothing(tmp_path):
    assert draw_samples([], ["a"], tmp_path / "p.png").exists()
    empty = np.empty(0)
    assert draw_sizes(empty, empty.astype(np.int64), ["a"], [], tmp_path / "s.png").exists()


def test_oriented_labels_have_a_histogram_of_angles_and_turned_pictures(tmp_path):
    pixels = np.full((3, 200, 200), 90, np.uint8)
    scene = write_scene(tmp_path / "a.tif", pixels)
    rotated = np.array(
        [
            [40.0, 100, 50, 10, 46],
            [65.0, 100, 50, 10, 46],
            [150.0, 50, 50, 10, -20],
            [150.0, 140, 50, 10, 70],
            [30.0, 30, 20, 19, 10],
        ]
    )
    grid = open_scene(scene).grid
    frame = gpd.GeoDataFrame(geometry=list(oriented.to_polygons(rotated, grid)), crs=grid.crs)
    frame.to_file(tmp_path / "a.gpkg")
    upright = check_labels(options_for(scene, tmp_path / "a.gpkg"))
    assert upright.angles is None
    assert upright.overlap[0.0] > 0  # their hulls do
    options = options_for(scene, tmp_path / "a.gpkg", network={"boxes": "oriented"})
    report = check_labels(options, tmp_path / "out")
    counts = {low: count for low, _, count in report.angles.histogram_deg if count}
    assert counts == {-30.0: 1, 45.0: 2, 60.0: 1}
    assert report.angles.near_square == 1
    assert report.overlap[0.0] == 0  # two that lie side by side do not overlap
    text = report.text()
    assert "without 1 that are nearly squares" in text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["angles"]["near_square"] == 1
    assert (tmp_path / "out" / "samples.png").exists()
