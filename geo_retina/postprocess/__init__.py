"""Work on detections that were written: filter them, and combine runs over neighbouring scenes."""

from geo_retina.postprocess.combining import CombineReport, combine_runs
from geo_retina.postprocess.filtering import SEAM_NOTE, FilterReport, filter_detections

__all__ = ["SEAM_NOTE", "CombineReport", "FilterReport", "combine_runs", "filter_detections"]
