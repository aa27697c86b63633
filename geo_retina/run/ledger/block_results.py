"""What became of the blocks of a task batch, and the Parquet file that holds it.

The rows are detections: of each block those that are settled, then the undecided ones. What else is
known of the blocks is JSON in the file's footer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geo_retina.detections import Detections
from geo_retina.files import parse_json
from geo_retina.grid import Window, area_of
from geo_retina.scene import LostPart

_KEY = "parts"
_STATS = (
    *("scene_index", "block", "window", "tiles", "skipped", "truncated", "error", "lost"),
    *("out_of_range", "screened"),
)
_NO_DETECTIONS = Detections.empty()  # one for all, as a run may have 100,000 blocks


@dataclass(frozen=True, eq=False)
class BlockResult:
    """What became of one block of one scene.

    Attributes:
        scene_index: position of the scene in the run.
        block: index of the block in the scene's plan.
        window: the block's pixels.
        detections: those that the merge inside the block settled; empty where it failed.
        tiles: tiles that went through the network.
        skipped: tiles without a valid pixel.
        truncated: tiles that reached a limit.
        out_of_range: tiles with values far outside those that integers were measured on.
        error: one sentence, where it failed.
        reduced_batch: tiles through the network at once, where memory made that fewer.
        undecided: detections whose fate other blocks decide.
        lost: what of its window could not be read, where it did not fail as a whole.
        screened: tiles, by their index in the scene's plan, at which a first look found nothing.
    """

    scene_index: int
    block: int
    window: Window
    detections: Detections
    tiles: int = 0
    skipped: int = 0
    truncated: int = 0
    error: str | None = None
    reduced_batch: int | None = None
    undecided: Detections = field(default_factory=Detections.empty)
    lost: tuple[LostPart, ...] = ()
    out_of_range: int = 0
    screened: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it failed."""
        return self.error is None and not self.lost

    @property
    def lost_px(self) -> int:
        """Pixels of its window that could not be read, or detected on."""
        windows = [self.window] if self.error is not None else [part.window for part in self.lost]
        return area_of(windows)

    def is_same(self, other: BlockResult) -> bool:
        """Check whether another try of the block found the same."""
        numbers = (
            *("tiles", "skipped", "truncated", "error", "window", "lost"),
            *("out_of_range", "screened"),
        )
        return (
            all(getattr(self, name) == getattr(other, name) for name in numbers)
            and self.detections == other.detections
            and self.undecided == other.undecided
        )

    def without_detections(self) -> BlockResult:
        """Drop the detections, which stay on disk."""
        return replace(self, detections=_NO_DETECTIONS, undecided=_NO_DETECTIONS)


def write_results(path: Path, results: Sequence[BlockResult]) -> None:
    """Write what became of the blocks of a task batch.

    Raises:
        OSError: the disk refuses.
    """
    kinds = [kind for result in results for kind in (result.detections, result.undecided)]
    stats = [
        {
            **{name: getattr(result, name) for name in (*_STATS, "reduced_batch")},
            "rows": [len(result.detections), len(result.undecided)],
        }
        for result in results
    ]
    table = Detections.concat(kinds).to_arrow()  # some have no detections, and so no kind of box
    pq.write_table(table.replace_schema_metadata({_KEY: json.dumps(stats)}), path)


def read_results(path: Path) -> list[BlockResult]:
    """Read a file that ``check_results`` found whole."""
    table, all_stats = _read(path)
    results, start = [], 0
    for stats in all_stats:
        kinds = []
        for rows in stats["rows"]:
            # Taken, as a view would keep the whole file's columns in memory.
            found = Detections.from_arrow(table.slice(start, rows))
            kinds.append(found.take(np.arange(rows)))
            start += rows
        results.append(_result(stats, *kinds))
    return results


def check_results(path: Path, scenes: int) -> list[BlockResult]:
    """Read all of a file, which a crash may have cut short or somebody may have edited.

    One pass of Arrow over the columns, a quarter of a millisecond for a few hundred rows;
    ``read_results`` of all files of a run took four times as long, or thirty where a task batch
    has many blocks, as it makes values of every block.

    Args:
        path: the file.
        scenes: how many scenes the run has.

    Returns:
        What became of the blocks, without their detections.

    Raises:
        ArrowException, OSError, LookupError, TypeError, ValueError: the file is damaged.
    """
    table, all_stats = _read(path)
    Detections.from_arrow(table)  # refuses missing columns, and values that are not finite
    results = [_result(stats) for stats in all_stats]
    if not all(_is_sound(result, scenes) for result in results):
        raise ValueError("it names no blocks of this run")
    counts = [count for stats in all_stats for count in stats["rows"]]
    are_pairs = all(len(stats["rows"]) == 2 for stats in all_stats)
    are_counts = all(type(count) is int and count >= 0 for count in counts)
    if not (are_pairs and are_counts and sum(counts) == table.num_rows):
        raise ValueError(f"it has {table.num_rows} rows, which are not those of its blocks")
    return results


def _read(path: Path) -> tuple[pa.Table, list[dict[str, Any]]]:
    # As pq.read_table, without the machinery for folders of files, which costs twice as much.
    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    all_stats = parse_json(table.schema.metadata[_KEY.encode()])
    if not isinstance(all_stats, list) or not all(isinstance(stats, dict) for stats in all_stats):
        raise ValueError("its footer holds no list of blocks")
    return table, all_stats


def _result(
    stats: dict[str, Any],
    detections: Detections = _NO_DETECTIONS,
    undecided: Detections = _NO_DETECTIONS,
) -> BlockResult:
    """Rebuild a block result from what a file records, with its detections, or without any."""
    values = {name: value for name, value in stats.items() if name != "rows"}
    window = Window(*values.pop("window"))
    lost = tuple(LostPart(Window(*place), why) for place, why in values.pop("lost", ()))
    screened = tuple(values.pop("screened", ()))
    return BlockResult(
        **values,
        window=window,
        detections=detections,
        undecided=undecided,
        lost=lost,
        screened=screened,
    )


def _is_sound(record: BlockResult, scenes: int) -> bool:
    """Check whether a block's record, which somebody may have edited, has the right types."""
    numbers = (record.scene_index, record.block, record.tiles, record.skipped, record.truncated)
    windows = (record.window, *(part.window for part in record.lost))
    places = [*(number for window in windows for number in window), *record.screened]
    return (
        all(type(number) is int and number >= 0 for number in (*numbers, *places))
        and all(isinstance(part.error, str) for part in record.lost)
        and record.scene_index < scenes
        and isinstance(record.error, (str, type(None)))
        and isinstance(record.reduced_batch, (int, type(None)))
    )
