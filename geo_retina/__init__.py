"""Detect objects in satellite and aerial imagery: large GeoTIFFs in, georeferenced polygons out.

The names below are the public ones. Each is loaded from its module when first used, so
``import geo_retina`` itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

import geo_retina.forks  # noqa: F401 - it must be there when a process forks

if TYPE_CHECKING:
    from geo_retina.calibration import CalibrationReport, IntegerCost, calibrate, quantize_model
    from geo_retina.catalog import FoundItems, find_items
    from geo_retina.config import load_train_options
    from geo_retina.detections import Detections
    from geo_retina.detector import (
        FrozenPlan,
        Part,
        PartReport,
        RunReport,
        detect,
        detect_part,
        detect_to_file,
        freeze_run,
        gather_parts,
    )
    from geo_retina.errors import (
        CrsError,
        GeoRetinaError,
        GridError,
        LabelError,
        ModelError,
        OptionError,
        OutputError,
        RunError,
        SceneError,
        SceneMismatchError,
        TrainingError,
    )
    from geo_retina.estimation import CellComparison, CountEstimate, compare_on_cells, estimate
    from geo_retina.evaluation import Comparison, Evaluation, compare, evaluate
    from geo_retina.export import ChipReport, export_chips, export_onnx, export_stac
    from geo_retina.grid import Grid
    from geo_retina.html_report import write_report
    from geo_retina.model import Card, Model, bundled_models, import_checkpoint, load_model
    from geo_retina.nn.predictor import Decoded, Predictor
    from geo_retina.options import (
        PRESETS,
        AssignOptions,
        CalibrateOptions,
        ChipOptions,
        DataOptions,
        DetectOptions,
        EstimateOptions,
        EvaluateOptions,
        FilterOptions,
        FindOptions,
        ImportOptions,
        LabelOptions,
        LossOptions,
        MergeOptions,
        NetworkOptions,
        QuantizeOptions,
        ReviewOptions,
        RunOptions,
        SampleOptions,
        SplitOptions,
        SynthOptions,
        TrainOptions,
    )
    from geo_retina.plots import DensityMap, draw_density, draw_preview
    from geo_retina.postprocess import CombineReport, FilterReport, combine_runs, filter_detections
    from geo_retina.review import EntryReport, ReviewReport, enter_labels, review_detections
    from geo_retina.run import plan_scenes, read_plan
    from geo_retina.scene import Scene, find_scenes, open_scene
    from geo_retina.synth import draw_scene
    from geo_retina.training import LabelReport, check_labels, train
    from geo_retina.vector import TilesReport, export_tiles

    __version__: str

__all__ = [
    "PRESETS",
    "AssignOptions",
    "CalibrateOptions",
    "CalibrationReport",
    "Card",
    "CellComparison",
    "ChipOptions",
    "ChipReport",
    "CombineReport",
    "Comparison",
    "CountEstimate",
    "CrsError",
    "DataOptions",
    "Decoded",
    "DensityMap",
    "DetectOptions",
    "Detections",
    "EntryReport",
    "EstimateOptions",
    "EvaluateOptions",
    "Evaluation",
    "FilterOptions",
    "FilterReport",
    "FindOptions",
    "FoundItems",
    "FrozenPlan",
    "GeoRetinaError",
    "Grid",
    "GridError",
    "ImportOptions",
    "IntegerCost",
    "LabelError",
    "LabelOptions",
    "LabelReport",
    "LossOptions",
    "MergeOptions",
    "Model",
    "ModelError",
    "NetworkOptions",
    "OptionError",
    "OutputError",
    "Part",
    "PartReport",
    "Predictor",
    "QuantizeOptions",
    "ReviewOptions",
    "ReviewReport",
    "RunError",
    "RunOptions",
    "RunReport",
    "SampleOptions",
    "Scene",
    "SceneError",
    "SceneMismatchError",
    "SplitOptions",
    "SynthOptions",
    "TilesReport",
    "TrainOptions",
    "TrainingError",
    "__version__",
    "bundled_models",
    "calibrate",
    "check_labels",
    "combine_runs",
    "compare",
    "compare_on_cells",
    "detect",
    "detect_part",
    "detect_to_file",
    "draw_density",
    "draw_preview",
    "draw_scene",
    "enter_labels",
    "estimate",
    "evaluate",
    "export_chips",
    "export_onnx",
    "export_stac",
    "export_tiles",
    "filter_detections",
    "find_items",
    "find_scenes",
    "freeze_run",
    "gather_parts",
    "import_checkpoint",
    "load_model",
    "load_train_options",
    "open_scene",
    "plan_scenes",
    "quantize_model",
    "read_plan",
    "review_detections",
    "train",
    "write_report",
]

_NAMES_BY_MODULE = {
    "calibration": "calibrate CalibrationReport IntegerCost quantize_model",
    "catalog": "find_items FoundItems",
    "config": "load_train_options",
    "detections": "Detections",
    "detector": "detect detect_part detect_to_file freeze_run FrozenPlan gather_parts Part "
    "PartReport RunReport",
    "errors": "CrsError GeoRetinaError GridError LabelError ModelError OptionError OutputError "
    "RunError SceneError SceneMismatchError TrainingError",
    "estimation": "CellComparison compare_on_cells CountEstimate estimate",
    "evaluation": "compare Comparison evaluate Evaluation",
    "export": "ChipReport export_chips export_onnx export_stac",
    "grid": "Grid",
    "html_report": "write_report",
    "model": "bundled_models Card import_checkpoint load_model Model",
    "nn.predictor": "Decoded Predictor",
    "options": "AssignOptions CalibrateOptions ChipOptions DataOptions DetectOptions "
    "EstimateOptions EvaluateOptions FilterOptions FindOptions ImportOptions LabelOptions "
    "LossOptions MergeOptions NetworkOptions PRESETS QuantizeOptions ReviewOptions RunOptions "
    "SampleOptions SplitOptions SynthOptions TrainOptions",
    "plots": "DensityMap draw_density draw_preview",
    "postprocess": "combine_runs CombineReport filter_detections FilterReport",
    "review": "enter_labels EntryReport review_detections ReviewReport",
    "run": "plan_scenes read_plan",
    "scene": "find_scenes open_scene Scene",
    "synth": "draw_scene",
    "training": "check_labels LabelReport train",
    "vector": "export_tiles TilesReport",
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562)."""
    if name == "__version__":
        value: object = _version()
    elif name in _MODULE_OF:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("geo-retina")
    except PackageNotFoundError:  # run from its source without being installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
