"""Two sets of detections on completed cells, against all ground, of which everything is known."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import geopandas as gpd
import numpy as np
import pytest
import shapely
from scipy.optimize import linear_sum_assignment
from support.reviews import edit, rows_of, scattered, write_found

from geo_retina.cli import main
from geo_retina.errors import LabelError
from geo_retina.estimation import compare_on_cells
from geo_retina.options import EstimateOptions, ReviewOptions
from geo_retina.review import enter_labels, read_review, review_detections

from .test_counting import tell_fitted

SIDES = {"a": (0.7, 100, 0), "b": (0.85, 40, 1)}
"""What two detectors find of the objects, how many false ones they add, and a seed."""


def detected(truth, name, *, jitter=0.1):
    share, false, seed = SIDES[name]
    random = np.random.default_rng(seed)
    kept = truth[random.random(len(truth)) < share]
    xy = kept + random.normal(0, jitter, kept.shape)
    return np.concatenate([xy, scattered(false, seed=seed + 5)])


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Objects, two detectors, and a review of the first in which every cell is completed."""
    folder = tmp_path_factory.mktemp("cells")
    dense = np.random.default_rng(3).uniform([2, 2], [90, 198], (500, 2))
    truth = np.concatenate([dense, scattered(300, seed=4)])
    for name in SIDES:
        write_found(folder / f"{name}.gpkg", detected(truth, name))
    path = folder / "a.gpkg"
    review_detections(path, ReviewOptions(budget=0, cells=500, cell_size_m=10.0, learn_share=0.0))
    enter(path, truth)
    return folder, truth


def enter(path, truth):
    """Play a person who completes all cells."""
    labels = path.with_name("labels.gpkg")
    gpd.GeoDataFrame(geometry=shapely.points(truth), crs="EPSG:32633").to_file(labels)
    enter_labels(path, labels, radius_m=1.5)


def test_all_cells_tell_what_all_ground_does(ground):
    folder, truth = ground
    compared = compare_on_cells(folder / "a.gpkg", folder / "b.gpkg", folder / "a.gpkg")
    assert compared.objects_seen == len(truth) == 800
    for side, name in enumerate(SIDES):
        found = gpd.read_file(folder / f"{name}.gpkg", layer="detections")
        at = shapely.get_coordinates(found.geometry.centroid)
        distance = np.linalg.norm(at[:, None] - truth[None], axis=-1)
        rows, cols = linear_sum_assignment(np.where(distance < 1.0, distance, 1e3))
        hits = (distance[rows, cols] < 1.0).sum()
        f1 = 2 * hits / (len(found) + len(truth))
        pair = compared.shares["f1"]
        assert (pair.a, pair.b)[side].value == pytest.approx(f1, abs=0.01)
        assert compared.counts[side].detected == len(found)
        assert compared.counts[side].total.value == pytest.approx(len(truth))
        assert compared.count_errors[side].value == pytest.approx(len(found) / len(truth) - 1)
    # Every cell was looked at: nothing is left that could be otherwise.
    assert pair.difference.interval == pytest.approx([pair.difference.value] * 2)


def test_intervals_from_some_cells_hold_the_difference(ground, tmp_path):
    """In draws of 60 of 400 cells, and narrower than those of both sides alone."""
    folder, _ = ground
    truth = compare_on_cells(folder / "a.gpkg", folder / "b.gpkg", folder / "a.gpkg")
    wanted = truth.shares["f1"].difference.value
    held, errors = 0, []
    path = tmp_path / "some.gpkg"
    for seed in range(20):
        path.write_bytes((folder / "a.gpkg").read_bytes())
        draw(path, 60, seed)
        pair = compare_on_cells(folder / "a.gpkg", folder / "b.gpkg", path).shares["f1"]
        low, high = pair.difference.interval
        held += low <= wanted <= high
        errors.append(pair.difference.value - wanted)
        assert high - low < np.ptp(pair.a.interval) + np.ptp(pair.b.interval)
    assert held >= 17
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(20)


def draw(path, number, seed):
    """Shuffle each stratum anew, and let the first cells of each be done."""
    rows = rows_of(path, "review_frame", "cell, stratum")
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows))
    strata = np.array([stratum for _, stratum in rows])[order]
    place = np.empty(len(rows), int)
    for stratum in np.unique(strata):
        own = np.flatnonzero(strata == stratum)
        place[order[own]] = np.arange(len(own))
    share = number / len(rows)
    size = np.bincount(strata)[np.array([stratum for _, stratum in rows])]
    with closing(sqlite3.connect(path)) as database, database:
        places = [(int(p), k) for k, p in enumerate(place)]
        database.executemany("UPDATE review_frame SET place = ? WHERE cell = ?", places)
        open_cells = [(k,) for k in np.flatnonzero(place >= np.ceil(share * size)).tolist()]
        database.executemany("UPDATE cells SET status = 'new' WHERE cell = ?", open_cells)


