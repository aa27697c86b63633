"""Training from end to end on a tiny scene, and its parts that decide what is kept."""

import csv
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from support.fields import field, squares, write_labels, write_scene
from support.tiny_training import tiny as tiniest
from torch import nn

from geo_retina.config import load_train_options
from geo_retina.dataset.samples import TrainSamples
from geo_retina.detector import detect
from geo_retina.errors import ModelError, OutputError, SceneError, TrainingError
from geo_retina.model import load_model
from geo_retina.nn import backbones
from geo_retina.options import SampleOptions, SplitOptions
from geo_retina.scene import open_scene
from geo_retina.training import epoch_end, train
from geo_retina.training.ema import AverageWeights
from geo_retina.training.lightning_module import RetinaNetTask, loss_settings, rise_and_fall
from geo_retina.training.precision import choose_training_precision
from geo_retina.training.run_folder import as_plain
from geo_retina.training.setup import choose_tile_px, prepare
from geo_retina.training.validation.ground import keep_on_val_ground
from geo_retina.training.validation.scoring import ValidationScores


def tiny(scene, labels, **how):
    larger = {
        "network": {"backbone": "resnet10t", "channels": 16, "convs": 1},
        "samples": SampleOptions(window_px=128, over_edge=0.0, nodata=0.0),
        "epochs": 2,
        "samples_per_epoch": 32,
    }
    return tiniest(scene, labels, **{**larger, **how})


@pytest.fixture(scope="module")
def scene_and_labels(tmp_path_factory):
    return field(tmp_path_factory.mktemp("field"))[:2]


