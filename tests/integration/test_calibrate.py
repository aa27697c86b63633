"""A model with wrong thresholds is put right on a drawn scene, and tells probabilities."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely

import geo_retina
from geo_retina.cli import main
from geo_retina.model import Model, load_card, load_model
from geo_retina.review import read_review


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate")
    options = geo_retina.SynthOptions(height=640, width=640, seed=3, density=900, difficulty=0.3)
    geo_retina.draw_scene(folder / "scene.tif", options, truth=folder / "truth.gpkg")
    demo = load_model("demo")
    wrong = replace(demo.card, thresholds=(0.97,) * len(demo.card.classes))
    Model(demo.network, wrong).save(folder / "wrong.safetensors")
    return folder


@pytest.fixture(scope="module")
def calibrated(folder):
    command = [
        "calibrate",
        str(folder / "wrong.safetensors"),
        "--scenes",
        str(folder / "scene.tif"),
    ]
    command += ["--labels", str(folder / "truth.gpkg"), "--class-column", "class"]
    out = folder / "right.safetensors"
    numbers = folder / "numbers.json"
    assert main([*command, "--out", str(out), "--no-search-nms", "--json", str(numbers)]) == 0
    return out, json.loads(numbers.read_text())


def test_the_gain_is_told_and_is_there(folder, calibrated):
    out, numbers = calibrated
    assert numbers["gain"] > 0.1
    assert numbers["interval"][0] > 0
    card = load_card(out)
    assert max(card.thresholds) < 0.97
    about = card.metrics["calibration"]
    assert about["thresholds_before"] == (0.97,) * 3
    assert "labels on the labelled ground" in about["measured_on"]
    assert about["f1_after"] == pytest.approx(numbers["f1_after"])
    scores = {}
    for name in ("wrong", "right"):
        found = geo_retina.detect(folder / "scene.tif", folder / f"{name}.safetensors")
        scores[name] = geo_retina.evaluate(
            found, folder / "truth.gpkg", geo_retina.EvaluateOptions(class_column="class")
        ).f1
    assert scores["right"] > scores["wrong"] + 0.1


def test_detect_filter_and_merge_keep_probabilities(folder, calibrated):
    out, _ = calibrated
    found = folder / "found.gpkg"
    assert (
        main(["detect", str(folder / "scene.tif"), "--model", str(out), "--out", str(found)]) == 0
    )
    table = gpd.read_file(found, layer="detections")
    card = load_card(out)
    labels = np.array([card.classes.index(name) for name in table["class"]], np.int32)
    wanted = card.probabilities(table["score"].to_numpy(np.float32), labels)
    assert table["probability"].to_numpy() == pytest.approx(wanted)
    kept, both = folder / "kept.gpkg", folder / "both.gpkg"
    assert main(["filter", str(found), "--score", "0.9", "--out", str(kept)]) == 0
    assert "probability" in gpd.read_file(kept, layer="detections")
    options = geo_retina.SynthOptions(height=256, width=256, seed=4, origin_xy=(600_000, 5_300_000))
    geo_retina.draw_scene(folder / "other.tif", options)
    assert (
        main(
            [
                "detect",
                str(folder / "other.tif"),
                "--model",
                str(out),
                "--out",
                str(folder / "o.gpkg"),
            ]
        )
        == 0
    )
    assert main(["merge", str(found), str(folder / "o.gpkg"), "--out", str(both)]) == 0
    assert gpd.read_file(both, layer="detections")["probability"].notna().all()


def test_no_detection_leaves_the_column(folder, calibrated):
    area = folder / "off.gpkg"
    gpd.GeoDataFrame(
        geometry=[shapely.box(500_000, 5_299_999.9, 500_000.1, 5_300_000)], crs=32632
    ).to_file(area)
    out = folder / "none.parquet"
    command = [
        "detect",
        str(folder / "scene.tif"),
        "--model",
        str(calibrated[0]),
        "--out",
        str(out),
    ]
    assert main([*command, "--aoi", str(area)]) == 0
    table = gpd.read_parquet(out)
    assert len(table) == 0
    assert "probability" in table


def test_too_few_labels_and_other_classes_are_refused(folder, tmp_path, capsys):
    truth = gpd.read_file(folder / "truth.gpkg")
    few, other = tmp_path / "few.gpkg", tmp_path / "other.gpkg"
    truth.iloc[:4].to_file(few)
    truth.assign(**{"class": "whale"}).to_file(other)
    command = [
        "calibrate",
        "demo",
        "--scenes",
        str(folder / "scene.tif"),
        "--class-column",
        "class",
    ]
    command += ["--out", str(tmp_path / "x.safetensors")]
    assert main([*command, "--labels", str(few)]) == 1
    assert "labels lie on the scenes, expected 10 or more" in capsys.readouterr().err
    assert main([*command, "--labels", str(other)]) == 1
    assert "whale" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


@pytest.fixture(scope="module")
def reviewed(folder):
    """Detections of the demo model, every drawn cell of which a person completed."""
    path = folder / "reviewed.gpkg"
    geo_retina.detect_to_file(folder / "scene.tif", "demo", path)
    options = geo_retina.ReviewOptions(cell_size_m=20.0, cells=60)
    geo_retina.review_detections(path, options)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE cells SET status = 'done'")
    return path


@pytest.fixture(scope="module")
def of_review(folder, reviewed):
    out = folder / "of_review.safetensors"
    command = [
        "calibrate",
        str(folder / "wrong.safetensors"),
        "--scenes",
        str(folder / "scene.tif"),
    ]
    command += ["--review", str(reviewed), "--no-search-nms", "--out", str(out)]
    assert main(command) == 0
    return out


def test_completed_cells_to_learn_from_stand_for_labels(reviewed, of_review):
    about = load_card(of_review).metrics["calibration"]
    review = read_review(reviewed)
    learn = np.flatnonzero(review.frame.use == "learn")
    inside = np.isin(review.cases.cell, learn[review.is_done[learn]])
    assert about["labels"] == inside.sum()
    assert list(about["review"]["cells"]) == learn[review.is_done[learn]].tolist()
    assert about["gain"] > 0.1


def test_an_estimate_refuses_a_model_that_saw_cells_to_count_by(folder, reviewed, of_review):
    again = folder / "again.gpkg"
    again.write_bytes(reviewed.read_bytes())
    scene = str(folder / "scene.tif")

    def estimate_with(model):
        command = ["detect", scene, "--model", str(model), "--out", str(again), "--overwrite"]
        assert main(command) == 0
        return geo_retina.estimate(again)

    honest = estimate_with(of_review)
    assert honest.cells == 30
    card = load_card(of_review)
    about = dict(card.metrics["calibration"])
    review = read_review(reviewed)
    counting = np.flatnonzero(review.is_done & (review.frame.use == "count"))
    about["review"] = {**about["review"], "cells": counting[:2].tolist()}
    wrong = replace(card, metrics={**card.metrics, "calibration": about})
    Model(load_model(of_review).network, wrong).save(folder / "saw.safetensors")
    with pytest.raises(geo_retina.LabelError, match="2 completed cells to count by"):
        estimate_with(folder / "saw.safetensors")


def test_labels_and_a_review_exclude_each_other(folder, reviewed, capsys):
    command = ["calibrate", "demo", "--scenes", str(folder / "scene.tif"), "--out"]
    command += [str(folder / "y.safetensors"), "--review", str(reviewed)]
    assert main([*command, "--labels", str(folder / "truth.gpkg")]) == 2
    assert "--review and --labels are both given" in capsys.readouterr().err
