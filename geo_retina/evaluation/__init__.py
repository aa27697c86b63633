"""Detections against labels, in map coordinates: how many were found, and how well."""

from geo_retina.evaluation.comparison import AGREEMENT, Comparison, Difference, compare
from geo_retina.evaluation.evaluator import evaluate
from geo_retina.evaluation.matching.match_table import (
    FALSE,
    IGNORED,
    KINDS,
    TRUE,
    Matched,
    MatchTable,
)
from geo_retina.evaluation.metrics.counts import CountError, Counts
from geo_retina.evaluation.metrics.reliability import Reliability, measure_reliability
from geo_retina.evaluation.metrics.scores import Confusion, Curve, Scores, SizeScores
from geo_retina.evaluation.result import Evaluation

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
    "Reliability",
    "Scores",
    "SizeScores",
    "compare",
    "evaluate",
    "measure_reliability",
]