def test_strata_weigh_as_much_as_they_stand_for(tmp_path):
    """Of four sparse cells two are completed, of eight dense ones six."""
    xy = [(10 * c + 5, 5) for c in range(4)]
    xy += [(10 * c + 2 + p, 5) for c in range(4, 12) for p in (0, 2, 4, 6)]
    ground = shapely.box(0, 0, 119.5, 9.9)
    path = write_found(tmp_path / "a.gpkg", xy, half=0.4, ground=ground)
    options = ReviewOptions(budget=0, cells=8, cell_size_m=10.0, learn_share=0.0, strata=2)
    review_detections(path, options)
    edit(path, "UPDATE cells SET status = 'done'")
    # Another detector sees the sparse cells alone.
    other = write_found(tmp_path / "b.gpkg", xy[:4], half=0.4, ground=ground)
    compared = compare_on_cells(path, other, path)
    assert compared.cells == 8
    assert compared.shares["recall"].a.value == 1.0
    assert compared.shares["recall"].b.value == pytest.approx(4 / 36)
    assert compared.count_errors[1].value == pytest.approx(4 / 36 - 1, abs=1e-9)


def test_learnt_cells_are_left_out_for_both_sides(ground, tmp_path):
    folder, truth = ground
    paths = [tmp_path / "a.gpkg", tmp_path / "b.gpkg"]
    write_found(paths[0], detected(truth, "a"))
    review_detections(paths[0], ReviewOptions(budget=0, cells=500, cell_size_m=10.0))
    enter(paths[0], truth)
    paths[1].write_bytes((folder / "b.gpkg").read_bytes())
    plain = compare_on_cells(*paths, paths[0])
    learn = np.flatnonzero(read_review(paths[0]).frame.use == "learn").tolist()
    frame = read_review(paths[0]).frame.fingerprint
    tell_fitted(paths[1], learn, frame=frame)
    compared = compare_on_cells(*paths, paths[0])
    assert compared.cells == plain.cells == 201
    assert any(f"of the {len(learn)} cells that a model was fitted to" in n for n in compared.notes)
    # What is known of every cell leaves nothing open, and counts of all ground are exact.
    assert compared.counts[0].total.value == pytest.approx(800)
    assert compared.counts[1].total.interval == pytest.approx((800, 800))
    assert np.ptp(plain.counts[0].total.interval) > 5


def test_detections_of_other_ground_are_refused(ground, tmp_path):
    folder, truth = ground
    half = shapely.box(0, 0, 100, 200)
    west = write_found(tmp_path / "west.gpkg", truth[truth[:, 0] < 100], ground=half)
    with pytest.raises(LabelError, match=r"west\.gpkg covers 5\d% of the completed cells"):
        compare_on_cells(folder / "a.gpkg", west, folder / "a.gpkg")


def test_classes_are_compared_each(tmp_path):
    xy = scattered(400)
    name = np.where(np.arange(400) % 3 == 0, "a", "b")
    path = write_found(tmp_path / "a.gpkg", xy, name=name)
    review_detections(path, ReviewOptions(budget=0, cells=60, cell_size_m=10.0))
    edit(path, "UPDATE cells SET status = 'done'")
    swapped = np.where(np.arange(400) % 3 == 0, "b", name)
    other = write_found(tmp_path / "b.gpkg", xy, name=swapped)
    compared = compare_on_cells(path, other, path, EstimateOptions(radius_m=0.5))
    assert compared.classes["a"]["recall"].a.value == 1.0
    assert compared.classes["a"]["recall"].b.value == 0.0
    assert compared.classes["a"]["precision"].b is None
    assert compared.classes["b"]["recall"].b.value == 1.0
    assert compared.classes["b"]["precision"].b.value < 0.8
    assert "-" in compared.table()


def test_the_command_compares_on_cells(ground, tmp_path, capsys):
    folder, _ = ground
    a, b = str(folder / "a.gpkg"), str(folder / "b.gpkg")
    out = tmp_path / "numbers.json"
    assert main(["compare", a, b, "--review", a, "--radius", "1m", "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "800 objects in 400 completed cells to count by" in text
    numbers = json.loads(out.read_text(), parse_constant=pytest.fail)
    change = numbers["shares"]["f1"]["difference"]
    assert f"{change['value']:+.3f}" in text
    assert numbers["count_errors"][0]["value"] == pytest.approx(
        numbers["counts"][0]["detected"] / 800 - 1
    )
    for command, words in (
        (["compare", a, b], "LABELS and --review are not given"),
        (["compare", a, b, a, "--review", a], "LABELS and --review are both given"),
        (["compare", a, b, "--review", a, "--iou", "0.3"], "--iou is given with --review"),
        (["compare", a, b, "--review", b], "run geo-retina review"),
    ):
        assert main(command) != 0
        assert words in capsys.readouterr().err
