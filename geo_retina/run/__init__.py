"""Runs: plan -> blocks -> ledger. The only room that knows Dask."""

from geo_retina.run.blocks import Progress, run_units
from geo_retina.run.ledger import Ledger, PartRecord, SceneRecord, manifest_for
from geo_retina.run.merging import merge_scene
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
    "describe_run",
    "estimate",
    "manifest_for",
    "merge_scene",
    "not_covered_table",
    "pack_units",
    "plan_scene",
    "plan_scenes",
    "run_units",
    "scanned_table",
]
