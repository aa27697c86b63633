"""Every writer of the package, killed at the moment before its file is moved into place.

Run as a program with a folder to work in, it tells in a file there what became of each. A child is
forked for each writer, so that the libraries are loaded once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyproj
import shapely
import torch
from matplotlib.figure import Figure

from geo_retina.dataset.pixel_cache import CachedReader
from geo_retina.detections import Detections
from geo_retina.engine import openvino_graphs
from geo_retina.export import chips, onnx, stac
from geo_retina.files import drafts, write_text
from geo_retina.grid import Grid, Window
from geo_retina.options import ChipOptions, DataOptions, DetectOptions, SynthOptions
from geo_retina.plots.saving import save_figure
from geo_retina.run import BlockResult, Ledger, manifest_for
from geo_retina.scene.writing import write_raster
from geo_retina.synth.writer import draw_scene
from geo_retina.training.lr_finder import RateTrial
from geo_retina.training.run_folder import LastCheckpoint, RunFolder
from geo_retina.vector import (
    Companions,
    Target,
    export_tiles,
    write_layers,
    write_outputs,
    write_vector,
)
from geo_retina.vector.formats import FORMATS
from support.stubs import NORTH_UP, UTM, paint, tiny_model, write_scene

FOUND = "found.json"
GRID = Grid(pyproj.CRS(UTM), NORTH_UP, 40, 50)
EMPTY = Companions(None, None, {"model": "tiny"})


def points(count: int) -> pa.Table:
    shapes = shapely.points(np.arange(2.0 * count).reshape(count, 2))
    return pa.table({"geometry": pa.array(shapely.to_wkb(shapes)), "class": ["a"] * count})


def vector(suffix: str) -> Callable[[Path, int], None]:
    def write(folder: Path, version: int) -> None:
        path = folder / f"a{suffix}"
        write_vector(path, [points(version)], crs=pyproj.CRS(UTM), overwrite=True)

    return write


def outputs(folder: Path, version: int) -> None:
    targets = [Target(folder / name, True) for name in ("a.gpkg", "a.shp", "a.parquet", "a")]
    write_outputs(
        targets,
        [points(version)],
        EMPTY,
        crs=pyproj.CRS(UTM),
        classes=["a"],
        geometry="polygon",
    )


def tiles(folder: Path, version: int) -> None:
    source = folder.parent / f"{version}.geojson"
    places = shapely.points(np.arange(version) + 11.0, 45.0)
    gpd.GeoSeries(places, crs="EPSG:4326").to_file(source)
    export_tiles(source, folder / "a.pmtiles", min_zoom=1, max_zoom=2, overwrite=True)


def layers(folder: Path, version: int) -> None:
    frame = gpd.GeoDataFrame({"n": [version]}, geometry=[shapely.Point(1, 2)], crs=UTM)
    write_layers(folder / "a.gpkg", {"one": frame}, styles={}, overwrite=True)


def raster(folder: Path, version: int) -> None:
    values = np.full((1, 40, 50), version, np.uint8)
    write_raster(folder / "a.tif", values, GRID, names=["n"], overwrite=True)


def drawing(folder: Path, version: int) -> None:
    options = SynthOptions(height=96, width=96, seed=version)
    draw_scene(folder / "a.tif", options, truth=folder / "a.gpkg", overwrite=True)


def figure(folder: Path, version: int) -> None:
    save_figure(Figure(figsize=(1, version), dpi=20), folder / "a.png")


def checkpoint(folder: Path, version: int) -> None:
    state = {"epoch": version, "weights": torch.full((4,), float(version))}
    trainer = SimpleNamespace(
        is_global_zero=True, save_checkpoint=lambda path: torch.save(state, path)
    )
    LastCheckpoint(RunFolder(folder, {}, {})).on_train_epoch_end(trainer, None)


def run_folder(folder: Path, version: int) -> None:
    RunFolder(folder, {}, {}).write_epochs([{"epoch": n} for n in range(version)])


def run_manifest(folder: Path, version: int) -> None:
    RunFolder(folder, {"epochs": 3}, {"starts": version}).write_manifest()


def rates(folder: Path, version: int) -> None:
    RateTrial((1.0,) * version, (1.0,) * version, 1.0).write(folder / "rates.csv")


def ledger(folder: Path, version: int) -> None:
    manifest = manifest_for(["a.tif"], {}, "m", DetectOptions(), 64)
    found = Ledger.open(folder / "run", manifest)
    try:
        result = BlockResult(0, version, Window(0, 0, 5, 6), Detections.empty(), 1, 0, 0)
        found.write(found.next_task_batch(), [result])
    finally:
        found.close()


def ledger_unit(folder: Path, version: int) -> None:
    """As ``ledger``, but killed when it writes what was found, not when it goes on."""
    with mock.patch.object(Ledger, "update") if version > 1 else nullcontext():
        ledger(folder, version)


def pixels(folder: Path, version: int) -> None:
    CachedReader(0, folder)._keep(folder / "a.npy", np.full((2, 5, 5), version))


def graph(folder: Path, version: int) -> None:
    openvino_graphs._keep(folder / "a.graph", bytes([version]))


def export_onnx(folder: Path, version: int) -> None:
    """With a stand-in for PyTorch's slow exporter."""

    def save(path: str) -> None:
        Path(path).write_text(str(version))

    program = SimpleNamespace(model=SimpleNamespace(metadata_props={}), save=save)
    onnx._export = lambda graph, images: program
    onnx.export_onnx(tiny_model(), folder / "a.onnx", tile_px=64, overwrite=True)


