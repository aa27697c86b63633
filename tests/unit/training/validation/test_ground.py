"""The test ground is scored once at the end and selects nothing; pictures show finds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from support.fields import field
from support.tiny_training import FakeScores, tiny

from geo_retina.boxes import to_polygons
from geo_retina.errors import TrainingError
from geo_retina.grid import Grid
from geo_retina.training import epoch_end, finishing, train, trainer
from geo_retina.training.setup import prepare
from geo_retina.training.validation import scoring as validation
from geo_retina.training.validation.ground import choose_ground
from geo_retina.training.validation.pictures import choose_places, draw_places


def right_half(grid: Grid, points_px: np.ndarray) -> np.ndarray:
    return points_px[..., 0] > grid.width / 2


@pytest.fixture(scope="module")
def scene_and_labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return field(tmp_path_factory.mktemp("field"), side=200)[:2]


def perfect(prepared: Any, score: float = 0.9) -> Any:
    """A detector that finds every label of the scene, at one score."""
    each = prepared.training_set.scenes[0]

    def detect(paths: Any, model: Any, options: Any, run: Any, *, crs: str) -> gpd.GeoDataFrame:
        polygons = to_polygons(each.boxes_px, each.scene.grid)
        found = gpd.GeoDataFrame(geometry=list(polygons), crs=each.scene.grid.crs)
        return found.assign(**{"scene": each.scene.name, "class": "object", "score": score})

    return detect


def test_test_ground_is_reported_and_selects_nothing(
    scene_and_labels: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores of val fall from epoch to epoch, whatever test has to say."""
    scores = iter([0.5, 0.4])
    monkeypatch.setattr(epoch_end, "validate", lambda *_: FakeScores(next(scores)))
    options = tiny(*scene_and_labels, epochs=2)
    original, seen = prepare, []

    def with_test(options: Any) -> Any:
        prepared = original(options)
        about = "the test ground: the right half"
        test = choose_ground(prepared.training_set, right_half, about, options.scoring)
        monkeypatch.setattr(validation, "detect", perfect(prepared))
        return replace(prepared, test=test)

    def spy(*how: Any) -> Any:
        seen.append(how)
        return validation.validate(*how)

    monkeypatch.setattr(trainer, "prepare", with_test)
    monkeypatch.setattr(finishing, "validate", spy)
    model = train(options)
    assert len(seen) == 1
    assert seen[0][3] == model.card.thresholds == (0.25,)  # those of val
    card = model.card
    assert card.training["best_epoch"] == 1
    assert card.metrics["val"] == {"f1": 0.5}
    overall = card.metrics["test"]["overall"]
    assert overall["f1"] == 1
    assert overall["labels"] == seen[0][1].objects > 10
    assert card.metrics["test_measured_on"].startswith(f"{overall['labels']} labels on the test")


def test_given_thresholds_are_used_as_they_are(
    scene_and_labels: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(tiny(*scene_and_labels))
    monkeypatch.setattr(validation, "detect", perfect(prepared, score=0.4))
    model = type("Any", (), {"card": prepared.card})()
    score = partial(validation.validate, model, prepared.val_ground, None)
    assert score((0.3,)).f1 == 1
    assert score((0.5,)).f1 == 0
    chosen = score()
    assert chosen.f1 == 1
    assert chosen.thresholds[0] < 0.4
    assert len(chosen.found) == prepared.val_ground.objects


def test_no_label_on_the_ground_is_one_sentence(scene_and_labels: tuple[Path, Path]) -> None:
    options = tiny(*scene_and_labels)
    prepared = prepare(options)
    with pytest.raises(TrainingError, match="no label lies on the moon, so nothing can be scored"):
        choose_ground(
            prepared.training_set,
            lambda grid, points: np.zeros(points.shape[:-1], np.bool_),
            "the moon",
            options.scoring,
        )


def test_pictures_show_places_with_labels_of_the_ground(
    scene_and_labels: tuple[Path, Path], tmp_path: Path
) -> None:
    prepared = prepare(tiny(*scene_and_labels))
    ground = prepared.val_ground
    places = choose_places(ground, seed=3)
    assert [window for *_, window in places] == [w for *_, w in choose_places(ground, seed=3)]
    for name, scene, window in places:
        assert name == scene.name
        assert window.height <= scene.grid.height
    found = ground.truth.iloc[:5]
    path = draw_places(places, ground, found, tmp_path / "p.png")
    with Image.open(path) as picture:
        shown = np.asarray(picture.convert("RGB"), dtype=int)
    yellow = (np.abs(shown - (255, 212, 0)).sum(axis=2) < 60).sum(axis=0)
    half = shown.shape[1] // 2
    assert yellow[:half].sum() > yellow[half:].sum() > 50  # all labels left, five finds right
