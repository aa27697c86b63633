"""Detections against labels, in map coordinates: how many were found, and how well."""

from geo_retina.evaluation.results import CountError, Evaluation, Scores
from geo_retina.evaluation.scoring import evaluate

__all__ = ["CountError", "Evaluation", "Scores", "evaluate"]
