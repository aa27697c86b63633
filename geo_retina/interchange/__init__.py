"""To other tools: networks as ONNX, models as STAC items, labels as COCO, YOLO and VOC folders."""

from geo_retina.interchange.chips import ChipReport, export_chips
from geo_retina.interchange.onnx import export_onnx
from geo_retina.interchange.stac import export_stac

__all__ = ["ChipReport", "export_chips", "export_onnx", "export_stac"]
