r"""How much the threshold of a model matters: F1 by score, and what is lost beside the best one.

    python benchmarks/thresholds.py ce=ce.safetensors focal=focal.safetensors \
        --scenes "$GEO_RETINA_DATA/cars/image_0_04_*.tif" \
        --labels "$GEO_RETINA_DATA/cars/cars.gpkg" --scene-column scene \
        --where "kind = 'Car' AND scene LIKE 'image_0_04%'" --out thresholds.json --picture f1.png

Every model detects over the scenes from a score of 0.01 on. Printed are F1 at the model's own
threshold, with its interval and count error, the best F1 over all thresholds, the range of
thresholds that lose at most 0.02 of it, what 0.1 above and below the best one lose, AP, and the
expected calibration error. Labels have one class. With ``--radius`` they are points.

With ``--draws`` thresholds are chosen on ``--few`` scenes, drawn so many times, by the best F1
there and as training chooses them, and printed is what each loses in the other scenes by their own
best one. Draws of fewer than 20 labels are left out; "draws" counts the others.
"""

from __future__ import annotations

import argparse
import glob
import json
import tempfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from machines import machine
from numpy.typing import NDArray
from reports import table

import geo_retina
from geo_retina import DetectOptions, EvaluateOptions, RunOptions
from geo_retina.evaluation import IGNORED, TRUE, Evaluation, evaluate
from geo_retina.evaluation.metrics.score_curves import best_f1
from geo_retina.training.validation.scoring import steady_threshold

SCORE_FLOOR, CLOSE, BESIDE = 0.01, 0.02, 0.1
FEWEST_LABELS = 20
COLUMNS = ("model", "threshold", "f1", "count_error", "best_f1", "at", "from", "to", "beside")


def main(arguments: list[str] | None = None) -> None:
    args = _arguments(arguments)
    rows, curves = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for number, named in enumerate(args.model):
            name, _, path = named.rpartition("=")
            found = Path(folder, f"{number}.gpkg")
            row, curve = judge(path, found, args)
            curves[name or Path(path).stem] = curve
            rows.append({"model": name or Path(path).stem, **row})
            table(rows[-1:], COLUMNS)
            for few, told in row["chosen_on_few_scenes"].items():
                print(f"thresholds chosen on {few} scenes: {told}")
    if args.out is not None:
        result = {**machine(), "scenes": args.scenes, "where": args.where, "models": rows}
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.picture is not None:
        draw(curves, args.picture)


def judge(
    path: str, found: Path, args: argparse.Namespace
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Score a model, and give (2, N) scores, ascending, and F1 from each on."""
    model = geo_retina.load_model(path)
    options = DetectOptions(min_score=SCORE_FLOOR, runtime="torch")
    scenes = sorted(glob.glob(args.scenes))
    geo_retina.detect_to_file(scenes, model, found, options, RunOptions())
    threshold = model.card.thresholds[0]
    own = evaluate(found, args.labels, _matching(args, score=threshold, resamples=1000))
    every = evaluate(found, args.labels, _matching(args))
    known = every.overall.curve
    assert known is not None  # it is made of all detections together
    curve = np.array([known.scores, known.f1])[:, ::-1]
    few = {str(n): choose_on_few(every, found, n, args.draws) for n in args.few if args.draws}
    best = curve[1].argmax()
    close = curve[0, curve[1] >= curve[1, best] - CLOSE]
    beside = np.interp([curve[0, best] - BESIDE, curve[0, best] + BESIDE], *curve)
    return {
        "threshold": threshold,
        "f1": own.overall.f1,
        "f1_interval": list(own.overall.intervals["f1"]),
        "precision": own.overall.precision,
        "recall": own.overall.recall,
        "count_error": own.count_error.relative,
        "best_f1": float(curve[1, best]),
        "at": float(curve[0, best]),
        "from": float(close.min()),
        "to": float(close.max()),
        "beside": float(curve[1, best] - beside.min()),
        "ap50": every.overall.ap50,
        "ap75": every.overall.ap75,
        "ap": every.overall.ap,
        "calibration_error": None if every.reliability is None else every.reliability.error,
        "chosen_on_few_scenes": few,
    }, curve


def choose_on_few(every: Evaluation, found: Path, few: int, draws: int) -> dict[str, float]:
    """Choose thresholds on a few scenes, again and again, and judge them on the others."""
    detections, labels = every.matches.detections, every.matches.labels
    detections = detections.take(detections.by_score != IGNORED)
    labels = labels.take(labels.outcome != IGNORED)
    of_found = gpd.read_file(found, layer="detections")["scene"].to_numpy()[detections.row]
    of_labels = labels.scene.astype(str)
    scenes = np.union1d(of_found, of_labels)
    is_true, scores = detections.by_score == TRUE, detections.score
    random = np.random.default_rng(0)
    lost, seen = [], []
    for _ in range(draws):
        drawn = random.choice(scenes, few, replace=False)
        here, count = np.isin(of_found, drawn), int(np.isin(of_labels, drawn).sum())
        if count < FEWEST_LABELS:
            continue
        _, best = best_f1(is_true[here], scores[here], count)
        at = [best or SCORE_FLOOR, steady_threshold(scores[here], is_true[here], count)]
        others = scores[~here], is_true[~here], len(of_labels) - count
        most, _ = best_f1(others[1], others[0], others[2])
        lost.append([(most or 0.0) - f1_from(threshold, *others) for threshold in at])
        seen.append(count)
    by_best, as_trained = np.mean(lost, axis=0).round(4).tolist()
    return {
        "draws": len(seen),
        "labels": round(np.mean(seen)),
        "by_best_f1": by_best,
        "as_trained": as_trained,
    }


def f1_from(
    threshold: float, scores: NDArray[np.float64], is_true: NDArray[np.bool_], labels: int
) -> float:
    """Compute F1 of the detections from a threshold on."""
    kept = scores >= threshold
    return float(2 * (kept & is_true).sum() / (labels + kept.sum()))


def _matching(args: argparse.Namespace, **how: Any) -> EvaluateOptions:
    return EvaluateOptions(
        where=args.where, scene_column=args.scene_column, radius_m=args.radius, **how
    )


def draw(curves: dict[str, NDArray[np.float64]], out: Path) -> None:
    """Draw F1 by threshold, a line a model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, (scores, f1) in curves.items():
        axes.plot(scores, f1, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score threshold", ylabel="F1")
    axes.legend(frameon=False)
    figure.savefig(out, metadata={"Software": None})


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="+", help="file or NAME=FILE")
    parser.add_argument("--scenes", required=True, help="pattern of their files")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--where", help="filter on the labels")
    parser.add_argument("--scene-column", help="of the labels, with the stems of the scenes")
    parser.add_argument("--radius", type=float, help="greatest distance of a match, in metres")
    parser.add_argument("--draws", type=int, default=0, help="of a few scenes; 0 for none")
    parser.add_argument("--few", type=int, nargs="+", default=[2, 4], help="scenes in a draw")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--picture", type=Path, help=".png to draw F1 in")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
