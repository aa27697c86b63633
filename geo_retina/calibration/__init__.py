"""Fit a model's thresholds, suppression and scores to other ground, without training."""

from geo_retina.calibration.calibrating import CalibrationReport, calibrate
from geo_retina.calibration.score_maps import fit_score_map

__all__ = ["CalibrationReport", "calibrate", "fit_score_map"]
