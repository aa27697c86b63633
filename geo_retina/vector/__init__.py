"""Labels in, polygons out: the only room that reads and writes vector files."""

from geo_retina.geodesy import densify, reproject, reproject_rings
from geo_retina.vector.formats import (
    AZIMUTH,
    DATES,
    FIRST_SEEN,
    PROBABILITY,
    SCENE_DATE,
    check_output,
    file_crs,
)
from geo_retina.vector.readers.area_of_interest import Area, read_area
from geo_retina.vector.readers.arrow_streams import Stream, open_stream
from geo_retina.vector.readers.coco import CocoLabels, is_coco, read_coco
from geo_retina.vector.readers.encodings import encoding_doubt
from geo_retina.vector.readers.frames import filter_frame, read_detections
from geo_retina.vector.readers.label_layers import (
    LabelLayer,
    ground_polygons,
    label_boxes,
    label_layer,
    label_rectangles,
    read_ground,
    read_labels,
    read_source,
)
from geo_retina.vector.readers.label_texts import is_label_folder, read_label_folder
from geo_retina.vector.readers.off_ground import Ground, explain_elsewhere, is_elsewhere
from geo_retina.vector.readers.positions import Centres, layer_crs, stream_centres
from geo_retina.vector.tables import (
    DETECTION_SCHEMA,
    cut_table,
    days_of,
    detection_schema,
    detections_table,
    geometry_of,
    is_oriented,
    outline_table,
    reproject_table,
    same_days,
    to_geodataframe,
    turn_to,
    with_days,
    with_probability,
)
from geo_retina.vector.wkb import rings_to_wkb, wkb_to_rings
from geo_retina.vector.writers.geopackage_layers import write_layers
from geo_retina.vector.writers.outputs import (
    Companions,
    Target,
    check_target,
    read_companions,
    read_metadata,
    write_outputs,
)
from geo_retina.vector.writers.rows import Written, azimuths_in
from geo_retina.vector.writers.styles import CLASS_COLOURS, class_style, plain_style, write_styles
from geo_retina.vector.writers.tiles import TilesReport, export_tiles
from geo_retina.vector.writers.vector_file import check_has_place, write_vector

__all__ = [
    "AZIMUTH",
    "CLASS_COLOURS",
    "DATES",
    "DETECTION_SCHEMA",
    "FIRST_SEEN",
    "PROBABILITY",
    "SCENE_DATE",
    "Area",
    "Centres",
    "CocoLabels",
    "Companions",
    "Ground",
    "LabelLayer",
    "Stream",
    "Target",
    "TilesReport",
    "Written",
    "azimuths_in",
    "check_has_place",
    "check_output",
    "check_target",
    "class_style",
    "cut_table",
    "days_of",
    "densify",
    "detection_schema",
    "detections_table",
    "encoding_doubt",
    "explain_elsewhere",
    "export_tiles",
    "file_crs",
    "filter_frame",
    "geometry_of",
    "ground_polygons",
    "is_coco",
    "is_elsewhere",
    "is_label_folder",
    "is_oriented",
    "label_boxes",
    "label_layer",
    "label_rectangles",
    "layer_crs",
    "open_stream",
    "outline_table",
    "plain_style",
    "read_area",
    "read_coco",
    "read_companions",
    "read_detections",
    "read_ground",
    "read_label_folder",
    "read_labels",
    "read_metadata",
    "read_source",
    "reproject",
    "reproject_rings",
    "reproject_table",
    "rings_to_wkb",
    "same_days",
    "stream_centres",
    "to_geodataframe",
    "turn_to",
    "with_days",
    "with_probability",
    "wkb_to_rings",
    "write_layers",
    "write_outputs",
    "write_styles",
    "write_vector",
]
