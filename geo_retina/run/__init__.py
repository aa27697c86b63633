"""Runs: plan -> blocks -> ledger -> tables. The only room that knows Dask."""

from geo_retina.run.blocks import Progress, run_units
from geo_retina.run.fitting import fit_scene, notes_on
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
from geo_retina.run.reporting import RunReport, limit_notes
from geo_retina.run.work import Work, prepare, run_folder

__all__ = [
    "Estimate",
    "Failure",
    "Ledger",
    "Part",
    "PartRecord",
    "Progress",
    "RunReport",
    "ScenePlan",
    "SceneRecord",
    "Unit",
    "Work",
    "estimate",
    "fit_scene",
    "limit_notes",
    "manifest_for",
    "merge_scene",
    "notes_on",
    "pack_units",
    "plan_scene",
    "plan_scenes",
    "prepare",
    "run_folder",
    "run_units",
]
