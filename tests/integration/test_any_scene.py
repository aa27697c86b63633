"""From scenes of every kind to polygons: the same objects, wherever and however they are held."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.enums import Resampling
from support.rasters import control_points, straight_rpcs, write_raster
from support.stubs import (
    LOADED_BY_RUNS,
    NORTH_UP,
    UTM,
    load_stub_model,
    paint,
    stub_model,
    tiny_model,
)

from geo_retina import detect, detect_to_file, open_scene
from geo_retina.cli import main
from geo_retina.options import DetectOptions, RunOptions

SHAPE = (300, 400)
BOXES = np.array(
    [[20, 24, 60, 40], [150, 100, 166, 140], [250, 200, 290, 216], [340, 250, 370, 270]]
)
RUN = RunOptions(device="cpu", block_px=256)
CPU = ["--device", "cpu", "--block-px", "256"]


@pytest.fixture(autouse=True)
def stub(monkeypatch, tmp_path):
    monkeypatch.setattr(LOADED_BY_RUNS, load_stub_model)
    monkeypatch.chdir(tmp_path)


def write(path: str = "a.tif", pixels: np.ndarray | None = None, change=None, **profile) -> Path:
    pixels = paint(SHAPE, BOXES) if pixels is None else pixels
    return write_raster(Path(path), pixels, change, **profile)


def places(affine: Affine, boxes_px: np.ndarray = BOXES) -> np.ndarray:
    """Polygons of boxes, by the affine alone."""
    return shapely.polygons(
        [
            [affine @ p for p in [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]]
            for x0, y0, x1, y1 in boxes_px.astype(float)
        ]
    )


def check(found: gpd.GeoDataFrame, wanted: np.ndarray, least_iou: float) -> None:
    """Each polygon wanted is found once, and nothing else."""
    assert len(found) == len(wanted)
    polygons = np.asarray(found.geometry)
    iou = np.array([[a.intersection(b).area / a.union(b).area for b in polygons] for a in wanted])
    assert sorted(iou.argmax(axis=1)) == list(range(len(wanted)))
    assert iou.max(axis=1).min() >= least_iou


TURNED = Affine.translation(400_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
DEGREE = 0.5 / 111_320
LON_LAT = Affine(DEGREE, 0, 15, 0, -DEGREE, 0.01)

KINDS = {
    "sheared": (Affine(0.5, 0.2, 4e5, 0.1, -0.5, 5e6), UTM, {}, 0.999999),
    "south-up": (Affine(0.5, 0, 4e5, 0, 0.5, 5e6), UTM, {}, 0.999999),
    "flat pixels": (Affine(0.4, 0, 4e5, 0, -0.7, 5e6), UTM, {}, 0.999999),
    "feet": (Affine(1.6, 0, 1e6, 0, -1.6, 2e5), "EPSG:2263", {}, 0.999999),
    "geographic": (LON_LAT, "EPSG:4326", {}, 0.85),
    "nad83": (Affine(DEGREE, 0, -110, 0, -DEGREE, 20), "EPSG:4269", {}, 0.85),
    "control points": (TURNED, UTM, {"gcps": control_points(TURNED, *SHAPE)}, 0.6),
    "rpcs": (
        Affine(DEGREE, 0, 15 - 200 * DEGREE, 0, -DEGREE, 0.01 + 150 * DEGREE),
        "EPSG:4326",
        {"rpcs": straight_rpcs(15, 0.01, DEGREE, *SHAPE), "crs": None},
        0.85,
    ),
    "no CRS": (NORTH_UP, None, {}, 0.999999),
    "no place": (Affine(1, 0, 0, 0, -1, 0), None, {"transform": None}, 0.999999),
}


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.filterwarnings("ignore:.*has no CRS, so its polygons:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_polygons_are_in_the_scenes_own_crs(kind):
    affine, crs, how, least_iou = KINDS[kind]
    profile = {"crs": crs, **how}
    if not {"gcps", "rpcs", "transform"} & how.keys():
        profile["transform"] = affine
    profile = {key: value for key, value in profile.items() if value is not None}
    path = write(**profile)
    # White rectangles that are turned in the grid are found by their bounds.
    found = detect(path, stub_model(), DetectOptions(score=0.5), RUN)
    assert found.crs == crs
    wanted = places(affine)
    if kind == "control points":
        assert len(found) == len(BOXES)
        assert shapely.STRtree(found.geometry).query(shapely.centroid(wanted), "within").size
        return
    check(found, wanted, least_iou)


@pytest.mark.parametrize("file_m", [0.1, 0.25, 1.6])
def test_another_resolution_gives_the_same_ground(file_m):
    """Read at the model's 0.5 m, by overviews where there are any, and placed exactly."""
    times = 0.5 / file_m
    affine = NORTH_UP @ Affine.scale(1 / times)
    height, width = (round(side * times) for side in SHAPE)
    truth = np.round(BOXES * times).astype(int)
    path = write(
        "a.tif",
        paint((height, width), truth),
        lambda d: d.build_overviews([2, 4], Resampling.average),
        transform=affine,
        crs=UTM,
    )
    out = Path("out.gpkg")
    report = detect_to_file(path, stub_model(), out, DetectOptions(score=0.5), RUN)
    check(gpd.read_file(out), places(affine, truth), 0.65)
    assert f"by a factor of {times:.3g} a side" in report.notes[0]
    found = gpd.read_file(out)
    pixels = found[["x_min_px", "y_min_px", "x_max_px", "y_max_px"]].to_numpy()
    np.testing.assert_allclose(
        np.sort(pixels, axis=0), np.sort(truth, axis=0), atol=max(2.0, 1.5 * times)
    )


