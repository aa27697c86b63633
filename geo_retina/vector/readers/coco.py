"""Labels in COCO's JSON: boxes in the pixels of image files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.boxes import Boxes
from geo_retina.errors import LabelError
from geo_retina.files import parse_json, read_text
from geo_retina.options import same_text


@dataclass(frozen=True, eq=False)
class CocoLabels:
    """One box per object, in the pixels of the image file that it belongs to.

    Attributes:
        path: where they came from, for messages.
        files: (I,) names of the image files, as the annotations have them.
        shapes: (I, 2) int64 height and width of the images; 0 where they are not said.
        image: (N,) int64 position of each label's image.
        boxes_file: (N, 4) float64 x_min y_min x_max y_max in the file's pixels.
        outlines_file: (N,) shapely geometries whose smallest rectangle is the oriented box, in
            the file's pixels: points of the polygons, or the corners of the box.
        class_names: (N,) text, the category's name.
        ignored: (N,) which labels are crowds: neither object nor background.
        relative: positions are shares of the images' sides, not pixels.
        dropped_null: annotations left out for having neither a box nor a polygon.
        dropped_invalid: annotations left out for one that is not finite or has no area.
    """

    path: str
    files: NDArray[np.object_]
    shapes: NDArray[np.int64]
    image: NDArray[np.int64]
    boxes_file: Boxes
    outlines_file: NDArray[np.object_]
    class_names: NDArray[np.object_]
    ignored: NDArray[np.bool_]
    dropped_null: int = 0
    dropped_invalid: int = 0
    relative: bool = False

    def __len__(self) -> int:
        return len(self.image)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> CocoLabels:
        """Select the labels where a mask is true, or at positions, in that order."""
        return replace(
            self,
            image=self.image[index],
            boxes_file=self.boxes_file[index],
            outlines_file=self.outlines_file[index],
            class_names=self.class_names[index],
            ignored=self.ignored[index],
        )


def is_coco(path: str | Path) -> bool:
    """Check whether a .json file is COCO's, not GeoJSON with the same suffix; reads it."""
    if not str(path).lower().endswith(".json") or not Path(path).is_file():
        return False
    try:
        content = parse_json(read_text(path))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "images" in content and "annotations" in content


def read_coco(path: str | Path) -> CocoLabels:
    """Read detection annotations in COCO's JSON format.

    The box of an annotation is its ``bbox``, else the bounds of its polygons. ``iscrowd`` marks
    a label to ignore.

    Returns:
        The labels in the order of the file.

    Raises:
        LabelError: the file cannot be read, or names an image or category that it does not
            define.
    """
    content = _read_json(path)
    images = _by_id(content, "images", "file_name", path)
    categories = _by_id(content, "categories", "name", path)
    position = {key: i for i, key in enumerate(images)}
    rows: list[tuple[int, NDArray[np.float64], str, bool]] = []
    outlines: list[Any] = []
    missing = invalid = 0
    for number, note in enumerate(content["annotations"]):
        image, category = note.get("image_id"), note.get("category_id")
        if image not in images or category not in categories:
            what = f"image {image}" if image not in images else f"category {category}"
            raise LabelError(
                f"annotation {note.get('id', number)} of {path} names {what}, which the file "
                "does not define; export the annotations again, with all images and categories"
            )
        try:
            points = _polygon_points(note)
            box = _box(note, points)
        except (ValueError, TypeError, OverflowError) as error:
            raise LabelError(
                f"annotation {note.get('id', number)} of {path} has a box or polygon that is not "
                f"made of numbers ({error}); export the annotations again"
            ) from error
        if box is None:
            missing += 1
        elif not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
            invalid += 1
        else:
            name = same_text(str(categories[category]["name"]))
            rows.append((position[image], box, name, bool(note.get("iscrowd", 0))))
            corners = boxes.corners(box[None])[0] if points is None else points
            outlines.append(shapely.MultiPoint(corners))
    shapes = [[_side(each, side, path) for side in ("height", "width")] for each in images.values()]
    return CocoLabels(
        str(path),
        np.array([str(each["file_name"]) for each in images.values()], dtype=object),
        np.array(shapes, dtype=np.int64).reshape(-1, 2),
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array(outlines, dtype=object),
        np.array([row[2] for row in rows], dtype=object),
        np.array([row[3] for row in rows], dtype=np.bool_),
        dropped_null=missing,
        dropped_invalid=invalid,
    )


def _read_json(path: str | Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(path))
    except FileNotFoundError:
        raise LabelError(f"{path} does not exist, expected annotations in COCO's JSON") from None
    except (OSError, ValueError) as error:
        raise LabelError(f"{path} is not a JSON file that can be read: {error}") from error
    lists = ("images", "annotations", "categories")
    absent = [
        key
        for key in lists
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if absent:
        raise LabelError(
            f"{path} has no list {absent[0]}, expected COCO's {', '.join(lists)} for detection"
        )
    for key in lists:
        for number, entry in enumerate(content[key]):
            if not isinstance(entry, dict) or not _are_ids(entry):
                raise LabelError(
                    f"entry {number} of {key} in {path} is not as COCO has it, expected a group of "
                    "keys whose ids are numbers or texts"
                )
    return dict(content)


def _are_ids(entry: Mapping[str, Any]) -> bool:
    names = ("id", "image_id", "category_id")
    return all(isinstance(entry.get(name, 0), (int, float, str)) for name in names)


def _by_id(
    content: Mapping[str, Any], key: str, name: str, path: str | Path
) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for entry in content[key]:
        if "id" not in entry or name not in entry:
            raise LabelError(f"an entry of {key} in {path} has no id or no {name}, expected both")
        if entry["id"] in found:
            raise LabelError(f"{path} has two {key} of id {entry['id']}, expected each id once")
        found[entry["id"]] = entry
    return found


def _side(image: Mapping[str, Any], name: str, path: str | Path) -> int:
    """Read the height or width of an image; 0 where it is not said."""
    value = image.get(name) or 0
    if not isinstance(value, (int, float)) or not 0 <= value < 2**31:
        raise LabelError(
            f"image {image['id']} of {path} has a {name} of {value!r}, expected a number of pixels"
        )
    return int(value)


def _box(note: Mapping[str, Any], points: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Read x_min y_min x_max y_max of an annotation; None where it has no extent to read."""
    bbox = note.get("bbox")
    if isinstance(bbox, list) and len(bbox) == 4:
        x, y, width, height = (float(value) for value in bbox)
        return np.array([x, y, x + width, y + height])
    return None if points is None else np.concatenate([points.min(axis=0), points.max(axis=0)])


def _polygon_points(note: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Read (P, 2) points of an annotation's polygons; None where it has none."""
    polygons = note.get("segmentation")
    if not isinstance(polygons, list) or not any(polygons):
        return None
    return np.concatenate([np.asarray(ring, np.float64).reshape(-1, 2) for ring in polygons])
