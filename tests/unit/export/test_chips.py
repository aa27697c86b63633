"""Scenes and labels as folders for other tools."""

from __future__ import annotations

import dataclasses
import json
import os
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml
from affine import Affine
from matplotlib.image import imread
from pycocotools.coco import COCO
from support.stubs import NORTH_UP, UTM, paint, write_scene

from geo_retina.cli import main
from geo_retina.errors import OptionError, OutputError, SceneMismatchError
from geo_retina.export import export_chips
from geo_retina.options import ChipOptions, DataOptions

SHAPE = (250, 400)  # three rows and four columns of chips of 100 px, the last row padded
BOXES = np.array(
    [
        [10, 12, 30, 22],
        [95, 50, 115, 60],
        [180, 20, 210, 40],
        [20, 220, 40, 240],
        [310, 110, 330, 190],
    ]
)
CLASSES = ["car", "car", "tree", "tree", "car"]


@pytest.fixture
def data(tmp_path) -> DataOptions:
    pixels = paint(SHAPE, BOXES)
    write_scene(tmp_path / "a.tif", pixels)
    corners = BOXES[:, [0, 1, 2, 3]].astype(float)
    x = NORTH_UP.c + NORTH_UP.a * corners[:, [0, 2]]
    y = NORTH_UP.f + NORTH_UP.e * corners[:, [1, 3]]
    shapes = shapely.box(x[:, 0], y[:, 1], x[:, 1], y[:, 0])
    frame = gpd.GeoDataFrame({"kind": CLASSES}, geometry=shapes, crs=UTM)
    frame.to_file(tmp_path / "labels.gpkg")
    return DataOptions(
        scenes=(str(tmp_path / "a.tif"),), labels=str(tmp_path / "labels.gpkg"), class_column="kind"
    )


ALL = ChipOptions(chip_px=100, val_fraction=0, empty_share=1.0, min_visible=0.3)


def expected() -> dict[str, set[tuple]]:
    """By hand: chip's stem to the objects that it shows."""
    return {
        "a_000000_000000": {("car", 10, 12, 30, 22)},
        # Of the second car 5 of 20 px lie in the first chip, too few, and 15 in the second;
        # of the tree at 180 to 210 20 of 30 lie in the second and a third in the third.
        "a_000000_000100": {("car", 0, 50, 15, 60), ("tree", 80, 20, 100, 40)},
        "a_000000_000200": {("tree", 0, 20, 10, 40)},
        "a_000100_000300": {("car", 10, 10, 30, 90)},
        "a_000200_000000": {("tree", 20, 20, 40, 40)},
    }


def everything() -> set[str]:
    return {f"a_{row:06d}_{col:06d}" for row in (0, 100, 200) for col in (0, 100, 200, 300)}


