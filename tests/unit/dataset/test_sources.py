"""Label layers as people have them: several, of any kind, none of them lost uncounted."""

import re

import geopandas as gpd
import numpy as np
import pytest
import shapely
from support.coco import write_coco
from support.fields import write_labels, write_scene

from geo_retina.boxes import to_polygons
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.dataset.sources import number_classes, read_source_layers
from geo_retina.errors import LabelError, OptionError, TrainingError
from geo_retina.grid import Window
from geo_retina.options import DataOptions, LabelOptions
from geo_retina.scene import open_scene

BLACK = np.zeros((1, 100, 120), np.uint8)
BOXES = np.array([[10.0, 20, 22, 30], [50.25, 40.5, 60, 55.75], [90, 80, 119, 99]])


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "a.tif", BLACK)


@pytest.fixture
def grid(scene):
    return open_scene(scene).grid


def write_cars(folder, files, boxes, size=(100, 120), **how):
    path = folder / "coco.json"
    return write_coco(path, files, boxes, classes=("car", "tree"), size=size, **how)


def load(scenes, labels, **options):
    scenes = scenes if isinstance(scenes, list) else [scenes]
    labels = str(labels) if not isinstance(labels, tuple) else labels
    return load_training_set(DataOptions(scenes=tuple(map(str, scenes)), labels=labels, **options))


def source(path, **options):
    return LabelOptions(path=str(path), **options)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb", ".parquet"])
def test_every_format_lands_on_the_same_pixels(tmp_path, scene, grid, suffix):
    path = tmp_path / f"l{suffix}"
    frame = gpd.GeoDataFrame(
        {"kind": ["oak", "elm", "oak"]}, geometry=list(to_polygons(BOXES, grid)), crs=grid.crs
    ).to_crs(4326)
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    found = load(scene, path, class_column="kind", classes=("oak", "elm")).scenes[0]
    order = np.argsort(found.boxes_px[:, 0])  # FlatGeobuf sorts features by place
    np.testing.assert_allclose(found.boxes_px[order], BOXES, atol=1e-3)
    assert found.labels[order].tolist() == [0, 1, 0]


def test_several_layers_each_read_its_own_way(tmp_path, scene, grid):
    cars = write_labels(tmp_path / "cars.gpkg", BOXES[:1], grid=grid)
    trees = write_labels(
        tmp_path / "t.gpkg", BOXES[1:], grid=grid, points=True, crs=4326, kind=["oak", "elm"],
        width=[3.0, 8.0],
    )  # fmt: skip
    found = load(
        scene,
        (
            source(cars, class_name="car"),
            source(trees, class_column="kind", point_size_column="width"),
        ),
    )
    assert found.classes == ("car", "elm", "oak")
    each = found.scenes[0]
    assert [found.classes[i] for i in each.labels] == ["car", "oak", "elm"]
    np.testing.assert_allclose(each.boxes_px[0], BOXES[0], atol=1e-6)
    sides = each.boxes_px[1:, 2:] - each.boxes_px[1:, :2]
    np.testing.assert_allclose(sides, [[6, 6], [16, 16]], rtol=1e-3)  # metres over 0.5 m
    centres = (BOXES[1:, :2] + BOXES[1:, 2:]) / 2
    np.testing.assert_allclose(each.centres_px[1:], centres, atol=1e-3)
    assert [count.used for count in found.sources] == [1, 2]
    assert found.counts.used == 3
    assert not found.points  # boxes are among them
    assert found.point_size_m == pytest.approx(5.5)


def test_what_all_layers_share_stands_once(tmp_path, scene, grid):
    paths = [
        write_labels(tmp_path / f"{i}.gpkg", BOXES[i : i + 1], grid=grid, kind=["x"], year=[year])
        for i, year in enumerate([2018, 2018, 2020])
    ]
    found = load(
        scene, tuple(source(p) for p in paths[:2]), class_column="kind", where="year = 2018"
    )
    assert found.counts.used == 2
    assert found.classes == ("x",)
    own = load(scene, (source(paths[0]), source(paths[2], where="year > 2018")), where="year=2018")
    assert own.counts.used == 2


