r"""How well oriented boxes do on thermal frames of a flight that trained nothing.

    python benchmarks/leave_a_flight_out.py --models out/flights \
        --out benchmarks/results/DATE-flights.json

For each flight two models are trained by configs/thermal.yaml without it, an oriented and an
upright one of the same size, unless MODELS has ``no-FLIGHT-KIND.safetensors`` already. Each detects
over the flight's frames, and its boxes are scored twice, as they are against the labels'
rectangles, and as upright hulls against the labels' hulls: AP with intervals over frames, and the
errors of angles and sides. ``--confirm`` scores the models on the flight that chose their
thresholds, too. Means over the flights come last. Needs GEO_RETINA_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from machines import machine

import geo_retina
from geo_retina import DetectOptions, EvaluateOptions, RunOptions
from geo_retina.evaluation import evaluate
from geo_retina.evaluation.metrics.scores import SIDE_ERRORS

PROJECT = Path(__file__).parents[1]
ROOT = Path(os.environ.get("GEO_RETINA_DATA", PROJECT.parent / "shared" / "data")) / "oriented"
FLIGHTS = ("20210116", "20210119", "20210121")  # 302, 332 and 404 cars
CONFIRMING = "20210118"
KINDS = {"oriented": (), "upright": ("network.boxes=upright", "samples.rotate=none")}
CLASSES = {"Car": "car", "Bicycle": "bicycle", "Person": "person"}
NUMBERS = ("labels", "ap50", "ap75", "ap", "best_f1")
SCORE_FLOOR = 0.02
FRAMES_M = 800.0  # frames lie as far apart, so a block of ground holds one


def train_without(flight: str, kind: str, args: argparse.Namespace) -> Path:
    """Train on all flights but one, or take the model that is there."""
    path: Path = args.models / f"no-{flight}-{kind}.safetensors"
    if not path.exists():
        overrides = [f"name=thermal-{kind}", f'split.test=["{flight}"]', *KINDS[kind], *args.set]
        options = geo_retina.load_train_options(PROJECT / "configs" / "thermal.yaml", overrides)
        is_begun = Path(f"{path}.train").exists()
        geo_retina.train(options, path, resume=is_begun, progress=True)
    return path


def labels_of(flight: str) -> gpd.GeoDataFrame:
    """Read the labels of a flight; what is neither car, bicycle nor person need not be found."""
    table = gpd.read_file(ROOT / "objects.gpkg")
    table = table[table["flight"].astype(str) == flight]
    named = table["kind"].map(CLASSES)
    return table.assign(spare=named.isna() | table["ignore"], kind=named.fillna("car"))


def detect(model: Path, flight: str, scenes: set[str]) -> gpd.GeoDataFrame:
    """Detect over the frames of a flight, from low scores on."""
    out = model.with_name(f"{model.stem}-on-{flight}.gpkg")
    if not out.exists():
        paths = sorted(p for p in ROOT.glob("*/*.tif") if p.stem in scenes)
        geo_retina.detect_to_file(
            paths, model, out, DetectOptions(min_score=SCORE_FLOOR, bands=(1,)), RunOptions()
        )
    return gpd.read_file(out, layer="detections")


def judge(found: gpd.GeoDataFrame, labels: gpd.GeoDataFrame) -> dict[str, Any]:
    """Score boxes as they are, and by their hulls; for each class."""
    options = EvaluateOptions(
        scene_column="scene",
        class_column="kind",
        ignore_where="spare" if labels["spare"].any() else None,
        rectangles=True,
        block_m=FRAMES_M,
    )
    result: dict[str, Any] = {}
    for name in ("rectangles", "hulls"):
        if name == "hulls":
            found, labels = (t.set_geometry(t.geometry.envelope) for t in (found, labels))
        for kind, scores in evaluate(found, labels, options).classes.items():
            names = NUMBERS if name == "hulls" else (*NUMBERS, *SIDE_ERRORS)
            row = {each: getattr(scores, each) for each in names}
            row["ap50_interval"] = scores.intervals.get("ap50")
            result.setdefault(kind, {})[name] = row
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flights", nargs="+", default=list(FLIGHTS), choices=FLIGHTS)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--confirm", action="store_true")
    parser.add_argument("--models", type=Path, default=Path("flights"))
    parser.add_argument("--set", action="append", default=[], help="key=value over the config's")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    args.models.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        **machine(),
        "set": args.set,
        "kinds": {},
    }
    for kind in args.kinds:
        flights = {}
        for flight in args.flights:
            model = train_without(flight, kind, args)
            for judged in (flight, *([CONFIRMING] if args.confirm else [])):
                labels = labels_of(judged)
                scores = judge(detect(model, judged, set(labels["scene"])), labels)
                flights[flight if judged == flight else f"{judged} without {flight}"] = scores
                print(kind, judged, json.dumps(scores.get("car")), flush=True)
        result["kinds"][kind] = {
            "car_ap50_mean": mean(flights, args.flights, "ap50"),
            "car_ap75_mean": mean(flights, args.flights, "ap75"),
            "flights": flights,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def mean(flights: dict[str, Any], left_out: list[str], name: str) -> dict[str, float]:
    """Average a score of cars over the flights that were left out."""
    sides = ("rectangles", "hulls")
    return {
        side: round(float(np.mean([flights[f]["car"][side][name] for f in left_out])), 4)
        for side in sides
    }


if __name__ == "__main__":
    main()