@pytest.fixture(scope="module")
def trained(scene_and_labels, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "m.safetensors"
    options = tiny(*scene_and_labels, name="squares", licence="MIT", picture_every=1)
    before = torch.random.get_rng_state()
    model = train(options, out)
    assert torch.equal(torch.random.get_rng_state(), before)
    return options, model, out


def test_the_model_file_is_the_model_and_detects(trained, scene_and_labels):
    _, model, out = trained
    loaded = load_model(out)
    assert loaded.card == model.card
    found = detect(str(scene_and_labels[0]), loaded)
    assert len(found) > 20
    assert set(found["class"]) == {"object"}


def test_the_card_says_what_was_done(trained):
    options, model, _ = trained
    card = model.card
    assert (card.name, card.licence, card.classes) == ("squares", "MIT", ("object",))
    assert card.gsd_m == pytest.approx(0.5, rel=1e-3)
    assert card.gsd_range_m == pytest.approx((0.4, 0.625), rel=1e-3)
    assert card.object_px == pytest.approx((12, 12, 12))
    assert card.network.levels == (2,)
    assert card.tile_px % card.stride_px == 0
    assert [band.index for band in card.bands] == [1, 2, 3]
    assert card.radiometry.dtype == "uint8"
    assert card.training["options"]["lr"] == options.lr
    assert len(card.training["data_fingerprint"]) == 64
    assert card.training["packages"]["torch"] == version("torch")
    history = card.training["history"]
    assert [record["epoch"] for record in history] == [1, 2]
    assert history[1]["class_loss"] < history[0]["class_loss"]
    best = history[card.training["best_epoch"] - 1]
    assert best["f1_and_ap"] == max(record["f1_and_ap"] for record in history) > 0.1
    overall = card.metrics["val"]["overall"]
    assert overall["f1"] == pytest.approx(best["f1"])
    assert "validation ground" in card.metrics["measured_on"]


def test_the_files_beside_it(trained):
    options, _, out = trained
    assert load_train_options(out.with_name("m.safetensors.config.yaml")) == options
    assert out.with_name("m.safetensors.training.png").read_bytes()[:4] == b"\x89PNG"
    folder = out.with_name("m.safetensors.train")
    with (folder / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    history = trained[1].card.training["history"]
    assert [float(row["f1"]) for row in rows] == [record["f1"] for record in history]
    assert {"epoch", "class_loss", "box_loss", "lr", "precision", "recall"} <= set(rows[0])
    steps = (folder / "steps" / "001" / "metrics.csv").read_text().splitlines()
    assert "loss" in steps[0].split(",")
    for picture in ("training.png", "pictures/epoch-0001.png", "pictures/epoch-0002.png"):
        assert (folder / picture).read_bytes()[:4] == b"\x89PNG"
    # What only a resumed run needs is gone, and nothing half-written is left.
    assert sorted(path.name for path in folder.iterdir()) == [
        *("epochs.csv", "pictures", "steps", "training.png"),
    ]


def test_same_seed_same_weights_and_another_seed_others(trained, scene_and_labels):
    options, model, _ = trained
    again = train(options)
    assert again.card.training["history"] == model.card.training["history"]
    own, same = model.network.state_dict(), again.network.state_dict()
    for name, tensor in own.items():
        assert torch.equal(tensor, same[name]), name
    other = prepare(tiny(*scene_and_labels, seed=1)).network.state_dict()
    assert not torch.equal(
        other["backbone.body.conv1.0.weight"], own["backbone.body.conv1.0.weight"]
    )


def test_an_existing_output_is_refused_before_anything_is_read(tmp_path):
    out = tmp_path / "m.safetensors"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists; give overwrite=True"):
        train(tiny("nowhere.tif", "nowhere.gpkg"), out)
    assert out.read_text() == "precious"


def test_weights_that_cannot_be_had_are_found_out_before_anything_is_read(monkeypatch):
    def refuse(name):
        raise ModelError(f"no weights of {name}")

    monkeypatch.setattr(backbones, "_hub_state", refuse)
    with pytest.raises(ModelError, match="no weights of resnet10t"):
        train(tiny("nowhere.tif", "nowhere.gpkg", pretrained=True))


def test_the_check_of_the_weights_does_not_change_the_first_ones(scene_and_labels, monkeypatch):
    state = backbones.Backbone("resnet10t", in_channels=3).body.state_dict()
    monkeypatch.setattr(backbones, "_hub_state", lambda name: dict(state))
    found = []
    for check in (backbones.check_pretrained, lambda name: None):
        monkeypatch.setattr("geo_retina.training.initial_weights.check_pretrained", check)
        torch.manual_seed(0)
        found.append(prepare(tiny(*scene_and_labels, pretrained=True)).network.state_dict())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    assert torch.equal(found[0]["backbone.body.conv1.0.weight"], state["conv1.0.weight"])


def test_the_card_measures_objects_by_their_longer_side(tmp_path):
    """The overlap is made from it, and must hold a ship of 10 x 400 px whole."""
    pixels = np.zeros((3, 1300, 1300), np.uint8)
    scene = write_scene(tmp_path / "a.tif", pixels)
    ships = [
        [x, y, x + w, y + h]
        for x in range(0, 1300, 430)
        for y in range(0, 1300, 430)
        for w, h in [(10, 400), (400, 10)]
    ]
    labels = write_labels(tmp_path / "l.gpkg", ships, grid=open_scene(scene).grid)
    card = prepare(tiny(scene, labels)).card
    assert card.object_px == pytest.approx((400, 400, 400))
    assert card.tile_px == 1280  # three overlaps of 424 px, in whole strides


@pytest.mark.parametrize("side_px", [10.0, 317.4, 320.0, 1000.0, 1000.1])
@pytest.mark.parametrize("stride_px", [32, 128])
def test_tiles_are_three_overlaps_wide_or_more(side_px, stride_px):
    tile_px = choose_tile_px(side_px, stride_px)
    assert tile_px % stride_px == 0
    wanted_px = max(1024, 3 * (side_px + 24), 16 * stride_px)
    assert wanted_px <= tile_px < wanted_px + stride_px


def test_scenes_given_as_one_path_are_one_scene(scene_and_labels, monkeypatch):
    scene, labels = scene_and_labels
    options = tiny(scene, labels)
    for given in (str(scene), scene, [scene]):
        object.__setattr__(options.data, "scenes", given)  # however it came about
        card = prepare(options).card
        assert card.training["options"]["data"]["scenes"] == ("field.tif",)
        plain = as_plain(asdict(options))
        assert isinstance(yaml.safe_dump(plain), str)


def test_no_label_on_tuning_ground_is_one_clear_sentence(tmp_path):
    pixels, boxes_px = squares()
    scene = write_scene(tmp_path / "a.tif", pixels)
    labels = write_labels(tmp_path / "l.gpkg", boxes_px[:1], grid=open_scene(scene).grid)
    with pytest.raises(TrainingError, match=r"^no label lies on the .* ground") as found:
        train(tiny(scene, labels))
    assert "split." in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"split": SplitOptions(block_m=1e6)}, r"one ground block of 1e\+06 m"),
        ({"network": {"anchor_sides_px": [[12.0]]}}, r"without network\.levels"),
        ({"data": {"band_names": ("red",)}}, "1 names for 3 bands"),
    ],
)
def test_errors_name_the_remedy(scene_and_labels, how, message):
    with pytest.raises(TrainingError, match=message):
        train(tiny(*scene_and_labels, **how))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_while_reading_stays_one_sentence(scene_and_labels, monkeypatch, workers):
    def fail(self, number):
        raise SceneError("a.tif cannot be read: Error: it is truncated")

    monkeypatch.setattr(TrainSamples, "__getitem__", fail)
    with pytest.raises(SceneError, match=r"^a\.tif cannot be read: Error: it is truncated$"):
        train(tiny(*scene_and_labels, workers=workers))


