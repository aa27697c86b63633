"""Labels to scenes: by column, by place, in any CRS, and counted."""

import numpy as np
import pytest
import shapely
from support.fields import rotated, write_labels, write_scene

from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.errors import LabelError, TrainingError
from geo_retina.grid import Window
from geo_retina.options import DataOptions
from geo_retina.scene import open_scene

BLACK = np.zeros((1, 100, 120), np.uint8)
BOXES = np.array([[10.0, 20, 22, 30], [50.25, 40.5, 60, 55.75], [90, 80, 119, 99]])


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "a.tif", BLACK)


def load(scenes, labels, **options):
    scenes = scenes if isinstance(scenes, list) else [scenes]
    return load_training_set(
        DataOptions(scenes=tuple(map(str, scenes)), labels=str(labels), **options)
    )


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:32633", "EPSG:3857"])
def test_boxes_land_on_their_pixels_from_any_crs(tmp_path, scene, crs):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=open_scene(scene).grid, crs=crs)
    found = load(scene, labels).scenes[0]
    # A rectangle turned by another zone's convergence has slightly wider bounds: not exact.
    atol = 1e-6 if crs is None else 1e-3
    np.testing.assert_allclose(found.boxes_px, BOXES, atol=atol)
    assert found.labels.tolist() == [0, 0, 0]


def test_rotated_grid(tmp_path):
    scene = write_scene(tmp_path / "a.tif", BLACK, affine=rotated(33))
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=open_scene(scene).grid)
    np.testing.assert_allclose(load(scene, labels).scenes[0].boxes_px, BOXES, atol=1e-6)


def test_points_become_squares_of_their_size(tmp_path, scene):
    grid = open_scene(scene).grid
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, points=True, crs="EPSG:4326")
    found = load(scene, labels, point_size_m=7.0)
    assert found.points
    centres = (BOXES[:, :2] + BOXES[:, 2:]) / 2
    np.testing.assert_allclose(found.scenes[0].centres_px, centres, atol=1e-3)
    np.testing.assert_allclose(
        found.scenes[0].boxes_px[:, 2:] - found.scenes[0].boxes_px[:, :2], 7.0 / grid.gsd_m
    )


def test_by_column_a_label_belongs_to_the_scene_it_names(tmp_path):
    # The same place in two years; each year has its own labels.
    scenes = [write_scene(tmp_path / f"{year}.tif", BLACK) for year in (2018, 2020)]
    grid = open_scene(scenes[0]).grid
    years = ["2018", "2020", "2020"]
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, year=years)
    by_column = load(scenes, labels, scene_column="year")
    np.testing.assert_allclose(by_column.scenes[0].boxes_px, BOXES[:1], atol=1e-6)
    np.testing.assert_allclose(by_column.scenes[1].boxes_px, BOXES[1:], atol=1e-6)
    by_place = load(scenes, labels)
    for each in by_place.scenes:
        np.testing.assert_allclose(each.boxes_px, BOXES, atol=1e-6)
    assert by_column.counts.used == by_place.counts.used == 3


def test_by_place_over_scenes_of_two_zones(tmp_path):
    here = write_scene(tmp_path / "a.tif", BLACK)
    there = write_scene(tmp_path / "b.tif", BLACK, crs="EPSG:32633")  # 6 degrees further east
    boxes = np.array([[5.0, 5, 15, 15]])
    import geopandas as gpd
    import pandas as pd

    parts = [
        gpd.read_file(
            write_labels(tmp_path / f"{s.stem}.gpkg", boxes + i, grid=open_scene(s).grid, crs=4326)
        )
        for i, s in enumerate([here, there])
    ]
    pd.concat(parts).to_file(tmp_path / "l.gpkg")
    found = load([here, there], tmp_path / "l.gpkg")
    np.testing.assert_allclose(found.scenes[0].boxes_px, boxes, atol=1e-3)
    np.testing.assert_allclose(found.scenes[1].boxes_px, boxes + 1, atol=1e-3)


def test_a_box_that_touches_the_edge_is_kept_whole_and_one_outside_is_counted(tmp_path, scene):
    grid = open_scene(scene).grid
    boxes = [[-6.0, 40, 6, 52], [115, 95, 130, 110], [-20, 40, -1, 50], [500, 500, 510, 510]]
    labels = write_labels(tmp_path / "l.gpkg", boxes, grid=grid)
    found = load(scene, labels)
    np.testing.assert_allclose(found.scenes[0].boxes_px, boxes[:2], atol=1e-6)
    assert (found.counts.read, found.counts.used, found.counts.no_scene) == (4, 2, 2)
    assert "2 on no scene" in str(found.counts)


def test_a_point_outside_whose_square_reaches_in_is_kept(tmp_path, scene):
    labels = write_labels(
        tmp_path / "l.gpkg", [[-8.0, 40, 4, 52]], grid=open_scene(scene).grid, points=True
    )
    found = load(scene, labels, point_size_m=6.0).scenes[0]  # the point lies at x = -2 px
    np.testing.assert_allclose(found.boxes_px, [[-8, 40, 4, 52]], atol=1e-3)