def export_stac(folder: Path, version: int) -> None:
    model = folder.parent / "tiny.safetensors"
    if not model.exists():
        tiny_model().save(model)
    stac.export_stac(model, folder / "a.json", href=str(version), overwrite=True)


def export_chips(folder: Path, version: int) -> None:
    sources = folder.parent / "sources"
    if not sources.exists():
        sources.mkdir()
        boxes = np.array([[5, 5, 20, 20]])
        write_scene(sources / "a.tif", paint((100, 150), boxes))
        corner = NORTH_UP @ (5, 20)
        other = NORTH_UP @ (20, 5)
        frame = gpd.GeoDataFrame({"kind": ["a"]}, geometry=[shapely.box(*corner, *other)], crs=UTM)
        frame.to_file(sources / "labels.gpkg")
    data = DataOptions(
        scenes=(str(sources / "a.tif"),), labels=str(sources / "labels.gpkg"), class_column="kind"
    )
    options = ChipOptions(chip_px=50 * version, val_fraction=0, empty_share=1.0)
    chips.export_chips(data, folder / "chips", options, overwrite=True)


def model(folder: Path, version: int) -> None:
    tiny_model(seed=version).save(folder / "a.safetensors", overwrite=True)


def text(folder: Path, version: int) -> None:
    write_text(folder / "a.json", str(version))


def study(folder: Path, version: int) -> None:
    """The pipeline that keeps what was trained, with a stand-in for training."""
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("study", root / "pipelines" / "loss_study.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    scores = {"f1": 0.5, "precision": 0.5, "recall": 0.5, "ap50": 0.5, "thresholds": [0.5]}
    script.train_and_score = lambda options: scores
    script.print = lambda *args, **kwargs: None
    line = [str(root / "configs" / "demo.yaml"), "--out", str(folder), "--seeds", str(version)]
    script.main(line)


WRITERS: dict[Callable[[Path, int], None], str] = {
    text: "files.text",
    model: "model.model_file",
    figure: "plots.saving",
    checkpoint: "training.run_folder",
    run_folder: "training.run_folder",
    run_manifest: "training.run_folder",
    rates: "training.lr_finder",
    raster: "scene.writing",
    drawing: "synth.writer",
    export_onnx: "export.onnx",
    export_stac: "export.stac",
    export_chips: "export.chips",
    pixels: "dataset.pixel_cache",
    graph: "engine.openvino_graphs",
    ledger: "run.ledger.folder",
    ledger_unit: "run.ledger.folder",
    layers: "vector.writers.geopackage_layers",
    outputs: "vector.writers.outputs",
    study: "loss_study",
    tiles: "vector.writers.tiles",
    **{vector(suffix): "vector.writers.vector_file" for suffix in (*FORMATS, "")},
}
"""Each writer, which writes its version 1 or 2 into a folder, and the module that it is of."""


def contents(folder: Path) -> dict[str, str]:
    """Fingerprints of all files, by path, without drafts, locks and logs."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(".draft" in part for part in path.relative_to(folder).parts)
        and path.name not in ("lock", "run.log")
    }


def drafts_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*.draft*"))


def killed(write: Callable[[Path, int], None], folder: Path, version: int) -> int:
    """The signal that ended a child which writes."""
    child = os.fork()
    if child == 0:
        drafts._move_into_place = lambda moves: os.kill(os.getpid(), signal.SIGKILL)
        try:
            write(folder, version)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def try_out(write: Callable[[Path, int], None], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    signals = [killed(write, folder, 1)]
    half = contents(folder)
    write(folder, 1)
    before = contents(folder)
    signals.append(killed(write, folder, 2))
    after, left = contents(folder), drafts_in(folder)
    write(folder, 2)
    return {
        "signals": signals,
        "half": half,
        "before": before,
        "after": after,
        "drafts": left,
        "next": contents(folder),
        "drafts_next": drafts_in(folder),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = {}
    for number, (write, module) in enumerate(WRITERS.items()):
        place = folder / str(number)
        place.mkdir()
        name = write.__qualname__.partition(".")[0]
        found[f"{module}:{name}:{number}"] = try_out(write, place / "out")
    (folder / FOUND).write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
