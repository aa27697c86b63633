"""The places where most went wrong, at full resolution, with labelled and predicted objects."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
import pyproj
import shapely
from markupsafe import Markup
from matplotlib.image import imsave
from numpy.typing import NDArray

from geo_retina.errors import SceneError
from geo_retina.evaluation import FALSE, KINDS, TRUE, Matched, MatchTable
from geo_retina.geodesy import missing_crs, reproject
from geo_retina.grid import Window
from geo_retina.options import same_text
from geo_retina.plots.display import Display
from geo_retina.scene import Scene

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
        name: what objects call it.
        window: in its grid.
        false: false detections in it, by their middle.
        missed: missed labels in it.
        marks: objects that touch it, in the order to draw them.
    """

    scene: Scene
    name: str
    window: Window
    false: int
    missed: int
    marks: tuple[Mark, ...] = ()

    @property
    def wrong(self) -> int:
        """What went wrong in it."""
        return self.false + self.missed

    def to_dict(self) -> dict[str, Any]:
        """Return where it is and what went wrong, ready for JSON."""
        window = dict(zip(("row", "col", "height", "width"), self.window, strict=True))
        counts = {"false": self.false, "missed": self.missed}
        return {"scene": self.name, "window": window, **counts}


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

    Raises:
        SceneError: a scene has no CRS, or cannot be read.
    """
    for scene in scenes:
        if scene.grid.crs is None:
            so = "no object can be placed on it"
            what = f"the scene {scene.path}"
            raise SceneError(missing_crs(what, so, otherwise=", or leave it out"))
    sides = _Side(matches.detections, matches.crs), _Side(matches.labels, matches.crs)
    most = max(_FEWEST_OF_A_SCENE, PICTURES // max(len(scenes), 1))
    candidates: list[Place] = []
    for scene, name in zip(scenes, names, strict=True):
        candidates += _places_of(
            scene, name, *(side.on(scene, name, scene.grid.window) for side in sides)
        )[:most]
    candidates.sort(key=lambda place: (-place.wrong, place.name, place.window))
    return [
        replace(
            place, marks=_marks(*(side.on(place.scene, place.name, place.window) for side in sides))
        )
        for place in candidates[:PICTURES]
    ]


@dataclass(frozen=True, eq=False)
class _Placed:
    """Objects of one side on a scene.

    Attributes:
        shapes: (N,) shapely, in the grid's pixels.
        outcome: (N,) as in ``Matched``, and so the others.
        class_name: (N,) their classes.
        score: (N,) their scores.
    """

    shapes: NDArray[np.object_]
    outcome: NDArray[np.int8]
    class_name: NDArray[np.object_]
    score: NDArray[np.float64]

    def wrong(self) -> NDArray[np.float64]:
        """Return (W, 2) middles of those that are false, or missed."""
        bounds = shapely.bounds(self.shapes[self.outcome == FALSE]).reshape(-1, 4)
        return (bounds[:, :2] + bounds[:, 2:]) / 2


class _Side:
    """The detections or the labels, found by scene or by place."""

    def __init__(self, objects: Matched, crs: pyproj.CRS) -> None:
        self._objects, self._crs = objects, crs
        self._tree = shapely.STRtree(objects.geometries)
        form = cache(same_text)  # of the few scenes that many objects name
        self._named = np.array([form(str(name)) for name in objects.scene], dtype=object)

    def on(self, scene: Scene, name: str, window: Window) -> _Placed:
        """Place the objects that touch a window of a scene, in their order."""
        grid, objects = scene.grid, self._objects
        frame = shapely.box(*window.box_px)
        # With vertices along its sides, as they may bend on the way to another CRS.
        outline = shapely.segmentize(frame, max(window.height, window.width) / 16)
        ground = shapely.transform(outline, grid.pixels_to_crs)
        near = np.sort(self._tree.query(reproject(np.array([ground]), grid.crs, self._crs)[0]))
        near = near[(self._named[near] == "") | (self._named[near] == same_text(name))]
        shapes = reproject(objects.geometries[near], self._crs, grid.crs)
        shapes = shapely.transform(shapes, grid.crs_to_pixels)
        on = shapely.intersects(shapes, frame)
        rows = near[on]
        return _Placed(
            shapes[on], objects.outcome[rows], objects.class_name[rows], objects.score[rows]
        )


def _places_of(scene: Scene, name: str, found: _Placed, there: _Placed) -> list[Place]:
    """Find where most went wrong on a scene, the worst first, without marks."""
    false, missed = found.wrong(), there.wrong()
    size = _window_size(scene, np.concatenate([found.shapes, there.shapes]))
    places = [
        Place(
            scene,
            name,
            window,
            int(_inside(window, false).sum()),
            int(_inside(window, missed).sum()),
        )
        for window in _worst_windows(scene, np.concatenate([false, missed]), size)
    ]
    return sorted((p for p in places if p.wrong), key=lambda place: -place.wrong)


def _window_size(scene: Scene, shapes: NDArray[np.object_]) -> tuple[int, int]:
    """Choose (height, width) that shows about a dozen objects side by side."""
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    sides = (bounds[:, 2:] - bounds[:, :2]).max(axis=1)
    side = float(np.median(sides[sides > 0])) if (sides > 0).any() else 0.0
    ideal = int(np.clip(side * _OBJECTS_ACROSS, _LEAST_PX, _MOST_PX))
    height, width = scene.grid.shape
    # A scene that is hardly larger is shown whole.
    whole = max(height, width) <= 1.5 * ideal
    return (height, width) if whole else (min(ideal, height), min(ideal, width))


def _worst_windows(
    scene: Scene, wrong_xy: NDArray[np.float64], size: tuple[int, int]
) -> list[Window]:
    """Choose windows on a grid of half windows, apart from each other, the fullest first."""
    if not len(wrong_xy):
        return []
    height, width = size
    half_xy = np.maximum(np.array([width, height]) // 2, 1)
    cells, counts = np.unique(np.floor(wrong_xy / half_xy), axis=0, return_counts=True)
    # A window is four cells, so each cell counts in the four windows that hold it.
    shifts = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    corners = (cells[None] - shifts[:, None]).reshape(-1, 2)
    corners, window = np.unique(corners, axis=0, return_inverse=True)
    held = np.bincount(window.ravel(), np.tile(counts, 4))
    limits = np.array(scene.grid.shape[::-1]) - (width, height)
    starts = np.clip(corners * half_xy, 0, limits).astype(np.int64)
    chosen: list[Window] = []
    for i in np.argsort(-held, kind="stable").tolist():
        window_here = Window(int(starts[i, 1]), int(starts[i, 0]), height, width)
        if not any(_overlap(window_here, other) for other in chosen):
            chosen.append(window_here)
        if len(chosen) == PICTURES:
            break
    return chosen


def _inside(window: Window, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    x_min, y_min, x_max, y_max = window.box_px
    inside = (points >= (x_min, y_min)) & (points < (x_max, y_max))
    return np.asarray(inside.all(axis=1), dtype=np.bool_)


def _overlap(a: Window, b: Window) -> bool:
    return abs(a.row - b.row) < a.height and abs(a.col - b.col) < a.width


def _marks(found: _Placed, there: _Placed) -> tuple[Mark, ...]:
    """Order labels below, detections above; what is right below what is wrong."""
    marks = []
    label_kinds = {TRUE: "found", FALSE: "missed"}
    for i in range(len(there.shapes)):
        kind = label_kinds.get(int(there.outcome[i]), "ignored")
        name = there.class_name[i] or "object"
        marks.append(Mark(kind, there.shapes[i], f"label: {name}, {kind}"))
    found_kinds = {TRUE: "true", FALSE: "false"}
    for i in range(len(found.shapes)):
        kind = found_kinds.get(int(found.outcome[i]), "ignored")
        name = f"{found.class_name[i] or 'object'} {found.score[i]:.2f}"
        marks.append(Mark(kind, found.shapes[i], f"detection: {name}, {kind}"))
    order = ("ignored", "found", "true", "missed", "false")
    return tuple(sorted(marks, key=lambda mark: order.index(mark.kind)))


def picture(place: Place) -> Markup:
    """Draw a place as SVG: its pixels, with an outline and a tooltip for every object."""
    x_min, y_min, x_max, y_max = place.window.box_px
    pixels, valid = place.scene.read(place.window)
    shown = Display.of(place.scene, pixels, valid).picture(pixels, valid)
    jpeg = BytesIO()
    imsave(jpeg, shown, format="jpeg", pil_kwargs={"quality": _JPEG_QUALITY})
    data = base64.b64encode(jpeg.getvalue()).decode("ascii")
    width, height = x_max - x_min, y_max - y_min
    return Markup(
        f'<svg class="crop" viewBox="{x_min} {y_min} {width} {height}" role="img" '
        f'aria-label="{escape(place.name)}">'
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
    """Draw a bar of a round length along the rows of the grid."""
    if place.scene.grid.gsd_m is None:
        return ""
    side_m = float(place.scene.grid.sides_m()[0])
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
    """Count false detections and missed labels by the reason why."""
    sides = {"false_positive": matches.detections, "missed": matches.labels}
    counted = {}
    for name, side in sides.items():
        kinds = np.bincount(side.kind[side.outcome == FALSE], minlength=len(KINDS))
        counted[name] = {
            kind: int(n) for kind, n in zip(KINDS, kinds.tolist(), strict=True) if kind
        }
    return counted