def test_coco(tmp_path, data):
    out = tmp_path / "coco"
    report = export_chips(data, out, ALL)
    assert report.pictures == {"train": 12, "val": 0}
    assert report.objects == {"car": 3, "tree": 3}
    assert (report.empty, report.left_out) == (7, 0)
    coco = COCO(out / "annotations" / "train.json")  # pycocotools as the judge
    names = {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
    got = {}
    for image in coco.loadImgs(coco.getImgIds()):
        rows = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        stem = image["file_name"].removesuffix(".png")
        got[stem] = {
            (names[r["category_id"]], *r["bbox"][:2], *np.add(r["bbox"][:2], r["bbox"][2:]))
            for r in rows
        }
        # What an object's box frames is white, and the picture lies where its affine says.
        pixels = imread(out / "train" / image["file_name"])
        assert pixels.shape == (100, 100, 3)
        for row in rows:
            x, y, w, h = map(int, map(round, row["bbox"]))
            assert (pixels[y : y + h, x : x + w] == 1).all()
        row, col = map(int, stem.split("_")[1:])
        assert Affine(*image["affine"]) == NORTH_UP @ Affine.translation(col, row)
        assert image["crs"] == UTM
    assert rounded(got) == expected()
    assert set(got) == everything()


def test_objects_that_no_picture_shows_enough_of_are_counted_once_each(tmp_path, data):
    """Two cars lie half in each of two pictures, and another a quarter in each of four."""
    boxes = np.array([[90, 40, 110, 60], [190, 20, 210, 40], [90, 90, 110, 110], [10, 10, 30, 30]])
    x = NORTH_UP.c + NORTH_UP.a * boxes[:, [0, 2]]
    y = NORTH_UP.f + NORTH_UP.e * boxes[:, [1, 3]]
    shapes = shapely.box(x[:, 0], y[:, 1], x[:, 1], y[:, 0])
    gpd.GeoDataFrame({"kind": ["car"] * 4}, geometry=shapes, crs=UTM).to_file(
        tmp_path / "labels.gpkg"
    )
    for share, shown, left_out in ((0.5, 5, 1), (0.6, 1, 3), (0.2, 9, 0)):
        options = ChipOptions(chip_px=100, val_fraction=0, min_visible=share)
        report = export_chips(data, tmp_path / "coco", options, overwrite=True)
        assert (report.objects, report.left_out) == ({"car": shown}, left_out)


def test_what_is_to_be_ignored_is_black(tmp_path, data):
    labels = gpd.read_file(tmp_path / "labels.gpkg")
    labels.assign(doubtful=[0, 0, 0, 1, 0]).to_file(tmp_path / "labels.gpkg")
    out = tmp_path / "coco"
    export_chips(dataclasses.replace(data, ignore_column="doubtful"), out, ALL)
    pixels = imread(out / "train" / "a_000200_000000.png")
    assert (pixels[20:40, 20:40] == 0).all()
    assert (pixels[:18, 20:40] > 0).all()
    # An object among what is ignored stays to be seen.
    around = labels.iloc[3:4].buffer(5).iloc[0]
    crowd = labels.assign(doubtful=0)
    crowd.loc[len(crowd)] = {**crowd.iloc[3], "geometry": around, "doubtful": 1}
    crowd.to_file(tmp_path / "labels.gpkg")
    data = dataclasses.replace(data, ignore_column="doubtful")
    assert export_chips(data, out, ALL, overwrite=True).objects == {"car": 3, "tree": 3}
    pixels = imread(out / "train" / "a_000200_000000.png")
    assert (pixels[20:40, 20:40] == 1).all()
    assert (pixels[12:20, 20:40] == 0).all()


def rounded(found: dict[str, set[tuple]]) -> dict[str, set[tuple]]:
    return {
        stem: {(name, *(round(float(v), 3) for v in box)) for name, *box in rows}
        for stem, rows in found.items()
        if rows
    }


def test_yolo(tmp_path, data):
    out = tmp_path / "yolo"
    export_chips(data, out, ChipOptions(**{**vars(ALL), "form": "yolo"}))
    about = yaml.safe_load((out / "data.yaml").read_text())
    assert about["names"] == {0: "car", 1: "tree"}
    got = {}
    for picture in (out / about["train"]).iterdir():
        text = (out / "labels" / "train" / f"{picture.stem}.txt").read_text()
        rows = np.array(text.split(), dtype=float).reshape(-1, 5)
        low, high = rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2
        got[picture.stem] = {
            (about["names"][int(k)], *box)
            for k, box in zip(rows[:, 0], np.hstack([low, high]) * 100, strict=True)
        }
    assert rounded(got) == expected()
    assert set(got) == everything()


def test_voc(tmp_path, data):
    out = tmp_path / "voc"
    export_chips(data, out, ChipOptions(**{**vars(ALL), "form": "voc"}))
    stems = (out / "ImageSets" / "Main" / "train.txt").read_text().split()
    assert set(stems) == everything()
    got = {}
    for stem in stems:
        root = ET.parse(out / "Annotations" / f"{stem}.xml").getroot()
        assert (out / "JPEGImages" / root.findtext("filename")).exists()
        got[stem] = set()
        for entry in root.iter("object"):
            x_min, y_min, x_max, y_max = (
                int(entry.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")
            )
            # Pixels count from 1, and the far one belongs to the box.
            got[stem].add((entry.findtext("name"), x_min - 1, y_min - 1, x_max, y_max))
    assert rounded(got) == expected()


def test_ground_is_split_by_place_and_empty_pictures_are_few(tmp_path, data):
    out = tmp_path / "coco"
    options = ChipOptions(chip_px=25, val_fraction=0.3, block_m=25, empty_share=0.25)
    report = export_chips(data, out, options)
    total = sum(report.pictures.values())
    assert report.empty / total == pytest.approx(0.25, abs=0.1)
    assert report.pictures["val"] > 0
    part_of_block = {}
    for part in ("train", "val"):
        for image in json.loads((out / "annotations" / f"{part}.json").read_text())["images"]:
            middle = Affine(*image["affine"]) @ (12.5, 12.5)
            block = tuple(int(v // 25) for v in middle)
            assert part_of_block.setdefault(block, part) == part
    again = tmp_path / "again"
    export_chips(data, again, options)
    for name in ("train", "val"):
        path = f"annotations/{name}.json"
        assert (out / path).read_bytes() == (again / path).read_bytes()


def test_objects_that_no_picture_shows_enough_of_are_counted(tmp_path, data):
    options = ChipOptions(chip_px=100, val_fraction=0, min_visible=0.9)
    assert export_chips(data, tmp_path / "coco", options).left_out == 2


def test_folders_of_others_stay(tmp_path, data):
    out = tmp_path / "out"
    export_chips(data, out, ALL)
    with pytest.raises(OutputError, match="give overwrite=True"):
        export_chips(data, out, ALL)
    export_chips(data, out, ALL, overwrite=True)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="was not made by export-chips"):
        export_chips(data, precious, ALL, overwrite=True)
    assert os.listdir(precious) == ["thesis.txt"]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_what_cannot_be_exported(tmp_path, data):
    with pytest.raises(OptionError, match=r"one ground block.*block_m"):
        export_chips(data, tmp_path / "out", ChipOptions(chip_px=100))
    write_scene(tmp_path / "a.tif", paint(SHAPE, BOXES).astype(np.uint16))
    with pytest.raises(SceneMismatchError, match="3 bands of uint16, expected 1 or 3 of uint8"):
        export_chips(data, tmp_path / "out", ALL)
    assert not (tmp_path / "out").exists()


def test_an_error_names_flags_and_not_keys_of_a_config(tmp_path, capsys):
    scene = write_scene(tmp_path / "a.tif", np.full((3, 64, 64), 90, np.uint8))
    points = gpd.GeoSeries([shapely.Point(NORTH_UP @ (20, 20))], crs=UTM)
    points.to_file(tmp_path / "p.gpkg", layer="one")
    line = ["export-chips", str(scene), "--out", str(tmp_path / "d")]
    assert main([*line, "--labels", str(tmp_path / "p.gpkg")]) == 1
    told = capsys.readouterr().err
    assert (
        "in metres with --point-size, or the column that holds it with --point-size-column" in told
    )
    points.to_file(tmp_path / "p.gpkg", layer="two")
    assert main([*line, "--labels", str(tmp_path / "p.gpkg")]) == 1
    told = capsys.readouterr().err
    assert "--layer" in told
    assert "data." not in told
    assert "config" not in told
