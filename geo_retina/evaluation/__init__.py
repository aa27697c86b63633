"""Detections against labels, in map coordinates: how many were found, and how well."""

from geo_retina.evaluation.comparing import AGREEMENT, Comparison, Difference, compare
from geo_retina.evaluation.counts import Counts
from geo_retina.evaluation.matches import FALSE, IGNORED, KINDS, TRUE, Matched, MatchTable
from geo_retina.evaluation.results import CountError, Evaluation
from geo_retina.evaluation.scores import Confusion, Curve, Scores, SizeScores
from geo_retina.evaluation.scoring import evaluate

__all__ = [
    "AGREEMENT",
    "FALSE",
    "IGNORED",
    "KINDS",
    "TRUE",
    "Comparison",
    "Confusion",
    "CountError",
    "Counts",
    "Curve",
    "Difference",
    "Evaluation",
    "MatchTable",
    "Matched",
    "Scores",
    "SizeScores",
    "compare",
    "evaluate",
]
