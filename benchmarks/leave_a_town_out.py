r"""How well a tree model does in a town that it was not trained on, and what five scenes put right.

    python benchmarks/leave_a_town_out.py --towns chico palm_springs --set epochs=6 \
        --set validate_every=3 --models out/towns --out benchmarks/results/DATE-towns.json

For each town a model is trained by the config without it, unless MODELS has ``no-TOWN.safetensors``
already; it detects over all scenes of the town, and is scored at its own threshold: F1 with its
interval, by year, best F1 over all thresholds, count error, and how scores compare with the share
of true ones. Mean and spread over towns come last. ``--model trees-naip --part val`` scores one
model on every town's validation scenes instead, which trains nothing.

Then five of the town's scenes are drawn 50 times, thresholds fitted to them as ``calibrate`` does
(thresholds alone), and both F1 on the other scenes and what their own best threshold would give are
noted. Needs GEO_RETINA_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import geopandas as gpd
import numpy as np
from machines import machine

import geo_retina
from geo_retina import DetectOptions, EvaluateOptions, RunOptions
from geo_retina.calibration.fitting import MatchedScores, fit_classes, fit_elsewhere, limits
from geo_retina.evaluation import Evaluation, evaluate

PROJECT = Path(__file__).parents[1]
ROOT = Path(os.environ.get("GEO_RETINA_DATA", PROJECT.parent / "shared" / "data")) / "naip_trees"
TOWNS = ("chico", "claremont", "long_beach", "palm_springs", "riverside", "santa_monica")
SCORE_FLOOR, RADIUS_M, FEW_SCENES = 0.05, 6.0, 5


def train_without(town: str, args: argparse.Namespace) -> Path:
    """Train on all towns but one, or take the model that is there."""
    path = args.models / f"no-{town}.safetensors"
    if not path.exists():
        scenes = [str(ROOT / "train" / f"{other}_*.tif") for other in TOWNS if other != town]
        overrides = [
            f"name=no-{town}",
            f"data.scenes={json.dumps(scenes)}",
            f"data.where=\"split = 'train' AND site <> '{town}'\"",
            *args.set,
        ]
        options = geo_retina.load_train_options(PROJECT / "configs" / "trees-naip.yaml", overrides)
        is_begun = Path(f"{path}.train").exists()
        geo_retina.train(options, path, resume=is_begun, progress=True)
    return path


def detect(model: str | Path, town: str, part: str, work: Path) -> gpd.GeoDataFrame:
    """Detect over all scenes of a town, from low scores on."""
    out = work / f"{Path(model).stem}-{town}-{part}.gpkg"
    if not out.exists():
        scenes = sorted((ROOT / part).glob(f"{town}_*.tif"))
        options = DetectOptions(min_score=SCORE_FLOOR)
        geo_retina.detect_to_file(scenes, model, out, options, RunOptions(), crs="EPSG:4326")
    return gpd.read_file(out, layer="detections")


def labels_of(town: str, part: str) -> gpd.GeoDataFrame:
    table = gpd.read_file(ROOT / "trees.gpkg").rename(columns={"tile": "scene"})
    return table[(table["site"] == town) & (table["split"] == part)].assign(kind="tree")


def score(
    found: gpd.GeoDataFrame, labels: gpd.GeoDataFrame, threshold: float, resamples: int = 0
) -> Evaluation:
    options = EvaluateOptions(
        scene_column="scene",
        class_column="kind",
        radius_m=RADIUS_M,
        score=threshold or None,
        resamples=resamples,
    )
    return evaluate(found, labels, options)


def judge(found: gpd.GeoDataFrame, labels: gpd.GeoDataFrame, threshold: float) -> dict:  # type: ignore[type-arg]
    """Score a model on a town at its own threshold."""
    own = score(found, labels, threshold, resamples=1000)
    every = score(found, labels, 0.0)
    years = {}
    for year, rows in labels.groupby("year"):
        here = found[found["scene"].isin(set(rows["scene"]))]
        years[str(year)] = round(score(here, rows, threshold).f1 or 0.0, 4)
    overall = own.overall
    of_scenes = [s.f1 for s in own.scenes.values() if s.labels >= 10 and s.f1 is not None]
    reliability = every.reliability
    return {
        "scenes": int(labels["scene"].nunique()),
        "labels": overall.labels,
        "found": overall.detections,
        **{name: getattr(overall, name) for name in ("precision", "recall", "f1")},
        "intervals": {name: list(ends) for name, ends in overall.intervals.items()},
        "count_error": own.count_error.relative,
        "count_error_interval": own.count_error.interval,
        "threshold": threshold,
        "best_f1": every.overall.best_f1,
        "best_threshold": every.overall.best_score,
        "f1_by_year": years,
        "f1_of_scenes_10_50_90": np.percentile(of_scenes, [10, 50, 90]).round(4).tolist(),
        "reliability": None if reliability is None else reliability.to_dict(),
    }


def few_scenes(
    found: gpd.GeoDataFrame, labels: gpd.GeoDataFrame, threshold: float, draws: int
) -> dict[str, float]:
    """Fit the threshold to five scenes, again and again, and judge it on the others."""
    random = np.random.default_rng(0)
    scenes = np.array(sorted(set(labels["scene"])))
    gains, best, kept = [], [], 0
    for _ in range(draws):
        few = set(random.choice(scenes, FEW_SCENES, replace=False))
        here, there = found["scene"].isin(few), labels["scene"].isin(few)
        chosen = threshold_from(found[here], labels[there], threshold)
        kept += chosen == threshold
        others = found[~here], labels[~there]
        overall = score(*others, 0.0).overall
        assert overall.curve is not None  # it is made of all detections together
        # By threshold, falling; 201 of them lie closer than F1 changes.
        at, f1 = overall.curve.scores[::-1], overall.curve.f1[::-1]
        before = float(np.interp(threshold, at, f1))
        gains.append(float(np.interp(chosen, at, f1)) - before)
        best.append((overall.best_f1 or 0.0) - before)
    return {
        "draws": draws,
        "gain": round(float(np.mean(gains)), 4),
        "gain_spread": round(float(np.std(gains)), 4),
        "best_gain": round(float(np.mean(best)), 4),
        "share": round(float(np.mean(gains) / np.mean(best)), 3),
        "left_as_it_was": kept,
    }


def threshold_from(found: gpd.GeoDataFrame, labels: gpd.GeoDataFrame, before: float) -> float:
    """Choose a threshold as ``calibrate`` does: the old one stays where nothing is gained."""
    matched = MatchedScores.of(score(found, labels, 0.0))
    matched.name[:] = "tree"
    matched.labels[:] = "tree"
    chosen = fit_classes(matched, ("tree",), (before,)).thresholds[0]
    elsewhere = fit_elsewhere(matched, ("tree",), (before,))
    if elsewhere is None:
        return chosen
    n = len(matched.labels)

    def f1(rows: np.ndarray) -> float:
        return float(2 * (rows & matched.is_true).sum() / (rows.sum() + n))

    then = matched.scores >= limits(matched.name, ("tree",), (before,))
    return chosen if f1(elsewhere[0]) > f1(then) else before


def draw(result: dict, out: Path) -> None:  # type: ignore[type-arg]
    """Draw for each town what scores say against the share of true detections."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for town, about in result["towns"].items():
        known = about["reliability"]
        label = f"{town.replace('_', ' ').title()} ({known['error']:.2f})"
        axes.plot(known["predicted"], known["share"], marker=".", label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="share of detections that are trees")
    axes.legend(frameon=False, title="town (expected calibration error)")
    figure.savefig(out, dpi=110, metadata={"Software": None})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--towns", nargs="+", default=list(TOWNS), choices=TOWNS)
    parser.add_argument("--models", type=Path, default=Path("towns"))
    parser.add_argument("--model", help="score this one, and train none")
    parser.add_argument("--part", default="train", choices=["train", "val"])
    parser.add_argument("--set", action="append", default=[], help="key=value over the config's")
    parser.add_argument("--draws", type=int, default=50, help="of five scenes; 0 for none")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, help="only draw this .png of the results in --out")
    args = parser.parse_args(arguments)
    if args.picture is not None:
        draw(json.loads(args.out.read_text()), args.picture)
        return
    args.models.mkdir(parents=True, exist_ok=True)
    towns = {}
    for town in args.towns:
        model = args.model or train_without(town, args)
        card = geo_retina.load_model(model).card
        found, labels = detect(model, town, args.part, args.models), labels_of(town, args.part)
        if labels.empty:
            continue
        towns[town] = judge(found, labels, card.thresholds[0])
        if args.draws:
            few = few_scenes(found, labels, card.thresholds[0], args.draws)
            towns[town]["five_scenes"] = few
        told = {k: v for k, v in towns[town].items() if k not in ("reliability", "intervals")}
        print(town, json.dumps(told), flush=True)
    f1 = [each["f1"] for each in towns.values()]
    result = {
        **machine(),
        "model": args.model,
        "part": args.part,
        "set": args.set,
        "f1_mean": round(float(np.mean(f1)), 4),
        "f1_spread": round(float(np.std(f1)), 4),
        "worst_count_error": max((t["count_error"] for t in towns.values()), key=abs),
        "towns": towns,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"mean F1 {result['f1_mean']}, spread {result['f1_spread']}")


if __name__ == "__main__":
    main()
