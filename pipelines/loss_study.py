"""Which classification loss finds small objects best: one network, six losses, a few seeds.

Lin et al. 2017 ("Focal Loss for Dense Object Detection", table 1) compared cross entropy, cross
entropy balanced by alpha, and the focal loss at rising gamma, each gamma with the alpha that suited
it best. This trains the same, on any config, and scores every model on ground that neither fitted
it nor chose its threshold:

    python pipelines/loss_study.py configs/trees-naip.yaml --out out/losses

Every finished training is kept in OUT/losses.json, so the same command goes on where it was
stopped. The table is printed and the picture written when all are done. A seed deals the ground
anew, so losses are compared seed by seed. What came out, with times and hardware, is in
docs/models/trees-naip.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geo_retina
from geo_retina.files import new_file, write_text

LOSSES: dict[str, dict[str, Any]] = {
    "cross entropy": {"classification": "ce", "gamma": 2.0, "alpha": 0.25},
    "balanced, alpha 0.75": {"classification": "balanced", "gamma": 2.0, "alpha": 0.75},
    "focal, gamma 0.5": {"classification": "focal", "gamma": 0.5, "alpha": 0.5},
    "focal, gamma 1": {"classification": "focal", "gamma": 1.0, "alpha": 0.25},
    "focal, gamma 2": {"classification": "focal", "gamma": 2.0, "alpha": 0.25},
    "focal, gamma 5": {"classification": "focal", "gamma": 5.0, "alpha": 0.25},
}
"""What each changes of a config's losses, with the alphas of the paper's table 1."""

SCORES = ("f1", "precision", "recall", "ap50")


def main(arguments: list[str] | None = None) -> int:
    """Train whatever is not done yet, then print the table; returns the exit code."""
    args = parse(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    options = geo_retina.load_train_options(args.config, args.set)
    split = dataclasses.replace(options.split, test_fraction=args.test_fraction)
    options = dataclasses.replace(options, split=split)
    record = args.out / "losses.json"
    study = open_study(record, options)
    for seed in range(args.seeds):
        for name, change in LOSSES.items():
            key = f"{name}, seed {seed}"
            if key in study["runs"]:
                continue
            loss = dataclasses.replace(options.loss, **change)
            run = dataclasses.replace(options, loss=loss, seed=seed)
            study["runs"][key] = {"loss": name, "seed": seed, **train_and_score(run)}
            write_text(record, json.dumps(study, indent=1))
            print(f"{key}: F1 {study['runs'][key]['f1']:.3f}", flush=True)
    wanted = [run for run in study["runs"].values() if run["seed"] < args.seeds]
    print(table(wanted))
    print(f"drawn in {draw(wanted, args.out / 'losses.png')}")
    return 0


def open_study(record: Path, options: geo_retina.TrainOptions) -> dict[str, Any]:
    """Read what was trained already, refusing to mix it with other options."""
    about = json.loads(json.dumps(dataclasses.asdict(options)))
    if not record.exists():
        return {"options": about, "runs": {}}
    study: dict[str, Any] = json.loads(record.read_text("utf-8"))
    if study["options"] != about:
        raise geo_retina.TrainingError(
            f"{record} was made with other options; give another --out, or the options of before"
        )
    return study


def train_and_score(options: geo_retina.TrainOptions) -> dict[str, Any]:
    """Train one model; its scores on the test ground, and what it took."""
    card = geo_retina.train(options).card
    scores = card.metrics["test"]["overall"]
    return {
        **{name: scores[name] or 0.0 for name in SCORES if name in scores},
        "val_f1": card.metrics["val"]["overall"]["f1"],
        "thresholds": card.thresholds,
        "best_epoch": card.training["best_epoch"],
        "s": card.training["seconds"],
        "measured_on": card.metrics["test_measured_on"],
    }


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Tabulate mean and spread of each loss, and its distance from focal loss by seed."""
    base = {run["seed"]: run["f1"] for run in runs if run["loss"] == "focal, gamma 2"}
    lines = ["| loss | F1 | spread | to gamma 2 | threshold |", "|---|---|---|---|---|"]
    for name in LOSSES:
        mine = [run for run in runs if run["loss"] == name]
        f1 = [run["f1"] for run in mine]
        off = [run["f1"] - base[run["seed"]] for run in mine]
        threshold = statistics.mean(run["thresholds"][0] for run in mine)
        lines.append(
            f"| {name} | {statistics.mean(f1):.3f} | {max(f1) - min(f1):.3f} | "
            f"{statistics.mean(off):+.3f} | {threshold:.2f} |"
        )
    return "\n".join(lines)


def draw(runs: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Plot one point per training, one row per loss, and a line at each mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), dpi=110, layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(LOSSES):
        f1 = [run["f1"] for run in runs if run["loss"] == name]
        axes.plot(f1, [row] * len(f1), "o", color="tab:blue", alpha=0.6)
        axes.plot([statistics.mean(f1)] * 2, [row - 0.3, row + 0.3], color="tab:red")
    axes.set_yticks(range(len(LOSSES)), list(LOSSES))
    axes.invert_yaxis()
    axes.set_xlabel("F1 on the test ground; a point a seed, the line is the mean")
    axes.grid(axis="x", alpha=0.3)
    with new_file(out) as draft:
        figure.savefig(draft)
    return out


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="YAML file as for geo-retina train")
    parser.add_argument("--out", type=Path, required=True, help="folder for table and picture")
    parser.add_argument("--set", action="append", default=[], help="key=value over the config's")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each loss")
    parser.add_argument(
        "--test-fraction", type=float, default=0.2, help="share of the ground to score on"
    )
    args = parser.parse_args(arguments)
    if not 0 < args.test_fraction < 1:
        parser.error(
            f"--test-fraction is {args.test_fraction}, expected more than 0 and less than 1"
        )
    return args


if __name__ == "__main__":
    sys.exit(main())
