"""What `import geo_retina` offers, and what it must not cost."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import geo_retina

HEAVY = {
    "cyclopts",
    "dask",
    "distributed",
    "geopandas",
    "lightning",
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyogrio",
    "pyproj",
    "rasterio",
    "scipy",
    "shapely",
    "timm",
    "torch",
    "torchvision",
    "yaml",
}

VERBS = {
    *("calibrate", "quantize_model"),
    "check_labels",
    *("bundled_models", "compare", "detect", "detect_to_file", "draw_density", "draw_preview"),
    *("draw_scene", "estimate", "evaluate", "import_checkpoint", "write_report"),
    *("combine_runs", "export_chips", "export_onnx", "export_stac", "filter_detections"),
    "export_tiles",
    "find_items",
    *("find_scenes", "load_model", "load_train_options", "open_scene", "plan_scenes", "train"),
    *("detect_part", "freeze_run", "gather_parts", "read_plan", "review_detections"),
    *("compare_on_cells", "enter_labels"),
}
VALUES = {
    *(
        "CalibrationReport",
        "Card",
        "CellComparison",
        "Comparison",
        "CountEstimate",
        "Decoded",
        "DensityMap",
        "Detections",
        "Evaluation",
        "Grid",
        "IntegerCost",
        "Model",
        "Predictor",
    ),
    *("ChipReport", "CombineReport", "FilterReport", "LabelReport", "RunReport", "Scene"),
    *("EntryReport", "FoundItems", "FrozenPlan", "Part", "PartReport", "ReviewReport"),
    "TilesReport",
}
SHOWN = {
    "Card",
    "DetectOptions",
    "Detections",
    "Evaluation",
    "Grid",
    "Model",
    "Scene",
    "TrainOptions",
}
"""Values that have an example, as the verbs have: the rest are what a verb returns or is given."""
OPTIONS = {
    *(
        "AssignOptions",
        "CalibrateOptions",
        "DataOptions",
        "DetectOptions",
        "EvaluateOptions",
        "LabelOptions",
        "LossOptions",
    ),
    *("MergeOptions", "NetworkOptions", "RunOptions", "SampleOptions", "SplitOptions"),
    *(
        "ChipOptions",
        "EstimateOptions",
        "FilterOptions",
        "SynthOptions",
        "ImportOptions",
        "TrainOptions",
    ),
    *("FindOptions", "QuantizeOptions", "ReviewOptions"),
}
ERRORS = {
    *(
        "CrsError",
        "GeoRetinaError",
        "GridError",
        "LabelError",
        "ModelError",
        "OptionError",
        "OutputError",
    ),
    *("RunError", "SceneError", "SceneMismatchError", "TrainingError"),
}
PUBLIC = VERBS | VALUES | OPTIONS | ERRORS | {"PRESETS", "__version__"}


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running the code."""
    script = f"import sys\n{code}\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_all_is_exact():
    assert set(geo_retina.__all__) == PUBLIC
    assert len(geo_retina.__all__) == len(set(geo_retina.__all__))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(geo_retina.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    at_run_time = {(f"geo_retina.{module}", name) for name, module in geo_retina._MODULE_OF.items()}
    assert seen == at_run_time
    assert {name for _, name in seen} == PUBLIC - {"__version__"}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_loads(name):
    value = getattr(geo_retina, name)
    assert value is not None
    if name not in {"__version__", "PRESETS"}:
        assert callable(value)
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_no_module_bears_a_public_name():
    for name in PUBLIC - {"__version__"}:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"geo_retina.{name}")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'detekt'"):
        geo_retina.detekt  # noqa: B018


def test_all_errors_and_options_are_public():
    from geo_retina import errors, options

    assert {n for n, c in vars(errors).items() if inspect.isclass(c)} == ERRORS
    assert {n for n, c in vars(options).items() if n.endswith("Options")} == OPTIONS


def test_import_loads_nothing_heavy():
    assert loaded_by("import geo_retina") & HEAVY == set()


def test_options_and_errors_load_nothing_heavy():
    code = "from geo_retina import DetectOptions, TrainOptions, OptionError; DetectOptions()"
    assert loaded_by(code) & HEAVY == set()


def test_command_line_starts_light():
    assert loaded_by("import geo_retina.cli") & HEAVY == {"cyclopts"}


@pytest.mark.parametrize("words", [["models"], ["info", "demo"]])
def test_what_models_are_is_told_without_loading_pytorch(words):
    code = f"from geo_retina.cli import main; assert main({words!r}) == 0"
    assert loaded_by(code) & HEAVY <= {"cyclopts", "numpy"}


@pytest.mark.parametrize("name", sorted(VERBS | SHOWN))
def test_what_is_public_has_an_example_that_runs(name):
    """It runs as a doctest, on files that tests/support/examples.py makes."""
    from doctest import DocTestParser

    examples = DocTestParser().get_examples(inspect.getdoc(getattr(geo_retina, name)))
    assert any(name.lower() in example.source.lower() for example in examples[1:])
    assert any(example.want for example in examples)
    assert not any(example.options for example in examples)  # such as to skip it
