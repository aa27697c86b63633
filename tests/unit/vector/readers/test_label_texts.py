"""DOTA's and YOLO's texts: read, written by export-chips, and read again."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from support.stubs import NORTH_UP, UTM, paint, write_scene

from geo_retina.boxes import oriented
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.errors import LabelError, OptionError
from geo_retina.export import export_chips
from geo_retina.grid import Grid
from geo_retina.options import ChipOptions, DataOptions
from geo_retina.vector import is_label_folder, read_label_folder

ROTATED = np.array(
    [[40.0, 50, 40, 14, 30], [150, 60, 30, 10, -70], [100, 20, 30, 12, 45], [60, 150, 24, 24, 10]]
)
CLASSES = ["lorry", "lorry", "wagon", "lorry"]
WHOLE = ChipOptions(chip_px=200, val_fraction=0, min_visible=0.3)


@pytest.fixture
def data(tmp_path):
    write_scene(tmp_path / "a.tif", paint((200, 200), oriented.hull(ROTATED).astype(int)))
    grid = Grid(None, NORTH_UP, 200, 200)
    shapes = list(oriented.to_polygons(ROTATED, grid))
    gpd.GeoDataFrame({"kind": CLASSES}, geometry=shapes, crs=UTM).to_file(tmp_path / "a.gpkg")
    return DataOptions(
        scenes=(str(tmp_path / "a.tif"),), labels=str(tmp_path / "a.gpkg"), class_column="kind"
    )


def _same(found, expected, atol):
    for one, other in zip(oriented.corners(found), oriented.corners(expected), strict=True):
        assert shapely.hausdorff_distance(shapely.Polygon(one), shapely.Polygon(other)) < atol


@pytest.mark.parametrize(
    ("form", "labels", "images"),
    [
        ("dota", "train", "train/images/*.png"),
        ("yolo-obb", ".", "images/train/*.png"),
        ("yolo", ".", "images/train/*.png"),
    ],
)
def test_what_export_chips_writes_is_read_again(tmp_path, data, form, labels, images):
    out = tmp_path / "out"
    options = ChipOptions(form=form, chip_px=200, val_fraction=0, min_visible=0.3)
    report = export_chips(data, out, options)
    assert report.objects == {"lorry": 3, "wagon": 1}
    again = load_training_set(
        DataOptions(scenes=(str(out / images),), labels=str(out / labels), gsd_m=0.5),
        oriented=True,
    )
    assert again.classes == ("lorry", "wagon")
    (each,) = again.scenes
    assert [again.classes[label] for label in each.labels] == CLASSES
    expected = ROTATED if form != "yolo" else oriented.from_upright(oriented.hull(ROTATED))
    _same(each.rotated_px, expected, atol=2e-3)
    np.testing.assert_allclose(each.boxes_px, oriented.hull(expected), atol=2e-3)


def test_what_a_picture_cuts_is_the_rectangle_around_the_part_inside(tmp_path, data):
    out = tmp_path / "out"
    export_chips(data, out, ChipOptions(form="dota", chip_px=100, val_fraction=0, min_visible=0.3))
    lines = (out / "train/labelTxt/a_000000_000000.txt").read_text().splitlines()
    assert lines[0].startswith("imagesource:")
    found = {line.split()[8]: np.array(line.split()[:8], float).reshape(4, 2) for line in lines[2:]}
    whole = shapely.Polygon(oriented.corners(ROTATED[2:3])[0])
    part = shapely.intersection(whole, shapely.box(0, 0, 100, 100))
    assert shapely.Polygon(found["wagon"]).buffer(2e-3).contains(part)
    assert shapely.Polygon(found["wagon"]).area < whole.area * 0.95
    assert oriented.from_corners(found["wagon"][None])[0, 4] % 90 == pytest.approx(45, abs=0.02)


def test_a_class_with_a_blank_cannot_be_written_as_dotas_text(tmp_path, data):
    frame = gpd.read_file(tmp_path / "a.gpkg").assign(kind="big lorry")
    frame.to_file(tmp_path / "a.gpkg")
    with pytest.raises(OptionError, match="class 'big lorry' holds a blank"):
        export_chips(data, tmp_path / "out", ChipOptions(form="dota", val_fraction=0))
    assert not (tmp_path / "out").exists()


DOTA = "imagesource:GoogleEarth\ngsd:0.14\n10 10 50 10 50 30 10 30 small-vehicle 0\n"


def _folder(tmp_path, **texts):
    folder = tmp_path / "labelTxt"
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_difficult_ones_are_objects_or_ignored_and_degenerate_ones_counted(tmp_path):
    more = "0 0 0 0 0 0 0 0 plane 0\n10 10 20 20 30 30 40 40 plane 0\nnan 0 1 0 1 1 0 1 plane 0\n"
    hard = "60 60 80 70 75 80 55 70 plane 1\n"
    folder = _folder(tmp_path, P1=DOTA + more + hard, P2="")
    found = read_label_folder(folder)
    assert found.class_names.tolist() == ["small-vehicle", "plane"]
    assert found.files.tolist() == ["images/P1", "images/P2"]
    assert found.dropped_invalid == 3
    assert found.boxes_file.tolist() == [[10, 10, 50, 30], [55, 60, 80, 80]]
    assert not found.ignored.any()
    assert read_label_folder(folder, ignore_difficult=True).ignored.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "line 1 of .*P1.txt is '1 2 3', expected DOTA's eight coordinates"),
        ("10 10 x 10 50 30 10 30 plane 0\n", "line 1 of .* is '10 10 x"),
        (DOTA + "0 0.1 0.1 0.2 0.2\n", "mixes labels as DOTA's .* and as YOLO's boxes"),
    ],
)
def test_lines_that_are_no_labels_are_named(tmp_path, text, message):
    with pytest.raises(LabelError, match=message):
        read_label_folder(_folder(tmp_path, P1=text))


def test_yolos_numbers_have_the_names_of_a_file_beside_them(tmp_path):
    line = "1 0.1 0.1 0.5 0.1 0.5 0.3 0.1 0.3\n"
    folder = _folder(tmp_path, P1=line)
    assert read_label_folder(folder).class_names.tolist() == ["1"]
    (tmp_path / "data.yaml").write_text("names: [ship, harbour]\n")
    assert read_label_folder(folder).class_names.tolist() == ["harbour"]
    (tmp_path / "data.yaml").write_text("names: {0: ship}\n")
    with pytest.raises(LabelError, match=r"class number 1, but its names go by \[0\]"):
        read_label_folder(folder)
    (tmp_path / "data.yaml").write_text("nothing: here\n")
    with pytest.raises(LabelError, match="no names of classes by number"):
        read_label_folder(folder)


def test_other_folders_are_none_of_labels(tmp_path):
    assert not is_label_folder(tmp_path)
    (tmp_path / "a.shp").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("words")
    assert not is_label_folder(tmp_path)
    assert not is_label_folder(tmp_path / "missing")
