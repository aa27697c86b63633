"""Labels in, polygons out: the only room that reads and writes vector files."""

from geo_retina.vector.filtering import SEAM_NOTE, FilterReport, filter_detections
from geo_retina.vector.formats import check_output, file_crs
from geo_retina.vector.labels import LabelLayer, label_boxes, label_layer, read_ground, read_labels
from geo_retina.vector.outputs import (
    Companions,
    Target,
    check_target,
    read_metadata,
    write_outputs,
)
from geo_retina.vector.reading import filter_frame, read_detections
from geo_retina.vector.streaming import Centres, layer_crs, stream_centres
from geo_retina.vector.styles import CLASS_COLOURS, class_style, plain_style, write_styles
from geo_retina.vector.tables import detections_table, outline_table, to_geodataframe
from geo_retina.vector.transforms import reproject
from geo_retina.vector.writing import write_vector

__all__ = [
    "CLASS_COLOURS",
    "SEAM_NOTE",
    "Companions",
    "FilterReport",
    "LabelLayer",
    "Target",
    "check_output",
    "check_target",
    "class_style",
    "detections_table",
    "file_crs",
    "filter_detections",
    "filter_frame",
    "label_boxes",
    "label_layer",
    "layer_crs",
    "outline_table",
    "pixel_sides_m",
    "plain_style",
    "read_detections",
    "read_ground",
    "read_labels",
    "read_metadata",
    "reproject",
    "stream_centres",
    "to_geodataframe",
    "write_outputs",
    "write_styles",
    "write_vector",
]
