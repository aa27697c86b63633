r"""A region of many scenes in one run, whose objects come out once where scenes overlap or abut.

What is finished lies in OUT.run until all is written, so that the same command again does only what
is missing; a scene that cannot be read holds up no other. With --scheduler the blocks of all scenes
run on a Dask cluster; docs/guide-cluster.md tells how to start one.

    python pipelines/detect_region.py scenes/ --model trees.safetensors --out region.gpkg
    python pipelines/detect_region.py scenes/ --model trees.safetensors --out region.gpkg \
        --scheduler tcp://node1:8786

Exit codes: 0 done, 1 nothing could be done, 3 some ground is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import geo_retina


def main(arguments: list[str] | None = None) -> int:
    """Detect all scenes, merged across their borders; returns the exit code."""
    args = parse(arguments)
    options = geo_retina.DetectOptions(score=args.score, across_scenes=not args.each_alone)
    run = geo_retina.RunOptions(
        device=args.device, scheduler=args.scheduler, overwrite=args.overwrite
    )
    try:
        report = geo_retina.detect_to_file(
            args.scenes, args.model, args.out, options, run, crs=args.crs
        )
    except geo_retina.GeoRetinaError as error:
        print(error, file=sys.stderr)
        return 1
    for failure in report.failures:
        print(f"not covered: {failure.scene}: {failure.error}", file=sys.stderr)
    print(
        f"{report.detections:,} objects of {report.scenes:,} scenes written to {args.out}; "
        f"{report.joined:,} were put together of parts"
    )
    return 0 if report.complete else 3


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+", help="files, folders or globs")
    parser.add_argument("--model", required=True, help="bundled model or file")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--score", type=float, help="left out, the model's own thresholds")
    parser.add_argument("--each-alone", action="store_true", help="each scene has its own objects")
    parser.add_argument("--crs", help="CRS of the output")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scheduler", help="address of a running Dask scheduler")
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