def test_layers_of_one_file_are_told_apart(tmp_path, scene, grid):
    path = tmp_path / "l.gpkg"
    for name, part in (("cars", BOXES[:1]), ("vans", BOXES[1:])):
        gpd.GeoDataFrame(geometry=list(to_polygons(part, grid)), crs=grid.crs).to_file(
            path, layer=name
        )
    both = (
        source(path, layer="cars", class_name="car"),
        source(path, layer="vans", class_name="van"),
    )
    found = load(scene, both)
    assert found.scenes[0].labels.tolist() == [0, 1, 1]
    assert "layer vans" in found.sources[1].name
    merged = load(scene, both, classes={"vehicle": ("car", "van")})
    assert merged.classes == ("vehicle",)
    assert merged.scenes[0].labels.tolist() == [0, 0, 0]
    with pytest.raises(LabelError, match=r"layers cars, vans; say which one with layer"):
        load(scene, (source(path),))


def test_classes_are_merged_and_left_out_ones_counted(tmp_path, scene, grid):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, kind=["van", "car", "dog"])
    found = load(scene, labels, class_column="kind", classes={"car": ("car", "van")})
    assert found.classes == ("car",)
    assert found.scenes[0].labels.tolist() == [0, 0]
    assert (found.counts.read, found.counts.used, found.counts.other_class) == (3, 2, 1)
    with pytest.raises(LabelError, match=r"has kind = boat, which .* holds car"):
        load(scene, labels, class_column="kind", classes={"car": ("car",), "boat": ("ship",)})
    with pytest.raises(OptionError, match=r"has van in car and in lorry"):
        DataOptions(scenes=("a",), labels="b", classes={"car": ("van",), "lorry": ("van",)})


@pytest.mark.parametrize(("multi", "wanted"), [("explode", 2), ("box", 1)])
def test_multipolygons_are_parts_or_one_box(tmp_path, scene, grid, multi, wanted):
    both = shapely.MultiPolygon(list(to_polygons(BOXES[:2], grid)))
    path = tmp_path / "l.gpkg"
    gpd.GeoDataFrame({"kind": ["x"]}, geometry=[both], crs=grid.crs).to_file(path)
    found = load(scene, path, class_column="kind", multi=multi).scenes[0]
    assert len(found.labels) == wanted
    whole = [*BOXES[:2, :2].min(axis=0), *BOXES[:2, 2:].max(axis=0)]
    bounds = [*found.boxes_px[:, :2].min(axis=0), *found.boxes_px[:, 2:].max(axis=0)]
    np.testing.assert_allclose(bounds, whole, atol=1e-6)