def test_a_stretch_is_kept_beside_the_result_and_holds_when_a_run_goes_on(capsys):
    pixels = paint(SHAPE, BOXES).astype(np.uint16) * 40 + 300
    write(pixels=pixels, transform=NORTH_UP, crs=UTM)
    tiny_model().save("model.safetensors")
    line = ["detect", "a.tif", "--model", "model.safetensors", "--out", "out.gpkg", *CPU]
    assert main(line) == 1
    assert "--stretch 2,98" in capsys.readouterr().err
    # The objects are 2 % of the scene.
    assert main([*line, "--stretch", "0,100", "--keep"]) == 0
    assert len(gpd.read_file("out.gpkg")) == len(BOXES)
    config = Path("out.gpkg.config.yaml").read_text()
    scale = 255 / (255 * 40 - 60 * 40)
    assert "# stretch of a.tif: " in config
    assert float(config.split("stretch of a.tif: ")[1].split(" x")[0]) == pytest.approx(scale)
    assert "stretch:" in config
    manifest = json.loads(Path("out.gpkg.run/manifest.json").read_text())
    (version,) = manifest["versions"].values()
    assert version["values"]["scale"] == pytest.approx([scale] * 3)
    assert main([*line, "--stretch", "1,99", "--keep", "--overwrite"]) == 1
    assert "options.stretch[0]: 0.0, now 1.0" in capsys.readouterr().err
    assert main([*line, "--stretch", "0,100", "--overwrite"]) == 0


def test_plan_and_info_tell_how_a_scene_is_read(capsys):
    write(transform=NORTH_UP @ Affine.scale(0.5), crs=UTM, change=_tag)
    tiny_model().save("model.safetensors")
    assert main(["info", "a.tif"]) == 0
    told = capsys.readouterr().out
    assert "1 red, 2 green, 3 blue" in told
    assert "0.1, 3" in told
    assert main(["plan", "a.tif", "--model", "model.safetensors", *CPU]) == 0
    assert "from 0.25 m to 0.5 m a pixel, factor 2" in capsys.readouterr().out


def _tag(dataset):
    dataset.scales, dataset.offsets = (0.1,) * 3, (3.0,) * 3


