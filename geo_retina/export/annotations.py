"""What pictures show, in the forms that other tools read."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import yaml
from affine import Affine
from numpy.typing import NDArray

from geo_retina.errors import OptionError
from geo_retina.grid import Window
from geo_retina.scene import Scene


@dataclass(frozen=True, eq=False)
class Chip:
    """One picture to be.

    Attributes:
        scene: number of its scene.
        stem: of its file's name.
        window: its pixels in the scene's grid; may reach beyond it.
        part: ``train`` or ``val``.
        boxes: (N, 4) float64 in its pixels, cut to it.
        labels: (N,) classes.
        places: (N,) positions among the scene's labels.
        hidden: (K, 4) float64 boxes in its pixels that are neither object nor background.
        corners: (N, 4, 2) float64 of the oriented boxes in its pixels, each around the part inside;
            none for forms of upright ones.
    """

    scene: int
    stem: str
    window: Window
    part: str
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    places: NDArray[np.int64]
    hidden: NDArray[np.float64]
    corners: NDArray[np.float64] | None = None


class Writer(ABC):
    """A folder of one form; pictures are added in order, then it is finished."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, tuple(classes)

    @abstractmethod
    def picture_path(self, chip: Chip) -> Path:
        """Name the file where its picture belongs."""

    @abstractmethod
    def add(self, chip: Chip, scene: Scene) -> None:
        """Note what a picture shows."""

    @abstractmethod
    def finish(self) -> None:
        """Write what stands for all pictures."""


