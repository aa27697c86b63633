"""The places where most went wrong, at full resolution, with what is there and what was found."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
import pyproj
import shapely
from matplotlib.image import imsave
from numpy.typing import NDArray

from geo_retina.draw.look import Look
from geo_retina.evaluation import FALSE, TRUE, Matched, MatchTable
from geo_retina.grid import Window
from geo_retina.scene import Scene
from geo_retina.vector import pixel_sides_m, reproject

PICTURES = 12
_FEWEST_OF_A_SCENE = 3
"""So many windows a scene may have, more where there are few scenes."""
_LEAST_PX, _MOST_PX = 192, 768
_OBJECTS_ACROSS = 14
_JPEG_QUALITY = 85


@dataclass(frozen=True, eq=False)
class Place:
    """A window of a scene where much went wrong.

    Attributes:
        scene: the scene.
        window: in its grid.
        false: false detections in it, by their middle.
        missed: missed labels in it.
        marks: objects that touch it, in the order to draw them.
    """

    scene: Scene
    window: Window
    false: int
    missed: int
    marks: tuple[Mark, ...]

    @property
    def wrong(self) -> int:
        """What went wrong in it."""
        return self.false + self.missed


@dataclass(frozen=True, eq=False)
class Mark:
    """An object on a picture.

    Attributes:
        kind: class of the mark: ``found``, ``missed``, ``true``, ``false`` or ``ignored``.
        shape: shapely geometry in the grid's pixels.
        tip: what it says when pointed at.
    """

    kind: str
    shape: shapely.Geometry
    tip: str


def worst_places(matches: MatchTable, scenes: Sequence[Scene], names: Sequence[str]) -> list[Place]:
    """Choose the windows with the most false and missed objects.

    Args:
        matches: what became of each object.
        scenes: the imagery.
        names: what objects call each scene.

    Returns:
        At most ``PICTURES``, the worst first, of one scene a few that do not overlap. An
        object that names its scene belongs to that one alone; others to every scene that they
        lie on. Windows without any error are left out.
    """
    detections = _Side(matches.detections, matches.crs)
    labels = _Side(matches.labels, matches.crs)
    places: list[Place] = []
    most = max(_FEWEST_OF_A_SCENE, PICTURES // max(len(scenes), 1))
    for scene, name in zip(scenes, names, strict=True):
        found, there = detections.on(scene, name), labels.on(scene, name)
        places += _places_of(scene, matches, found, there)[:most]
    places.sort(key=lambda place: (-place.wrong, place.scene.name, place.window))
    return places[:PICTURES]


class _Side:
    """The detections or the labels, found by scene or by place."""

    def __init__(self, objects: Matched, crs: pyproj.CRS) -> None:
        self._objects, self._crs = objects, crs
        self._tree = shapely.STRtree(objects.geometries)
        self._named = np.asarray(objects.scene, dtype=str)

    def on(self, scene: Scene, name: str) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        """Rows of the objects on a scene, ascending, and their geometries in its pixels."""
        grid = scene.grid
        whole = shapely.segmentize(shapely.box(0, 0, grid.width, grid.height), grid.width / 16)
        ground = shapely.transform(whole, grid.pixels_to_crs)
        ground = reproject(np.array([ground]), grid.crs, self._crs)[0]
        near = np.sort(self._tree.query(ground))
        near = near[(self._named[near] == "") | (self._named[near] == name)]
        shapes = reproject(self._objects.geometries[near], self._crs, grid.crs)
        shapes = shapely.transform(shapes, grid.crs_to_pixels)
        on = shapely.intersects(shapes, shapely.box(0, 0, grid.width, grid.height))
        return near[on].astype(np.int64), shapes[on]


_Placed = tuple[NDArray[np.int64], NDArray[np.object_]]


def _places_of(scene: Scene, matches: MatchTable, found: _Placed, there: _Placed) -> list[Place]:
    false = found[1][matches.detections.outcome[found[0]] == FALSE]
    missed = there[1][matches.labels.outcome[there[0]] == FALSE]
    if not len(false) and not len(missed):
        return []
    false_xy, missed_xy = _middles(false), _middles(missed)
    size = _window_size(scene, np.concatenate([found[1], there[1]]))
    places = []
    for window in _worst_windows(scene, np.concatenate([false_xy, missed_xy]), size):
        counts = (_inside(window, false_xy).sum(), _inside(window, missed_xy).sum())
        marks = _marks(window, matches, found, there)
        places.append(Place(scene, window, int(counts[0]), int(counts[1]), marks))
    return places


def _middles(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    return (bounds[:, :2] + bounds[:, 2:]) / 2


def _window_size(scene: Scene, shapes: NDArray[np.object_]) -> tuple[int, int]:
    """(height, width) that shows about a dozen objects side by side."""
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    sides = (bounds[:, 2:] - bounds[:, :2]).max(axis=1)
    side = float(np.median(sides[sides > 0])) if (sides > 0).any() else 0.0
    wanted = int(np.clip(side * _OBJECTS_ACROSS, _LEAST_PX, _MOST_PX))
    height, width = scene.grid.shape
    # A scene that is hardly larger is shown whole.
    whole = max(height, width) <= 1.5 * wanted
    return (height, width) if whole else (min(wanted, height), min(wanted, width))


def _worst_windows(
    scene: Scene, wrong_xy: NDArray[np.float64], size: tuple[int, int]
) -> list[Window]:
    """Windows apart from each other, the one with the most points first."""
    chosen: list[Window] = []
    while len(chosen) < PICTURES:
        window = _fullest(scene, wrong_xy, size, chosen)
        if window is None:
            break
        chosen.append(window)
    return chosen


def _fullest(
    scene: Scene, points: NDArray[np.float64], size: tuple[int, int], taken: list[Window]
) -> Window | None:
    """The window with the most points, of those on a grid of half windows and off those taken."""
    height, width = size
    half = np.array([max(width // 2, 1), max(height // 2, 1)])
    cells, counts = np.unique(np.floor(points / half).astype(np.int64), axis=0, return_counts=True)
    of_cell = {(col, row): n for (col, row), n in zip(cells.tolist(), counts.tolist(), strict=True)}
    best, most = None, 0
    corners = {(col - left, row - up) for col, row in of_cell for left in (0, 1) for up in (0, 1)}
    for col, row in sorted(corners):
        held = sum(of_cell.get((col + a, row + b), 0) for a in (0, 1) for b in (0, 1))
        if held <= most:
            continue
        top = min(max(row * int(half[1]), 0), scene.grid.height - height)
        start = min(max(col * int(half[0]), 0), scene.grid.width - width)
        window = Window(top, start, height, width)
        if not any(_overlap(window, other) for other in taken):
            best, most = window, held
    return best


def _inside(window: Window, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    x_min, y_min, x_max, y_max = window.box_px
    inside = (points >= (x_min, y_min)) & (points < (x_max, y_max))
    return np.asarray(inside.all(axis=1), dtype=np.bool_)


def _overlap(a: Window, b: Window) -> bool:
    return abs(a.row - b.row) < a.height and abs(a.col - b.col) < a.width


def _marks(window: Window, matches: MatchTable, found: _Placed, there: _Placed) -> tuple[Mark, ...]:
    """Labels below, detections above; what is right below what is wrong."""
    frame = shapely.box(*window.box_px)
    marks = []
    label_kinds = {TRUE: "found", FALSE: "missed"}
    for row, shape in zip(*there, strict=True):
        if shape.intersects(frame):
            kind = label_kinds.get(int(matches.labels.outcome[row]), "ignored")
            name = str(matches.labels.class_name[row]) or "object"
            marks.append(Mark(kind, shape, f"label: {name}, {kind}"))
    found_kinds = {TRUE: "true", FALSE: "false"}
    for row, shape in zip(*found, strict=True):
        if shape.intersects(frame):
            kind = found_kinds.get(int(matches.detections.outcome[row]), "ignored")
            name = str(matches.detections.class_name[row]) or "object"
            score = matches.detections.score[row]
            marks.append(Mark(kind, shape, f"detection: {name} {score:.2f}, {kind}"))
    order = ("ignored", "found", "true", "missed", "false")
    return tuple(sorted(marks, key=lambda mark: order.index(mark.kind)))


def picture(place: Place) -> str:
    """A place as SVG: its pixels, with every object as an outline that tells of itself."""
    x_min, y_min, x_max, y_max = place.window.box_px
    pixels, valid = place.scene.read(place.window)
    shown = Look.of(place.scene, pixels, valid).picture(pixels, valid)
    jpeg = BytesIO()
    imsave(jpeg, shown, format="jpeg", pil_kwargs={"quality": _JPEG_QUALITY})
    data = base64.b64encode(jpeg.getvalue()).decode("ascii")
    width, height = x_max - x_min, y_max - y_min
    return (
        f'<svg class="crop" viewBox="{x_min} {y_min} {width} {height}" role="img" '
        f'aria-label="{escape(place.scene.name)}">'
        f'<image x="{x_min}" y="{y_min}" width="{width}" height="{height}" '
        f'preserveAspectRatio="none" href="data:image/jpeg;base64,{data}"/>'
        f"{''.join(_outline(mark, width) for mark in place.marks)}{_scale_bar(place)}</svg>"
    )


def _outline(mark: Mark, width_px: int) -> str:
    tip = f"<title>{escape(mark.tip)}</title>"
    if mark.shape.geom_type == "Point":
        radius = width_px / 110
        return (
            f'<circle class="{mark.kind}" cx="{mark.shape.x:.1f}" cy="{mark.shape.y:.1f}" '
            f'r="{radius:.1f}">{tip}</circle>'
        )
    rings = [
        "M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in shapely.get_coordinates(part.exterior)) + "Z"
        for part in shapely.get_parts(mark.shape)
        if part.geom_type == "Polygon"
    ]
    return f'<path class="{mark.kind}" d="{"".join(rings)}">{tip}</path>'


def _scale_bar(place: Place) -> str:
    """A bar of a round length along the rows of the grid."""
    if place.scene.grid.gsd_m is None:
        return ""
    side_m = float(pixel_sides_m(place.scene.grid)[0])
    wanted_m = place.window.width * side_m / 4
    power = 10.0 ** np.floor(np.log10(wanted_m))
    length_m = power * max(step for step in (1, 2, 5) if step * power <= wanted_m)
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    size = place.window.width / 26
    left = place.window.col + size * 0.6
    foot = place.window.row + place.window.height - size * 0.6
    right = left + length_m / side_m
    return (
        f'<g class="scale"><line x1="{left:.2f}" x2="{right:.2f}" y1="{foot:.2f}" '
        f'y2="{foot:.2f}"/><text x="{left:.2f}" y="{foot - size * 0.35:.2f}" '
        f'font-size="{size:.2f}">{text}</text></g>'
    )


def count_errors(matches: MatchTable) -> Mapping[str, Mapping[str, int]]:
    """How many detections are false, and labels missed, by the reason why."""
    from geo_retina.evaluation import KINDS

    sides = {"false_positive": matches.detections, "missed": matches.labels}
    counted = {}
    for name, side in sides.items():
        kinds = np.bincount(side.kind[side.outcome == FALSE], minlength=len(KINDS))
        counted[name] = {
            kind: int(n) for kind, n in zip(KINDS, kinds.tolist(), strict=True) if kind
        }
    return counted
