"""Runs: plan -> blocks -> ledger. The only room that knows Dask."""

from geo_retina.run.area import missing_tiles, on_area
from geo_retina.run.blocks import Progress, run_units
from geo_retina.run.fitting import fit_scene, notes_on
from geo_retina.run.ledger import Ledger, PartRecord, SceneRecord, manifest_for
from geo_retina.run.merging import merge_scene
from geo_retina.run.placing import choose_crs
from geo_retina.run.plan import (
    Estimate,
    Failure,
    Part,
    ScenePlan,
    Unit,
    estimate,
    pack_units,
    plan_scene,
    plan_scenes,
)
from geo_retina.run.provenance import describe_run, not_covered_table, scanned_table

__all__ = [
    "Estimate",
    "Failure",
    "Ledger",
    "Part",
    "PartRecord",
    "Progress",
    "ScenePlan",
    "SceneRecord",
    "Unit",
    "choose_crs",
    "describe_run",
    "estimate",
    "fit_scene",
    "manifest_for",
    "merge_scene",
    "missing_tiles",
    "not_covered_table",
    "notes_on",
    "on_area",
    "pack_units",
    "plan_scene",
    "plan_scenes",
    "run_units",
    "scanned_table",
]
