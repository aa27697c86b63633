"""To other tools: networks as ONNX, scenes and labels as COCO, YOLO and VOC folders."""

from geo_retina.interchange.chips import ChipReport, export_chips
from geo_retina.interchange.onnx import export_onnx

__all__ = ["ChipReport", "export_chips", "export_onnx"]
