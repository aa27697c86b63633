"""Detections against labels, in map coordinates: how many were found, and how well."""

from geo_retina.evaluation.counts import Counts
from geo_retina.evaluation.matches import FALSE, IGNORED, KINDS, TRUE, Matched, MatchTable
from geo_retina.evaluation.results import CountError, Evaluation
from geo_retina.evaluation.scores import Confusion, Curve, Scores, SizeScores
from geo_retina.evaluation.scoring import evaluate

__all__ = [
    "FALSE",
    "IGNORED",
    "KINDS",
    "TRUE",
    "Confusion",
    "CountError",
    "Counts",
    "Curve",
    "Evaluation",
    "MatchTable",
    "Matched",
    "Scores",
    "SizeScores",
    "evaluate",
]
