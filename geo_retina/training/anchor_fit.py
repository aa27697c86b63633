"""Fit the network's anchors to the labels, and tell where they do not fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from geo_retina.dataset.labelled_scenes import LabelledScene
from geo_retina.dataset.windows import TrainObjects
from geo_retina.errors import TrainingError
from geo_retina.nn.anchors import fit_anchors, shape_coverage
from geo_retina.options import AssignOptions, NetworkOptions
from geo_retina.options.network import Boxes

log = logging.getLogger(__name__)

_FITTING = 0.9
"""Share of labels that should fit an anchor."""


def resolve_network(
    options: NetworkOptions, objects: TrainObjects, *, turned: bool = False
) -> NetworkOptions:
    """Fit the levels and anchors that the options leave open to the objects' sizes and shapes.

    Args:
        options: of the network.
        objects: labels on training ground.
        turned: samples are turned by quarters.

    Raises:
        TrainingError: anchor sides are given without the levels they are for.
    """
    if options.anchor_sides_px is not None:
        if options.levels is None:
            raise TrainingError(
                "network.anchor_sides_px is given without network.levels; give both, or neither "
                "to have them fitted to the labels"
            )
        return options
    fitted = fit_anchors(
        torch.from_numpy(objects.sides_px),
        levels=options.levels,
        ratios=options.anchor_ratios,
        turned=turned,
    )
    log.info(
        "pyramid levels %s with anchor sides %s px and ratios %s",
        *(fitted.levels, fitted.sides_px, fitted.ratios),
    )
    return replace(
        options,
        levels=fitted.levels,
        anchor_sides_px=fitted.sides_px,
        anchor_ratios=fitted.ratios,
    )


def as_squares(objects: TrainObjects, scenes: Sequence[LabelledScene]) -> TrainObjects:
    """Give oriented objects the sides of squares of their area, which anchors are fitted to.

    A hull's sides would not do: of a long object on the diagonal it is far too large.

    Args:
        objects: on training ground.
        scenes: that they are on, whose labels were read as oriented boxes.
    """
    sides_px = np.empty_like(objects.sides_px)
    for number, each in enumerate(scenes):
        assert each.rotated_px is not None
        own = objects.scene == number
        sides_px[own] = square_sides(each.rotated_px[objects.index[own]])
    return replace(objects, sides_px=sides_px)


def square_sides(rotated_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (N, 2) sides of the squares of oriented boxes' areas."""
    return np.repeat(np.sqrt(rotated_px[:, 2:3] * rotated_px[:, 3:4]), 2, axis=1)


def anchors_fit(network: NetworkOptions, sides_px: NDArray[np.float64]) -> float:
    """Compute the share of labels whose shape has an anchor of IoU 0.5 or more.

    Args:
        network: with its anchors.
        sides_px: (M, 2) widths and heights of the labels; M is 1 or more.
    """
    sides, ratios = network.anchor_sides_px, network.anchor_ratios
    assert sides is not None
    assert ratios is not None
    return shape_coverage(torch.from_numpy(sides_px), sides, ratios)


def about_anchors(fit: float, assign: AssignOptions, boxes: Boxes) -> str | None:
    """Warn in one sentence where too few labels fit an anchor; None where enough do.

    Args:
        fit: share of the labels that do.
        assign: which anchors stand for which objects; ATSS needs none that fits.
        boxes: kind of boxes that are found.
    """
    if fit >= _FITTING or assign.chosen_for(boxes) == "atss":
        return None
    return (
        f"only {fit:.1%} of labels fit an anchor (by an IoU of 0.5), expected {_FITTING:.0%} or "
        "more; leave network.anchor_sides_px and network.anchor_ratios out to have them fitted, or "
        "let anchors stand for objects by rank with assign.method: atss"
    )
