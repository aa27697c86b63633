"""Training: labels -> samples -> augment -> task (Lightning) -> ``train``."""

from geo_retina.training.checking import LabelReport, check_labels
from geo_retina.training.loop import train
from geo_retina.training.telling import TrainProgress

__all__ = ["LabelReport", "TrainProgress", "check_labels", "train"]
