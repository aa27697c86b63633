"""Labels on their imagery, and how large they are: what to check before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from geo_retina import boxes
from geo_retina.grid import Window
from geo_retina.plots.display import Display
from geo_retina.plots.saving import save_figure
from geo_retina.scene import Scene
from geo_retina.vector import CLASS_COLOURS

SHADES = ("", "validation", "test", "not labelled")
"""What ground is for, by its number in ``LabelledView.shade``; the first is left as it is."""

_TINTS = ("#00000000", "#2f6bff70", "#ff2a2a70", "#000000a0")
_COLUMNS = 4
_VIEW_PX = 700  # a view is read with at most this many pixels a side


@dataclass(frozen=True, eq=False)
class LabelledView:
    """A window of a scene with its labels.

    Attributes:
        title: over the picture.
        scene: the imagery.
        window: pixels of its grid; may reach beyond it.
        corners_px: (N, 4, 2) corners of the labels' boxes in grid pixels, upright or oriented.
        labels: (N,) positions in the classes.
        ignored_px: (K, 4) boxes that are neither object nor background.
        shade: (h, w) numbers of ``SHADES``, stretched over the window.
    """

    title: str
    scene: Scene
    window: Window
    corners_px: NDArray[np.float64]
    labels: NDArray[np.int64]
    ignored_px: NDArray[np.float64]
    shade: NDArray[np.int8]


def draw_samples(views: Sequence[LabelledView], classes: Sequence[str], out: str | Path) -> Path:
    """Draw windows with their labels, so that a layer in the wrong place is seen at once.

    Args:
        views: what to show, four in a row.
        classes: names in the order of the labels' numbers.
        out: the picture, ending .png; replaced if it exists.

    Returns:
        The picture's path.

    Raises:
        OutputError: the picture cannot be written.
        SceneError: a scene cannot be read.
    """
    rows = max(1, -(-len(views) // _COLUMNS))
    figure = Figure(figsize=(4 * _COLUMNS, 4.3 * rows + 0.5), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, view in zip(panels, views, strict=False):
        _draw_view(axes, view)
    handles = [
        Patch(fc="none", ec=_colour(i), lw=2, label=name) for i, name in enumerate(classes[:12])
    ]
    if any(len(view.ignored_px) for view in views):
        handles.append(Patch(fc="none", ec="white", lw=2, ls=":", label="ignored"))
    shown = {int(value) for view in views for value in np.unique(view.shade)}
    handles += [Patch(fc=_TINTS[i], label=SHADES[i]) for i in sorted(shown - {0})]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=6,
        facecolor="#70757c",
        labelcolor="white",
        framealpha=1,
    )
    return save_figure(figure, Path(out))


def draw_sizes(
    sides_px: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    anchors_px: Sequence[float],
    out: str | Path,
) -> Path:
    """Draw how large labels are, class by class, with the anchors' sides.

    Args:
        sides_px: (N,) sides, the square root of the area; N may be 0.
        labels: (N,) positions in the classes.
        classes: names.
        anchors_px: sides of the anchors, marked by lines.
        out: the picture, ending .png; replaced if it exists.

    Returns:
        The picture's path.

    Raises:
        OutputError: the picture cannot be written.
    """
    figure = Figure(figsize=(9, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if len(sides_px):
        low, high = max(float(sides_px.min()), 0.1), float(sides_px.max()) * 1.01
        edges = np.geomspace(low / 1.05, max(high, low * 1.2), 41)
        parts = [sides_px[labels == i] for i in range(len(classes))]
        axes.hist(
            parts,
            bins=edges.tolist(),
            stacked=True,
            color=[_dark(i) for i in range(len(classes))],
            label=list(classes),
        )
        axes.set_xscale("log")
        ticks = [t for t in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if low / 2 < t < high * 2]
        axes.set_xticks(ticks, [str(t) for t in ticks], minor=False)
        axes.xaxis.minorticks_off()
    for i, side in enumerate(anchors_px):
        axes.axvline(side, color="black", lw=1, ls="--", label="anchors" if i == 0 else None)
    axes.set_xlabel("side of the label, square root of its area (px)")
    axes.set_ylabel("labels")
    if len(sides_px) or len(anchors_px):
        axes.legend(fontsize=8)
    return save_figure(figure, Path(out))


def _draw_view(axes: Axes, view: LabelledView) -> None:
    window = view.window
    x_min, y_min, x_max, y_max = window.box_px
    is_large = max(window.height, window.width) > _VIEW_PX
    if is_large and window == view.scene.grid.window:
        pixels, valid, _ = view.scene.overview(_VIEW_PX)
    else:
        pixels, valid = view.scene.read(window)
    picture = Display.of(view.scene, pixels, valid).picture(pixels, valid)
    extent = (x_min, x_max, y_max, y_min)
    axes.imshow(picture, extent=extent, interpolation="nearest")
    axes.imshow(
        view.shade,
        extent=extent,
        cmap=ListedColormap(_TINTS),
        vmin=0,
        vmax=3,
        interpolation="nearest",
    )
    scale = max(window.height, window.width) / _VIEW_PX
    width = 1.3 if scale <= 1 else 0.7
    colours = [_colour(int(label)) for label in view.labels]
    axes.add_collection(
        LineCollection(list(_rings(view.corners_px)), colors=colours, linewidths=width),
        autolim=False,
    )
    axes.add_collection(
        LineCollection(
            list(_rings(boxes.corners(view.ignored_px))),
            colors="white",
            linewidths=width,
            linestyles=":",
        ),
        autolim=False,
    )
    axes.set(xlim=(x_min, x_max), ylim=(y_max, y_min))
    axes.set_title(view.title, fontsize=9)


def _rings(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outline boxes as (N, 5, 2) closed rings."""
    return np.concatenate([corners, corners[:, :1]], axis=1)


def _colour(label: int) -> str:
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def _dark(label: int) -> tuple[float, float, float]:
    """Darken the class's colour, to be read on white paper."""
    text = _colour(label)
    red, green, blue = (int(text[i : i + 2], 16) / 255 * 0.75 for i in (1, 3, 5))
    return red, green, blue
