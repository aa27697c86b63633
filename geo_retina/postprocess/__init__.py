"""Detections of several scenes made one set of objects, and those that were written filtered."""

from geo_retina.postprocess.combining import CombineReport, combine_runs
from geo_retina.postprocess.filtering import SEAM_NOTE, FilterReport, filter_detections

__all__ = [
    "SEAM_NOTE",
    "CombineReport",
    "FilterReport",
    "combine_runs",
    "filter_detections",
]
