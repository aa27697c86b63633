"""Contested detections on disk, sorted by place, so that those of one place are read alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geo_retina.boxes import Boxes
from geo_retina.detections import Detections
from geo_retina.merge import Contested, Leaves, Tree
from geo_retina.postprocess.charts import BITS

Places = NDArray[np.uint64]

_SORTED_ROWS = 1 << 20
"""Rows that are sorted together; about 100 bytes each."""

_BATCH_ROWS = 1 << 12
"""Rows that are read together."""

_SAMPLED = 64
"""One of so many places is remembered."""

_AROUND = ("around_x_min", "around_y_min", "around_x_max", "around_y_max")


class Spill:
    """Takes contested detections in any order, then hands them out by place.

    Args:
        path: of a new file.
        at_once: rows that a leaf is to hold at the most.
    """

    def __init__(self, path: Path, at_once: int) -> None:
        self._path, self._at_once = path, at_once
        self._waiting: list[tuple[Contested, Places]] = []
        self._count = 0
        self._writer: pa.RecordBatchFileWriter | None = None
        self._ranges: list[tuple[int, int]] = []
        self._sample: list[Places] = []
        self._by_chart: Counter[int] = Counter()

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, contested: Contested, places: Places) -> None:
        """Take some, with their places."""
        if len(contested):
            self._waiting.append((contested, places))
            self._count += len(contested)
        if self._count >= _SORTED_ROWS:
            self._write()

    def _write(self) -> None:
        if not self._count:
            return
        contested = Contested.concat(part for part, _ in self._waiting)
        places = np.concatenate([places for _, places in self._waiting])
        self._waiting, self._count = [], 0
        order = np.argsort(places, kind="stable")
        places = places[order]
        self._sample.append(places[::_SAMPLED].copy())
        charts, counts = np.unique(places >> np.uint64(2 * BITS), return_counts=True)
        self._by_chart.update(dict(zip(charts.tolist(), counts.tolist(), strict=True)))
        for start in range(0, len(order), _BATCH_ROWS):
            here = slice(start, start + _BATCH_ROWS)
            [batch] = _table(contested.take(order[here]), places[here]).to_batches()
            if self._writer is None:
                self._writer = pa.ipc.new_file(str(self._path), batch.schema)
            self._writer.write_batch(batch)
            self._ranges.append((int(places[here][0]), int(places[here][-1])))

    def leaves(self) -> Iterator[tuple[Tree, Leaves]]:
        """Divide the ground into squares with few enough detections each.

        Yields:
            Trees of leaves that have nothing to do with each other, and what lies in them.
        """
        self._write()
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        with pa.OSFile(str(self._path)) as source, pa.ipc.open_file(source) as reader:
            sample = np.sort(np.concatenate(self._sample))
            stored = _Stored(reader, np.array(self._ranges, dtype=np.uint64))
            for tree, starts, end in divide(self._by_chart, sample, self._at_once):
                numbers = np.array([*starts, end], dtype=np.uint64)
                extents = stored.extents(numbers) if len(starts) > 1 else np.empty((1, 4))
                yield tree, Leaves(extents, _Loader(stored, numbers))


@dataclass(frozen=True)
class _Loader:
    stored: _Stored
    numbers: Places

    def __call__(self, leaf: int) -> Contested:
        return self.stored.between(self.numbers[leaf], self.numbers[leaf + 1])


@dataclass(frozen=True, eq=False)
class _Stored:
    """Sorted batches in a file, with the first and last place of each."""

    reader: pa.RecordBatchFileReader
    ranges: Places

    def between(self, start: np.uint64, stop: np.uint64) -> Contested:
        """Read what lies at places from one to before another."""
        parts = [self._contested(table) for _, table in self._tables(start, stop)]
        return Contested.concat(parts) if parts else _nothing()

    def extents(self, numbers: Places) -> Boxes:
        """Bound (L, 4) what lies between each number and the next."""
        extents = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(numbers) - 1, 1))
        for places, table in self._tables(numbers[0], numbers[-1]):
            leaf = np.searchsorted(numbers, places, side="right") - 1
            first = np.flatnonzero(np.diff(leaf, prepend=-1))
            around, leaf = _around(table), leaf[first]
            low = np.minimum.reduceat(around[:, :2], first)
            high = np.maximum.reduceat(around[:, 2:], first)
            extents[leaf, :2] = np.minimum(extents[leaf, :2], low)
            extents[leaf, 2:] = np.maximum(extents[leaf, 2:], high)
        return extents

    def _tables(self, start: np.uint64, stop: np.uint64) -> Iterator[tuple[Places, pa.Table]]:
        near = (self.ranges[:, 0] < stop) & (self.ranges[:, 1] >= start)
        for number in np.flatnonzero(near).tolist():
            table = pa.Table.from_batches([self.reader.get_batch(number)])
            places = table["place"].to_numpy()
            first, last = np.searchsorted(places, [start, stop])
            if last > first:
                yield places[first:last], table.slice(first, last - first)

    @staticmethod
    def _contested(table: pa.Table) -> Contested:
        found = Detections.from_arrow(table)
        rows, cut = table["row"].to_numpy(), table["cut_as_tiles"].to_numpy()
        return Contested(rows, found, cut, _around(table))


def divide(
    by_chart: Mapping[int, int], sample: Places, most: int
) -> Iterator[tuple[Tree, Sequence[int], int]]:
    """Divide places into squares within squares that hold few enough.

    Charts that hold few are taken together.

    Args:
        by_chart: how many each chart holds.
        sample: sorted, one of ``_SAMPLED`` places.
        most: how many a square is to hold.

    Yields:
        For charts that have nothing to do with others: a tree of leaves, the first place of each
        leaf in order, and the place after all.
    """
    size = 1 << (2 * BITS)
    together: list[int] = []
    held = 0
    for chart, count in sorted(by_chart.items()):
        if together and held + count > most:
            yield 0, [together[0] * size], (together[-1] + 1) * size
            together, held = [], 0
        if count <= most:
            together, held = [*together, chart], held + count
            continue
        starts: list[int] = []
        ends = np.array([chart * size, (chart + 1) * size], dtype=np.uint64)
        first, last = np.searchsorted(sample, ends)
        tree = _divide(sample[first:last], chart * size, size, max(most // _SAMPLED, 1), starts)
        yield tree, starts, (chart + 1) * size
    if together:
        yield 0, [together[0] * size], (together[-1] + 1) * size


def _divide(sample: Places, start: int, size: int, most: int, starts: list[int]) -> Tree:
    """Divide one square; notes the first place of each leaf."""
    if len(sample) <= most or size == 1:
        starts.append(start)
        return len(starts) - 1
    quarter = size // 4
    corners = [start + k * quarter for k in range(4)]
    ends = np.searchsorted(sample, np.array(corners[1:], dtype=np.uint64))
    parts = np.split(sample, ends)
    return tuple(
        _divide(part, corner, quarter, most, starts)
        for part, corner in zip(parts, corners, strict=True)
    )


def _table(contested: Contested, places: Places) -> pa.Table:
    table = contested.found.to_arrow()
    columns = {name: table[name] for name in table.column_names}
    around = {name: contested.around[:, k] for k, name in enumerate(_AROUND)}
    own = {"row": contested.rows, "cut_as_tiles": contested.cut, "place": places}
    return pa.table({**columns, **around, **own}).combine_chunks()


def _around(table: pa.Table) -> Boxes:
    return np.stack([table[name].to_numpy() for name in _AROUND], axis=1)


def _nothing() -> Contested:
    return Contested(
        np.empty(0, np.int64), Detections.empty(), np.empty(0, np.uint8), np.empty((0, 4))
    )
