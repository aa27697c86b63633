"""Training: labels -> samples -> augment -> task (Lightning) -> ``train``."""

from geo_retina.training.checking import LabelReport, check_labels
from geo_retina.training.loop import train

__all__ = ["LabelReport", "check_labels", "train"]
