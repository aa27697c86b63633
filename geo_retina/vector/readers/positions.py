"""Positions from vector files of any length, some rows at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.vector.formats import parquet_files
from geo_retina.vector.readers.frames import check_readable, detections_layer, is_parquet
from geo_retina.vector.readers.refusing import geo_column, refuse_damage, refuse_damaged

_BATCH_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class Centres:
    """Where some of the detections lie.

    Attributes:
        positions: (N, 2) float64 x, y: the middle of each one's bounds, in the layer's CRS.
        codes: (N,) positions in ``names``; all 0 where the layer has no column ``class``.
        names: classes of these rows, in no order.
    """

    positions: NDArray[np.float64]
    codes: NDArray[np.int64]
    names: tuple[str, ...]


def stream_centres(path: str | Path, *, score: float | None = None) -> Iterator[Centres]:
    """Read the centres of a layer of detections without holding its rows.

    Args:
        path: as ``read_detections`` takes; a layer of points too.
        score: leave out what scores less.

    Yields:
        Up to some ten thousand rows at a time, in the order of the file. Rows without a
        geometry are left out.

    Raises:
        LabelError: the file is missing or cannot be read, has several layers and none is
            ``detections``, or lacks a column ``score`` although one is asked for.
    """
    check_readable(path)
    with _batches(path, score) as (geometry, batches):
        yield from refuse_damaged(path, (_centres(each, geometry, score) for each in batches))


def layer_crs(path: str | Path) -> pyproj.CRS | None:
    """Read the CRS of a layer of detections, without reading its rows.

    Raises:
        LabelError: as ``stream_centres``.
    """
    check_readable(path)
    if is_parquet(path):
        return geo_column(path)[1]
    from pyogrio import read_info

    layer = detections_layer(path)
    with refuse_damage(path):
        crs = read_info(path, layer=layer)["crs"]
        return None if crs is None else pyproj.CRS.from_user_input(crs)


@contextmanager
def _batches(
    path: str | Path, score: float | None
) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
    """Stream the geometry column's name, and batches with it, the score and the class."""
    needed = ["class", *(["score"] if score is not None else [])]
    if is_parquet(path):
        import pyarrow.parquet as pq

        geometry, _ = geo_column(path)
        files = parquet_files(path)
        names = pq.read_schema(files[0]).names
        columns = [c for c in needed if c in names]
        _check_score(path, score, columns)
        with closing(_of_files(files, [*columns, geometry])) as batches:
            yield geometry, refuse_damaged(path, batches)
        return
    from pyogrio import open_arrow, read_info

    layer = detections_layer(path)
    with refuse_damage(path):
        columns = [c for c in needed if c in read_info(path, layer=layer)["fields"]]
    _check_score(path, score, columns)
    how: dict[str, Any] = {"batch_size": _BATCH_ROWS, "use_pyarrow": True}
    with ExitStack() as stack:
        with refuse_damage(path):
            meta, reader = stack.enter_context(
                open_arrow(path, layer=layer, columns=columns, **how)
            )
        yield meta["geometry_name"] or "wkb_geometry", refuse_damaged(path, reader)


def _of_files(files: Sequence[Path], columns: list[str]) -> Generator[pa.RecordBatch, None, None]:
    import pyarrow.parquet as pq

    for each in files:
        with pq.ParquetFile(each) as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=columns)


def _check_score(path: str | Path, score: float | None, columns: list[str]) -> None:
    if score is not None and "score" not in columns:
        raise LabelError(
            f"{path} has no column score, so nothing can be left out by score; leave the score out"
        )


def _centres(batch: pa.RecordBatch, geometry: str, score: float | None) -> Centres:
    shapes = shapely.from_wkb(batch.column(geometry).to_numpy(zero_copy_only=False))
    bounds = shapely.bounds(shapes)
    kept = ~np.isnan(bounds).any(axis=1)
    if score is not None:
        scores = batch.column("score").to_numpy(zero_copy_only=False)
        kept &= scores.astype(np.float64) >= score
    positions = (bounds[kept, :2] + bounds[kept, 2:]) / 2
    if "class" not in batch.schema.names:
        return Centres(positions, np.zeros(len(positions), np.int64), ("object",))
    classes = batch.column("class").cast(pa.string()).fill_null("").dictionary_encode()
    codes = classes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Centres(positions, codes[kept], tuple(classes.dictionary.to_pylist()))
