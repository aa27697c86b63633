"""How many objects there are, with an interval: detections, and cells that a person completed."""

from geo_retina.estimation.cell_comparison import CellComparison, compare_on_cells
from geo_retina.estimation.counting import FEWEST_OF_ZONE, estimate
from geo_retina.estimation.result import CountEstimate, CountRow, TargetPlan
from geo_retina.estimation.stratified import Design, Spread, interval, spread_of
from geo_retina.estimation.totals import Estimate, estimate_share, estimate_total

__all__ = [
    "FEWEST_OF_ZONE",
    "CellComparison",
    "CountEstimate",
    "CountRow",
    "Design",
    "Estimate",
    "Spread",
    "TargetPlan",
    "compare_on_cells",
    "estimate",
    "estimate_share",
    "estimate_total",
    "interval",
    "spread_of",
]