@pytest.mark.parametrize("flags", [[0, 1, 0], [False, True, None], ["no", "Yes", ""]])
def test_flagged_labels_are_neither_object_nor_lost(tmp_path, scene, grid, flags):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, skip=flags, kind=["a", "a", "b"])
    found = load(scene, labels, ignore_column="skip", class_column="kind")
    each = found.scenes[0]
    np.testing.assert_allclose(each.boxes_px, BOXES[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(each.ignored_px, BOXES[1:2], atol=1e-6)
    assert (found.counts.used, found.counts.ignored) == (2, 1)
    assert found.counts.per_class == {"a": 1, "b": 1}
    assert "1 marked to be ignored" in str(found.counts)
    centres = (BOXES[:, :2] + BOXES[:, 2:]) / 2
    assert each.holds(centres).tolist() == [True, True, True]
    assert each.scores(centres).tolist() == [True, False, True]


def test_a_layer_of_ground_to_ignore_is_as_unlabelled(tmp_path, scene, grid):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid)
    cloud = write_labels(tmp_path / "c.gpkg", [[40.0, 30, 80, 70]], grid=grid, crs=4326)
    found = load(scene, (source(labels), source(cloud, ignore=True)), class_column=None)
    mask = found.scenes[0].labelled(Window(0, 0, 100, 120))
    wanted = np.ones((100, 120), bool)
    wanted[30:70, 40:80] = False
    np.testing.assert_array_equal(mask, wanted)
    assert found.counts.off_ground == 1
    ground = write_labels(tmp_path / "g.gpkg", [[0.0, 0, 60, 100]], grid=grid)
    both = load(scene, (source(labels), source(cloud, ignore=True)), ground=str(ground))
    wanted[:, 60:] = False
    np.testing.assert_array_equal(both.scenes[0].labelled(Window(0, 0, 100, 120)), wanted)
    with pytest.raises(OptionError, match=r"labels is empty"):
        DataOptions(scenes=("a",), labels=(source(cloud, ignore=True),))


def test_ground_belongs_to_the_scene_it_names(tmp_path, grid):
    scenes = [write_scene(tmp_path / f"{year}.tif", BLACK) for year in (2018, 2020)]
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, year=["2018", "2020", "2020"])
    ground = write_labels(
        tmp_path / "g.gpkg", [[0.0, 0, 40, 100], [40, 0, 120, 100]], grid=grid,
        scene=["2018", "2020"],
    )  # fmt: skip
    found = load(
        scenes, labels, scene_column="year", ground=str(ground), ground_scene_column="scene"
    )
    shares = [each.labelled(Window(0, 0, 100, 120)).mean() for each in found.scenes]
    assert shares == pytest.approx([1 / 3, 2 / 3])
    assert found.counts.off_ground == 0
    assert (
        load(scenes, labels, scene_column="year", ground=str(ground))
        .scenes[0]
        .holds(np.array([[100.0, 50.0]]))
    )
    others = write_labels(
        tmp_path / "o.gpkg", [[0.0, 0, 40, 100], [40, 0, 120, 100]], grid=grid,
        scene=["y18.tif", "y20.tif"],
    )  # fmt: skip
    said = r"no polygon of .*o\.gpkg names one of the 2 scenes in its column scene, which holds "
    with pytest.raises(LabelError, match=said + r"y18\.tif, y20\.tif; .* such as 2018,"):
        load(scenes, labels, ground=str(others), ground_scene_column="scene")


def test_a_box_drawn_without_a_scenes_name_goes_by_place(tmp_path, scene, grid):
    labels = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, scene=["a", None, "b"])
    found = load(scene, labels, scene_column="scene")
    np.testing.assert_allclose(found.scenes[0].boxes_px, BOXES[:2], atol=1e-6)
    assert (found.counts.used, found.counts.by_place, found.counts.no_scene) == (2, 1, 1)
    assert "1 placed without a scene's name" in str(found.counts)


def test_every_unusable_geometry_is_counted_by_its_fault(tmp_path, scene, grid):
    square, bow, line = to_polygons(BOXES, grid)
    x, y = bow.exterior.xy
    bow = shapely.Polygon([(x[0], y[0]), (x[2], y[2]), (x[1], y[1]), (x[3], y[3])])
    flat = shapely.Polygon([(x[0], y[0]), (x[1], y[1]), (x[0], y[0])])
    path = tmp_path / "l.gpkg"
    gpd.GeoDataFrame(
        geometry=[square, bow, flat, None, shapely.Polygon(), line], crs=grid.crs
    ).to_file(path)
    counts = load(scene, path).counts
    assert (counts.no_geometry, counts.empty, counts.invalid, counts.repaired) == (1, 1, 1, 1)
    assert (counts.read, counts.used, counts.dropped) == (3, 3, 3)


def test_sizes_and_flags_that_make_no_sense_are_refused(tmp_path, scene, grid):
    labels = write_labels(
        tmp_path / "l.gpkg", BOXES, grid=grid, points=True, size=[1.0, 0.0, None], tall="x"
    )
    with pytest.raises(LabelError, match=r'2 of 3 labels .* no size above 0 .*"size > 0"'):
        load(scene, labels, point_size_column="size")
    with pytest.raises(LabelError, match=r"size column tall of .* holds text"):
        load(scene, labels, point_size_column="tall")
    with pytest.raises(
        LabelError, match=r"ignore column tall of .* holds x, expected true or false"
    ):
        load(scene, labels, ignore_column="tall", point_size_m=3.0)
    with pytest.raises(LabelError, match=r"points without a size.*point_size_column"):
        load(scene, labels)


