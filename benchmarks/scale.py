"""Time and peak memory of a detection against the scene's size, and against its detections.

    python benchmarks/scale.py --out benchmarks/results/2026-11-22-scale.json
    python benchmarks/scale.py --sides 60000 --per-tile 3000 --tile 1024

Each scene is a VRT that repeats one drawn GeoTIFF, so that every pixel is really read and nothing
can be skipped. A stub in place of the network finds a fixed number of boxes in every tile, which
makes the size affordable; reading, placing, the ledger, merging and writing are the real ones.
Each size runs in a process of its own, whose peak resident memory is what the system counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import torch

import geo_retina
from geo_retina.engine import Engine
from geo_retina.nn.decode import Decoded
from geo_retina.run import estimate

SOURCE_PX = 4000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 60_000])
    parser.add_argument("--per-tile", type=int, default=40, help="boxes found in a tile")
    parser.add_argument("--tile", type=int, help="side of a tile; left out, as the plan says")
    parser.add_argument("--suffix", default=".gpkg", help="format of the output")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a scene and an output
    args = parser.parse_args()
    if args.one:
        print(json.dumps(detect_one(*args.one, args)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source.tif"
        synth = geo_retina.SynthOptions(height=SOURCE_PX, width=SOURCE_PX, seed=4)
        geo_retina.draw_scene(source, synth)
        for side in args.sides:
            scene = repeat(source, side, folder / f"{side}.vrt")
            rows.append({"side_px": side, **measure(scene, folder / f"{side}{args.suffix}", args)})
            print(table_row(rows[-1]), flush=True)
    result = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "per_tile": args.per_tile,
        "runs": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def repeat(source: Path, side: int, path: Path) -> Path:
    """A VRT of ``side`` px a side in which the source comes again and again."""
    import rasterio

    with rasterio.open(source) as dataset:
        wkt, count = escape(dataset.crs.to_wkt()), dataset.count
        affine = ", ".join(repr(value) for value in dataset.transform.to_gdal())
    places = [(x, y) for y in range(0, side, SOURCE_PX) for x in range(0, side, SOURCE_PX)]
    bands = []
    for band in range(1, count + 1):
        sources = "".join(
            f"<SimpleSource><SourceFilename>{escape(str(source))}</SourceFilename>"
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" '
            f'xSize="{min(SOURCE_PX, side - x)}" ySize="{min(SOURCE_PX, side - y)}"/>'
            f'<DstRect xOff="{x}" yOff="{y}" '
            f'xSize="{min(SOURCE_PX, side - x)}" ySize="{min(SOURCE_PX, side - y)}"/>'
            "</SimpleSource>"
            for x, y in places
        )
        bands.append(f'<VRTRasterBand dataType="Byte" band="{band}">{sources}</VRTRasterBand>')
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{wkt}</SRS>'
        f"<GeoTransform>{affine}</GeoTransform>{''.join(bands)}</VRTDataset>",
        "utf-8",
    )
    return path


def measure(scene: Path, out: Path, args: argparse.Namespace) -> dict[str, object]:
    """Run one size in a process of its own."""
    command = [sys.executable, __file__, "--per-tile", str(args.per_tile), "--one"]
    command += [str(scene), str(out)] + (["--tile", str(args.tile)] if args.tile else [])
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return row


def detect_one(scene: str, out: str, args: argparse.Namespace) -> dict[str, object]:
    """Detect with the stub; memory before is what the libraries and the model take."""
    rng = np.random.default_rng(0)

    def stub(engine: Engine, images_NCHW: torch.Tensor) -> Decoded:
        images, side = len(images_NCHW), images_NCHW.shape[-1]
        total = images * args.per_tile
        corner = rng.uniform(0, side - 20, (total, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 20, (total, 2))], axis=1)
        image = torch.arange(images).repeat_interleave(args.per_tile)
        scores = torch.from_numpy(rng.uniform(0.3, 1.0, total).astype(np.float32))
        labels = torch.zeros(total, dtype=torch.int64)
        truncated = torch.zeros(images, dtype=torch.bool)
        return Decoded(torch.from_numpy(boxes).float(), scores, labels, image, truncated)

    model = geo_retina.load_model("demo")
    options = geo_retina.DetectOptions(tile_px=args.tile)
    run = geo_retina.RunOptions(device="cpu")
    plans, _ = geo_retina.plan_scenes(scene, model.card, options, run)
    planned = estimate(plans, model, options, run).memory_bytes
    before = peak_bytes()
    Engine._forward = stub  # type: ignore[method-assign]
    report = geo_retina.detect_to_file(scene, model, out, options, run)
    return {
        "seconds": report.seconds,
        "mpx_s": report.pixels / report.seconds / 1e6,
        "detections": report.detections,
        "peak_bytes": peak_bytes(),
        "before_bytes": before,
        "planned_bytes": planned,
        "output_bytes": Path(out).stat().st_size,
        "options": {key: value for key, value in asdict(run).items() if value is not None},
    }


def peak_bytes() -> int:
    # Not ru_maxrss, which begins with the memory of the process that started this one.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def table_row(row: dict[str, object]) -> str:
    values = {key: value for key, value in row.items() if isinstance(value, (int, float))}
    return (
        f"{values['side_px']:>7,} px a side: {values['seconds']:7.1f} s, "
        f"{values['mpx_s']:6.1f} Mpx/s, {values['detections']:>11,} detections, peak "
        f"{values['peak_bytes'] / 1e9:.2f} GB ({values['before_bytes'] / 1e9:.2f} GB before; "
        f"planned {values['planned_bytes'] / 1e9:.2f} GB)"
    )


if __name__ == "__main__":
    main()
