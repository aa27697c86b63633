"""Several layers in one GeoPackage, each in its own colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geo_retina.errors import OutputError
from geo_retina.files import new_file
from geo_retina.vector.formats import FORMATS, check_output, is_package
from geo_retina.vector.writers.styles import write_styles

if TYPE_CHECKING:
    import geopandas as gpd


def write_layers(
    path: str | Path,
    layers: Mapping[str, gpd.GeoDataFrame],
    *,
    styles: Mapping[str, str],
    overwrite: bool,
) -> None:
    """Write layers into one new GeoPackage, whole or not at all.

    Args:
        path: ends in .gpkg.
        layers: tables by name of layer, in the requested order; they may be empty. Where a table
            has polygons of several parts, all its polygons become such.
        styles: QML by name of layer, with which QGIS opens it.
        overwrite: replace an existing file.

    Raises:
        OutputError: the name does not end in .gpkg, the file exists and ``overwrite`` is
            false, or the disk refuses.
    """
    import pyogrio

    path = Path(path)
    if not is_package(path):
        raise OutputError(f"{path} holds several layers, expected a name that ends in .gpkg")
    check_output(path, overwrite=overwrite)
    options = FORMATS[".gpkg"]
    with new_file(path, overwrite=overwrite) as draft:
        try:
            for name, frame in layers.items():
                pyogrio.write_dataframe(
                    _of_one_kind(frame),
                    draft,
                    layer=name,
                    driver=options.driver,
                    use_arrow=True,
                    geometry_type=None if len(frame) else "Polygon",
                    layer_options=options.layer_options,
                    dataset_options={} if draft.exists() else options.dataset_options,
                )
            write_styles(draft, styles)
        except Exception as error:
            raise OutputError(f"{path} could not be written: {error}") from error


def _of_one_kind(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Turn every polygon into a multi-polygon where one of them is."""
    shapes = np.asarray(frame.geometry.array, dtype=object)
    kinds = set(np.unique(shapely.get_type_id(shapes)).tolist())
    if not {3, 6} <= kinds:
        return frame
    return frame.set_geometry(
        [shapely.multipolygons([s]) if s.geom_type == "Polygon" else s for s in shapes],
        crs=frame.crs,
    )
