"""Options are checked at birth and imported cheaply."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

from geo_retina import options
from geo_retina.errors import OptionError

REQUIRED = {"data": options.DataOptions(scenes=("a.tif",), labels="a.gpkg")}
CLASSES = [
    kind
    for _, kind in inspect.getmembers(options, inspect.isclass)
    if dataclasses.is_dataclass(kind) and kind.__module__.startswith(options.__name__)
]


def made(kind, **changes):
    needed = {
        "DataOptions": {"scenes": ("a.tif",), "labels": "a.gpkg"},
        "LabelOptions": {"path": "a.gpkg"},
        "TrainOptions": REQUIRED,
        "ImportOptions": {"gsd_m": 0.1},
        "FindOptions": {"collections": ("naip",), "bbox": (0.0, 0.0, 1.0, 1.0)},
    }
    return kind(**{**needed.get(kind.__name__, {}), **changes})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_options_are_frozen_and_by_keyword(kind):
    made_once = made(kind)
    assert made_once == made(kind)
    name = dataclasses.fields(kind)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made_once, name, None)
    with pytest.raises(TypeError):
        kind(1)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_says_what_it_is(kind):
    source = inspect.getsource(kind)
    for field in dataclasses.fields(kind):
        after = source.split(f"\n    {field.name}: ", 1)[1]
        lines = after.split('"""')[0].count("\n    ") if '"""' in after else 99
        assert lines == 1, f"{kind.__name__}.{field.name} has no docstring"


@pytest.mark.parametrize(
    ("kind", "bad", "wanted"),
    [
        (options.MergeOptions, {"iou": 1.5}, r"MergeOptions.iou is 1.5, expected 0 to 1"),
        (options.MergeOptions, {"edge_px": -1}, r"edge_px is -1, expected 0 or more"),
        (options.MergeOptions, {"share": float("nan")}, r"share is nan"),
        (options.DetectOptions, {"score": -0.1}, r"DetectOptions.score is -0.1"),
        (options.DetectOptions, {"bands": (1, 0)}, r"bands is 0, expected 1 or more"),
        (options.RunOptions, {"retries": -1}, r"retries is -1"),
        (options.NetworkOptions, {"levels": (3, 5)}, r"levels is \(3, 5\), expected ascending"),
        (options.NetworkOptions, {"levels": (2, 3), "anchor_sides_px": ((8,),)}, r"1 levels"),
        (options.NetworkOptions, {"anchor_sides_px": ((8,), (8, 9))}, r"same number of sides"),
        (options.AssignOptions, {"background_iou": 0.6}, r"0.6 is above foreground_iou 0.5"),
        (options.DataOptions, {"scenes": ()}, r"DataOptions.scenes is empty"),
        (options.TrainOptions, {"network": {"chanels": 3}}, r"did you mean network.channels\?"),
        (options.EvaluateOptions, {"in_box": True, "radius_m": 3}, r"exclude each other"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(kind, bad, wanted):
    with pytest.raises(OptionError, match=wanted):
        made(kind, **bad)


def test_presets_resolve_with_changes():
    train = made(options.TrainOptions, preset="paper", network={"levels": [3, 4, 5, 6, 7]})
    assert train.resolved_network == options.PRESETS["paper"]
    changed = made(options.TrainOptions, network={"channels": 64, "anchor_ratios": [0.5, 2]})
    assert changed.resolved_network.channels == 64
    assert changed.resolved_network.anchor_ratios == (0.5, 2)


def test_other_levels_than_the_presets_get_anchors_of_their_own():
    train = made(options.TrainOptions, preset="paper-101", network={"levels": [2, 3, 4]})
    assert train.resolved_network.anchor_sides_px is None
    assert train.resolved_network.backbone == "resnet101"


def test_the_paper_has_nine_anchors_from_32_to_812_px():
    paper = options.PRESETS["paper"]
    sides = paper.anchor_sides_px
    assert len(sides) == len(paper.levels) == 5
    assert len(sides[0]) * len(paper.anchor_ratios) == 9
    assert sides[0][0] == 32
    assert sides[4][2] == pytest.approx(812.7, abs=0.1)


def test_unknown_keys_get_a_hint():
    assert options.unknown_key("bacth", ["batch", "lr"]) == (
        "unknown option bacth; did you mean batch?"
    )
    assert options.unknown_key("zzz", ["lr", "batch"]) == (
        "unknown option zzz; known are batch, lr"
    )


def test_options_import_nothing_heavy():
    code = "import sys, geo_retina.options as o; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"torch", "numpy", "rasterio", "geopandas", "dask", "shapely", "scipy", "pyarrow"}
    assert not heavy & set(loaded)


def test_lists_serve_as_tuples():
    assert options.DetectOptions(bands=[3, 2, 1]).bands == (3, 2, 1)
    assert options.DataOptions(scenes="a.tif", labels="b.gpkg").scenes == ("a.tif",)
    assert hash(options.DataOptions(scenes=["a.tif"], labels="b.gpkg"))
