"""Hold what was measured on the labels of a training."""

from __future__ import annotations

from dataclasses import dataclass

from geo_retina.dataset.sources import LabelCounts
from geo_retina.training.label_check.statistics import AngleNumbers, SubsetNumbers, WindowNumbers


@dataclass(frozen=True, kw_only=True)
class LabelNumbers:
    """What a training's labels and scenes are like.

    Attributes:
        name: of the model that would be trained.
        scenes: number of scenes.
        scene_px: least and greatest height and width.
        crs: scenes by CRS.
        gsd_m: least and greatest metres a pixel.
        bands: bands that the model sees.
        dtype: their data type.
        counts: what became of the labels.
        sources: the same for each layer.
        parts: scenes, ground and labels by part of the split.
        split: what the ground of each part is, in words.
        sides_px: percentiles of the labels' sides, the square root of the area.
        longest_px: 99th percentile of the longer side.
        histogram_px: lower edge, upper edge and count of sizes.
        angles: directions of oriented labels; None where they are upright.
        overlap: share of labels whose greatest IoU with another is above a step.
        windows: what samples would show; None where there is no ground to draw from.
        levels: pyramid levels that suit the labels.
        anchor_sides_px: sides of anchors that suit them.
        anchor_ratios: heights over widths of these, for every side.
        anchor_coverage: share of labels that have an anchor of their shape.
        own_coverage: the same for the anchors of the options; None where they give none.
        tile_px: side of a tile in detection.
        overlap_px: overlap of tiles that lets one see every object whole.
    """

    name: str
    scenes: int
    scene_px: tuple[tuple[int, int], tuple[int, int]]
    crs: dict[str, int]
    gsd_m: tuple[float, float]
    bands: int
    dtype: str
    counts: LabelCounts
    sources: tuple[LabelCounts, ...]
    parts: dict[str, SubsetNumbers]
    split: dict[str, str]
    sides_px: dict[int, float]
    longest_px: float
    histogram_px: list[tuple[float, float, int]]
    angles: AngleNumbers | None
    overlap: dict[float, float]
    windows: WindowNumbers | None
    levels: tuple[int, ...]
    anchor_sides_px: tuple[tuple[float, ...], ...]
    anchor_ratios: tuple[float, ...]
    anchor_coverage: float
    own_coverage: float | None
    tile_px: int
    overlap_px: int
