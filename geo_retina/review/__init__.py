"""Let a person look at detections and correct them, inside their GeoPackage."""

from geo_retina.review.entering import EntryReport, enter_labels
from geo_retina.review.overlap import fitted_cells, name_reviews, refuse_trained_cells
from geo_retina.review.reading import read_review
from geo_retina.review.refilling import ReviewReport, review_detections
from geo_retina.review.samples import samples_of
from geo_retina.review.values import NO_CELL, Cases, Design, Frame, Review, Sample

__all__ = [
    "NO_CELL",
    "Cases",
    "Design",
    "EntryReport",
    "Frame",
    "Review",
    "ReviewReport",
    "Sample",
    "enter_labels",
    "fitted_cells",
    "name_reviews",
    "read_review",
    "refuse_trained_cells",
    "review_detections",
    "samples_of",
]
