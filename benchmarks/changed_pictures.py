r"""How much a tree model loses on pictures that are not as its training's were.

    python benchmarks/changed_pictures.py --model trees-naip \
        --out benchmarks/results/DATE-trees-naip-changed.json

Detects over the validation scenes as they are and changed in one way after the other, and scores
each at the model's own threshold, by scenes and labels alike. Gains and offsets are drawn anew for
every band of every scene: a gain of 0.8 to 1.2, and an offset of up to a fifth of the band's spread
in the scene. Needs GEO_RETINA_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from machines import machine
from rasterio.enums import Resampling
from rasterio.warp import calculate_default_transform, reproject

import geo_retina
from geo_retina import DetectOptions, EvaluateOptions, Model
from geo_retina.evaluation import evaluate

PROJECT = Path(__file__).parents[1]
ROOT = Path(os.environ.get("GEO_RETINA_DATA", PROJECT.parent / "shared" / "data")) / "naip_trees"
RADIUS_M = 6.0

Picture = tuple[np.ndarray, dict]  # type: ignore[type-arg]
"""Pixels as (bands, height, width), and the profile that they are written with."""


def as_it_is(pixels: np.ndarray, profile: dict, seed: int) -> Picture:  # type: ignore[type-arg]
    return pixels, profile


def jpeg(pixels: np.ndarray, profile: dict, seed: int) -> Picture:  # type: ignore[type-arg]
    return pixels, {**profile, "compress": "jpeg", "jpeg_quality": 75, "tiled": True}


def gains(pixels: np.ndarray, profile: dict, seed: int) -> Picture:  # type: ignore[type-arg]
    random = np.random.default_rng(seed)
    spread = pixels.std(axis=(1, 2), keepdims=True)
    shape = (len(pixels), 1, 1)
    changed = pixels * random.uniform(0.8, 1.2, shape) + random.uniform(-0.2, 0.2, shape) * spread
    return np.clip(np.round(changed), 0, 255).astype(pixels.dtype), profile


def at_1_m(pixels: np.ndarray, profile: dict, seed: int) -> Picture:  # type: ignore[type-arg]
    return warped(pixels, profile, profile["crs"], 1.0)


def in_degrees(pixels: np.ndarray, profile: dict, seed: int) -> Picture:  # type: ignore[type-arg]
    return warped(pixels, profile, "EPSG:4326", None)


def in_web_mercator(pixels: np.ndarray, profile: dict, seed: int) -> Picture:  # type: ignore[type-arg]
    return warped(pixels, profile, "EPSG:3857", None)


def warped(pixels: np.ndarray, profile: dict, crs: object, gsd: float | None) -> Picture:  # type: ignore[type-arg]
    """Warp a picture as providers do: averaged where it gets coarser, with nodata around."""
    height, width = pixels.shape[1:]
    bounds = rasterio.transform.array_bounds(height, width, profile["transform"])
    transform, cols, rows = calculate_default_transform(
        profile["crs"], crs, width, height, *bounds, resolution=gsd
    )
    out = np.zeros((len(pixels), rows, cols), pixels.dtype)
    reproject(
        np.maximum(pixels, 1),  # 0 is what lies around
        out,
        src_transform=profile["transform"],
        src_crs=profile["crs"],
        dst_transform=transform,
        dst_crs=crs,
        resampling=Resampling.bilinear if gsd is None else Resampling.average,
    )
    about = {"crs": crs, "transform": transform, "height": rows, "width": cols, "nodata": 0}
    return out, {**profile, **about}


CHANGES: dict[str, Callable[..., Picture]] = {
    "as they are": as_it_is,
    "JPEG of quality 75": jpeg,
    "gain and offset of each band": gains,
    "resampled to 1 m": at_1_m,
    "EPSG:4326": in_degrees,
    "EPSG:3857": in_web_mercator,
}


def change_all(name: str, scenes: list[Path], bands: list[int], folder: Path) -> list[Path]:
    """Write each scene changed in one way, under its own name."""
    changed = []
    for number, path in enumerate(scenes):
        with rasterio.open(path) as source:
            pixels = source.read(bands)
            profile = {
                "driver": "GTiff",
                "count": len(bands),
                "dtype": pixels.dtype,
                "crs": source.crs,
                "transform": source.transform,
                "height": source.height,
                "width": source.width,
            }
        pixels, profile = CHANGES[name](pixels, profile, number)
        out = folder / path.name
        with rasterio.open(out, "w", **profile) as target:
            target.write(pixels)
        changed.append(out)
    return changed


def bands_of(model: Model) -> list[int]:
    """List the bands that a model needs: they come first in these scenes, in its order."""
    return list(range(1, len(model.card.bands) + 1))


def judge(model: Model, scenes: list[Path], labels: gpd.GeoDataFrame, folder: Path) -> dict:  # type: ignore[type-arg]
    """Detect over scenes, even in pixels that the model is not meant for, and score it."""
    out = folder / "found.gpkg"
    options = DetectOptions(bands=tuple(bands_of(model)), force=True)
    geo_retina.detect_to_file(scenes, model, out, options, crs="EPSG:4326")
    found = gpd.read_file(out, layer="detections")
    result = evaluate(found, labels, EvaluateOptions(scene_column="scene", radius_m=RADIUS_M))
    overall = result.overall
    return {
        "labels": overall.labels,
        "found": overall.detections,
        **{name: getattr(overall, name) for name in ("precision", "recall", "f1")},
        "f1_interval": list(overall.intervals["f1"]),
        "count_error": result.count_error.relative,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="trees-naip")
    parser.add_argument("--part", default="val", choices=["train", "val"])
    parser.add_argument("--changes", nargs="+", choices=list(CHANGES), default=list(CHANGES))
    parser.add_argument("--most", type=int, help="only so many scenes, spread over all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    scenes = sorted((ROOT / args.part).glob("*.tif"))
    if args.most is not None:
        scenes = [scenes[i] for i in np.linspace(0, len(scenes) - 1, args.most).astype(int)]
    labels = gpd.read_file(ROOT / "trees.gpkg").rename(columns={"tile": "scene"})
    labels = labels[labels["scene"].isin({path.stem for path in scenes})]
    model = geo_retina.load_model(args.model)
    told = {}
    for name in args.changes:
        with tempfile.TemporaryDirectory() as folder:
            changed = change_all(name, scenes, bands_of(model), Path(folder))
            told[name] = judge(model, changed, labels, Path(folder))
        print(
            f"{name}: F1 {told[name]['f1']:.4f}, count {told[name]['count_error']:+.1%}", flush=True
        )
    result = {
        **machine(),
        "model": args.model,
        "part": args.part,
        "scenes": len(scenes),
        "changes": told,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