class _Coco(Writer):
    """``train/*.png`` and ``annotations/train.json``; categories and images count from 1."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__(folder, classes)
        self._parts: dict[str, dict[str, list[dict[str, Any]]]] = {
            part: {"images": [], "annotations": []} for part in ("train", "val")
        }

    def picture_path(self, chip: Chip) -> Path:
        return self.folder / chip.part / f"{chip.stem}.png"

    def add(self, chip: Chip, scene: Scene) -> None:
        part = self._parts[chip.part]
        image = len(part["images"]) + 1
        part["images"].append(
            {
                "id": image,
                "file_name": f"{chip.stem}.png",
                "width": chip.window.width,
                "height": chip.window.height,
                # Beyond COCO, which leaves room for it: where the picture lies on the ground.
                "crs": _crs(scene),
                "affine": list(tuple(_affine(chip, scene))[:6]),
            }
        )
        for (x_min, y_min, x_max, y_max), label in zip(
            chip.boxes.tolist(), chip.labels.tolist(), strict=True
        ):
            width, height = x_max - x_min, y_max - y_min
            part["annotations"].append(
                {
                    "id": len(part["annotations"]) + 1,
                    "image_id": image,
                    "category_id": label + 1,
                    "bbox": [x_min, y_min, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )

    def finish(self) -> None:
        folder = self.folder / "annotations"
        folder.mkdir(parents=True)
        categories = [{"id": i, "name": name} for i, name in enumerate(self.classes, 1)]
        for name, part in self._parts.items():
            text = json.dumps({**part, "categories": categories})
            (folder / f"{name}.json").write_text(text, "utf-8")


class _Yolo(Writer):
    """``images/train/*.png``, ``labels/train/*.txt`` and ``data.yaml``; centres and sizes of 1."""

    def picture_path(self, chip: Chip) -> Path:
        return self.folder / "images" / chip.part / f"{chip.stem}.png"

    def rows(self, chip: Chip) -> NDArray[np.float64]:
        """Compute what stands behind the class, of each object."""
        size = np.array([chip.window.width, chip.window.height] * 2)
        low, high = chip.boxes[:, :2], chip.boxes[:, 2:]
        return np.hstack([(low + high) / 2, high - low]) / size

    def add(self, chip: Chip, scene: Scene) -> None:
        lines = [
            f"{label} " + " ".join(f"{value:.8f}" for value in row)
            for label, row in zip(chip.labels.tolist(), self.rows(chip).tolist(), strict=True)
        ]
        path = self.folder / "labels" / chip.part / f"{chip.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")

    def finish(self) -> None:
        names = dict(enumerate(self.classes))
        about = {"path": ".", "train": "images/train", "val": "images/val", "names": names}
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
        (self.folder / "data.yaml").write_text(text, "utf-8")


class _Voc(Writer):
    """``JPEGImages/*.png``, ``Annotations/*.xml`` and ``ImageSets/Main/train.txt``.

    Pixels count from 1 and edges are whole, as VOC has it, so boxes are rounded.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__(folder, classes)
        self._stems: dict[str, list[str]] = {"train": [], "val": []}

    def picture_path(self, chip: Chip) -> Path:
        return self.folder / "JPEGImages" / f"{chip.stem}.png"

    def add(self, chip: Chip, scene: Scene) -> None:
        self._stems[chip.part].append(chip.stem)
        root = ET.Element("annotation")
        _texts(root, {"folder": "JPEGImages", "filename": f"{chip.stem}.png"})
        depth = len(scene.bands)
        size = {"width": chip.window.width, "height": chip.window.height, "depth": depth}
        _texts(ET.SubElement(root, "size"), size)
        _texts(root, {"segmented": 0})
        for box, label in zip(chip.boxes, chip.labels.tolist(), strict=True):
            entry = ET.SubElement(root, "object")
            about = {"name": self.classes[label], "pose": "Unspecified", "truncated": 0}
            _texts(entry, {**about, "difficult": 0})
            # Edge 0 is the outer side of pixel 1; the far edge is the number of the last pixel.
            low = np.floor(box[:2] + 0.5).astype(int) + 1
            high = np.maximum(np.floor(box[2:] + 0.5).astype(int), low)
            names = ("xmin", "ymin", "xmax", "ymax")
            values = [*low.tolist(), *high.tolist()]
            _texts(ET.SubElement(entry, "bndbox"), dict(zip(names, values, strict=True)))
        ET.indent(root)
        path = self.folder / "Annotations" / f"{chip.stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        ET.ElementTree(root).write(path, encoding="utf-8")

    def finish(self) -> None:
        folder = self.folder / "ImageSets" / "Main"
        folder.mkdir(parents=True)
        for part, stems in self._stems.items():
            (folder / f"{part}.txt").write_text("".join(f"{stem}\n" for stem in stems), "utf-8")


class _YoloOriented(_Yolo):
    """As ``_Yolo``, with four corners of each object in shares of the picture."""

    def rows(self, chip: Chip) -> NDArray[np.float64]:
        assert chip.corners is not None  # as this form is oriented
        return (chip.corners / [chip.window.width, chip.window.height]).reshape(-1, 8)


class _Dota(Writer):
    """``train/images/*.png`` and ``train/labelTxt/*.txt``: four corners, class, not difficult."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__(folder, classes)
        blank = next((name for name in classes if name.split() != [name]), None)
        if blank is not None:
            raise OptionError(
                f"the class {blank!r} holds a blank, which DOTA's text cannot; rename it with "
                "DataOptions.classes, or choose another ChipOptions.form"
            )

    def picture_path(self, chip: Chip) -> Path:
        return self.folder / chip.part / "images" / f"{chip.stem}.png"

    def add(self, chip: Chip, scene: Scene) -> None:
        assert chip.corners is not None  # as this form is oriented
        lines = [
            " ".join(f"{value:.3f}" for value in row) + f" {self.classes[label]} 0"
            for row, label in zip(
                chip.corners.reshape(-1, 8).tolist(), chip.labels.tolist(), strict=True
            )
        ]
        gsd_m = scene.grid.gsd_m
        head = ["imagesource:geo-retina", f"gsd:{'null' if gsd_m is None else f'{gsd_m:g}'}"]
        path = self.folder / chip.part / "labelTxt" / f"{chip.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in [*head, *lines]), "utf-8")

    def finish(self) -> None:
        """Nothing stands for all pictures."""


WRITERS: dict[str, type[Writer]] = {
    "coco": _Coco,
    "yolo": _Yolo,
    "voc": _Voc,
    "dota": _Dota,
    "yolo-obb": _YoloOriented,
}
"""The forms, by the name that the options have for them."""

ORIENTED_FORMS = ("dota", "yolo-obb")
"""Those of oriented boxes."""


def _texts(parent: ET.Element, values: dict[str, Any]) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)


def _affine(chip: Chip, scene: Scene) -> Affine:
    return scene.grid.affine @ Affine.translation(chip.window.col, chip.window.row)


def _crs(scene: Scene) -> str | None:
    crs = scene.grid.crs
    if crs is None:
        return None
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_wkt())
