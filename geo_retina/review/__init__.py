"""Let a person look at detections and correct them, inside their GeoPackage."""

from geo_retina.review.reading import read_review
from geo_retina.review.samples import samples_of
from geo_retina.review.values import NO_CELL, Cases, Design, Frame, Review, Sample

__all__ = [
    "NO_CELL",
    "Cases",
    "Design",
    "Frame",
    "Review",
    "Sample",
    "read_review",
    "samples_of",
]