def test_a_wrong_crs_is_told_with_both_places_and_the_likely_one(tmp_path, scene, grid):
    right = gpd.GeoDataFrame(geometry=list(to_polygons(BOXES, grid)), crs=grid.crs)
    path = tmp_path / "l.gpkg"
    right.set_crs(32633, allow_override=True).to_file(path)
    with pytest.raises(TrainingError) as caught:
        load(scene, path)
    said = str(caught.value)
    assert "by its CRS EPSG:32633 the layer is at 47.8" in said
    assert "15.0" in said
    assert "the scenes are at 47.8" in said
    assert " 9.0" in said
    assert "most labels would lie on the scenes in EPSG:32632" in said
    right.to_crs(4326).set_crs(3857, allow_override=True).to_file(path)
    with pytest.raises(TrainingError, match=r"most labels would lie on the scenes in EPSG:4326$"):
        load(scene, path)
    swapped = right.to_crs(4326)
    swapped["geometry"] = shapely.transform(np.asarray(swapped.geometry), lambda xy: xy[:, ::-1])
    swapped.to_file(path)
    with pytest.raises(TrainingError, match=r"in EPSG:4326 with x and y swapped$"):
        load(scene, path)


def test_one_lost_layer_among_good_ones_is_a_warning(tmp_path, scene, grid, caplog):
    good = write_labels(tmp_path / "a.gpkg", BOXES, grid=grid)
    lost = write_labels(tmp_path / "b.gpkg", BOXES + 9000, grid=grid)
    found = load(scene, (source(good), source(lost)))
    assert len(found.warnings) == 1
    assert "b.gpkg gives 3 labels for 1 scenes, but no label lies on any" in found.warnings[0]
    assert found.warnings[0] in caplog.text


def test_coco_annotations_are_in_the_pixels_of_their_files(tmp_path, scene):
    other = write_scene(tmp_path / "b.tif", BLACK)
    boxes = [(0, BOXES[0].tolist()), (1, BOXES[1].tolist()), (0, BOXES[2].tolist())]
    path = write_cars(tmp_path, ["images/a.tif", "b.jpg"], boxes, crowd=[2])
    found = load([scene, other], path)
    assert found.classes == ("car", "tree")
    np.testing.assert_allclose(found.scenes[0].boxes_px, BOXES[:1], atol=1e-9)
    np.testing.assert_allclose(found.scenes[0].ignored_px, BOXES[2:], atol=1e-9)
    np.testing.assert_allclose(found.scenes[1].boxes_px, BOXES[1:2], atol=1e-9)
    assert found.scenes[1].labels.tolist() == [1]
    merged = load([scene, other], path, classes={"thing": ("car", "tree")})
    assert merged.classes == ("thing",)


def test_coco_boxes_follow_a_resampled_grid(tmp_path, scene):
    path = write_cars(tmp_path, ["a.tif"], [(0, [10, 20, 22, 30])])
    found = load(scene, path, gsd_m=1.0).scenes[0]
    assert found.scene.grid.shape == (50, 60)
    np.testing.assert_allclose(found.boxes_px, [[5, 10, 11, 15]], atol=1e-6)


def test_coco_of_other_files_or_sizes_is_refused(tmp_path, scene):
    with pytest.raises(TrainingError, match=r"such as z.tif, are none of them"):
        load(scene, write_cars(tmp_path, ["z.tif"], [(0, [1, 1, 9, 9])]))
    with pytest.raises(LabelError, match=r"says that a.tif has 640 x 480 px, but .* has 120 x 100"):
        load(scene, write_cars(tmp_path, ["a.tif"], [(0, [1, 1, 9, 9])], size=(480, 640)))
    with pytest.raises(LabelError, match=r"2 names that could be"):
        load(scene, write_cars(tmp_path, ["x/a.tif", "y/a.tif"], [(0, [1, 1, 9, 9])]))


