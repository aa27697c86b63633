"""A scene with its detections: all of it, and crops at full resolution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch, Rectangle
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray
from shapely import STRtree

from geo_retina.errors import LabelError
from geo_retina.geodesy import missing_crs
from geo_retina.grid import Window
from geo_retina.options import same_text
from geo_retina.plots.display import Display
from geo_retina.plots.saving import save_figure
from geo_retina.scene import Scene
from geo_retina.vector import CLASS_COLOURS

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

_OVERVIEW_PX = 1400
_CROP_PX = 256
_LEAST_CROP_PX = 64
_DPI = 130


@dataclass(frozen=True)
class _Boxes:
    """Detections in the grid's pixels.

    Attributes:
        rings: (N, 5, 2) outlines, closed.
        labels: (N,) positions in ``names``.
        names: classes, sorted, so that a class has its colour in every picture.
    """

    rings: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    @cached_property
    def bounds(self) -> NDArray[np.float64]:
        """(N, 4) x_min y_min x_max y_max."""
        return np.concatenate([self.rings.min(axis=1), self.rings.max(axis=1)], axis=1)

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """(N, 2) x, y."""
        return (self.bounds[:, :2] + self.bounds[:, 2:]) / 2

    def colour(self, label: int) -> str:
        """Choose the colour of a class; colours repeat after the last."""
        return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def draw_preview(
    scene: Scene, detections: GeoDataFrame, out: str | Path, *, crops: int = 3
) -> Path:
    """Draw a scene with its detections: all of it, and crops at full resolution.

    Args:
        scene: the imagery; its red, green and blue bands, else its first three or one.
        detections: polygons in any CRS, with a column ``class``; of a layer of several scenes,
            those whose ``scene`` is this one. One of a single scene is of this one, whatever
            name it has: the file may have been renamed. What lies beside the scene is left
            out. May be empty.
        out: the picture, ending .png; replaced if it exists.
        crops: places to show, the densest of each class in turn.

    Returns:
        The picture's path.

    Raises:
        LabelError: the detections have a CRS and the scene none, or the other way round.
        OutputError: the picture cannot be written.
        SceneError: the scene cannot be read.

    Examples:
        >>> import geopandas
        >>> from geo_retina import draw_preview, open_scene
        >>> found = geopandas.read_file("detections.gpkg", layer="detections")
        >>> str(draw_preview(open_scene("scene.tif"), found, "preview.png"))
        'preview.png'
    """
    boxes = _place(scene, detections)
    pixels, valid, scale = scene.overview(_OVERVIEW_PX)
    display = Display.of(scene, pixels, valid)
    windows = _choose_crops(scene, boxes, crops)
    figure, main, sides = _lay_out(len(windows), scene.grid.height / scene.grid.width)
    height, width = scene.grid.shape
    main.imshow(display.picture(pixels, valid), extent=(0, width, height, 0), aspect="equal")
    _draw_boxes(main, boxes, scale)
    _draw_scale_bar(main, scene, width)
    for letter, axes, window in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", sides, windows, strict=False):
        _draw_crop(axes, scene, display, boxes, window)
        axes.set_title(letter, loc="left", fontsize=10, pad=3, fontweight="bold")
        _mark_crop(main, window, letter)
    _draw_legend(figure, main, scene, boxes)
    return save_figure(figure, Path(out))


def _place(scene: Scene, detections: GeoDataFrame) -> _Boxes:
    """Move the detections that lie on the scene into its pixels."""
    if "scene" in detections.columns:
        named = detections["scene"].map(lambda name: same_text(str(name)), na_action="ignore")
        own, tied_to = same_text(scene.name), set(named.dropna())
        if own in tied_to or len(tied_to) > 1:
            detections = detections[named == own]
    if (detections.crs is None) != (scene.grid.crs is None) and len(detections):
        raise LabelError(
            missing_crs(
                "the detections",
                f"they cannot be drawn on the scene {scene.name}, which has one",
                file="detections.gpkg",
                several=True,
            )
            if detections.crs is None
            else missing_crs(
                f"the scene {scene.name}", "detections with a CRS cannot be drawn on it"
            )
        )
    if scene.grid.crs is not None and len(detections) and detections.crs != scene.grid.crs:
        detections = detections.to_crs(scene.grid.crs)
    shapes = np.asarray(detections.geometry.values, dtype=object)
    kept = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    shapes = shapely.transform(shapes[kept], scene.grid.crs_to_pixels)
    plain = (shapely.get_type_id(shapes) == 3) & (shapely.get_num_coordinates(shapes) == 5)
    shapes[~plain] = shapely.box(*shapely.bounds(shapes[~plain]).T)
    rings = shapely.get_coordinates(shapes).reshape(-1, 5, 2)
    size_xy = (scene.grid.width, scene.grid.height)
    on = ((rings.max(axis=1) > 0) & (rings.min(axis=1) < size_xy)).all(axis=1)
    rings = rings[on]
    named = "class" in detections.columns
    found = detections["class"].to_numpy(str)[kept][on] if named else np.full(len(rings), "object")
    names, labels = np.unique(found, return_inverse=True)
    return _Boxes(rings, labels.astype(np.int64), tuple(str(name) for name in names))


def _choose_crops(scene: Scene, boxes: _Boxes, crops: int) -> list[Window]:
    """Choose windows where each class in turn is densest, apart from each other."""
    # Of a small scene a part is still to be a part.
    most = max(min(_CROP_PX, max(scene.grid.shape) // 2), _LEAST_CROP_PX)
    height, width = (min(most, side) for side in scene.grid.shape)
    chosen: list[Window] = []
    turns = np.argsort(-np.bincount(boxes.labels, minlength=1), kind="stable")
    for i in range(crops if len(boxes.labels) else 0):
        # After every class had its turn, the crops show whatever is densest.
        own = boxes.labels == turns[i] if i < len(turns) else np.full(len(boxes.labels), True)
        window = _densest(scene, boxes.centres[own], (height, width), chosen)
        if window is not None:
            chosen.append(window)
    return chosen


def _densest(
    scene: Scene, centres: NDArray[np.float64], size: tuple[int, int], taken: list[Window]
) -> Window | None:
    """Find the window with the most centres on a grid of half windows, apart from those taken."""
    height, width = size
    rows = _starts(scene.grid.height, height, centres[:, 1])
    cols = _starts(scene.grid.width, width, centres[:, 0])
    x, y = np.sort(centres[:, 0]), centres[:, 1][np.argsort(centres[:, 0], kind="stable")]
    best, most = None, 0
    for col in cols:
        inside = np.sort(y[slice(*np.searchsorted(x, [col, col + width]))])
        counts = np.diff(np.searchsorted(inside, np.stack([rows, rows + height])), axis=0)[0]
        for at in np.argsort(-counts, kind="stable"):
            if counts[at] <= most:
                break
            window = Window(int(rows[at]), int(col), height, width)
            if not any(_overlap(window, other) for other in taken):
                best, most = window, int(counts[at])
                break
    return best


def _starts(size: int, crop: int, positions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place starts of crops, a quarter of one apart, that hold or adjoin one of the positions."""
    step = max(crop // 4, 1)
    behind = np.arange(-1, crop // step + 2)
    near = (positions // step).astype(np.int64)[:, None] - behind
    return np.unique(np.clip(near * step, 0, size - crop))


def _overlap(a: Window, b: Window) -> bool:
    return (
        abs(a.row - b.row) < (a.height + b.height) / 2
        and abs(a.col - b.col) < (a.width + b.width) / 2
    )


def _lay_out(crops: int, aspect: float) -> tuple[Figure, Axes, list[Axes]]:
    """Lay out a figure with the scene to the left and crops to the right, lengths in inches."""
    edge, head = 0.15, 0.75
    tall = float(np.clip(8.6 * aspect, 4.0, 10.0))
    across = float(np.clip(tall / aspect, 2.4, 8.6))
    columns = max(1, -(-crops // max(1, int(tall / 2.3))))
    step = tall / max(1, -(-crops // columns))
    side = min(step - 0.3, 4.2)
    full_x = across + 2 * edge + (columns * (side + edge) if crops else 0)
    full_y = tall + head + edge
    figure = Figure(figsize=(full_x, full_y), dpi=_DPI)
    FigureCanvasAgg(figure)

    def add(left: float, top: float, width: float, height: float) -> Axes:
        bottom = full_y - head - top - height
        spot = (left / full_x, bottom / full_y, width / full_x, height / full_y)
        axes = figure.add_axes(spot, anchor="NW")
        axes.set_axis_off()
        return axes

    main = add(edge, 0, across, tall)
    places = [divmod(i, columns) for i in range(crops)]
    left = across + 2 * edge
    return (
        figure,
        main,
        [add(left + col * (side + edge), row * step, side, side) for row, col in places],
    )


def _draw_boxes(axes: Axes, boxes: _Boxes, scale: float) -> None:
    """Draw outlines where they are visible at this scale, else points; the rarer class on top."""
    sides = boxes.bounds[:, 2:] - boxes.bounds[:, :2]
    visible = len(sides) <= 30_000 and len(sides) > 0 and np.median(sides) / scale >= 2.5
    for label in range(len(boxes.names)):
        own = boxes.labels == label
        colour = boxes.colour(label)
        if visible:
            axes.add_collection(
                LineCollection(boxes.rings[own], colors=colour, linewidths=0.6), autolim=False
            )
        else:
            x, y = boxes.centres[own].T
            axes.scatter(x, y, s=1.2, c=colour, linewidths=0)


def _draw_crop(axes: Axes, scene: Scene, display: Display, boxes: _Boxes, window: Window) -> None:
    pixels, valid = scene.read(window)
    x_min, y_min, x_max, y_max = window.box_px
    axes.imshow(
        display.picture(pixels, valid), extent=(x_min, x_max, y_max, y_min), interpolation="nearest"
    )
    tree = STRtree(shapely.box(*boxes.bounds.T))
    inside = np.sort(tree.query(shapely.box(*window.box_px)))
    colours = [boxes.colour(label) for label in boxes.labels[inside]]
    lines = LineCollection(boxes.rings[inside], colors=colours, linewidths=1.1)
    axes.add_collection(lines, autolim=False)
    axes.set(xlim=(x_min, x_max), ylim=(y_max, y_min))
    _draw_scale_bar(axes, scene, window.width)


def _mark_crop(axes: Axes, window: Window, letter: str) -> None:
    frame = Rectangle(
        (window.col, window.row), window.width, window.height, fill=False, ec="white", lw=1.4
    )
    axes.add_patch(frame)
    axes.text(
        window.col,
        window.row,
        letter,
        color="black",
        fontsize=8,
        fontweight="bold",
        va="bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
    )


def _draw_scale_bar(axes: Axes, scene: Scene, width_px: int) -> None:
    """Draw a bar of a round length, up to a fifth of the picture, at its lower left.

    It lies along the rows of the grid, so it takes the length of a pixel along them.
    """
    if scene.grid.gsd_m is None:
        return
    side_m = float(scene.grid.sides_m()[0])
    wanted_m = width_px * side_m / 5
    power = 10.0 ** np.floor(np.log10(wanted_m))
    length_m = power * max(step for step in (1, 2, 5) if step * power <= wanted_m)
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    bar = AnchoredSizeBar(
        axes.transData,
        length_m / side_m,
        text,
        "lower left",
        color="white",
        size_vertical=width_px / 200,
        fontproperties=FontProperties(size=8),
    )
    bar.patch.set(facecolor="black", alpha=0.6, linewidth=0)
    axes.add_artist(bar)


def _draw_legend(figure: Figure, main: Axes, scene: Scene, boxes: _Boxes) -> None:
    counts = np.bincount(boxes.labels, minlength=len(boxes.names))
    handles = [
        Patch(fc="none", ec=boxes.colour(i), lw=2, label=f"{name}  {counts[i]:,}")
        for i, name in enumerate(boxes.names)
    ]
    gsd_m = scene.grid.gsd_m
    size = f"{scene.grid.width:,} x {scene.grid.height:,} px"
    where = size if gsd_m is None else f"{size}, {gsd_m:.3g} m/px"
    objects = f"{len(boxes.labels):,} objects" if len(boxes.labels) else "no objects"
    left = main.get_position().x0
    figure.text(left, 0.985, scene.name, fontsize=13, fontweight="bold", va="top")
    below = 0.985 - 0.32 / figure.get_figheight()
    figure.text(left, below, f"{objects}    {where}", fontsize=9, va="top")
    if handles:
        # Bright outlines need a dark ground in the legend as they have in the picture.
        legend = figure.legend(
            handles=handles,
            loc="upper right",
            ncols=min(len(handles), 4),
            fontsize=9,
            facecolor="#30343a",
            labelcolor="white",
            framealpha=1,
        )
        legend.get_frame().set_linewidth(0)
