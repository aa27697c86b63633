import dataclasses

import numpy as np
import pytest
import torch
from support.stubs import tiny_model
from torchvision.ops import box_iou

from geo_retina.detections import Cut
from geo_retina.engine import BlockPixels, Engine, choose_device, choose_dtype, cut_sides
from geo_retina.errors import OptionError
from geo_retina.grid import Window, plan_tiles
from geo_retina.model import load_model
from geo_retina.options import PRESETS, DetectOptions
from geo_retina.resampling import Rescaling, Scaling


def block(shape, *, tile_px=64, overlap_px=16, seed=0, dtype=np.uint8, valid=None):
    rng = np.random.default_rng(seed)
    plan = plan_tiles(shape, tile_px=tile_px, overlap_px=overlap_px, stride_px=32, exact=True)
    pixels = rng.integers(0, 255, (3, *shape)).astype(dtype)
    valid = np.ones(shape, bool) if valid is None else valid
    return BlockPixels(pixels, valid, Window(0, 0, *shape), plan, list(plan))


def scaled_block():
    """Make a block whose pixels are computed from fewer, one corner of which is no ground."""
    given = block((40, 55), tile_px=32, overlap_px=0, seed=3)
    shown = np.ones((40, 55), bool)
    shown[:7, :9] = False
    plan = plan_tiles((80, 110), tile_px=64, overlap_px=16, stride_px=32, exact=True)
    scaling = Scaling((40, 55), (80, 110))
    rescaling = Rescaling(scaling, Window(0, 0, 80, 110), given.window, shown, "uint8")
    tiles = list(plan)
    return BlockPixels(
        given.pixels, rescaling.valid, rescaling.window, plan, tiles, resampling=rescaling
    )


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_cut_tells_inner_sides_from_scene_borders():
    boxes_px = np.array([[0, 10, 20, 30], [40, 3, 60, 20], [50, 50, 63, 60], [20, 20, 30, 30.0]])
    first = cut_sides(boxes_px, Window(0, 0, 64, 64), (200, 200), 4)
    assert first.tolist() == [Cut.SCENE_LEFT, Cut.SCENE_TOP | Cut.RIGHT, Cut.RIGHT | Cut.BOTTOM, 0]
    only = cut_sides(boxes_px, Window(0, 0, 64, 64), (64, 64), 4)
    assert only[2] == Cut.SCENE_RIGHT | Cut.SCENE_BOTTOM


def test_results_do_not_depend_on_batch_or_on_company(model):
    options = DetectOptions(score=0.005, precision="fp32")
    parts = [block((150, 200), seed=1), block((60, 50), seed=2)]
    alone = [Engine(model, options, device="cpu", batch=1).detect([part])[0] for part in parts]
    together = Engine(model, options, device="cpu", batch=5).detect(parts)
    for a, b in zip(alone, together, strict=True):
        assert len(a.detections) == len(b.detections) > 0
        np.testing.assert_allclose(a.detections.boxes_px, b.detections.boxes_px, atol=1e-3)
        np.testing.assert_allclose(a.detections.scores, b.detections.scores, atol=1e-5)
        assert (a.tiles, a.skipped) == (b.tiles, b.skipped)


def test_pixels_are_resampled_before_tiles_are_cut(model):
    part = scaled_block()
    pixels = part.resampling.on_host(part.pixels)
    engine = Engine(model, DetectOptions(score=0.005, precision="fp32"), device="cpu")
    given = dataclasses.replace(part, pixels=pixels, resampling=None)
    found, expected = (engine.detect([each])[0].detections for each in (part, given))
    assert len(found) > 0
    np.testing.assert_array_equal(found.boxes_px, expected.boxes_px)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_suppression_follows_the_card_unless_an_option_is_given():
    model = tiny_model(nms_iou=0.2)
    part = block((64, 64))

    def overlaps(**options):
        engine = Engine(model, DetectOptions(score=0.005, **options), device="cpu")
        found = engine.detect([part])[0].detections
        assert len(found) > 10
        iou = np.asarray(box_iou(*[torch.from_numpy(found.boxes_px)] * 2))
        same = found.labels[:, None] == found.labels
        return iou[same & ~np.eye(len(found), dtype=bool)].max()

    assert overlaps() <= 0.2
    assert 0.2 < overlaps(nms_iou=0.6) <= 0.6


def test_boxes_are_inside_their_tile_and_on_valid_ground(model):
    valid = np.ones((150, 200), bool)
    valid[:, :90] = False
    part = block((150, 200), valid=valid)
    found = Engine(model, DetectOptions(score=0.005), device="cpu").detect([part])[0]
    assert found.skipped > 0
    assert found.tiles + found.skipped == len(part.plan)
    windows = part.plan.windows_px(found.detections.tile)
    assert (found.detections.boxes_px[:, :2] >= windows[:, :2]).all()
    assert (found.detections.boxes_px[:, 2:] <= windows[:, 2:]).all()
    centre = (found.detections.boxes_px[:, 0] + found.detections.boxes_px[:, 2]) / 2
    assert (centre >= 90).all()


