"""Runs: plan -> blocks -> ledger -> tables. The only room that knows Dask."""

from geo_retina.run.blocks import Progress, run_task_batches
from geo_retina.run.detection_run import (
    DetectionRun,
    Totals,
    check_all_covered,
    check_any_covered,
    total,
)
from geo_retina.run.execution import carry_out, open_ledger
from geo_retina.run.fitting import fit_scene, notes_on
from geo_retina.run.ledger.block_results import BlockResult
from geo_retina.run.ledger.folder import Ledger, SceneRecord
from geo_retina.run.ledger.manifest import manifest_for
from geo_retina.run.merging import merge_scene, merged_tables
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
from geo_retina.run.provenance import explain
from geo_retina.run.report import RunReport, limit_notes, report_on
from geo_retina.run.resuming import Outputs, find_earlier, leave_ledger, run_folder
from geo_retina.run.run_plan import RunPlan, plan_run

__all__ = [
    "BlockJob",
    "BlockResult",
    "DetectionRun",
    "Estimate",
    "Failure",
    "Ledger",
    "Outputs",
    "Progress",
    "RunPlan",
    "RunReport",
    "ScenePlan",
    "SceneRecord",
    "TaskBatch",
    "Totals",
    "carry_out",
    "check_all_covered",
    "check_any_covered",
    "estimate",
    "explain",
    "find_earlier",
    "fit_scene",
    "leave_ledger",
    "limit_notes",
    "manifest_for",
    "merge_scene",
    "merged_tables",
    "notes_on",
    "open_ledger",
    "pack_task_batches",
    "plan_run",
    "plan_scene",
    "plan_scenes",
    "report_on",
    "run_folder",
    "run_task_batches",
    "total",
]
