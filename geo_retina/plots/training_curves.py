"""How losses and scores went over a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geo_retina.plots.saving import save_figure


def draw_training_curves(history: Sequence[Mapping[str, Any]], out: str | Path) -> Path:
    """Draw how losses and scores went over a training.

    Args:
        history: one record per epoch: ``epoch``, any of ``loss``, ``class_loss`` and
            ``box_loss``, and where it was validated any scores from 0 to 1. May be empty.
        out: the picture, ending .png; replaced if it exists.

    Returns:
        The picture's path.

    Raises:
        OutputError: the picture cannot be written.
    """
    figure = Figure(figsize=(9, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    names = list(dict.fromkeys(name for record in history for name in record))
    losses = [name for name in names if name == "loss" or name.endswith("_loss")]
    scores = [name for name in names if name not in {*losses, "epoch", "lr"}]
    _draw_curves(upper, history, losses)
    _draw_curves(lower, history, scores)
    upper.set_ylabel("training loss")
    upper.set_ylim(bottom=0)
    lower.set_ylabel("validation score")
    lower.set_ylim(0, 1.02)
    lower.set_xlabel("epoch")
    lower.xaxis.get_major_locator().set_params(integer=True)
    return save_figure(figure, Path(out))


def _draw_curves(axes: Axes, history: Sequence[Mapping[str, Any]], names: list[str]) -> None:
    for name in names:
        points = [(record["epoch"], record[name]) for record in history if _is_number(record, name)]
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, marker="o", markersize=3, label=name.replace("_", " "))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8, loc="best", ncols=2)
    else:
        axes.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axes.transAxes)


def _is_number(record: Mapping[str, Any], name: str) -> bool:
    value = record.get(name)
    return isinstance(value, (int, float)) and bool(np.isfinite(value))
