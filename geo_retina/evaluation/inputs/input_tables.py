"""Detections and labels as they are read, from files or tables."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import LabelError
from geo_retina.geodesy import missing_crs
from geo_retina.options import EvaluateOptions, LabelOptions
from geo_retina.vector import LabelLayer, filter_frame, read_detections, read_source
from geo_retina.vector.readers.frames import DETECTIONS_LAYER, read_frame
from geo_retina.vector.readers.label_layers import layer_of

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger(__name__)

_SHARED = (
    "layer",
    "where",
    "class_column",
    "scene_column",
    "encoding",
    "length_column",
    "width_column",
    "azimuth_column",
)
"""Options of labels here that are those of a layer for training."""

_LAYER_REMEDY = "say which one with EvaluateOptions.layer"


def read_found(detections: str | Path | gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, str]:
    """Read detections, and name them for people.

    Raises:
        LabelError: they have no CRS, or cannot be read.
    """
    if isinstance(detections, (str, Path)):
        frame, name = read_detections(detections), str(detections)
    else:
        frame, name = detections, "the table of detections"
    if frame.crs is None:
        so = "detections cannot be compared with labels"
        raise LabelError(missing_crs(name, so, file=name))
    return frame, name


def read_truth(
    labels: str | Path | gpd.GeoDataFrame, options: EvaluateOptions
) -> tuple[LabelLayer, NDArray[np.bool_]]:
    """Read the labels, those first that must be found, and a mask of these."""
    path = str(labels) if isinstance(labels, (str, Path)) else "the table of labels"
    shared = {name: getattr(options, name) for name in _SHARED}
    source = LabelOptions(path=path, **shared)
    if isinstance(labels, (str, Path)):
        if options.ignore_where is None:
            layer = read_source(source, layer_remedy=_LAYER_REMEDY, strict=True)
            return layer, np.ones(len(layer), np.bool_)
        name, frame = path, _read_frame(labels, options)
    else:
        name, frame = "the table of labels", labels
        if options.where is not None:
            frame = filter_frame(frame, options.where, name)
    if options.ignore_where is None:
        layer = layer_of(frame, name, source, strict=True)
        return layer, np.ones(len(layer), np.bool_)
    frame = frame.reset_index(drop=True)
    doubtful = np.zeros(len(frame), np.bool_)
    doubtful[filter_frame(frame, options.ignore_where, name).index] = True
    if not doubtful.any():
        log.warning(
            "the filter %r of labels to ignore fits none of the %d labels of %s; all must be found",
            options.ignore_where,
            len(frame),
            name,
        )
    must = layer_of(frame[~doubtful], name, source, strict=True)
    need_not = layer_of(frame[doubtful], name, source, strict=True)
    return _joined(must, need_not), np.arange(len(must) + len(need_not)) < len(must)


def _read_frame(labels: str | Path, options: EvaluateOptions) -> gpd.GeoDataFrame:
    return read_frame(
        labels,
        layer=options.layer,
        where=options.where,
        layer_remedy=_LAYER_REMEDY,
        prefer=DETECTIONS_LAYER,
        encoding=options.encoding,
    )


def _joined(a: LabelLayer, b: LabelLayer) -> LabelLayer:
    def both(x: Any, y: Any) -> Any:
        return None if x is None else np.concatenate([x, y])

    return replace(
        a,
        geometries=both(a.geometries, b.geometries),
        class_names=both(a.class_names, b.class_names),
        scenes=both(a.scenes, b.scenes),
    )