def test_invalid_pixels_cannot_be_seen(model):
    valid = np.ones((128, 128), bool)
    valid[40:80, 30:90] = False
    options = DetectOptions(score=0.005, precision="fp32")
    engine = Engine(model, options, device="cpu")
    one, other = block((128, 128), valid=valid), block((128, 128), valid=valid)
    other.pixels[:, ~valid] = 255 - other.pixels[:, ~valid]
    assert engine.detect([one])[0].detections == engine.detect([other])[0].detections


def test_reaching_a_limit_is_reported(model):
    options = DetectOptions(score=0.0, max_per_tile=7)
    found = Engine(model, options, device="cpu").detect([block((64, 64))])[0]
    assert found.truncated == 1
    assert len(found.detections) <= 7


def test_every_dtype_is_normalised_alike(model):
    options = DetectOptions(score=0.005, precision="fp32")
    engine = Engine(model, options, device="cpu")
    results = [
        engine.detect([block((64, 64), dtype=dtype)])[0].detections
        for dtype in (np.uint8, np.uint16, np.int16, np.float32)
    ]
    assert all(result == results[0] for result in results)


def test_bf16_finds_much_the_same(model):
    fp32, bf16 = (
        Engine(model, DetectOptions(score=0.005, precision=precision), device="cpu")
        .detect([block((128, 128))])[0]
        .detections
        for precision in ("fp32", "bf16")
    )
    assert len(bf16) == pytest.approx(len(fp32), rel=0.1)


def test_an_absent_device_is_refused():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(OptionError, match="not known"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="not present"):
            choose_device("cuda:1")
    assert choose_dtype("fp16", torch.device("cpu")) is torch.float16


def test_the_model_given_is_not_changed(model):
    before = model.fingerprint
    Engine(model, DetectOptions(precision="bf16"), device="cpu")
    del model.__dict__["fingerprint"]
    assert model.fingerprint == before


def test_measuring_gives_a_rate(model):
    px_per_s, batch_bytes = Engine(model, DetectOptions(), device="cpu").measure(64, repeats=1)
    assert px_per_s > 0
    assert batch_bytes > 0


def test_views_find_the_same_in_a_scene_and_its_mirror_image():
    model, pixels = load_model("demo"), block((256, 256), tile_px=256)
    picture = np.kron(pixels.pixels[:, ::8, ::8], np.ones((8, 8), np.uint8))  # of patches
    engine = Engine(model, DetectOptions(score=0.02, precision="fp32", tta=2), device="cpu")
    one, other = (
        engine.detect([dataclasses.replace(pixels, pixels=np.ascontiguousarray(seen))])[0]
        for seen in (picture, picture[:, :, ::-1])
    )
    back = 256 - other.detections.boxes_px[:, [2, 1, 0, 3]]
    back[:, 1::2] = 256 - back[:, 1::2]
    assert len(one.detections) > 3
    by_score = np.argsort(one.detections.scores), np.argsort(other.detections.scores)
    assert np.allclose(one.detections.boxes_px[by_score[0]], back[by_score[1]], atol=0.05)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_both_presets_detect(preset):
    network = PRESETS[preset]
    if network.levels is None:  # fitted to labels in training
        network = dataclasses.replace(network, levels=(2, 3), anchor_sides_px=((12.0,), (24.0,)))
    model = tiny_model(network=network)
    options = DetectOptions(score=0.005, max_per_tile=50)
    found = Engine(model, options, device="cpu").detect([block((120, 100), tile_px=128)])[0]
    assert found.tiles == 1
    assert 0 < len(found.detections) <= 50


@pytest.mark.parametrize(("dtype", "size"), [("uint8", 0), ("float32", 0), ("uint16", 4)])
def test_numbers_that_torch_computes_poorly_with_are_copied(model, dtype, size):
    engine = Engine(model, DetectOptions(), device="cpu")
    assert engine.staged_bytes(np.dtype(dtype)) == size
    engine.device = torch.device("cuda")  # page-locked copies
    assert engine.staged_bytes(np.dtype(dtype)) == {"uint8": 1, "float32": 4, "uint16": 8}[dtype]


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no bf16")
def test_bf16_is_the_same_with_any_number_of_cores():
    model = load_model("demo")
    before = torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        engine = Engine(model, DetectOptions(score=0.01, precision="bf16"), device="cpu")
        found.append(engine.detect([block((256, 320), tile_px=256)])[0].detections)
    torch.set_num_threads(before)
    assert len(found[0]) > 0
    assert found[1] == found[0]
    assert found[2] == found[0]
