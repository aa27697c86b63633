"""Vector files to GeoDataFrames, with one clear sentence for what cannot be read."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geo_retina.errors import LabelError
from geo_retina.files import say_missing
from geo_retina.options import it_has
from geo_retina.vector.formats import full_name, parquet_files
from geo_retina.vector.readers.coco import is_coco
from geo_retina.vector.readers.encodings import encoding_doubt, encoding_to_tell, undecodable
from geo_retina.vector.readers.refusing import refuse_damage, refuse_zip_bomb
from geo_retina.vector.readers.surfaces import surfaces_from_wkb
from geo_retina.vector.tables import to_geodataframe

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger(__name__)

DETECTIONS_LAYER = "detections"
SCANNED_LAYER = "scanned"

ONE_LAYER = "give a file with one layer"
"""What to do about several layers where nothing can name one."""


def read_detections(path: str | Path) -> gpd.GeoDataFrame:
    """Read a file that ``write_vector`` wrote, or one like it.

    Args:
        path: .gpkg, .shp, .geojson, .fgb or .parquet. Of several layers, the one named
            ``detections``.

    Returns:
        All rows, by ``id`` where there is one, with ``joined`` as bool. Without rows, all
        columns of ``detections_table`` nevertheless, which GeoJSON has no place for.

    Raises:
        LabelError: the file is missing, cannot be read, or has several layers and none is
            ``detections``.
    """
    check_readable(path)
    frame = read_frame(path, layer=None if is_parquet(path) else detections_layer(path))
    if not len(frame):
        bare = to_geodataframe([], frame.crs)
        return bare.join(frame[[c for c in frame.columns if c not in bare.columns]])
    frame = frame.rename(columns=full_name)
    if "joined" in frame.columns and not frame["joined"].isna().any():
        frame["joined"] = frame["joined"].astype(bool)  # a shapefile has no such type
    if "id" in frame.columns:
        frame = frame.sort_values("id", kind="stable", ignore_index=True)
    return frame


def detections_layer(path: str | Path) -> str:
    """Choose the layer ``detections`` of a file that is no GeoParquet, or its only one.

    Raises:
        LabelError: there are several, and none is ``detections``.
    """
    from pyogrio import list_layers

    with refuse_damage(path):
        names = [str(name) for name, _ in list_layers(path)]
    preferred = DETECTIONS_LAYER if DETECTIONS_LAYER in names else None
    return _choose_layer(path, preferred, f"{ONE_LAYER}, or with one named {DETECTIONS_LAYER}")


def read_frame(  # noqa: PLR0913 - a layer, how it is chosen, and what of it
    path: str | Path,
    *,
    layer: str | None = None,
    where: str | None = None,
    layer_remedy: str = ONE_LAYER,
    prefer: str | None = None,
    encoding: str | None = None,
    geometry_only: bool = False,
) -> gpd.GeoDataFrame:
    """Read one layer of a vector file.

    Texts that were read by a guess at their encoding, and are not ASCII, are warned of.

    Args:
        path: any file GDAL reads, or GeoParquet.
        layer: needed where there are several.
        where: attribute filter, as in SQL's WHERE.
        layer_remedy: what to do where there are several and none is chosen, for the message.
        prefer: the layer to take where there are several and none is chosen, if it is there.
        encoding: of the texts in a format that may not say it, such as a shapefile; left out,
            as the file says.
        geometry_only: leave out all columns, whatever their encoding.

    Raises:
        LabelError: the file is missing or no vector file, the layer is unknown or must be
            chosen, ``where`` is not understood, or texts are of another encoding.
    """
    check_readable(path)
    if is_parquet(path):
        frame = _read_parquet(path)
        return frame if where is None else filter_frame(frame, where, str(path))
    chosen = _choose_layer(path, layer, layer_remedy, prefer)
    how: dict[str, Any] = {
        "layer": chosen,
        "where": where,
        "encoding": encoding_to_tell(path, chosen, encoding),
        "columns": [] if geometry_only else None,
    }
    try:
        frame = _as_geodataframe(_read_any_geometry(path, how), path)
    except LabelError:
        raise
    except UnicodeDecodeError as error:
        raise undecodable(path, error) from error
    except Exception as error:
        raise _unreadable(path, where, error) from error
    doubt = None if encoding else encoding_doubt(path, chosen, frame)
    if doubt is not None:
        log.warning("%s", doubt)
    return frame


def _read_any_geometry(path: str | Path, how: dict[str, Any]) -> object:
    """Read a layer with pyogrio, surfaces of triangles or faces as polygons."""
    import geopandas as gpd
    from pyogrio import read_dataframe
    from pyogrio.raw import read

    try:
        return read_dataframe(path, **how)
    except shapely.errors.ShapelyError:  # a kind of geometry that GEOS does not know
        meta, _, wkb, _ = read(path, **how)  # all columns: a filter sees only those that are read
        table = None if how["columns"] == [] else read_dataframe(path, **how, read_geometry=False)
    try:
        geometries = surfaces_from_wkb(wkb)
    except ValueError as error:
        raise unusable(path, error) from error
    return gpd.GeoDataFrame(table, geometry=geometries, crs=meta["crs"])


def filter_frame(frame: gpd.GeoDataFrame, where: str, name: str) -> gpd.GeoDataFrame:
    """Filter rows as SQL's WHERE does, by GDAL itself, so that every source means the same.

    Raises:
        LabelError: ``where`` is not understood, or a column cannot be part of an SQL table.
    """
    import pandas as pd
    from pyogrio import read_dataframe, write_dataframe

    # Only row numbers come back, so that the columns keep their types.
    row = "geo_retina_row"
    plain = [str(dtype) != "geometry" for dtype in frame.dtypes]
    bare = pd.DataFrame(frame.loc[:, plain]).rename(columns=str).reset_index(drop=True)
    bare[row] = np.arange(len(bare))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.gpkg"
        try:
            # A column fid of the frame is one like others, no key of the table.
            write_dataframe(bare, path, layer_options={"FID": "geo_retina_fid"})
        except Exception as error:
            raise LabelError(
                f"{name} cannot be filtered by {where!r}: {error}; rename or remove the column "
                "that is named there"
            ) from error
        try:
            kept = read_dataframe(path, where=where, columns=[row], read_geometry=False)
        except Exception as error:
            raise _unreadable(name, where, error) from error
    return frame.iloc[kept[row].to_numpy()]


def is_parquet(path: str | Path) -> bool:
    """Check whether a file is GeoParquet by its name or first bytes; pyarrow reads it, not GDAL.

    So is a folder of such files.
    """
    if Path(path).is_dir():
        return bool(parquet_files(path))
    if str(path).lower().endswith((".parquet", ".geoparquet", ".pq", ".parq")):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def check_readable(path: str | Path) -> None:
    """Refuse a path without a file, or with one that is no vector file.

    Raises:
        LabelError: there is nothing, or GDAL cannot read it.
    """
    if not Path(path).exists() and not str(path).startswith("/vsi"):
        raise LabelError(f"{say_missing(path)}, expected a vector file")
    if is_parquet(path):
        return
    refuse_zip_bomb(path)
    from pyogrio import list_layers

    try:
        list_layers(path)
    except Exception as error:
        if is_coco(path):
            raise LabelError(
                f"{path} holds COCO's JSON, whose boxes lie in the pixels of images; only training "
                "reads it, expected a vector file whose geometries lie on the ground"
            ) from error
        raise LabelError(f"{path} is not a vector file that GDAL can read: {error}") from error


def _read_parquet(path: str | Path) -> gpd.GeoDataFrame:
    import geopandas as gpd

    try:
        return gpd.read_parquet(path)
    except shapely.errors.ShapelyError as error:
        raise unusable(path, error) from error
    except Exception as error:
        raise LabelError(f"{path} is not a GeoParquet file: {error}") from error


def unusable(path: str | Path, error: Exception) -> LabelError:
    """Make the error for geometries of a kind that has no polygons."""
    return LabelError(
        f"{path} holds geometries that cannot be used ({error}), expected points or polygons; "
        f"convert them, for example with: ogr2ogr -nlt CONVERT_TO_LINEAR fixed.gpkg {path}"
    )


def _choose_layer(
    path: str | Path, layer: str | None, remedy: str, prefer: str | None = None
) -> str:
    from pyogrio import list_layers

    found = list_layers(path)
    names = [str(name) for name, _ in found]
    # Tables without geometries, such as the styles that QGIS saves, are no choice.
    spatial = [str(name) for name, kind in found if kind is not None] or names
    if layer is None and len(spatial) == 1:
        return spatial[0]
    if layer is None and prefer in spatial:
        return str(prefer)
    if layer is None:
        raise LabelError(
            f"{path} has the layers {', '.join(names)}; {remedy}"
            if names
            else f"{path} has no layer"
        )
    if layer not in names:
        raise LabelError(f"{path} has no layer {layer}; {it_has(layer, names)}")
    return layer


def _unreadable(path: str | Path, where: str | None, error: Exception) -> LabelError:
    if where is None:
        return LabelError(f"{path} cannot be read: {error}")
    return LabelError(
        f"the filter {where!r} does not fit {path} ({error}); expected a condition on its columns "
        "as in SQL's WHERE, such as \"split = 'val'\""
    )


def _as_geodataframe(frame: object, path: str | Path) -> gpd.GeoDataFrame:
    import geopandas as gpd

    if not isinstance(frame, gpd.GeoDataFrame):
        raise LabelError(
            f"{path} is a table without geometries, expected points or polygons; make points of "
            "columns x and y with ogr2ogr -oo X_POSSIBLE_NAMES=x -oo Y_POSSIBLE_NAMES=y -a_srs "
            f"EPSG:CODE points.gpkg {path}"
        )
    return frame
