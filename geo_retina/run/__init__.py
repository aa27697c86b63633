"""Runs: plan -> blocks -> ledger -> tables. The only room that knows Dask."""

from geo_retina.run.block_results import BlockResult
from geo_retina.run.blocks import Progress, run_task_batches
from geo_retina.run.detection_run import DetectionRun, prepare, run_folder
from geo_retina.run.fitting import fit_scene, notes_on
from geo_retina.run.ledger import Ledger, SceneRecord
from geo_retina.run.manifest import manifest_for, read_manifest
from geo_retina.run.merging import merge_scene
from geo_retina.run.plan import (
    BlockJob,
    Estimate,
    Failure,
    ScenePlan,
    TaskBatch,
    estimate,
    pack_task_batches,
    plan_scene,
    plan_scenes,
)
from geo_retina.run.report import RunReport, limit_notes

__all__ = [
    "BlockJob",
    "BlockResult",
    "DetectionRun",
    "Estimate",
    "Failure",
    "Ledger",
    "Progress",
    "RunReport",
    "ScenePlan",
    "SceneRecord",
    "TaskBatch",
    "estimate",
    "fit_scene",
    "limit_notes",
    "manifest_for",
    "merge_scene",
    "notes_on",
    "pack_task_batches",
    "plan_scene",
    "plan_scenes",
    "prepare",
    "read_manifest",
    "run_folder",
    "run_task_batches",
]
