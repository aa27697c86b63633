r"""How often the intervals of ``estimate`` hold the truth, and how wide they are.

    python benchmarks/estimate.py --out benchmarks/results/2026-11-29-estimate.json \
        --cells 40 80 160

Every object is known on three kinds of ground: drawn scenes with the demo model; the NAIP towns of
the validation ground, which trees-naip was not trained on; and Palm Springs and Chico, which it
was trained on, so that it is better there than it would be elsewhere. A poor detector is made of
it by a score threshold of 0.55: it misses a quarter and more. A model that was trained without the
town, as ``leave_a_town_out.py`` makes them, is what a stranger gets: --stranger
chico=no-chico.safetensors, at its own threshold. 2,000 times, cells are drawn as
``geo-retina review`` draws them, their objects are taken from the labels, and the total of all
cells is estimated. Plain sampling draws as many cells of all ground alike. Needs GEO_RETINA_DATA;
without it, drawn scenes only. Detections are kept in --work.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
from machines import machine
from scipy.optimize import brentq

import geo_retina
from geo_retina import DetectOptions, SynthOptions, review
from geo_retina.estimation import Design, estimate_total
from geo_retina.review import Frame, strata

ROOT = Path(os.environ.get("GEO_RETINA_DATA", Path(__file__).parents[2] / "shared" / "data"))
CELL_PX, STRATA, SCORE_FLOOR = 64, 5, 0.05
GOOD, POOR = 0.29, 0.55
ESTIMATORS = ("prediction-powered", "difference", "ratio", "plain")


@dataclass(frozen=True, eq=False)
class Town:
    """Objects, detections and their summed scores in each cell of some ground."""

    name: str
    true: np.ndarray
    found: np.ndarray
    scores: np.ndarray


def town(name: str, tables: tuple, of_scene: dict, score: float) -> Town:  # type: ignore[type-arg]
    """Count labels and detections in cells of every scene's own pixels."""
    labels, found = tables
    labels_of, found_of = (dict(list(each.groupby("scene"))) for each in (labels, found))
    columns = []
    for scene, grid in of_scene.items():
        rows, cols = (-(-side // CELL_PX) for side in grid.shape)
        here = found_of.get(scene, found.iloc[:0])
        at, kept = cells_of(here, grid, rows, cols), here["score"].to_numpy()
        above = at[kept[at[:, 1]] >= score]
        # A poor detector has no lower scores to help with.
        used = above if score == POOR else at
        sums = np.bincount(used[:, 0], kept[used[:, 1]], minlength=rows * cols)
        there = cells_of(labels_of.get(scene, labels.iloc[:0]), grid, rows, cols)
        counts = (np.bincount(each[:, 0], minlength=rows * cols) for each in (there, above))
        columns.append([*counts, sums])
    true, detected, scores = (np.concatenate(c).astype(float) for c in zip(*columns, strict=True))
    return Town(name, true, detected, scores)


def cells_of(table: gpd.GeoDataFrame, grid: geo_retina.Grid, rows: int, cols: int) -> np.ndarray:
    """(K, 2) cell and row of the table, of what lies in the scene."""
    if not len(table):
        return np.empty((0, 2), np.int64)
    points = table.geometry.centroid.to_crs(grid.crs)
    xy_px = grid.crs_to_pixels(np.stack([points.x, points.y], axis=-1))
    col, row = np.floor(xy_px / CELL_PX).astype(np.int64).T
    inside = np.flatnonzero((row >= 0) & (row < rows) & (col >= 0) & (col < cols))
    return np.stack([row[inside] * cols + col[inside], inside], axis=1)


def drawn_scenes(work: Path) -> tuple:  # type: ignore[type-arg]
    """Three drawn scenes with their objects and what the demo model finds."""
    paths = []
    for seed in range(3):
        path = work / f"drawn_{seed}.tif"
        paths.append(path)
        if not path.exists():
            options = SynthOptions(height=2048, width=2048, seed=seed, density=900.0)
            geo_retina.draw_scene(path, options, truth=path.with_suffix(".gpkg"))
    labels = [gpd.read_file(p.with_suffix(".gpkg")).assign(scene=p.stem) for p in paths]
    every = gpd.pd.concat(labels, ignore_index=True)
    return (every, detected(paths, "demo", work / "drawn.gpkg")), grids(paths)


def trees(part: str, pattern: str, work: Path, model: str = "trees-naip") -> tuple:  # type: ignore[type-arg]
    folder = ROOT / "naip_trees"
    paths = sorted((folder / part).glob(pattern))
    labels = gpd.read_file(folder / "trees.gpkg").rename(columns={"tile": "scene"})
    by = "" if model == "trees-naip" else f"_{Path(model).stem}"
    out = work / f"{part}_{pattern.strip('*.tif')}{by}.gpkg"
    return (labels, detected(paths, model, out)), grids(paths)


def detected(paths: list[Path], model: str, out: Path) -> gpd.GeoDataFrame:
    if not out.exists():
        options = DetectOptions(min_score=SCORE_FLOOR)
        geo_retina.detect_to_file(paths, model, out, options, crs="EPSG:4326")
    found = gpd.read_file(out, layer="detections")
    return found.set_geometry(found.geometry.to_crs("EPSG:3857"))


def grids(paths: list[Path]) -> dict[str, geo_retina.Grid]:
    return {path.stem: geo_retina.open_scene(path).grid for path in paths}


def measure(ground: Town, cells: int, draws: int, seed: int) -> list[dict[str, object]]:
    """Draw cells again and again; how often, how wide, by each way of estimating."""
    random = np.random.default_rng(seed)
    code = strata.strata_by_count(ground.found, STRATA)
    truth = ground.true.sum()
    ways = {way: [] for way in (*ESTIMATORS, "plain, all ground alike")}
    members = [np.flatnonzero(code == h) for h in range(code.max() + 1)]
    sizes = np.array([len(each) for each in members])
    share = np.bincount(code[cells_drawn(code, ground.found, cells)])
    for _ in range(draws):
        rows = np.concatenate(
            [random.choice(each, n, False) for each, n in zip(members, share, strict=True)]
        )
        design = Design(code[rows], sizes)
        for way in ESTIMATORS:
            helper = ground.scores if way == "prediction-powered" else ground.found
            ways[way].append(
                estimate_total(ground.true[rows], helper[rows], helper.sum(), design, way)
            )
        rows = random.choice(len(code), cells, False)
        alike = Design(np.zeros(cells, np.int64), np.array([len(code)]))
        ways["plain, all ground alike"].append(
            estimate_total(ground.true[rows], rows * 0.0, 0.0, alike, "plain")
        )
    results = []
    for way, estimates in ways.items():
        low, high = np.array([each.interval for each in estimates]).T
        results.append(
            {
                "ground": ground.name,
                "cells": cells,
                "way": way,
                "coverage": round(float(((low <= truth) & (truth <= high)).mean()), 4),
                "truth_below": round(float((truth < low).mean()), 4),
                "truth_above": round(float((truth > high).mean()), 4),
                "half_width": round(float(np.median(high - low) / 2 / truth), 4),
                "bias": round(float(np.mean([e.value for e in estimates]) / truth - 1), 4),
            }
        )
    return results


def cells_drawn(code: np.ndarray, found: np.ndarray, cells: int) -> np.ndarray:
    """Draw as the review does, in the order of the cells; what counts is how many a stratum."""
    number, zeros = len(code), np.zeros(len(code), np.int64)
    frame = Frame(
        design=review.Design(
            x_min=0.0, y_min=0.0, width=1.0, height=1.0, random_state=0, learn_share=0.0
        ),
        row=zeros,
        col=np.arange(number),
        stratum=code,
        use=np.full(number, "count", dtype=object),
        place=np.arange(number),
        zone=np.full(number, None, dtype=object),
        predicted=found,
        area_m2=np.ones(number),
    )
    return strata.cells_to_draw(frame, np.zeros(number, bool), cells)


def about(ground: Town) -> dict[str, object]:
    raw = ground.found.sum() / ground.true.sum() - 1
    together = np.corrcoef(ground.true, ground.found)[0, 1]
    code = strata.strata_by_count(ground.found, STRATA)
    within = [np.flatnonzero(code == h) for h in range(code.max() + 1)]
    means = np.array([ground.found[each].mean() for each in within])
    slope = brentq(lambda b: (ground.true - b * ground.found) @ ground.found, 0, 9)
    left = ground.true - slope * ground.found
    spread = sum(
        left[each].var() * len(each) / (m + 0.5) for each, m in zip(within, means, strict=True)
    )
    return {
        "ground": ground.name,
        "cells": len(ground.true),
        "objects": int(ground.true.sum()),
        "raw_count_error": round(float(raw), 4),
        "correlation": round(float(together), 4),
        "spread": round(float(spread / len(left)), 3),
    }


def cells_for(rows: list[dict[str, object]], cells: int, half: float) -> float:
    """Tell how many of all cells a half width takes: w = c sqrt(1 / n - 1 / N), by the last row."""
    last = rows[-1]
    c = last["half_width"] / np.sqrt(1 / last["cells"] - 1 / cells)  # type: ignore[operator]
    return float(1 / ((half / c) ** 2 + 1 / cells))


def draw(result: dict[str, list[dict[str, object]]], out: Path) -> None:
    """Draw half widths by the number of cells, on ground the detector was not trained on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    shown = (
        ("cells alone, drawn of all ground alike", "good", "plain, all ground alike", "0.45"),
        ("with a poor detector (finds 23 % less)", "poor", "prediction-powered", "tab:orange"),
        ("with a good detector (finds 9 % more)", "good", "prediction-powered", "tab:blue"),
    )
    for label, detector, way, colour in shown:
        name = f"validation towns, {detector} detector"
        rows = [r for r in result["rows"] if (r["ground"], r["way"]) == (name, way)]
        (total,) = (g["cells"] for g in result["grounds"] if g["ground"] == name)
        half = np.geomspace(0.035, 0.4, 80)
        n = [cells_for(rows, total, each) for each in half]  # type: ignore[arg-type]
        axes.plot(n, 100 * half, color=colour, label=label)
        axes.plot(
            [r["cells"] for r in rows],
            [100 * r["half_width"] for r in rows],  # type: ignore[operator]
            "o",
            color=colour,
        )
        for wanted in (0.05, 0.1):
            told = cells_for(rows, total, wanted)  # type: ignore[arg-type]
            print(f"{label}: +-{wanted:.0%} takes {told:.0f} of {total} cells")
    for wanted in (5, 10):
        axes.axhline(wanted, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(30, 1500), ylim=(3.5, 45))
    axes.set_xticks([40, 80, 160, 320, 640, 1280], ["40", "80", "160", "320", "640", "1,280"])
    axes.set_yticks([5, 10, 20, 40], ["±5 %", "±10 %", "±20 %", "±40 %"])
    axes.minorticks_off()
    axes.set_xlabel("completed cells of 38 m")
    axes.set_ylabel("half of the 95 % interval")
    axes.legend(frameon=False)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def known_grounds(work: Path) -> list[Town]:
    """Drawn scenes, and towns with the bundled model, where there is real imagery."""
    tables, of_scene = drawn_scenes(work)
    grounds = [town("drawn scenes", tables, of_scene, 0.5)]
    if (ROOT / "naip_trees").is_dir():
        for name, part, pattern in (
            ("validation towns", "val", "*.tif"),
            ("Palm Springs", "train", "palm_springs*.tif"),
            ("Chico", "train", "chico*.tif"),
        ):
            tables, of_scene = trees(part, pattern, work)
            for how, score in (("good", GOOD), ("poor", POOR)):
                grounds.append(town(f"{name}, {how} detector", tables, of_scene, score))
    return grounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("estimate-work"))
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--cells", type=int, nargs="+", default=[40, 80, 160, 320])
    parser.add_argument("--stranger", action="append", default=[], help="TOWN=MODEL without it")
    parser.add_argument("--only-strangers", action="store_true", help="leave out other grounds")
    parser.add_argument("--picture", type=Path, help="only draw this .png of the results in --out")
    args = parser.parse_args()
    if args.picture is not None:
        draw(json.loads(args.out.read_text()), args.picture)
        return
    args.work.mkdir(exist_ok=True)
    grounds = [] if args.only_strangers else known_grounds(args.work)
    for name, _, model in (each.partition("=") for each in args.stranger):
        tables, of_scene = trees("train", f"{name}*.tif", args.work, model)
        threshold = geo_retina.load_model(model).card.thresholds[0]
        title = f"{name.replace('_', ' ').title()}, a model that never saw it"
        grounds.append(town(title, tables, of_scene, threshold))
    rows = []
    for ground in grounds:
        print(json.dumps(about(ground)), flush=True)
        for cells in args.cells:
            for row in measure(ground, cells, args.draws, seed=1):
                rows.append(row)
                print(json.dumps(row), flush=True)
    result = {
        **machine(),
        "draws": args.draws,
        "cell_px": CELL_PX,
        "grounds": [about(ground) for ground in grounds],
        "rows": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
