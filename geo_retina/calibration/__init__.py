"""Fit a model to other ground, or to 8-bit integers, without training."""

from geo_retina.calibration.calibrating import CalibrationReport, calibrate
from geo_retina.calibration.quantizing import quantize_model
from geo_retina.calibration.score_maps import fit_score_map
from geo_retina.training.validation.integer_cost import IntegerCost

__all__ = ["CalibrationReport", "IntegerCost", "calibrate", "fit_score_map", "quantize_model"]