def test_scenes_without_crs_take_labels_in_pixels(tmp_path):
    bare = [write_scene(tmp_path / f"{n}.tif", BLACK, crs=None) for n in "ab"]
    path = write_cars(
        tmp_path, ["a.tif", "b.tif"], [(0, BOXES[0].tolist()), (1, BOXES[1].tolist())]
    )
    found = load(bare, path, gsd_m=0.25)
    np.testing.assert_allclose(found.scenes[0].boxes_px, BOXES[:1])
    np.testing.assert_allclose(found.scenes[1].boxes_px, BOXES[1:2])
    assert [each.gsd_m for each in found.scenes] == [0.25, 0.25]
    places = [each.scene.grid.pixels_to_crs(np.zeros(2))[0] for each in found.scenes]
    assert abs(places[0] - places[1]) > 1000  # as if they lay far apart
    with pytest.raises(TrainingError, match=r"a\.tif has no CRS, so its pixel size .* data\.gsd_m"):
        load(bare, path)


@pytest.fixture
def capitals(tmp_path):
    """Number classes of labels that are called tree, Tree and car, and which are to be ignored."""

    def numbered(classes, ignored=(0, 0, 0)):
        path = tmp_path / "l.gpkg"
        boxes = [shapely.box(i, 0, i + 1, 1) for i in range(3)]
        table = {"kind": ["tree", "Tree", "car"], "doubtful": ignored}
        gpd.GeoDataFrame(table, geometry=boxes, crs=32633).to_file(path)
        options = DataOptions(
            scenes=("a.tif",),
            labels=str(path),
            class_column="kind",
            ignore_column="doubtful",
            classes=classes,
        )
        sources, _ = read_source_layers(options, place_column=None)
        return number_classes(sources, options), sources[0].numbers.tolist()

    return numbered


@pytest.mark.parametrize(
    ("classes", "advice"),
    [
        (
            ["tree", "car"],
            "called Tree, and a class is called tree; .* {tree: [tree, Tree], car: [car]}",
        ),
        (["TREE"], "called Tree, and a class is called TREE; .* {TREE: [TREE, Tree]}"),
        ({"plant": ["tree"], "rest": ["car"]}, ".* {plant: [tree, Tree], rest: [car]}"),
        (None, "called tree, and a class is called Tree; .* {Tree: [Tree, tree], car: [car]}"),
    ],
)
def test_a_class_in_other_capitals_is_not_lost_in_silence(capitals, classes, advice):
    start, _, end = advice.partition(".*")
    with pytest.raises(LabelError, match=re.escape(start) + ".*" + re.escape(end.strip())):
        capitals(classes)


def test_a_class_in_two_capitals_is_taken_where_both_are_named(capitals):
    assert capitals({"tree": ["tree", "Tree"]}) == (("tree",), [0, 0])
    assert capitals(["tree", "Tree"]) == (("tree", "Tree"), [0, 1])
    assert capitals(["car"]) == (("car",), [0])


def test_what_is_ignored_may_be_called_anything(capitals):
    assert capitals(["tree", "car"], ignored=(0, 1, 0))[0] == ("tree", "car")


@pytest.mark.parametrize(
    ("key", "value"),
    [("where", "checked = 1"), ("class_name", "lorry"), ("ignore_column", "x"), ("layer", "a")],
)
def test_keys_for_columns_are_refused_with_annotations_of_images(tmp_path, scene, grid, key, value):
    path = write_cars(tmp_path, ["a.tif"], [(0, [10, 20, 22, 30])])
    with pytest.raises(LabelError, match=rf"data\.{key} cannot be used with it"):
        load(scene, (source(path, **{key: value}),))
    if key in ("where", "ignore_column"):
        with pytest.raises(LabelError, match=rf"data\.{key} cannot be used with it"):
            load(scene, path, **{key: value})
    # Beside a layer with columns it may be meant for that.
    other = write_labels(tmp_path / "b.gpkg", BOXES[1:], grid=grid, kind=["car", "x"])
    both = (source(path), source(other, class_column="kind"))
    assert load(scene, both, where="kind = 'car'").counts.used == 2


@pytest.mark.parametrize("name", ["None", "nan", "<NA>"])
def test_a_class_may_be_called_as_programs_call_nothing(tmp_path, scene, grid, name):
    path = write_labels(tmp_path / "l.gpkg", BOXES, grid=grid, kind=[name, "a", "a"])
    found = load(scene, path, class_column="kind")
    assert found.classes == tuple(sorted([name, "a"]))
    assert found.counts.used == 3
