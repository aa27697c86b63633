"""Fit a model's thresholds, suppression and scores to other ground, without training."""

from geo_retina.calibration.calibrating import CalibrationReport, calibrate
from geo_retina.calibration.quantizing import Cost, quantize_model
from geo_retina.calibration.score_maps import fit_score_map

__all__ = ["CalibrationReport", "Cost", "calibrate", "fit_score_map", "quantize_model"]
