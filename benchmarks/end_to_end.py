"""From a GeoTIFF to a GeoPackage, against the bare network on the same machine in the same run.

    python benchmarks/end_to_end.py --out benchmarks/results/2026-11-22-cpu-end-to-end.json

Draws a scene, times `detect_to_file` with the bundled model, times the network and its decoding
alone on noise of the same tile size, before each time, and prints both as pixels through the
network in a second. The ratio is what reading, placing, merging, writing and starting Dask leave.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from datetime import date
from pathlib import Path

import torch

import geo_retina
from geo_retina.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the scene")
    parser.add_argument("--model", default="demo", help="bundled model or file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()

    model = geo_retina.load_model(args.model)
    detect, run = geo_retina.DetectOptions(), geo_retina.RunOptions(device=args.device)
    engine = Engine(model, detect, device=args.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scene, out = Path(folder, "scene.tif"), Path(folder, "out.gpkg")
        geo_retina.draw_scene(
            scene, geo_retina.SynthOptions(height=args.size, width=args.size, seed=9)
        )
        [plan], _ = geo_retina.plan_scenes(scene, model.card, detect, run)
        network_px = len(plan.tiles) * plan.tiles.tile_px**2
        for _ in range(args.repeats):
            bare, _ = engine.measure(plan.tiles.tile_px, repeats=5)
            report = geo_retina.detect_to_file(scene, model, out, detect, run)
            out.unlink()
            whole = network_px / report.seconds
            rows.append({"bare_px_s": bare, "end_to_end_px_s": whole, "ratio": whole / bare})
            print(
                f"bare {bare / 1e6:.2f} Mpx/s, end to end {whole / 1e6:.2f} Mpx/s through the "
                f"network ({args.size**2 / report.seconds / 1e6:.2f} of the scene), "
                f"ratio {whole / bare:.2f}"
            )
    result = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": str(engine.device),
        "precision": str(engine.dtype),
        "torch": torch.__version__,
        "size_px": args.size,
        "tile_px": plan.tiles.tile_px,
        "pixel_factor": plan.tiles.pixel_factor,
        "detections": report.detections,
        "runs": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