@pytest.mark.parametrize(
    ("best_by", "f1", "ap", "told"),
    [
        # F1 alone would take the second of four epochs, both together take the third.
        ("auto", [0.1, 0.7, 0.65, 0.6], [0.0, 0.2, 0.4, 0.2], ("f1_and_ap", 3, 0.525, 2, 0.075)),
        # Of equal ones the last, whose boxes were trained for longest.
        ("f1", [0.1, 0.7, 0.7, 0.6], [0.0, 0.2, 0.4, 0.3], ("f1", 3, 0.7, 2, 0.0)),
    ],
)
def test_the_best_epoch_is_kept_and_the_card_says_why(
    scene_and_labels, monkeypatch, best_by, f1, ap, told
):
    seen = []

    def fake(model, ground, run):
        at = len(seen)
        seen.append({k: v.clone() for k, v in model.network.state_dict().items()})
        kept = SimpleNamespace(f1=f1[at], precision=None, recall=None, summary=dict)
        return ValidationScores((0.25,), kept, None, ap[at], None, None)

    monkeypatch.setattr(epoch_end, "validate", fake)
    options = tiny(*scene_and_labels, epochs=4, samples_per_epoch=4, best_by=best_by)
    model = train(options)
    training = model.card.training
    by, epoch, value, other, lead = told
    assert [training[key] for key in ("best_by", "best_epoch", "next_epoch")] == [by, epoch, other]
    assert training["best_value"] == pytest.approx(value)
    assert training["best_lead"] == pytest.approx(lead)
    assert training["history"][epoch - 1][by] == pytest.approx(value)
    assert model.card.thresholds == (0.25,)
    own = model.network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in seen[epoch - 1].items())
    assert not all(torch.equal(own[name], tensor) for name, tensor in seen[3].items())


def test_validation_is_due_every_few_epochs_and_curves_at_the_end(scene_and_labels, monkeypatch):
    due, drawn = [], []
    monkeypatch.setattr(epoch_end, "_CURVES_EVERY_S", 600.0)
    monkeypatch.setattr(epoch_end, "draw_training_curves", lambda all_, _: drawn.append(len(all_)))
    original = epoch_end.Validation._score
    monkeypatch.setattr(
        epoch_end.Validation,
        "_score",
        lambda self, epoch: (due.append(epoch), original(self, epoch))[1],
    )
    train(tiny(*scene_and_labels, epochs=3, samples_per_epoch=4, validate_every=2))
    assert due == [2, 3]
    assert drawn == [1, 3]  # no more often than the clock allows, but the last epoch is in it


