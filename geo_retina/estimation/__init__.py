"""How many objects there are, with an interval: detections, and cells that a person completed."""

from geo_retina.estimation.stratified import Design, Spread, interval, spread_of
from geo_retina.estimation.totals import Estimate, Method, estimate_share, estimate_total

__all__ = [
    "Design",
    "Estimate",
    "Method",
    "Spread",
    "estimate_share",
    "estimate_total",
    "interval",
    "spread_of",
]
