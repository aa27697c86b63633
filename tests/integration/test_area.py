"""An area of interest: what is read, what is kept, and that nothing at its border changes."""

from __future__ import annotations

import dataclasses
import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from support.stubs import NORTH_UP, ROTATED, paint, stub_model, write_scene

from geo_retina import DetectOptions, RunOptions, detect, detect_to_file, plan_scenes
from geo_retina.errors import LabelError, OptionError, RunError
from geo_retina.grid import Grid
from geo_retina.nn.decoding import Decoded
from geo_retina.run.tasks import submitting
from geo_retina.scene import Scene

CPU = RunOptions(device="cpu", block_px=256)
OPTIONS = DetectOptions(tile_px=128, overlap_px=32)
PX = ["x_min_px", "y_min_px", "x_max_px", "y_max_px"]
SHAPE = (700, 900)


def seeing_parts(tiles_NCHW):
    """In place of the network: every white rectangle, also the part of one that a tile sees."""
    import torch
    from scipy import ndimage

    found = []
    for i, pixels in enumerate(tiles_NCHW[:, 0].float().cpu().numpy()):
        for rows, cols in ndimage.find_objects(ndimage.label(pixels > 0.9)[0]):
            found.append((cols.start, rows.start, cols.stop, rows.stop, i))
    table = torch.tensor(found, dtype=torch.float32).reshape(-1, 5)
    # Scores that differ, by place in the tile, so that each tile rates an object otherwise.
    scores = 0.5 + (table[:, 0] * 7 + table[:, 1] * 3) % 50 / 101
    return Decoded(
        table[:, :4],
        scores,
        torch.zeros(len(table), dtype=torch.int64),
        table[:, 4].long(),
        torch.zeros(len(tiles_NCHW), dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Small things, and long ones that several tiles see in parts."""
    rng = np.random.default_rng(3)
    corner = rng.integers(4, [SHAPE[1] - 60, SHAPE[0] - 60], (90, 2))
    side = rng.integers(6, 26, (90, 2))
    side[::9, 0] = 300
    side[4::9, 1] = 280
    boxes = np.concatenate([corner, np.minimum(corner + side, [SHAPE[1] - 4, SHAPE[0] - 4])], 1)
    path = tmp_path_factory.mktemp("scene") / "a.tif"
    return write_scene(path, paint(SHAPE, boxes), affine=ROTATED)


def write_area(path, polygons, crs="EPSG:32633", layer="area"):
    gpd.GeoDataFrame(geometry=list(polygons), crs=crs).to_file(path, layer=layer)
    return str(path)


def ground(affine, x_min, y_min, x_max, y_max):
    """A rectangle of pixels, turned by 20 degrees, on the ground."""
    grid = Grid(None, affine, 1, 1)
    turned = shapely.affinity.rotate(shapely.box(x_min, y_min, x_max, y_max), 20)
    return shapely.transform(turned, grid.pixels_to_crs)


AREAS = [(300, 250, 420, 340), (10, 10, 60, 50), (400, 100, 402, 600), (120, 300, 800, 420)]


@pytest.fixture(scope="module")
def whole(scene):
    found = detect(scene, stub_model(seeing_parts), OPTIONS, CPU)
    assert len(found) > 60
    assert found["joined"].any()
    return found


@pytest.mark.parametrize("area", AREAS)
def test_the_area_keeps_what_it_keeps_of_the_whole(tmp_path, scene, whole, area):
    polygon = ground(ROTATED, *area)
    aoi = write_area(tmp_path / "aoi.gpkg", [polygon])
    for rule, block_px, keeps in (
        ("intersects", 128, whole.intersects(polygon)),
        ("within", 512, whole.within(polygon)),
    ):
        options = dataclasses.replace(OPTIONS, aoi=aoi, aoi_rule=rule)
        run = dataclasses.replace(CPU, block_px=block_px)
        found = detect(scene, stub_model(seeing_parts), options, run)
        columns = [*PX, "score", "tile", "cut", "joined"]
        np.testing.assert_array_equal(found[columns], whole[keeps][columns])


def test_some_of_those_areas_need_tiles_beyond_their_own(tmp_path, scene):
    """Otherwise the test above would show nothing."""
    extra = []
    for i, area in enumerate(AREAS[2:]):
        aoi = write_area(tmp_path / f"{i}.gpkg", [ground(ROTATED, *area)])
        options = dataclasses.replace(OPTIONS, aoi=aoi)
        (plan,), _ = plan_scenes(scene, stub_model().card, options, CPU)
        report = detect_to_file(
            scene, stub_model(seeing_parts), tmp_path / f"{i}.parquet", options, CPU
        )
        extra.append(report.tiles + report.skipped_tiles - plan.chosen_tiles)
        assert report.outside_tiles == len(plan.tiles) - plan.chosen_tiles - extra[-1]
        assert report.outside_tiles > 0
    assert min(extra) >= 0
    assert max(extra) > 0


def test_rounds_at_the_border_count_on(tmp_path, monkeypatch, scene):
    patience = []
    real = submitting.workers

    def noting(*args, patience_s):
        patience.append(patience_s)
        return real(*args, patience_s=patience_s)

    monkeypatch.setattr(submitting, "workers", noting)
    areas = enumerate(AREAS[2:])
    while True:  # the test above shows that there is one
        i, area = next(areas)
        aoi = write_area(tmp_path / f"{i}.gpkg", [ground(ROTATED, *area)])
        options = dataclasses.replace(OPTIONS, aoi=aoi)
        patience.clear()
        states = []
        detect(scene, stub_model(seeing_parts), options, CPU, progress=states.append)
        if len(patience) > 1:
            break
    assert patience == [0.0] + [CPU.patience_s] * (len(patience) - 1)
    for name in (
        "task_batches_done",
        "task_batches",
        "pixels_done",
        "pixels",
        "detections",
        "seconds",
    ):
        told = [getattr(state, name) for state in states]
        assert told == sorted(told)
    first, last = states[0], states[-1]
    assert (first.task_batches_done, first.pixels_done) == (0, 0)
    assert last.task_batches_done == last.task_batches > first.task_batches
    assert last.pixels_done == last.pixels > first.pixels
    assert {state.pixels_before for state in states} == {0}


def test_only_the_area_is_read_in_any_crs(tmp_path, monkeypatch):
    boxes = np.array([[x, y, x + 10, y + 14] for x in range(20, 1500, 60) for y in (20, 800)])
    path = write_scene(tmp_path / "a.tif", paint((1000, 1600), boxes))
    polygon = ground(NORTH_UP, 700, 790, 770, 830)
    areas = gpd.GeoSeries([polygon], crs="EPSG:32633").to_crs(4326)
    aoi = write_area(tmp_path / "aoi.geojson", areas, crs=4326)
    read = []
    real = Scene.read
    monkeypatch.setattr(Scene, "read", lambda s, w: read.append(w) or real(s, w))
    options = dataclasses.replace(OPTIONS, aoi=aoi)
    found = detect(path, stub_model(), options, CPU)
    assert read
    for window in read:
        assert (window.row, window.col) > (500, 400)
        assert window.height <= 256
        assert window.width <= 256
    whole = detect(path, stub_model(), OPTIONS, CPU)
    wanted = whole[whole.intersects(polygon)]
    assert 0 < len(wanted) < len(whole)
    np.testing.assert_array_equal(found[PX], wanted[PX])
    (plan,), _ = plan_scenes(path, stub_model().card, options, CPU)
    for block in plan.blocks:
        for tile in plan.tiles.tiles_of(block):
            assert shapely.box(*tile.window.box_px).intersects(plan.area_px)


def test_scenes_outside_are_no_error_and_counted(tmp_path):
    boxes = np.array([[20, 20, 40, 30]])
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        affine = Affine.translation(i * 1000, 0) @ NORTH_UP
        write_scene(folder / f"{i}.tif", paint((200, 200), boxes), affine=affine)
    middle = ground(Affine.translation(1000, 0) @ NORTH_UP, 10, 10, 60, 60)
    aoi = write_area(tmp_path / "aoi.gpkg", [middle])
    options = DetectOptions(aoi=aoi)
    report = detect_to_file(folder, stub_model(), tmp_path / "a.gpkg", options, CPU)
    assert (report.scenes, report.outside_scenes, report.detections) == (1, 2, 1)
    assert report.complete
    assert set(gpd.read_file(report.out)["scene"]) == {"1"}
    nowhere = write_area(tmp_path / "no.gpkg", [shapely.box(0, 0, 1, 1)])
    options = DetectOptions(aoi=nowhere)
    report = detect_to_file(folder, stub_model(), tmp_path / "b.gpkg", options, CPU)
    assert (report.scenes, report.outside_scenes, report.detections) == (0, 3, 0)
    assert report.complete
    assert len(gpd.read_file(report.out)) == 0
    (folder / "broken.tif").write_bytes(b"no raster")
    report = detect_to_file(folder, stub_model(), tmp_path / "c.gpkg", options, CPU)
    assert (report.scenes, report.outside_scenes, report.detections) == (0, 3, 0)
    assert [failure.scene for failure in report.failures] == [str(folder / "broken.tif")]


def test_a_run_goes_on_with_the_same_area_under_another_name_only(tmp_path):
    path = write_scene(tmp_path / "a.tif", paint((200, 200), np.array([[20, 20, 40, 30]])))
    here = ground(NORTH_UP, 10, 10, 60, 60)
    first = write_area(tmp_path / "one.gpkg", [here])
    second = write_area(tmp_path / "two.geojson", [here], layer="other")
    third = write_area(tmp_path / "three.gpkg", [ground(NORTH_UP, 10, 10, 61, 60)])
    keep = dataclasses.replace(CPU, keep=True, overwrite=True)
    out = tmp_path / "out.gpkg"
    detect_to_file(path, stub_model(), out, DetectOptions(aoi=first), keep)
    detect_to_file(path, stub_model(), out, DetectOptions(aoi=second), keep)
    with pytest.raises(RunError, match=r"differs in options\.aoi"):
        detect_to_file(path, stub_model(), out, DetectOptions(aoi=third), keep)


def test_what_is_no_area_is_refused(tmp_path):
    path = write_scene(tmp_path / "a.tif", paint((200, 200), np.array([[20, 20, 40, 30]])))
    points = write_area(tmp_path / "p.gpkg", [shapely.Point(0, 0)])
    two = tmp_path / "two.gpkg"
    write_area(two, [ground(NORTH_UP, 10, 10, 60, 60)], layer="x")
    write_area(two, [ground(NORTH_UP, 70, 70, 90, 90)], layer="y")
    bare = tmp_path / "bare.geojson"
    bare.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    for aoi, sentence in [
        (points, "points or lines"),
        (str(two), r"DetectOptions\.aoi_layer"),
        (str(tmp_path / "none.gpkg"), "does not exist"),
        (str(bare), "no polygon"),
    ]:
        with pytest.raises(LabelError, match=sentence):
            detect(path, stub_model(), DetectOptions(aoi=aoi), CPU)
    (plan,), _ = plan_scenes(
        path, stub_model().card, DetectOptions(aoi=str(two), aoi_layer="y"), CPU
    )
    assert not plan.is_outside
    with pytest.raises(OptionError, match="aoi_rule is given without an area"):
        DetectOptions(aoi_rule="within")
