"""What became of each detection and of each label."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pyproj
from numpy.typing import NDArray

if TYPE_CHECKING:
    import geopandas as gpd

TRUE, FALSE, IGNORED = 1, 0, -1
"""Of a detection: it matches a label, it does not, it does not count. Of a label: found,
missed, does not count."""

KINDS = ("", "class", "duplicate", "location", "background")
"""Why a detection is false, or a label was missed: the other side's object is of another
class; it has a better-ranked match already; the two overlap, but not enough; nothing is there.
``KINDS[0]`` is what counts, and what does not count, rightly."""


@dataclass(frozen=True, eq=False)
class Matched:
    """One side of a match table: the detections, by score, or the labels, as given.

    Attributes:
        geometries: (N,) shapely, in the CRS of the table.
        row: (N,) int64 position in what was read: for detections, in the table, or in the file
            by its ``id``; for labels, among the usable ones, parts one by one, those of
            ``ignore_where`` last.
        class_name: (N,) str; of labels without a class column, and detections without a
            column ``class``, all "".
        scene: (N,) str; "" where the side has no scene.
        score: (N,) float64; of labels, that of their match, or NaN.
        outcome: (N,) int8, ``TRUE``, ``FALSE`` or ``IGNORED``.
        by_score: (N,) int8, the same as curves and the best F1 count it: a detection is true where
            it adds a match to those of higher scores; of labels, their outcome.
        kind: (N,) int8 position in ``KINDS``: why a false detection is false, and why a missed
            label was missed; 0 for all others.
        other: (N,) int64 position, on the other side, of the match; or, of a kind ``class``,
            ``duplicate`` or ``location``, of the object meant by that; -1 where there is none.
        value: (N,) float64 IoU with that, or distance of the centres in metres, as the
            matching goes; NaN where there is none.
        block: (N,) int64 key of the ground block of the centre; blocks of one key are one
            place, in this and in any other evaluation with equal ``block_m``.
    """

    geometries: NDArray[np.object_]
    row: NDArray[np.int64]
    class_name: NDArray[np.object_]
    scene: NDArray[np.object_]
    score: NDArray[np.float64]
    outcome: NDArray[np.int8]
    by_score: NDArray[np.int8]
    kind: NDArray[np.int8]
    other: NDArray[np.int64]
    value: NDArray[np.float64]
    block: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Matched:
        """Select the rows where a mask is true, or at positions, in that order."""
        return Matched(**{each.name: getattr(self, each.name)[index] for each in fields(self)})


@dataclass(frozen=True, eq=False)
class MatchTable:
    """What became of each detection from the score threshold on, and of each label.

    Attributes:
        detections: by score, highest first; equal ones in the order given. Those below the
            threshold, and those outside the labelled ground, are left out.
        labels: in the order of the layer, those that do not count included.
        crs: of all geometries: that of the detections.
        value_name: what ``value`` is: ``iou`` or ``distance_m``.
        block_m: side of the ground blocks.
    """

    detections: Matched
    labels: Matched
    crs: pyproj.CRS
    value_name: str
    block_m: float

    def detections_frame(self, outcome: int | None = None) -> gpd.GeoDataFrame:
        """Return the detections of an outcome, or all; columns of ``Matched`` but ``block``.

        ``kind`` is text, ``outcome`` one of true_positive, false_positive, ignored; ``value``
        has the name of what it is.
        """
        return self._frame(self.detections, outcome, ("ignored", "false_positive", "true_positive"))

    def labels_frame(self, outcome: int | None = None) -> gpd.GeoDataFrame:
        """Return the labels of an outcome, or all; ``outcome`` is one of found, missed, ignored."""
        return self._frame(self.labels, outcome, ("ignored", "missed", "found"))

    def _frame(
        self, side: Matched, outcome: int | None, words: tuple[str, ...]
    ) -> gpd.GeoDataFrame:
        import geopandas as gpd

        rows = slice(None) if outcome is None else np.flatnonzero(side.outcome == outcome)
        columns = {
            "row": side.row[rows],
            "class": side.class_name[rows],
            "scene": side.scene[rows],
            "score": side.score[rows],
            "outcome": np.array(words, dtype=object)[side.outcome[rows].astype(np.intp) + 1],
            "kind": np.array(KINDS, dtype=object)[side.kind[rows]],
            "other": side.other[rows],
            self.value_name: side.value[rows],
        }
        return gpd.GeoDataFrame(columns, geometry=side.geometries[rows], crs=self.crs)
