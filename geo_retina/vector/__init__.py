"""Labels in, polygons out: the only room that reads and writes vector files."""

from geo_retina.vector.area import Area, read_area
from geo_retina.vector.labels import LabelLayer, label_boxes, label_layer, read_ground, read_labels
from geo_retina.vector.layers import write_layers
from geo_retina.vector.reading import filter_frame, read_detections
from geo_retina.vector.streaming import Centres, layer_crs, stream_centres
from geo_retina.vector.styles import CLASS_COLOURS, class_style, plain_style, write_styles
from geo_retina.vector.tables import detections_table, outline_table, to_geodataframe
from geo_retina.vector.transforms import pixel_sides_m, reproject
from geo_retina.vector.writing import check_output, file_crs, write_vector

__all__ = [
    "CLASS_COLOURS",
    "Area",
    "Centres",
    "LabelLayer",
    "check_output",
    "class_style",
    "detections_table",
    "file_crs",
    "filter_frame",
    "label_boxes",
    "label_layer",
    "layer_crs",
    "outline_table",
    "pixel_sides_m",
    "plain_style",
    "read_area",
    "read_detections",
    "read_ground",
    "read_labels",
    "reproject",
    "stream_centres",
    "to_geodataframe",
    "write_layers",
    "write_styles",
    "write_vector",
]
