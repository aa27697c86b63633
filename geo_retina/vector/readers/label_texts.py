"""Labels in folders of text files, one for each image: DOTA's and YOLO's, oriented ones too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import yaml
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.files import read_text
from geo_retina.options import same_text
from geo_retina.vector.readers.coco import CocoLabels

_FOLDERS = ("labels", "labelTxt")
"""Names of the folders that hold the texts, beside those of the images."""

_HEADERS = ("imagesource", "gsd")
_NAMES_UP = 3
"""Folders upwards in which YOLO's names of classes are looked for."""


@dataclass
class _Rows:
    """What was read so far, as columns."""

    image: list[int] = field(default_factory=list)
    points: list[NDArray[np.float64]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    invalid: int = 0


def is_label_folder(path: str | Path) -> bool:
    """Check whether a path is a folder of texts with labels."""
    folder = Path(path)
    if not folder.is_dir() or any(folder.glob("*.shp")):
        return False
    return any(True for _ in _texts(folder))


def read_label_folder(path: str | Path, *, ignore_difficult: bool = False) -> CocoLabels:
    """Read labels in the pixels of images: DOTA's, or YOLO's upright and oriented ones.

    A line of DOTA has four corners, a class, and perhaps 1 for what is difficult; one of YOLO a
    number of a class and four corners, or a centre and sides, in shares of the image. YOLO's
    classes have the names in ``data.yaml`` or ``classes.txt``, else their numbers.

    Args:
        path: the folder with the texts, one above it, or one with ``labels`` or ``labelTxt`` in it.
        ignore_difficult: take DOTA's difficult ones for neither object nor background.

    Returns:
        The labels, file by file; an empty file is an image without an object. Those without area
        are left out and counted.

    Raises:
        LabelError: a line is none of these, or lines are of several kinds.
    """
    folder = Path(path)
    rows, files = _Rows(), []
    kinds: dict[str, str] = {}
    for number, text in enumerate(_texts(folder)):
        files.append(_image_name(folder, text))
        for line, words in _lines(text):
            kind = _kind(words, f"line {line} of {text}")
            kinds.setdefault(kind, f"line {line} of {text}")
            _add(rows, number, words, kind, f"line {line} of {text}")
    if len(kinds) > 1:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise LabelError(
            f"{path} mixes labels as {one} ({first}) and as {other} ({second}), expected one kind"
        )
    is_yolo = any(kind.startswith("YOLO") for kind in kinds)
    names = _yolo_names(folder, rows.names, str(path)) if is_yolo else rows.names
    points = np.array(rows.points, dtype=np.float64).reshape(-1, 4, 2)
    ignored = np.array(rows.difficult, np.bool_) & ignore_difficult
    return CocoLabels(
        str(path),
        np.array(files, dtype=object),
        np.zeros((len(files), 2), np.int64),
        np.array(rows.image, dtype=np.int64),
        np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1),
        np.asarray(shapely.multipoints(shapely.points(points)), dtype=object).reshape(-1),
        np.array([same_text(name) for name in names], dtype=object),
        ignored,
        dropped_invalid=rows.invalid,
        relative=is_yolo,
    )


def _texts(folder: Path) -> Iterator[Path]:
    """List the texts with labels: those in folders of that name, else in the folder itself."""
    found = sorted(folder.rglob("*.txt"))
    named = [p for p in found if set(p.relative_to(folder).parts[:-1]) & set(_FOLDERS)]
    own = [p for p in found if p.parent == folder and p.name != "classes.txt"]
    below = [p for p in found if p.name != "classes.txt"] if folder.name in _FOLDERS else []
    yield from named or below or own


def _image_name(folder: Path, text: Path) -> str:
    """Name the image of a text, without suffix, in a folder of images beside the labels."""
    parts = text.relative_to(folder.parent if folder.name in _FOLDERS else folder).parts
    return str(Path(*["images" if p in _FOLDERS else p for p in parts]).with_suffix(""))


def _lines(text: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        content = read_text(text)
    except (OSError, ValueError) as error:
        raise LabelError(f"{text} cannot be read as text: {error}") from error
    for number, line in enumerate(content.splitlines(), start=1):
        words = line.split()
        if words and not line.strip().lower().startswith(_HEADERS):
            yield number, words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _kind(words: list[str], where: str) -> str:
    numbers = [_is_number(word) for word in words]
    if len(words) >= 9 and all(numbers[:8]) and (len(words) > 9 or not numbers[8]):
        return "DOTA's"
    if all(numbers) and words[0].isdigit() and len(words) in (5, 9):
        return "YOLO's oriented boxes" if len(words) == 9 else "YOLO's boxes"
    raise LabelError(
        f"{where} is {' '.join(words)!r}, expected DOTA's eight coordinates and a class, or YOLO's "
        "number of a class and four or eight shares of the image"
    )


def _add(rows: _Rows, image: int, words: list[str], kind: str, where: str) -> None:
    """Add the label of a line; one that is not finite or has no area is counted."""
    difficult = False
    if kind == "DOTA's":
        values, rest = words[:8], words[8:]
        difficult = len(rest) > 1 and rest[-1].isdigit() and int(rest[-1]) > 0
        name = " ".join(rest[:-1] if len(rest) > 1 and rest[-1].isdigit() else rest)
    else:
        values, name = words[1:], words[0]
    numbers = np.array([float(value) for value in values])
    if kind == "YOLO's boxes":
        x, y, width, height = numbers
        signs = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        points = np.array([x, y]) + signs * [width, height]
    else:
        points = numbers.reshape(4, 2)
    if not np.isfinite(points).all() or not shapely.convex_hull(shapely.MultiPoint(points)).area:
        rows.invalid += 1
        return
    rows.image.append(image)
    rows.points.append(points)
    rows.names.append(name)
    rows.difficult.append(difficult)


def _yolo_names(folder: Path, numbers: list[str], path: str) -> list[str]:
    """Name the classes of YOLO's numbers, as far as a file says them."""
    known = _class_file(folder)
    if known is None:
        return [str(int(number)) for number in numbers]
    missing = sorted({int(number) for number in numbers} - known.keys())
    if missing:
        raise LabelError(
            f"{path} has the class number {missing[0]}, but its names go by {sorted(known)[:20]}; "
            "complete the names in data.yaml"
        )
    return [known[int(number)] for number in numbers]


def _class_file(folder: Path) -> dict[int, str] | None:
    places = [folder, *folder.resolve().parents][: 1 + _NAMES_UP]
    for place in places:
        if (place / "data.yaml").is_file():
            return _names_of(place / "data.yaml")
        if (place / "classes.txt").is_file():
            return dict(enumerate(read_text(place / "classes.txt").split("\n")))
    return None


def _names_of(path: Path) -> dict[int, str]:
    try:
        content: Any = yaml.safe_load(read_text(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LabelError(f"{path} is no YAML file that can be read: {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(str(key).isdigit() for key in names):
        raise LabelError(f"{path} has no names of classes by number, expected YOLO's list names")
    return {int(key): str(name) for key, name in names.items()}
