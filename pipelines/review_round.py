r"""A whole round of review, with labels that play the person: what each step is worth.

Detect, review some cells and cases, estimate how many objects there are, calibrate, adapt, detect
again: F1, count error and interval on the cells to count by, before and after each step, in one
table, beside what all labels say. A town that the model was not trained on shows what a stranger
may expect; benchmarks/leave_a_town_out.py trains such a model:

    python pipelines/review_round.py --model out/no-chico.safetensors --out out/round \
        --scenes "$GEO_RETINA_DATA/naip_trees/train/chico_2018_*.tif" \
        --labels "$GEO_RETINA_DATA/naip_trees/trees.gpkg" \
        --where "site = 'chico' AND year = 2018" --radius-m 6

The numbers and the time are in docs/guide-round.md. With --cells 80 half are to count by and half
to learn from.
"""

from __future__ import annotations

import argparse
import glob
import json
import sys
from pathlib import Path

import geo_retina
from geo_retina.files import write_text

CONFIG = Path(__file__).parents[1] / "configs" / "adapt.yaml"
HEAD = (
    "| step | F1 on count cells | gain (95 %) | detected | objects (95 %) | half of it "
    "| count error | all labels: F1 | count error |\n" + "|---" * 9 + "|"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the round; returns the exit code."""
    args = parse(arguments)
    scenes = [str(Path(path).resolve()) for path in sorted(glob.glob(args.scenes))]
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    before = args.out / "before.gpkg"
    detect(args, scenes, args.model, before)
    asked = geo_retina.ReviewOptions(
        budget=args.cases, cells=args.cells, cell_size_m=args.cell_size_m
    )
    geo_retina.review_detections(before, asked)
    entries = geo_retina.enter_labels(
        before,
        args.labels,
        where=args.where,
        class_column=args.class_column,
        radius_m=args.radius_m,
    )
    print(f"entered: {entries}")
    steps = [score(args, "before", before, before)]

    calibrated = args.out / "calibrated.safetensors"
    data = geo_retina.DataOptions(scenes=scenes, review=str(before))
    how = geo_retina.CalibrateOptions(radius_m=args.radius_m)
    run = geo_retina.RunOptions(device=args.device)
    print(geo_retina.calibrate(args.model, data, calibrated, how, run, overwrite=True).text())
    steps.append(step(args, scenes, "calibrated", calibrated))

    adapted = args.out / "adapted.safetensors"
    about = [f"data.scenes={json.dumps(scenes)}", f"data.review={json.dumps(str(before))}"]
    about += [f"weights={json.dumps(str(args.model))}", f"device={args.device}", *args.set]
    options = geo_retina.load_train_options(args.config, about)
    geo_retina.train(options, adapted, overwrite=True, progress=True)
    steps.append(step(args, scenes, "adapted", adapted))

    write_text(args.out / "round.json", json.dumps(steps, indent=1, default=str))
    print("\n".join([HEAD, *map(row, steps)]))
    return int(steps[-1]["true_f1"] - steps[0]["true_f1"] < args.accept)


def detect(args: argparse.Namespace, scenes: list[str], model: str | Path, out: Path) -> None:
    """Detect with low scores too, as estimates and doubtful cases use them."""
    options = geo_retina.DetectOptions(min_score=0.1)
    run = geo_retina.RunOptions(
        overwrite=True, restart=True, discard_review=True, device=args.device
    )
    geo_retina.detect_to_file(scenes, model, out, options, run)


def step(args: argparse.Namespace, scenes: list[str], name: str, model: Path) -> dict:  # type: ignore[type-arg]
    """Detect with a new model, and compare with what was before."""
    found = args.out / f"{name}.gpkg"
    detect(args, scenes, model, found)
    return score(args, name, args.out / "before.gpkg", found)


def score(args: argparse.Namespace, name: str, before: Path, found: Path) -> dict:  # type: ignore[type-arg]
    """Score on the completed cells to count by, and by all labels."""
    kept = found.with_name(f"{found.stem}-reported.gpkg")
    geo_retina.filter_detections(found, kept, overwrite=True)
    how = geo_retina.EstimateOptions(radius_m=args.radius_m)
    compared = geo_retina.compare_on_cells(before, found, before, how)
    print(f"\n{name}\n{compared.table()}")
    truth = geo_retina.evaluate(
        kept,
        args.labels,
        geo_retina.EvaluateOptions(
            where=args.where, class_column=args.class_column, radius_m=args.radius_m, resamples=0
        ),
    )
    return {
        "step": name,
        **compared.to_dict(),
        "true_f1": truth.f1,
        "true_count_error": truth.count_error.relative,
    }


def row(step: dict) -> str:  # type: ignore[type-arg]
    """Write a step as a row of the table."""
    f1, (count,) = step["shares"]["f1"], step["counts"][1:]
    gain, (low, high) = f1["difference"], count["total"]["interval"]
    change = f"{gain['value']:+.3f} ({gain['interval'][0]:+.3f} to {gain['interval'][1]:+.3f})"
    total = count["total"]["value"]
    cells = [
        step["step"],
        f"{f1['b']['value']:.3f} ({f1['b']['interval'][0]:.3f} to {f1['b']['interval'][1]:.3f})",
        "" if step["step"] == "before" else change,
        f"{count['detected']:,}",
        f"{total:,.0f} ({low:,.0f} to {high:,.0f})",
        f"±{(high - low) / 2 / total:.1%}",
        f"{step['count_errors'][1]['value']:+.1%}",
        f"{step['true_f1']:.3f}",
        f"{step['true_count_error']:+.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="model file, or a bundled one's name")
    parser.add_argument("--scenes", required=True, help="glob of the scenes")
    parser.add_argument("--labels", type=Path, required=True, help="all objects on them")
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the adaptation")
    parser.add_argument("--set", action="append", default=[], help="key=value over the config's")
    parser.add_argument("--where", help="filter on the labels")
    parser.add_argument("--class-column", help="column of the labels with their class")
    parser.add_argument("--radius-m", type=float, help="match within this distance of centres")
    parser.add_argument("--cells", type=int, default=80, help="to review, of both uses")
    parser.add_argument("--cases", type=int, default=200, help="to review beside them")
    parser.add_argument("--cell-size-m", type=float, help="side of the cells")
    parser.add_argument("--device", default="auto", help="device to compute on")
    parser.add_argument("--accept", type=float, default=0.0, help="least gain in F1 to exit with 0")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
