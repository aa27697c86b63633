"""Training: labels -> samples -> augment -> task (Lightning) -> ``train``."""

from geo_retina.training.loop import train

__all__ = ["train"]