def test_only_what_lies_on_tuning_ground_is_scored(scene_and_labels):
    prepared = prepare(tiny(*scene_and_labels))
    ground, each = prepared.val_ground, prepared.training_set.scenes[0]
    on_val = prepared.split.on_val(each.scene.grid, each.centres_px)
    assert len(ground.truth) == ground.objects == on_val.sum()
    # Take the labels themselves for detections: exactly those on validation ground must remain.
    import geopandas as gpd

    from geo_retina.boxes import to_polygons

    found = gpd.GeoDataFrame(
        {"scene": each.scene.name, "number": np.arange(len(each.boxes_px))},
        geometry=list(to_polygons(each.boxes_px, each.scene.grid)),
        crs=each.scene.grid.crs,
    )
    kept = keep_on_val_ground(found, ground)
    assert set(kept["number"]) == set(np.flatnonzero(on_val).tolist())
    assert len(keep_on_val_ground(found[:0], ground)) == 0


def test_average_of_weights_is_the_recursion(scene_and_labels):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = AverageWeights(network, decay=0.5)

    class Task(RetinaNetTask):
        def __init__(self):
            nn.Module.__init__(self)
            self.network = network

    expected = network[0].weight.detach().clone()
    for step in range(1, 5):
        with torch.no_grad():
            network[0].weight.fill_(float(step))
            network[1].running_mean.fill_(10.0 * step)
            network[1].num_batches_tracked.fill_(step)
        for _ in range(2):  # a step that only gathers gradients moves nothing
            average.on_train_batch_end(SimpleNamespace(global_step=step), Task())
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.network[0].weight, expected)
    assert average.network[1].num_batches_tracked == 4
    assert not average.network[1].training
    assert not average.network[0].weight.requires_grad
    restored = AverageWeights(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), decay=0.5)
    restored.load_state_dict(average.state_dict())
    torch.testing.assert_close(restored.network[0].weight, expected)


def test_norms_and_biases_do_not_decay(scene_and_labels):
    options = tiny(*scene_and_labels, weight_decay=0.3)
    prepared = prepare(options)
    task = RetinaNetTask(prepared.network, prepared.loss, options.updates, lr=0.1, seed=0)

    class Trainer:
        estimated_stepping_batches = 10

    task._trainer = Trainer()
    optimizer = task.configure_optimizers()["optimizer"]
    decayed, free = optimizer.param_groups
    assert decayed["weight_decay"] == 0.3
    assert free["weight_decay"] == 0
    kernels = {id(m.weight) for m in task.modules() if isinstance(m, nn.Conv2d)}
    assert {id(p) for p in decayed["params"]} == kernels
    assert len(decayed["params"]) + len(free["params"]) == len(list(task.parameters()))


@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_the_rate_rises_to_its_peak_and_falls_to_almost_nothing(steps):
    rates = [rise_and_fall(step, steps=steps, warm_up=0.1) for step in range(steps)]
    assert max(rates) == 1
    peak = rates.index(1)
    assert peak == max(1, steps // 10) - 1
    assert sorted(rates[: peak + 1]) == rates[: peak + 1]
    assert sorted(rates[peak:], reverse=True) == rates[peak:]
    assert min(rates) > 0
    if steps > 1:
        assert rates[-1] == pytest.approx(1e-3)
    assert rise_and_fall(steps + 5, steps=steps, warm_up=0.1) > 0  # asked once more at the very end


def test_rare_classes_weigh_more_where_asked(scene_and_labels):
    options = tiny(*scene_and_labels)
    counts = {"a": 9, "b": 1}
    assert loss_settings(options.loss, options.assign, counts).class_weights is None
    inverse = replace(options.loss, class_weights="inverse")
    weights = loss_settings(inverse, options.assign, counts).class_weights
    assert float(weights[1] / weights[0]) == pytest.approx(9, rel=0.01)


@pytest.mark.parametrize(
    ("precision", "name"), [("fp32", "32-true"), ("bf16", "bf16-mixed"), ("fp16", "16-mixed")]
)
def test_a_precision_asked_for_is_taken(precision, name):
    assert choose_training_precision(precision, torch.device("cpu")) == name


def test_shipped_configs_are_valid(monkeypatch):
    monkeypatch.setenv("GEO_RETINA_DATA", "data")
    configs = Path(__file__).parents[3] / "configs"
    names = {load_train_options(path).name for path in configs.glob("*.yaml")}
    assert {"trees-naip", "neon-crowns", "demo", "cars"} <= names
