import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from support.stubs import NORTH_UP, UTM, tiny_card, tiny_model, write_scene

from geo_retina.errors import OptionError, SceneError, SceneMismatchError
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run import estimate, pack_task_batches, plan_scene, plan_scenes


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "a.tif", np.zeros((3, 300, 500), np.uint8))


def plan(path, options=None, **card):
    return plan_scene(str(path), tiny_card(**card), options or DetectOptions(), block_px=256)


def test_tiles_follow_the_card_and_blocks_hold_every_tile(scene):
    planned = plan(scene)
    assert planned.tiles.tile_px <= 128
    assert planned.tiles.step_px % 32 == 0
    assert planned.tiles.overlap_px >= 12 + 24
    tiles = [t.index for block in planned.blocks for t in planned.tiles.tiles_of(block)]
    assert sorted(tiles) == list(range(len(planned.tiles)))


def test_asked_sizes_are_taken(scene):
    planned = plan(scene, DetectOptions(tile_px=96, overlap_px=40))
    assert planned.tiles.tile_px == 96
    assert planned.tiles.overlap_px == 64
    with pytest.raises(OptionError, match="too large for tiles"):
        plan(scene, DetectOptions(tile_px=64, overlap_px=60))


def test_another_resolution_is_resampled_to_the_models(scene):
    assert plan(scene).scene.grid.shape == (300, 500)
    coarse = plan(scene, gsd_m=1.0, gsd_range_m=(0.8, 1.25))
    assert coarse.scene.grid.shape == (150, 250)
    asked = plan(scene, DetectOptions(gsd_m=0.25))
    assert asked.scene.grid.shape == (600, 1000)


def test_what_does_not_fit_the_model_is_refused(scene, tmp_path):
    one = write_scene(tmp_path / "one.tif", np.zeros((1, 64, 64), np.uint8))
    with pytest.raises(
        SceneMismatchError,
        match=r"has 1 bands \(1 gray\), model tiny needs 3 \(red, green, blue\); name",
    ):
        plan(one)
    assert plan(one, DetectOptions(bands=(1, 1, 1))).scene.bands == (1, 1, 1)
    with pytest.raises(SceneMismatchError, match="2 bands were named"):
        plan(scene, DetectOptions(bands=(1, 2)))
    deep = write_scene(tmp_path / "deep.tif", np.zeros((3, 64, 64), np.uint16))
    with pytest.raises(SceneMismatchError, match="has uint16 pixels"):
        plan(deep)
    assert plan(deep, DetectOptions(force=True)).scene.dtype == "uint16"


def test_one_bad_scene_does_not_stop_the_others(scene, tmp_path):
    (tmp_path / "bad.tif").write_text("no raster")
    plans, failures = plan_scenes(tmp_path, tiny_card(), DetectOptions(), RunOptions())
    assert [(p.index, p.scene.name) for p in plans] == [(0, "a")]
    assert [f.scene for f in failures] == [str(tmp_path / "bad.tif")]
    scene.unlink()
    with pytest.raises(SceneError, match="is not a raster"):
        plan_scenes(tmp_path, tiny_card(), DetectOptions(), RunOptions())


def test_small_scenes_share_a_unit_and_large_blocks_do_not(scene, tmp_path):
    for i in range(10):
        write_scene(tmp_path / f"chip{i}.tif", np.zeros((3, 64, 64), np.uint8))
    run = RunOptions(block_px=256)
    plans, _ = plan_scenes(tmp_path, tiny_card(), DetectOptions(), run)
    jobs = [job for p in plans for job in p.jobs]
    task_batches = pack_task_batches(jobs, 256, first=5)
    assert [job for task_batch in task_batches for job in task_batch.jobs] == jobs
    assert [task_batch.index for task_batch in task_batches] == list(
        range(5, 5 + len(task_batches))
    )
    assert all(len({p.tiles.tile_px for p in task_batch.jobs}) == 1 for task_batch in task_batches)
    assert len(task_batches[-1].jobs) == 10


def test_blocks_that_a_file_does_not_hold_share_a_unit(tmp_path):
    path = tmp_path / "sparse.tif"
    how = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": UTM, "transform": NORTH_UP}
    how |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "sparse_ok": True}
    with rasterio.open(path, "w", width=4096, height=4096, **how) as dataset:
        dataset.write(np.ones((3, 64, 64), np.uint8), window=Window(2000, 2000, 64, 64))
    [planned], _ = plan_scenes(path, tiny_card(), DetectOptions(), RunOptions(block_px=512))
    jobs = planned.jobs
    blank = [planned.scene.is_blank(job.block.window) for job in jobs]
    shown = blank.count(False)
    assert 1 <= shown <= 4
    assert len(blank) > 64
    units = pack_task_batches(jobs, 512)
    assert [job for unit in units for job in unit.jobs] == jobs
    assert len(units) <= 2 * shown + 1 + len(blank) // 64
    assert max(len(unit.jobs) for unit in units) <= 128  # none grows without end


def test_the_estimate_counts_the_networks_pixels(scene):
    plans, _ = plan_scenes(scene, tiny_card(), DetectOptions(), RunOptions())
    needed = estimate(plans, tiny_model(), DetectOptions(), RunOptions(device="cpu"))
    assert needed.grid_px == 300 * 500
    assert needed.network_px == len(plans[0].tiles) * plans[0].tiles.tile_px ** 2
    assert needed.seconds == pytest.approx(needed.network_px / needed.px_per_s)
    assert needed.memory_bytes > needed.grid_px


@pytest.mark.parametrize("side_px", [100.0, 400.0, 900.0])
def test_tiles_grow_with_the_objects(scene, side_px):
    planned = plan(scene, object_px=(10.0, 50.0, side_px), tile_px=128)
    tiles = planned.tiles
    assert tiles.overlap_px >= side_px or len(tiles) == 1
    assert tiles.pixel_factor < 4


def striped(path, shape, **layout):
    import rasterio

    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=shape[0],
        width=shape[1],
        count=3,
        dtype="uint8",
        crs="EPSG:32633",
        transform=rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000),
        compress="deflate",
        **layout,
    ) as dataset:
        dataset.write(np.arange(3 * shape[0] * shape[1], dtype=np.uint8).reshape(3, *shape))
    return path


def test_blocks_of_a_striped_file_are_as_wide_as_it(tmp_path):
    path = striped(tmp_path / "strips.tif", (800, 1500), blockysize=16)
    options = DetectOptions(tile_px=128, overlap_px=32)
    found = plan_scene(str(path), tiny_card(), options, block_px=512)
    assert {block.window.width for block in found.blocks} == {1500}
    assert max(block.window.height * block.window.width for block in found.blocks) <= 1.2 * 512**2
    tiles = [tile.index for block in found.blocks for tile in found.tiles.tiles_of(block)]
    assert sorted(tiles) == list(range(len(found.tiles)))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((800, 1500), {"tiled": True, "blockxsize": 64, "blockysize": 64}),
        ((800, 400), {"blockysize": 16}),  # no wider than a block
        ((200, 9000), {"blockysize": 16}),  # a row of tiles would be more than memory is given
    ],
)
def test_blocks_of_other_files_are_squares(tmp_path, shape, layout):
    path = striped(tmp_path / "file.tif", shape, **layout)
    options = DetectOptions(tile_px=128, overlap_px=32)
    found = plan_scene(str(path), tiny_card(), options, block_px=512)
    assert found.blocks == tuple(found.tiles.blocks(512))
