"""To other tools: networks as ONNX, models as STAC items, labels as COCO, YOLO and VOC folders."""

from geo_retina.export.chips import ChipReport, export_chips
from geo_retina.export.onnx import export_onnx
from geo_retina.export.stac import export_stac

__all__ = ["ChipReport", "export_chips", "export_onnx", "export_stac"]
