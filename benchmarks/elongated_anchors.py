r"""Train on drawn objects that are long and thin, with squares for anchors and with fitted ratios.

    python benchmarks/elongated_anchors.py

Rectangles of 6 to 9 by 24 to 40 px, lying or standing, on noise; one tiny network without first
weights, two trainings that differ in their anchors alone. Minutes on one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine

import geo_retina

SIDE = 960
CELL = 48
GSD_M = 0.5
ORIGIN_XY = (500_000.0, 5_300_000.0)


def main() -> None:
    """Train both ways and print what each reached on validation ground."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    epochs = parser.parse_args().epochs
    with tempfile.TemporaryDirectory() as folder:
        scene, labels = draw(Path(folder))
        for name, ratios in (("squares", [1.0]), ("fitted", None)):
            options = dataclasses.replace(plain(scene, labels, epochs), name=name)
            if ratios is not None:
                network = {**options.network, "anchor_ratios": ratios}
                options = dataclasses.replace(options, network=network)
            start = time.process_time()
            report = geo_retina.check_labels(options)
            card = geo_retina.train(options).card
            overall = card.metrics["val"]["overall"]
            row = {
                "anchors": name,
                "sides_px": card.network.anchor_sides_px,
                "ratios": card.network.anchor_ratios,
                "labels_that_fit": round(report.anchor_coverage, 3),
                "f1": round(overall["f1"], 3),
                "ap50": round(card.metrics["val"]["ap50"], 3),
                "ap": round(card.metrics["val"]["ap"], 3),
                "cpu_s": round(time.process_time() - start),
            }
            print(json.dumps(row), flush=True)


def draw(folder: Path) -> tuple[Path, Path]:
    """Draw a scene, one object in most cells of a lattice; returns its path and its labels'."""
    rng = np.random.default_rng(7)
    pixels = rng.normal(90, 14, (3, SIDE, SIDE))
    boxes = []
    for row in range(0, SIDE, CELL):
        for col in range(0, SIDE, CELL):
            if rng.random() < 0.2:
                continue
            width, height = rng.integers(24, 41), rng.integers(6, 10)
            if rng.random() < 0.5:
                width, height = height, width
            x, y = col + rng.integers(0, CELL - width), row + rng.integers(0, CELL - height)
            pixels[:, y : y + height, x : x + width] += rng.uniform(30, 60)
            boxes.append((x, y, x + width, y + height))
    affine = Affine(GSD_M, 0, ORIGIN_XY[0], 0, -GSD_M, ORIGIN_XY[1])
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8"}
    scene, labels = folder / "scene.tif", folder / "labels.gpkg"
    with rasterio.open(scene, "w", crs="EPSG:32632", transform=affine, **profile) as file:
        file.write(pixels.clip(1, 255).astype(np.uint8))
    corners = np.array(boxes) * GSD_M
    x_min, y_max, x_max, y_min = corners.T * np.array([[1], [-1], [1], [-1]])
    shapes = shapely.box(
        ORIGIN_XY[0] + x_min, ORIGIN_XY[1] + y_min, ORIGIN_XY[0] + x_max, ORIGIN_XY[1] + y_max
    )
    gpd.GeoDataFrame(geometry=shapes, crs="EPSG:32632").to_file(labels)
    return scene, labels


def plain(scene: Path, labels: Path, epochs: int) -> geo_retina.TrainOptions:
    """Make the options that both trainings share."""
    return geo_retina.TrainOptions(
        data=geo_retina.DataOptions(scenes=(str(scene),), labels=str(labels), classes=("thing",)),
        network={"backbone": "resnet10t", "channels": 32, "convs": 1},
        pretrained=False,
        split=geo_retina.SplitOptions(block_m=100.0, val_fraction=0.3),
        samples=geo_retina.SampleOptions(window_px=128),
        epochs=epochs,
        samples_per_epoch=96,
        lr=4e-3,
        ema=0.98,
        nms_iou=0.5,
        validate_every=epochs,
        picture_every=0,
        workers=0,
        device="cpu",
    )


if __name__ == "__main__":
    main()
