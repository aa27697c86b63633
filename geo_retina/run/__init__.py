"""Runs: plan -> blocks -> ledger -> tables. The only room that knows Dask."""

from geo_retina.run.detection_run import (
    DetectionRun,
    Totals,
    check_all_covered,
    check_any_covered,
    total,
)
from geo_retina.run.execution import carry_out, carry_out_part, open_ledger
from geo_retina.run.fitting import fit_scene, notes_on, suited
from geo_retina.run.frozen_plan import (
    FrozenPlan,
    check_given,
    freeze_plan,
    read_plan,
)
from geo_retina.run.ledger.block_results import BlockResult
from geo_retina.run.ledger.folder import Ledger, SceneRecord
from geo_retina.run.ledger.manifest import manifest_for
from geo_retina.run.merging import (
    empty_tables,
    merge_scene,
    merged_tables,
    objects_table,
    scene_objects,
)
from geo_retina.run.parts import (
    Part,
    PartReport,
    find_parts,
    gather_into,
    open_part,
    plan_part,
    remove_parts,
    report_on_part,
)
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
from geo_retina.run.prescreening import read_coarse
from geo_retina.run.provenance import explain
from geo_retina.run.report import RunReport, limit_notes, report_on
from geo_retina.run.resuming import Outputs, find_earlier, leave_ledger, run_folder
from geo_retina.run.run_plan import RunPlan, plan_run
from geo_retina.run.tasks.submitting import run_task_batches
from geo_retina.run.tasks.tally import Progress, Workload

__all__ = [
    "BlockJob",
    "BlockResult",
    "DetectionRun",
    "Estimate",
    "Failure",
    "FrozenPlan",
    "Ledger",
    "Outputs",
    "Part",
    "PartReport",
    "Progress",
    "RunPlan",
    "RunReport",
    "ScenePlan",
    "SceneRecord",
    "TaskBatch",
    "Totals",
    "Workload",
    "carry_out",
    "carry_out_part",
    "check_all_covered",
    "check_any_covered",
    "check_given",
    "empty_tables",
    "estimate",
    "explain",
    "find_earlier",
    "find_parts",
    "fit_scene",
    "freeze_plan",
    "gather_into",
    "leave_ledger",
    "limit_notes",
    "manifest_for",
    "merge_scene",
    "merged_tables",
    "notes_on",
    "objects_table",
    "open_ledger",
    "open_part",
    "pack_task_batches",
    "plan_part",
    "plan_run",
    "plan_scene",
    "plan_scenes",
    "read_coarse",
    "read_plan",
    "remove_parts",
    "report_on",
    "report_on_part",
    "run_folder",
    "run_task_batches",
    "scene_objects",
    "suited",
    "total",
]