def test_no_detection_lies_on_invalid_ground_and_its_edge_is_no_cut():
    """Valid ground ends inside tiles: objects there are whole, and merged as such.

    An object across its edge is seen beside its mirror image, whose first column is its last.
    """
    pixels = paint(SHAPE, BOXES)
    valid = np.zeros(SHAPE, bool)
    valid[:, :156] = True  # through the middle of the second object
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(
            pixels=pixels, transform=NORTH_UP, crs=UTM, change=lambda d: d.write_mask(valid)
        )
    options = DetectOptions(score=0.5, tile_px=160, overlap_px=32)
    out = Path("out.gpkg")
    report = detect_to_file(path, stub_model(), out, options, RUN)
    assert report.skipped_tiles > 0
    found = gpd.read_file(out)
    check(found, places(NORTH_UP, np.array([BOXES[0], [150, 100, 161, 140]])), 0.999)
    at_edge = found["cut"][found["x_max_px"] == 161].item()
    assert at_edge & 0b1111 == 0
    assert at_edge & 64  # the right border of the scene's ground
    tiles = -(-(400 - 32) // 128) * -(-(300 - 32) // 128)
    assert report.tiles + report.skipped_tiles == tiles
    # So another run's missing ground there is not taken for covered by this one.
    assert gpd.read_file(out, layer="scanned")["whole"].tolist() == [False]


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_scenes_of_no_place_go_by_themselves(capsys):
    write("placed.tif", transform=NORTH_UP, crs=UTM)
    write("lost.tif")
    tiny_model().save("model.safetensors")
    line = ["detect", "--model", "model.safetensors", *CPU]
    assert main([*line, "lost.tif", "--out", "lost.shp"]) == 0
    assert "without a CRS" in capsys.readouterr().out
    assert not Path("lost.prj").exists()
    check(gpd.read_file("lost.shp"), places(Affine(1, 0, 0, 0, -1, 0)), 0.999999)
    for suffix in ("gpkg", "parquet", "fgb"):
        assert main([*line, "lost.tif", "--out", f"lost.{suffix}"]) == 0
        told = capsys.readouterr().err
        assert "lost.tif has no CRS" in told
        assert "y up from the top edge" in told
    assert (
        gpd.read_file("lost.gpkg").crs is None or "ndefined" in gpd.read_file("lost.gpkg").crs.name
    )
    assert gpd.read_parquet("lost.parquet").crs is None
    assert main([*line, "lost.tif", "--out", "lost.geojson"]) == 1
    assert "longitudes and latitudes, which lost.geojson needs" in capsys.readouterr().err
    assert not Path("lost.geojson.run").exists()
    assert main([*line, "placed.tif", "lost.tif", "--out", "both.gpkg"]) == 3
    assert "lost.tif has no CRS, so its detections cannot" in capsys.readouterr().err
    assert set(gpd.read_file("both.gpkg")["scene"]) == {"placed"}


def test_a_corrupt_block_costs_its_own_ground_only(capsys):
    """One block of the file in the middle is garbage; the rest is detected."""
    path = write(
        pixels=np.repeat(paint(SHAPE, BOXES), 2, axis=2),
        transform=NORTH_UP,
        crs=UTM,
        compress="deflate",
        tiled=True,
        blockxsize=64,
        blockysize=64,
        interleave="pixel",
    )
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_11_1", "TIFF", bidx=1))
        size = int(dataset.get_tag_item("BLOCK_SIZE_11_1", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    path.write_bytes(data)
    tiny_model().save("model.safetensors")
    line = ["detect", "a.tif", "--model", "model.safetensors", "--out", "out.gpkg", *CPU]
    assert main(line) == 3
    told = capsys.readouterr().err
    assert "not covered: a.tif, columns " in told
    missing = gpd.read_file("out.gpkg", layer="not_covered")
    wrong = shapely.box(*(NORTH_UP @ (704, 128)), *(NORTH_UP @ (768, 64)))
    assert missing.geometry.union_all().contains(wrong)
    share = missing.geometry.union_all().area / (0.25 * SHAPE[0] * SHAPE[1] * 2)
    assert share < 0.7
    found = gpd.read_file("out.gpkg")
    assert len(found) > 0
    assert not found.within(missing.geometry.union_all()).any()


def test_a_run_over_real_scenes_of_every_kind(data_root, monkeypatch):
    """All real scenes are planned; band by band they are what they are called."""
    paths = sorted(data_root.glob("naip_trees/val/*.tif"))[:2]
    paths += sorted(data_root.glob("naip_trees/train/*.tif"))[:2]
    for path in paths:
        scene = open_scene(path)
        assert scene.band_names == ("red", "green", "blue", "nir")
        assert scene.read(scene.grid.window)[1].all()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_values_in_the_models_range_are_detected_whatever_their_type(dtype):
    write(pixels=paint(SHAPE, BOXES).astype(dtype), transform=NORTH_UP, crs=UTM)
    report = detect_to_file("a.tif", stub_model(), "out.gpkg", DetectOptions(score=0.5), RUN)
    assert report.detections == len(BOXES)
    assert f"a.tif has {dtype} pixels, taken as they are" in report.notes[0]
    write("b.tif", pixels=paint(SHAPE, BOXES), transform=NORTH_UP, crs=UTM)
    detect_to_file("b.tif", stub_model(), "b.gpkg", DetectOptions(score=0.5), RUN)
    assert gpd.read_file("b.gpkg").geometry.equals(gpd.read_file("out.gpkg").geometry)


def test_ground_whose_values_leave_the_range_is_not_covered(monkeypatch):
    """What the sample did not show is refused where it is read, and said."""
    from geo_retina.run import fitting

    sample = fitting.sample_values
    monkeypatch.setattr(fitting, "sample_values", lambda scene: sample(scene).clip(0, 255))
    pixels = paint(SHAPE, BOXES).astype(np.int16)
    pixels[:, :20] = -9999
    write(pixels=pixels, transform=NORTH_UP, crs=UTM)
    report = detect_to_file("a.tif", stub_model(), "out.gpkg", DetectOptions(score=0.5), RUN)
    (failure,) = {failure.error for failure in report.failures}
    assert "int16 values of -9999 to" in failure
    assert "DetectOptions.stretch=(2, 98)" in failure
