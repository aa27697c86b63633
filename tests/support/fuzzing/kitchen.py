"""The good files that damaged ones are made from, small enough to be damaged thousands of times."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from shapely import Point, box

from geo_retina.cli import main
from support.stubs import UTM, paint, tiny_model, write_scene

_BOXES = np.array([[10, 12, 30, 22], [60, 40, 68, 70]])
CPU = ["--device", "cpu", "--block-px", "256"]


def stock(folder: Path) -> None:
    """Fill a folder with good files: a scene, a model, detections, labels, a run cut short.

    The network must be the stub of ``support.stubs``, which finds the white boxes.
    """
    write_scene(folder / "good.tif", paint((80, 96), _BOXES))
    write_scene(folder / "plain.tif", paint((24, 24), _BOXES[:1]))
    tiny_model().save(folder / "model.safetensors")
    (folder / "broken.tif").write_bytes(b"II*\x00")
    detect = ["detect", str(folder / "good.tif"), "--model", str(folder / "model.safetensors")]
    for suffix in ("gpkg", "parquet", "geojson"):
        assert main([*detect, "--out", str(folder / f"found.{suffix}"), *CPU]) == 0
    half = [*detect[:2], str(folder / "broken.tif"), *detect[2:]]
    assert main([*half, "--out", str(folder / "half.gpkg"), *CPU]) == 3
    _write_labels(folder)
    _write_coco(folder)


def _write_labels(folder: Path) -> None:
    labels = gpd.GeoDataFrame(
        {"kind": ["car", "tree"], "size": [3.0, 4.5]},
        geometry=[box(400_005, 4_999_989, 400_015, 4_999_994), Point(400_032, 4_999_972).buffer(3)],
        crs=UTM,
    )
    labels.to_file(folder / "labels.gpkg")
    labels.to_file(folder / "labels.fgb")
    labels.to_crs(4326).to_file(folder / "labels.geojson")
    labels.to_parquet(folder / "labels.parquet")
    (folder / "shape").mkdir()
    labels.to_file(folder / "shape" / "labels.shp")
    with zipfile.ZipFile(folder / "labels.shp.zip", "w") as file:
        for path in sorted((folder / "shape").iterdir()):
            file.write(path, path.name)


def _write_coco(folder: Path) -> None:
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "good.tif", "height": 80, "width": 96}],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "tree"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 12, 20, 10], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": [[60, 40, 68, 40, 68, 70]]},
        ],
    }
    (folder / "coco.json").write_text(json.dumps(content))


def copy_run(kitchen: Path, folder: Path) -> None:
    """Put the run that was cut short, with its output, into another folder."""
    shutil.copytree(kitchen / "half.gpkg.run", folder / "half.gpkg.run")
    for path in kitchen.glob("half.gpkg*"):
        if path.is_file():
            shutil.copy(path, folder)
