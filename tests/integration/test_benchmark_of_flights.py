"""The benchmark of thermal flights, on boxes that nobody had to detect."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely import affinity

from tests.support.modules import load_module

FLIGHTS = Path(__file__).parents[2] / "benchmarks" / "leave_a_flight_out.py"


def rectangle(x: float, y: float, degrees: float) -> shapely.Polygon:
    return affinity.rotate(shapely.box(x - 2, y - 0.9, x + 2, y + 0.9), degrees)


@pytest.fixture
def frames() -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Two frames with six cars each, two of them found as a tilted one's neighbours would be."""
    random = np.random.default_rng(0)
    truth, found = [], []
    for frame in range(2):
        for car in range(6):
            x, y, angle = 500_000 + 1600 * frame + 8 * car, 4_000_000.0, random.uniform(30, 60)
            truth.append((f"f{frame}", "car", rectangle(x, y, angle)))
            found.append((f"f{frame}", "car", 0.9, rectangle(x, y, angle + (2 if car else 80))))
    names = ["scene", "kind", "geometry"]
    labels = gpd.GeoDataFrame(truth, columns=names, crs="EPSG:32650").assign(spare=False)
    columns = ["scene", "class", "score", "geometry"]
    return gpd.GeoDataFrame(found, columns=columns, crs="EPSG:32650"), labels


def test_hulls_forgive_what_rectangles_do_not(frames):
    flights = load_module(FLIGHTS)
    found, labels = frames
    told = flights.judge(with_sides(found), labels)["car"]
    assert told["rectangles"]["labels"] == told["hulls"]["labels"] == 12
    assert told["rectangles"]["ap50"] < 0.9 < told["hulls"]["ap50"]
    assert told["rectangles"]["angle_error_deg"] == pytest.approx(2, abs=0.05)
    low, high = told["rectangles"]["ap50_interval"]
    assert low <= told["rectangles"]["ap50"] <= high


def test_what_is_no_car_need_not_be_found_and_costs_nothing(frames):
    flights = load_module(FLIGHTS)
    found, labels = frames
    before = flights.judge(with_sides(found), labels)["car"]["hulls"]["ap50"]
    lorry = labels.iloc[:1].translate(0, 30)
    extra = labels.iloc[:1].set_geometry(lorry).assign(spare=True)
    also = found.iloc[:1].set_geometry(lorry).assign(score=0.99)
    more = gpd.pd.concat([found, also], ignore_index=True)
    missed = flights.judge(with_sides(more), labels)["car"]["hulls"]["ap50"]
    spared = flights.judge(with_sides(more), gpd.pd.concat([labels, extra], ignore_index=True))
    assert missed < before == pytest.approx(spared["car"]["hulls"]["ap50"])


def test_the_command_keeps_means_over_flights(tmp_path, monkeypatch, frames):
    flights = load_module(FLIGHTS)
    found, labels = frames
    monkeypatch.setattr(flights, "train_without", lambda *args: tmp_path / "model")
    monkeypatch.setattr(flights, "detect", lambda *args: with_sides(found))
    monkeypatch.setattr(flights, "labels_of", lambda flight: labels)
    out = tmp_path / "flights.json"
    command = ["--flights", "20210116", "20210119", "--kinds", "oriented", "--confirm"]
    flights.main([*command, "--models", str(tmp_path), "--out", str(out)])
    kept = SimpleNamespace(**json.loads(out.read_text())["kinds"]["oriented"])
    assert len(kept.flights) == 4
    one = kept.flights["20210116"]["car"]
    for side in ("rectangles", "hulls"):
        assert kept.car_ap50_mean[side] == pytest.approx(one[side]["ap50"], abs=1e-4)


def with_sides(found: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Add the columns of oriented boxes."""
    corners = shapely.get_coordinates(shapely.oriented_envelope(found.geometry))
    first, second = np.diff(corners.reshape(-1, 5, 2), axis=1)[:, :2].swapaxes(0, 1)
    is_long = (np.hypot(*first.T) > np.hypot(*second.T))[:, None]
    along = np.where(is_long, first, second)
    azimuth = np.degrees(np.arctan2(along[:, 0], along[:, 1])) % 180
    return found.assign(azimuth_deg=azimuth, length_m=4.0, width_m=1.8)
