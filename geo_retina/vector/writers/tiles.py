"""Detections as vector tiles in one PMTiles file, which a web map reads from any server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyproj
import shapely

from geo_retina.errors import LabelError, OptionError, OutputError
from geo_retina.files import check_file_output, new_file
from geo_retina.geodesy import is_on_earth, missing_crs, transformer
from geo_retina.quiet import ignored_warnings
from geo_retina.vector.formats import AZIMUTH, GEOMETRY, PROBABILITY
from geo_retina.vector.readers.arrow_streams import open_stream
from geo_retina.vector.writers.rows import Rows

LAYER = "detections"

_DEEPEST = 22
_END_M = 20_037_508.343
"""Where web maps end, from the equator."""

_COLUMNS = ("class", "score", PROBABILITY, "area_m2", AZIMUTH)


@dataclass(frozen=True)
class TilesReport:
    """What a file of tiles holds.

    Attributes:
        out: the file.
        objects: how many objects it shows.
        beyond: how many lie nearer to a pole than web maps reach, at 85.05 degrees, and are left
            out.
        min_zoom: the least zoom that has tiles.
        max_zoom: the greatest; maps enlarge its tiles beyond.
    """

    out: Path
    objects: int
    beyond: int
    min_zoom: int
    max_zoom: int


def export_tiles(
    detections: str | Path,
    out: str | Path,
    *,
    min_zoom: int = 12,
    max_zoom: int = 16,
    overwrite: bool = False,
) -> TilesReport:
    """Write detections as vector tiles, through GDAL's driver of PMTiles.

    A tile has at most 200,000 objects and 500 kB: where more lie on it, GDAL leaves some out, which
    small zooms of dense objects need. For an overview, map counts instead (``draw_density``).

    Args:
        detections: a file of detections, or a folder of them.
        out: the file, ending .pmtiles.
        min_zoom: the least zoom to draw.
        max_zoom: the greatest; a pixel at zoom 16 is 2.4 m wide at the equator, of 4096 units
            to a tile.
        overwrite: replace an existing file.

    Returns:
        What was written: class, score, probability, area and azimuth of each object, in the layer
        ``detections``.

    Raises:
        LabelError: the detections cannot be read, or have no place on the Earth, or none where
            web maps reach.
        OptionError: the zooms are none.
        OutputError: the file exists or cannot be written.

    Examples:
        >>> from geo_retina import export_tiles
        >>> export_tiles("detections.gpkg", "detections.pmtiles", min_zoom=14).max_zoom
        16
    """
    out = Path(out)
    if not 0 <= min_zoom <= max_zoom <= _DEEPEST:
        raise OptionError(
            f"the arguments min_zoom and max_zoom are {min_zoom} and {max_zoom}, expected numbers "
            f"from 0 to {_DEEPEST}, the lesser first"
        )
    check_file_output(out, [".pmtiles"], overwrite=overwrite)
    with open_stream(detections) as stream:
        if stream.crs is None or not is_on_earth(stream.crs):
            so = "its objects have no place on a web map"
            raise LabelError(missing_crs(str(detections), so, file=str(detections)))
        shown = _Shown(str(detections), stream.tables, stream.crs)
        rows = Rows(iter(shown), stream.crs, stream.crs)
        with new_file(out, overwrite=overwrite) as draft, rows.passing_errors_on(out):
            _write(draft, rows, stream.crs.to_wkt(), (min_zoom, max_zoom))
    return TilesReport(out, rows.written.rows, shown.beyond, min_zoom, max_zoom)


class _Shown:
    """What a web map shows of each object, and of which objects: those where there is one."""

    def __init__(self, path: str, tables: Iterable[pa.Table], crs: pyproj.CRS) -> None:
        self.beyond = 0
        self._path = path
        self._tables = tables
        self._to_map = transformer(crs, pyproj.CRS("EPSG:3857"))

    def __iter__(self) -> Iterator[pa.Table]:
        kept = 0
        for table in self._tables:
            names = [name for name in _COLUMNS if name in table.column_names]
            points = shapely.centroid(shapely.from_wkb(table[GEOMETRY].to_numpy()))
            _, y = self._to_map.transform(shapely.get_x(points), shapely.get_y(points))
            within = ~(np.abs(y) > _END_M)  # what has no place is none of the poles'
            kept += int(within.sum())
            self.beyond += int((~within).sum())
            yield table.select([*names, GEOMETRY]).filter(pa.array(within))
        if self.beyond and not kept:
            raise LabelError(
                f"all {self.beyond:,} objects of {self._path} lie beyond 85.05 degrees, where web "
                "maps end, so no tile could show them"
            )


def _write(path: Path, rows: Rows, wkt: str, zooms: tuple[int, int]) -> None:
    import pyogrio

    if "w" not in pyogrio.list_drivers(write=True).get("PMTiles", ""):
        raise OutputError(
            f"{path.name} needs GDAL with its driver PMTiles, which this pyogrio lacks; install "
            "pyogrio from PyPI"
        )
    batches: Iterator[pa.RecordBatch] = iter(rows)
    with ignored_warnings("'crs' was not provided"):
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(rows.schema, batches),
            path,
            layer=LAYER,
            driver="PMTiles",
            geometry_name=GEOMETRY,
            geometry_type=rows.geometry_type,
            crs=wkt,
            dataset_options={"MINZOOM": zooms[0], "MAXZOOM": zooms[1], "NAME": path.stem},
        )
