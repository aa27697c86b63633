"""Count what is true in the cells that a person completed."""

from __future__ import annotations

import numpy as np

from geo_retina.review.values import NO_CELL, Ints, Review, Sample, Texts
from geo_retina.vector.review_layers import TRUE_STATUSES, Use


def samples_of(review: Review, use: Use = "count") -> tuple[Sample, ...]:
    """Take from each stratum the run of done cells from the start of its random order.

    Done cells beyond a gap were chosen by whoever skipped a cell, not by chance; they are left
    out and their number is reported.

    Args:
        review: as ``read_review`` reads it.
        use: cells to count by, or those to learn from.

    Returns:
        One sample per stratum, in order, those without a done cell included.
    """
    frame = review.frame
    counts = _Counts(review)
    found = []
    for stratum in np.unique(frame.stratum).tolist():
        inside = frame.stratum == stratum
        own = np.flatnonzero(inside & (frame.use == use))
        own = own[np.argsort(frame.place[own])]
        done = review.is_done[own]
        run = own[np.logical_and.accumulate(done)]
        found.append(
            Sample(
                stratum=stratum,
                zone=frame.zone[own[0]] if len(own) else None,
                population=int(inside.sum()),
                cells=run,
                classes=counts.classes,
                found=counts.found[run],
                true=counts.true[run],
                hits=counts.hits[run],
                missed=counts.true[run] - counts.hits[run],
                not_counted=int(done.sum()) - len(run),
            )
        )
    return tuple(found)


class _Counts:
    """Cases by cell and class, for cells whose rows a person has gone through."""

    def __init__(self, review: Review) -> None:
        cases = review.cases
        names = {n for n in (*cases.name, *cases.found_name) if n is not None}
        self.classes = tuple(sorted(names))
        self._cells = len(review.frame)
        is_true = np.isin(cases.status.astype(str), (*TRUE_STATUSES, "new"))
        was_found = cases.found_name != np.array(None)
        is_hit = is_true & was_found & (cases.found_name == cases.name)
        cell = cases.cell
        self.found = self._table(cell[was_found], cases.found_name[was_found])
        self.true = self._table(cell[is_true], cases.name[is_true])
        self.hits = self._table(cell[is_hit], cases.name[is_hit])

    def _table(self, cell: Ints, name: Texts) -> Ints:
        """(cells, classes) how many of each."""
        at = np.array([self.classes.index(n) for n in name], np.int64)
        table = np.zeros((self._cells, len(self.classes)), np.int64)
        inside = cell != NO_CELL
        np.add.at(table, (cell[inside], at[inside]), 1)
        return table
