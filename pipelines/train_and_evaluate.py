r"""From labels to a trained, scored model, in one command.

Three stages: train on a config's scenes and labels, detect over test scenes that training never
saw, and score the detections against their labels. The scores go onto the model's card too. The
exit code is 1 where F1 misses --accept.

With people's labels, here the NAIP trees:

    python pipelines/train_and_evaluate.py configs/trees-naip.yaml --out out/trees \
        --test-scenes "$GEO_RETINA_DATA/naip_trees/val" \
        --test-labels "$GEO_RETINA_DATA/naip_trees/trees.gpkg" \
        --where "split = 'val'" --scene-column tile --radius-m 6 --accept 0.77

With scenes that it draws itself, so that it needs no data (the bundled demo model was made so):

    python pipelines/train_and_evaluate.py configs/demo.yaml --out out/demo \
        --draw 5120 --class-column class --accept 0.9

Times, hardware and scores are in docs/models.md and docs/models/trees-naip.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import geo_retina
from geo_retina.files import write_text

TRAIN_SEED, TEST_SEED = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run the three stages; returns the exit code."""
    args = parse(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    detections, numbers_file = args.out / "detections.gpkg", args.out / "scores.json"
    if not args.overwrite:  # training checks its own output
        refuse_existing(detections, args.out / "detections.gpkg.run", numbers_file)
    overrides = list(args.set)
    if args.draw:
        scene, labels = draw(args.out, "train", args.draw, args.draw_seed, args.content)
        overrides += [f"data.scenes=['{scene}']", f"data.labels='{labels}'"]
        test = draw(args.out, "test", args.draw, TEST_SEED, args.content)
        args.test_scenes, args.test_labels = test

    options = geo_retina.load_train_options(args.config, overrides)
    weights = args.out / f"{options.name}.safetensors"
    model = geo_retina.train(
        options, weights, overwrite=args.overwrite, resume=args.resume, progress=True
    )

    # What an interrupted run found was found by another model.
    run = geo_retina.RunOptions(
        overwrite=args.overwrite, restart=args.overwrite, device=options.device
    )
    report = geo_retina.detect_to_file(args.test_scenes, model, detections, run=run)
    result = geo_retina.evaluate(
        detections,
        args.test_labels,
        geo_retina.EvaluateOptions(
            where=args.where,
            scene_column=args.scene_column,
            class_column=args.class_column,
            radius_m=args.radius_m,
        ),
    )
    print(result.table())
    about = Path(args.test_labels).name + (f", {args.where}" if args.where else "")
    scores = {"test": result.summary(), "test_labels": about}
    card = dataclasses.replace(model.card, metrics={**model.card.metrics, **scores})
    dataclasses.replace(model, card=card).save(weights, overwrite=True)
    numbers = {**result.to_dict(), "run": {"detections": report.detections, "s": report.seconds}}
    write_text(numbers_file, json.dumps(numbers, indent=1))
    if not report.complete:
        print(f"{len(report.failures)} parts of the test scenes were not covered")
    return int((result.f1 or 0.0) < args.accept or not report.complete)


def refuse_existing(*paths: Path) -> None:
    """Refuse what would not be overwritten now rather than after hours of training."""
    for path in paths:
        if path.exists():
            raise geo_retina.OutputError(f"{path} exists; give --overwrite or another --out")


def draw(folder: Path, name: str, size_px: int, seed: int, content: str) -> tuple[Path, Path]:
    """Draw a scene and its truth; returns both paths."""
    scene, labels = (folder / f"{name}{suffix}" for suffix in (".tif", ".gpkg"))
    options = dataclasses.replace(
        geo_retina.SynthOptions(), height=size_px, width=size_px, seed=seed, content=content
    )
    geo_retina.draw_scene(scene, options, truth=labels, overwrite=True)
    return scene.resolve(), labels.resolve()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="YAML file as for geo-retina train")
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--set", action="append", default=[], help="key=value over the config's")
    parser.add_argument("--draw", type=int, help="draw train and test scenes of this many px")
    parser.add_argument(
        "--draw-seed",
        type=int,
        default=TRAIN_SEED,
        help="seed of the scene to train on, to train on with other ground",
    )
    parser.add_argument(
        "--content", default="mixed", help="of drawn scenes: mixed, or freight at any angle"
    )
    parser.add_argument("--test-scenes", help="file, folder or glob")
    parser.add_argument("--test-labels", help="vector file with the test scenes' labels")
    parser.add_argument("--where", help="filter on the test labels")
    parser.add_argument("--scene-column", help="column of the labels that names their scene")
    parser.add_argument("--class-column", help="column of the labels with their class")
    parser.add_argument("--radius-m", type=float, help="match point labels within this distance")
    parser.add_argument("--accept", type=float, default=0.0, help="least F1 to exit with 0")
    parser.add_argument("--resume", action="store_true", help="go on with a killed training")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    args = parser.parse_args(arguments)
    if not args.draw and not (args.test_scenes and args.test_labels):
        parser.error("give --test-scenes and --test-labels, or --draw")
    if args.draw_seed == TEST_SEED:
        parser.error(f"--draw-seed {TEST_SEED} draws the scene that the model is tested on")
    return args


if __name__ == "__main__":
    sys.exit(main())
