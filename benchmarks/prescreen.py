"""A first look at coarser pixels on drawn scenes with few objects: time saved, and objects lost.

    python benchmarks/prescreen.py MODEL --size 4096 --density 0.001 0.01 0.1 1 --threads 1 \
        --out benchmarks/results

MODEL is a file whose card has a first look (geo-retina calibrate --prescreen), of the classes that
are drawn. Scenes are the same ground with other objects on it: as many to a hectare as asked for,
evenly at random or in clusters. Each is detected on as a whole and with a first look, in turn.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from comparing import match
from rasterio.enums import Resampling
from reports import Row, arguments, head, keep, parse, spent, table

import geo_retina
from geo_retina.boxes import Boxes

COLUMNS = (
    *("per_ha", "placed", "objects", "screened", "cpu_s", "cpu_s_first", "times"),
    *("found", "lost", "false", "false_first"),
)
_CLUSTER = 8  # objects that lie together
_MARGIN_M = 4.0  # shadows reach so far


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("model", help="model file with a first look on its card")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the scenes")
    parser.add_argument("--density", type=float, nargs="+", default=[0.001, 0.01, 0.1])
    parser.add_argument("--difficulty", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=21)
    args = parse(parser)
    model = geo_retina.load_model(args.model)
    with tempfile.TemporaryDirectory() as folder:
        drawn = Drawn(Path(folder), model.card.gsd_m, args)
        rows = [
            measure(drawn, model, density, placed, args)
            for density in args.density
            for placed in ("evenly", "clustered")
        ]
    table(rows, COLUMNS)
    about = {"model": model.card.name, "first_look": vars(model.card.prescreen)}
    measured = {"measured": model.card.metrics["prescreen"], "size_px": args.size}
    keep(args, "prescreen", head(args) | about | measured | {"runs": rows})


class Drawn:
    """The same ground without objects and with many, of which scenes take some."""

    def __init__(self, folder: Path, gsd_m: float, args: argparse.Namespace) -> None:
        self.folder, self.random = folder, np.random.default_rng(args.seed)
        self.hectares = (args.size * gsd_m) ** 2 / 1e4
        how = geo_retina.SynthOptions(
            height=args.size,
            width=args.size,
            gsd_m=gsd_m,
            seed=args.seed,
            difficulty=args.difficulty,
            density=60.0,
            nodata_corner=False,
        )
        geo_retina.draw_scene(folder / "many.tif", how, truth=folder / "many.gpkg")
        geo_retina.draw_scene(folder / "none.tif", replace(how, density=0.0))
        with rasterio.open(folder / "many.tif") as many, rasterio.open(folder / "none.tif") as none:
            self.many, self.none, self.profile = many.read(), none.read(), many.profile
            to_px = ~many.transform
        shapes = gpd.read_file(folder / "many.gpkg").geometry.to_numpy()
        moved = shapely.transform(shapes, lambda points: np.stack(to_px @ points.T, axis=1))
        self.boxes_px = shapely.bounds(moved)
        self.margin_px = _MARGIN_M / gsd_m

    def write(self, density: float, placed: str) -> tuple[Path, Boxes]:
        """Write a scene with so many objects to a hectare, and overviews; also their boxes."""
        count = min(len(self.boxes_px), int(self.random.poisson(density * self.hectares)))
        chosen = self._evenly(count) if placed == "evenly" else self._clustered(count)
        pixels = self.none.copy()
        for x_min, y_min, x_max, y_max in self.boxes_px[chosen]:
            rows = slice(max(0, int(y_min - self.margin_px)), int(y_max + self.margin_px))
            cols = slice(max(0, int(x_min - self.margin_px)), int(x_max + self.margin_px))
            pixels[:, rows, cols] = self.many[:, rows, cols]
        path = self.folder / f"{density}-{placed}.tif"
        with rasterio.open(path, "w", **self.profile) as dataset:
            dataset.write(pixels)
            dataset.build_overviews([2, 4], Resampling.average)
        return path, self.boxes_px[chosen]

    def _evenly(self, count: int) -> np.ndarray:
        return self.random.choice(len(self.boxes_px), count, replace=False)

    def _clustered(self, count: int) -> np.ndarray:
        """Choose objects and their nearest neighbours, some at a time."""
        centres = (self.boxes_px[:, :2] + self.boxes_px[:, 2:]) / 2
        chosen: list[int] = []
        while len(chosen) < count:
            middle = centres[self.random.integers(len(centres))]
            nearest = np.argsort(((centres - middle) ** 2).sum(axis=1))[:_CLUSTER]
            chosen = list(dict.fromkeys([*chosen, *nearest.tolist()]))
        return np.array(chosen[:count], np.int64)


def measure(
    drawn: Drawn,
    model: geo_retina.Model,
    density: float,
    placed: str,
    args: argparse.Namespace,
) -> Row:
    """Detect from file to file, without and with a first look."""
    path, objects = drawn.write(density, placed)
    run = geo_retina.RunOptions(overwrite=True, device=args.device, threads=1)
    found, seconds, reports = [], [], []
    for first in (False, True):
        options = geo_retina.DetectOptions(prescreen=first)
        out = path.with_suffix(".gpkg")

        def detect(options=options, out=out) -> None:
            reports.append(geo_retina.detect_to_file(path, model, out, options, run))

        seconds.append(spent(detect, args.device, args.repeats, warm=0).cpu_s)
        found.append(gpd.read_file(out, layer="detections"))
    px = ["x_min_px", "y_min_px", "x_max_px", "y_max_px"]
    whole, looked = (each[px].to_numpy(float) for each in found)
    kept = [{pair[0] for pair in match(objects, boxes)[0]} for boxes in (whole, looked)]
    report = reports[-1]
    return {
        "per_ha": density,
        "placed": placed,
        "objects": len(objects),
        "hectares": drawn.hectares,
        "screened": report.screened_pixels / report.pixels,
        "cpu_s": seconds[0],
        "cpu_s_first": seconds[1],
        "times": seconds[0] / seconds[1],
        "found": len(kept[0]),
        "lost": len(kept[0] - kept[1]),
        "false": len(whole) - len(kept[0]),
        "false_first": len(looked) - len(kept[1]),
    }


if __name__ == "__main__":
    main()