def test_classes_are_sorted_or_as_asked_and_others_are_counted(tmp_path, scene):
    grid = open_scene(scene).grid
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, kind=["oak", "ash", "elm"])
    found = load(scene, labels, class_column="kind")
    assert found.classes == ("ash", "elm", "oak")
    assert found.scenes[0].labels.tolist() == [2, 0, 1]
    some = load(scene, labels, class_column="kind", classes=("oak", "elm"))
    assert some.classes == ("oak", "elm")
    assert some.scenes[0].labels.tolist() == [0, 1]
    assert some.counts.other_class == 1
    assert some.counts.per_class == {"oak": 1, "elm": 1}
    assert some.fingerprint != found.fingerprint


def test_without_a_column_all_are_of_the_one_class(tmp_path, scene):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=open_scene(scene).grid)
    assert load(scene, labels).classes == ("object",)
    assert load(scene, labels, classes=("tree",)).classes == ("tree",)
    with pytest.raises(LabelError, match=r"2 classes, but .* data\.class_column"):
        load(scene, labels, classes=("tree", "house"))


def test_labelled_ground_is_by_pixel_centre(tmp_path, scene):
    grid = open_scene(scene).grid
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid)
    ground = write_labels(tmp_path / "g.gpkg", [[20.4, 10.6, 70, 90]], grid=grid)
    found = load(scene, labels, ground=str(ground)).scenes[0]
    mask = found.labelled(grid.window)
    wanted = np.zeros((100, 120), bool)
    wanted[11:90, 20:70] = True  # centres at 20.5 are in, at 10.5 are not
    np.testing.assert_array_equal(mask, wanted)
    np.testing.assert_array_equal(found.labelled(Window(30, 30, 20, 20)), np.ones((20, 20), bool))
    assert not found.labelled(Window(92, -5, 8, 10)).any()


def test_beyond_the_scene_nothing_is_labelled(tmp_path, scene):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=open_scene(scene).grid)
    mask = load(scene, labels).scenes[0].labelled(Window(-2, 115, 6, 10))
    wanted = np.zeros((6, 10), bool)
    wanted[2:, :5] = True
    np.testing.assert_array_equal(mask, wanted)


def test_unknown_class_is_named_with_those_there_are(tmp_path, scene):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=open_scene(scene).grid, kind="oak")
    with pytest.raises(LabelError, match=r"no label in .* has kind = beech.*it holds oak$"):
        load(scene, labels, class_column="kind", classes=("oak", "beech"))


def test_labels_on_no_scene_are_an_error_that_says_where_to_look(tmp_path, scene):
    grid = open_scene(scene).grid
    labels = write_labels(tmp_path / "l.gpkg", BOXES + 5000, grid=grid, tile="b")
    with pytest.raises(TrainingError, match=r"gives 3 labels for 1 scenes.*the layer's CRS"):
        load(scene, labels)
    with pytest.raises(TrainingError, match=r"its column tile, which holds b; .*such as a$"):
        load(scene, labels, scene_column="tile")


def test_scenes_must_go_together(tmp_path, scene):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=open_scene(scene).grid)
    other = write_scene(tmp_path / "b.tif", np.zeros((2, 50, 50), np.uint16))
    with pytest.raises(TrainingError, match=r"b.tif has 2 bands of uint16.*a.tif has 1 of uint8"):
        load([scene, other], labels)


def test_a_scene_without_crs_is_refused(tmp_path, scene):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=open_scene(scene).grid)
    bare = write_scene(tmp_path / "b.tif", BLACK, crs=None)
    with pytest.raises(TrainingError, match=r"b.tif has no CRS.*gdal_edit"):
        load([scene, bare], labels)


def test_scenes_of_one_stem_cannot_be_told_apart_by_column(tmp_path, scene):
    (tmp_path / "other").mkdir()
    twin = write_scene(tmp_path / "other" / "a.tif", BLACK)
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=open_scene(scene).grid, tile="a")
    with pytest.raises(LabelError, match=r"share the stem a.*column tile"):
        load([scene, twin], labels, scene_column="tile")
    assert len(load([scene, twin], labels).scenes) == 2


def test_fingerprint_follows_the_labels(tmp_path, scene):
    grid = open_scene(scene).grid
    first = load(scene, write_labels(tmp_path / "1.gpkg", BOXES, grid=grid)).fingerprint
    same = load(scene, write_labels(tmp_path / "2.gpkg", BOXES, grid=grid)).fingerprint
    moved = load(scene, write_labels(tmp_path / "3.gpkg", BOXES + 1, grid=grid)).fingerprint
    assert first == same != moved


def test_empty_and_null_geometries_are_counted(tmp_path, scene):
    import geopandas as gpd

    grid = open_scene(scene).grid
    path = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid)
    frame = gpd.read_file(path)
    frame.loc[0, "geometry"] = None
    frame.loc[1, "geometry"] = shapely.Polygon()
    frame.to_file(path)
    counts = load(scene, path).counts
    assert (counts.used, counts.dropped) == (1, 2)
