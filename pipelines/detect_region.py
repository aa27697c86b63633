r"""A region of many scenes: each detected by itself, then merged across their borders.

Every scene has an output and a ledger of its own in --work, so that one bad scene holds up no
other, and the same command again does only what is missing. With --scheduler the blocks of each
scene run on a Dask cluster; docs/guide-cluster.md tells how to start one.

    python pipelines/detect_region.py scenes/ --model trees.safetensors --out region.gpkg
    python pipelines/detect_region.py scenes/ --model trees.safetensors --out region.gpkg \
        --scheduler tcp://node1:8786

Objects that lie across two scenes come out once: exactly so where scenes share one pixel grid, by
the overlap of their polygons where they don't, as in two UTM zones. Exit codes: 0 done, 1 nothing
could be done, 3 some ground is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import geo_retina


def main(arguments: list[str] | None = None) -> int:
    """Detect every scene, then merge; returns the exit code."""
    args = parse(arguments)
    if args.out.exists() and not args.overwrite:
        print(f"{args.out} exists; give --overwrite or another name", file=sys.stderr)
        return 1
    args.work.mkdir(parents=True, exist_ok=True)
    model = geo_retina.load_model(args.model)
    scenes = geo_retina.find_scenes(args.scenes)
    outs, failures = [], []
    for number, scene in enumerate(scenes, 1):
        out = args.work / own_name(scene, model, args)
        error = detect_scene(scene, model, out, args)
        if error is not None:
            failures.append(error)
            print(f"not covered: {error}", file=sys.stderr)
        if out.exists():
            outs.append(out)
        print(f"{number} of {len(scenes)} scenes")
    if not outs:
        print("no scene could be detected", file=sys.stderr)
        return 1
    report = geo_retina.combine_runs(outs, args.out, crs=args.crs, overwrite=args.overwrite)
    print(
        f"{report.written:,} objects of {len(outs)} scenes written to {args.out}; "
        f"{report.suppressed:,} were seen twice, {report.joined:,} put together at borders"
    )
    return 3 if failures else 0


def detect_scene(
    scene: str, model: geo_retina.Model, out: Path, args: argparse.Namespace
) -> str | None:
    """Detect one scene unless that is done; returns what went wrong, if anything."""
    if out.exists() and not out.with_name(f"{out.name}.run").exists():
        return None  # finished by an earlier try: an unfinished one keeps its ledger
    options = geo_retina.DetectOptions(score=args.score)
    run = geo_retina.RunOptions(device=args.device, scheduler=args.scheduler)
    try:
        report = geo_retina.detect_to_file(scene, model, out, options, run)
    except geo_retina.GeoRetinaError as error:
        return f"{scene}: {error}"
    return None if report.complete else f"{scene}: {report.failures[0].error}"


def own_name(scene: str, model: geo_retina.Model, args: argparse.Namespace) -> str:
    """Name a file by the scene's stem and a hash of scene, model and score."""
    path = Path(scene)
    version = path.stat().st_mtime_ns if path.exists() else 0
    content = f"{scene} {version} {model.fingerprint} {args.score}"
    return f"{path.stem}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.gpkg"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+", help="files, folders or globs")
    parser.add_argument("--model", required=True, help="bundled model or file")
    parser.add_argument("--out", type=Path, required=True, help="merged output")
    parser.add_argument("--work", type=Path, help="folder of the scenes' own; OUT.scenes if not")
    parser.add_argument("--score", type=float, help="left out, the model's own thresholds")
    parser.add_argument("--crs", help="CRS of the merged output")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scheduler", help="address of a running Dask scheduler")
    parser.add_argument("--overwrite", action="store_true", help="replace the merged output")
    args = parser.parse_args(arguments)
    args.work = args.work or args.out.with_name(f"{args.out.name}.scenes")
    return args


if __name__ == "__main__":
    sys.exit(main())
