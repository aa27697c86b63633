"""Every option, with its one default. Imports nothing heavy: the command line reads it first.

Frozen, keyword-only, checked at birth. Python, YAML and the command line all speak these
dataclasses; nowhere else is a default written.
"""

from geo_retina.options.calibration import CalibrateOptions, QuantizeOptions
from geo_retina.options.catalog import FindOptions, Signing
from geo_retina.options.checks import (
    INFINITY,
    it_has,
    quoted,
    same_text,
    split_names,
    unknown_key,
)
from geo_retina.options.data import DataOptions, LabelOptions, SampleOptions, SplitOptions
from geo_retina.options.detection import (
    DetectOptions,
    DetectPrecision,
    Device,
    Geometry,
    MergeOptions,
    Precision,
    RunOptions,
    Runtime,
)
from geo_retina.options.estimation import EstimateOptions, Estimator
from geo_retina.options.evaluation import EvaluateOptions
from geo_retina.options.importing import ImportOptions
from geo_retina.options.losses import AssignOptions, LossOptions
from geo_retina.options.network import PRESETS, NetworkOptions, Padding
from geo_retina.options.output import ChipForm, ChipOptions, FilterOptions
from geo_retina.options.review import ReviewOptions
from geo_retina.options.synth import SynthOptions
from geo_retina.options.training import TrainOptions

__all__ = [
    "INFINITY",
    "PRESETS",
    "AssignOptions",
    "CalibrateOptions",
    "ChipForm",
    "ChipOptions",
    "DataOptions",
    "DetectOptions",
    "DetectPrecision",
    "Device",
    "EstimateOptions",
    "Estimator",
    "EvaluateOptions",
    "FilterOptions",
    "FindOptions",
    "Geometry",
    "ImportOptions",
    "LabelOptions",
    "LossOptions",
    "MergeOptions",
    "NetworkOptions",
    "Padding",
    "Precision",
    "QuantizeOptions",
    "ReviewOptions",
    "RunOptions",
    "Runtime",
    "SampleOptions",
    "Signing",
    "SplitOptions",
    "SynthOptions",
    "TrainOptions",
    "it_has",
    "quoted",
    "same_text",
    "split_names",
    "unknown_key",
]
