"""Training: labels -> samples -> augment -> task (Lightning) -> ``train``."""

from geo_retina.training.label_check.check import check_labels
from geo_retina.training.label_check.report import LabelReport
from geo_retina.training.progress_lines import TrainProgress
from geo_retina.training.trainer import train

__all__ = ["LabelReport", "TrainProgress", "check_labels", "train"]
