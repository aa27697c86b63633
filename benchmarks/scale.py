"""Time and peak memory of a detection against the scene's size, and against its detections.

    python benchmarks/scale.py --source $GEO_RETINA_DATA/neon_crowns/yell_528000.tif
    python benchmarks/scale.py --sides 60000 --per-tile 3000 --tile 1024 --suffix .parquet
    python benchmarks/scale.py --sides 10000 --network --written

Each scene is a VRT that repeats one GeoTIFF, a drawn one unless ``--source`` names another, so that
every pixel is really read and nothing can be skipped. A stub in place of the network finds a fixed
number of boxes in every tile, which makes the size affordable; reading, placing, the ledger,
merging and writing are the real ones. Each size runs in a process of its own, whose peak resident
memory is what the system counted. A VRT of one file fills little of GDAL's cache of blocks, and the
stub needs no memory; ``--written`` and ``--network`` have both, to compare with what was planned.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import torch
from machines import machine

import geo_retina
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
    parser.add_argument("--source", type=Path, help="GeoTIFF to repeat")
    parser.add_argument("--network", action="store_true", help="the real one, of the demo model")
    parser.add_argument("--written", action="store_true", help="a GeoTIFF of all, not a VRT")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a scene and an output
    args = parser.parse_args()
    if args.one:
        print(json.dumps(detect_one(*args.one, args)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = args.source
        if source is None:
            source = folder / "source.tif"
            synth = geo_retina.SynthOptions(height=SOURCE_PX, width=SOURCE_PX, seed=4)
            geo_retina.draw_scene(source, synth)
        for side in args.sides:
            scene = repeat(source.resolve(), side, folder / f"{side}.vrt")
            if args.written:
                scene = write(scene)
            rows.append({"side_px": side, **measure(scene, folder / f"{side}{args.suffix}", args)})
            print(table_row(rows[-1]), flush=True)
    result = {
        **machine(),
        "torch": torch.__version__,
        "source": "drawn" if args.source is None else args.source.name,
        "scene": "GeoTIFF" if args.written else "VRT",
        "network": "demo" if args.network else "stub",
        "per_tile": None if args.network else args.per_tile,
        "runs": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def repeat(source: Path, side: int, path: Path) -> Path:
    """Write a VRT of ``side`` px a side in which the source comes again and again."""
    import rasterio

    with rasterio.open(source) as dataset:
        wkt, count = escape(dataset.crs.to_wkt()), dataset.count
        affine = ", ".join(repr(value) for value in dataset.transform.to_gdal())
        height, width = dataset.shape
    places = [(x, y) for y in range(0, side, height) for x in range(0, side, width)]
    bands = []
    for band in range(1, count + 1):
        sources = []
        for x, y in places:
            size = f'xSize="{min(width, side - x)}" ySize="{min(height, side - y)}"'
            sources.append(
                f"<SimpleSource><SourceFilename>{escape(str(source))}</SourceFilename>"
                f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" {size}/>'
                f'<DstRect xOff="{x}" yOff="{y}" {size}/></SimpleSource>'
            )
        head = f'<VRTRasterBand dataType="Byte" band="{band}">'
        bands.append(f"{head}{''.join(sources)}</VRTRasterBand>")
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{wkt}</SRS>'
        f"<GeoTransform>{affine}</GeoTransform>{''.join(bands)}</VRTDataset>",
        "utf-8",
    )
    return path


def write(scene: Path) -> Path:
    """Write the same pixels as a tiled GeoTIFF."""
    from rasterio.shutil import copy

    path = scene.with_suffix(".tif")
    how = {"TILED": "YES", "BLOCKXSIZE": 512, "BLOCKYSIZE": 512, "COMPRESS": "ZSTD"}
    copy(scene, path, driver="GTiff", BIGTIFF="IF_SAFER", **how)
    return path


def measure(scene: Path, out: Path, args: argparse.Namespace) -> dict[str, object]:
    """Run one size in a process of its own."""
    command = [sys.executable, __file__, "--per-tile", str(args.per_tile), "--one"]
    command += [str(scene), str(out)] + (["--tile", str(args.tile)] if args.tile else [])
    command += ["--network"] if args.network else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return row


def detect_one(scene: str, out: str, args: argparse.Namespace) -> dict[str, object]:
    """Detect; memory before is what the libraries and the model take."""
    model = geo_retina.load_model("demo")
    gsd_m = geo_retina.open_scene(scene).grid.gsd_m  # its own, whatever the model's is
    options = geo_retina.DetectOptions(tile_px=args.tile, gsd_m=gsd_m, force=True)
    run = geo_retina.RunOptions(device="cpu")
    plans, _ = geo_retina.plan_scenes(scene, model.card, options, run)
    planned = estimate(plans, model, options, run).memory_bytes
    before = peak_bytes()
    if not args.network:
        model = replace(model, predictor=partial(RandomBoxes, per_tile=args.per_tile))
    report = geo_retina.detect_to_file(scene, model, out, options, run)
    return {
        "seconds": report.seconds,
        "mpx_s": report.pixels / report.seconds / 1e6,
        "detections": report.detections,
        "tiles": report.tiles,
        "skipped_tiles": report.skipped_tiles,
        "peak_bytes": peak_bytes(),
        "before_bytes": before,
        "planned_bytes": planned,
        "output_bytes": Path(out).stat().st_size,
        "options": {key: value for key, value in asdict(run).items() if value is not None},
    }


class RandomBoxes:
    """In place of the network: boxes at random, so many in each tile."""

    batches_at_once = 2

    def __init__(
        self,
        model: geo_retina.Model,
        options: geo_retina.DetectOptions,
        *,
        device: str,
        batch: int | None,
        per_tile: int,
    ) -> None:
        self.device = torch.device("cpu")
        self._batch = batch
        self._per_tile = per_tile
        self._rng = np.random.default_rng(0)

    def batch_size(self, tile_px: int) -> int:
        return self._batch or max(1, (1 << 20) // tile_px**2)

    def predict(self, tiles_NCHW: torch.Tensor, *, all_boxes: bool = False) -> geo_retina.Decoded:
        images, side = len(tiles_NCHW), tiles_NCHW.shape[-1]
        total = images * self._per_tile
        corner = self._rng.uniform(0, side - 20, (total, 2))
        boxes = np.concatenate([corner, corner + self._rng.uniform(8, 20, (total, 2))], axis=1)
        image = torch.arange(images).repeat_interleave(self._per_tile)
        scores = torch.from_numpy(self._rng.uniform(0.3, 1.0, total).astype(np.float32))
        labels = torch.zeros(total, dtype=torch.int64)
        truncated = torch.zeros(images, dtype=torch.bool)
        return geo_retina.Decoded(torch.from_numpy(boxes).float(), scores, labels, image, truncated)


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
