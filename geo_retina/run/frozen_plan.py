"""A plan on disk: what machines that know nothing of each other need to share one run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from geo_retina.errors import GeoRetinaError, OptionError, RunError
from geo_retina.files import parse_json, read_text, write_text
from geo_retina.geodesy import is_same, parse_crs
from geo_retina.grid import Window
from geo_retina.model import load_model
from geo_retina.options import DetectOptions, MergeOptions
from geo_retina.run.fitting import suited
from geo_retina.run.ledger.manifest import differences
from geo_retina.run.plan import BlockJob, Failure, ScenePlan, TaskBatch, pack_task_batches
from geo_retina.run.run_plan import RunPlan
from geo_retina.scene import Mosaic, absolute, find_scenes, valid_shares

_KIND, _VERSION = "geo-retina plan", 1

_UNREAD = 0.05
"""What a pixel without ground costs of one with it, as it has to be looked for all the same."""

Key = tuple[int, int]
"""Position of a scene in the run, and index of a block in the scene's plan."""


@dataclass(frozen=True)
class PlannedBlock:
    """A block of a plan.

    Attributes:
        scene: position of its scene in the run.
        block: its index in the scene's plan.
        window: its pixels.
        pixels: of the ground that is its own.
        valid: share of its pixels that hold ground, estimated from a sample.
    """

    scene: int
    block: int
    window: Window
    pixels: int
    valid: float

    @property
    def key(self) -> Key:
        """What a ledger knows it by."""
        return self.scene, self.block

    @property
    def work(self) -> float:
        """What it costs, in pixels of ground."""
        return self.pixels * (self.valid + (1 - self.valid) * _UNREAD)


@dataclass(frozen=True)
class FrozenPlan:
    """What a run does, with the scenes as they were when it was planned.

    Attributes:
        scenes: paths of all scenes, as they were named.
        name: of their mosaic, where they are read as one.
        model: name or path of the model.
        options: what changes the result, with the arithmetic that ``auto`` stood for.
        crs: of the result, as WKT; None where the scenes have none.
        manifest: what tells the run from others: fingerprints of model and scenes among it.
        used: positions of the scenes that are detected.
        unusable: scenes that cannot be used, with the reason.
        units: the work, in tasks of one or several blocks, in order.
        days: on which scenes were taken, by their absolute paths, where a catalogue tells it.
    """

    scenes: tuple[str, ...]
    name: str
    model: str
    options: DetectOptions
    crs: str | None
    manifest: Mapping[str, Any]
    used: tuple[int, ...]
    unusable: tuple[Failure, ...]
    units: tuple[tuple[PlannedBlock, ...], ...]
    days: Mapping[str, date] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Digest of all that a share of the work depends on."""
        units = [[asdict(block) for block in unit] for unit in self.units]
        text = json.dumps([self.manifest, self.crs, units], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def block_px(self) -> int:
        """Side of the blocks."""
        return int(self.manifest["block_px"])

    @property
    def paths(self) -> list[str]:
        """Paths of the scenes: as they were named where that leads to the same file from here."""
        full: list[str] = self.manifest["fixed"]["scenes"]
        pairs = zip(self.scenes, full, strict=True)
        return [given if absolute(given) == whole else whole for given, whole in pairs]

    def share(self, number: int, of: int) -> tuple[tuple[PlannedBlock, ...], ...]:
        """Choose the units of one of several parts: a run of neighbours of about equal work.

        Args:
            number: of the part, from 1.
            of: how many parts there are; where they are more than units, some are empty.
        """
        pairs = zip(self.units, self.parts_of_units(of), strict=True)
        return tuple(unit for unit, part in pairs if part == number)

    def parts_of_units(self, of: int) -> list[int]:
        """Give the number of the part that does each unit, from 1; see ``share``."""
        works = [sum(block.work for block in unit) for unit in self.units]
        total, done, numbers = sum(works), 0.0, []
        for work in works:
            place = int(of * (done + work / 2) / total) if total else 0
            numbers.append(min(place, of - 1) + 1)
            done += work
        return numbers

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        values = {"kind": _KIND, "version": _VERSION}
        values |= {each.name: getattr(self, each.name) for each in fields(self)}
        values["options"] = asdict(self.options)
        values["days"] = {path: day.isoformat() for path, day in self.days.items()}
        values["unusable"] = [[each.scene, each.error] for each in self.unusable]
        values["units"] = [
            [[b.scene, b.block, list(b.window), b.pixels, b.valid] for b in unit]
            for unit in self.units
        ]
        write_text(path, json.dumps(values) + "\n")


def freeze_plan(plan: RunPlan, model: str | Path, *, name: str) -> FrozenPlan:
    """Freeze the plan of a run; a few pixels of each block are read where some may be no ground.

    Args:
        plan: of the run, whose options name its arithmetic.
        model: name or path that the model was loaded from.
        name: of the mosaic, where the scenes are read as one.
    """
    planned = {each.key: each for scene in plan.scene_plans for each in _planned(scene)}
    jobs = [job for scene_plan in plan.scene_plans for job in scene_plan.jobs]
    batches = pack_task_batches(jobs, plan.run.block_px)
    given = os.fspath(model)
    options = plan.options
    if options.aoi is not None:
        options = replace(options, aoi=os.path.abspath(options.aoi))
    return FrozenPlan(
        scenes=plan.paths,
        name=name,
        model=os.path.abspath(given) if os.path.exists(given) else given,
        options=options,
        crs=None if plan.crs is None else plan.crs.to_wkt(),
        manifest=plan.manifest,
        used=tuple(plan.by_index),
        unusable=plan.unusable,
        units=tuple(
            tuple(planned[job.scene_index, job.block.index] for job in batch.jobs)
            for batch in batches
        ),
        days=plan.days,
    )


def _planned(plan: ScenePlan) -> list[PlannedBlock]:
    """Describe the blocks of a scene, as a plan on disk has them."""
    cores = [plan.tiles.core_of(block) for block in plan.blocks]
    if isinstance(plan.scene, Mosaic):
        shares = [valid_shares(plan.scene.under(core), [core])[0] for core in cores]
    else:
        shares = valid_shares(plan.scene, cores)
    return [
        PlannedBlock(plan.index, block.index, block.window, core.height * core.width, share)
        for block, core, share in zip(plan.blocks, cores, shares, strict=True)
    ]


def read_plan(path: str | Path) -> FrozenPlan:
    """Read a plan that ``FrozenPlan.write`` wrote.

    Raises:
        RunError: it is none, damaged, or of a newer geo-retina.

    Examples:
        >>> from pathlib import Path
        >>> from geo_retina import RunOptions, freeze_run, read_plan
        >>> freeze_run("scene.tif", "demo", run=RunOptions(device="cpu")).write(Path("plan.json"))
        >>> read_plan("plan.json").scenes
        ('scene.tif',)
    """
    try:
        found = parse_json(read_text(path))
        if not isinstance(found, dict) or found.pop("kind", None) != _KIND:
            raise ValueError("it is no plan of geo-retina")
        if found.pop("version", None) != _VERSION:
            raise ValueError("it was written by another version of geo-retina")
        return _build(found)
    except (OSError, ValueError, TypeError, LookupError, GeoRetinaError) as error:
        raise RunError(
            f"{path} cannot be read as a plan ({error}); write it anew with geo-retina plan"
        ) from error


def _build(values: dict[str, Any]) -> FrozenPlan:
    """Make a plan of its JSON values."""
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in values.pop("options").items()
    }
    merge = MergeOptions(**options.pop("merge"))
    units = tuple(
        tuple(PlannedBlock(s, b, Window(*window), px, share) for s, b, window, px, share in unit)
        for unit in values.pop("units")
    )
    plan = FrozenPlan(
        options=DetectOptions(**options, merge=merge),
        units=units,
        unusable=tuple(Failure(scene, error) for scene, error in values.pop("unusable")),
        scenes=tuple(values.pop("scenes")),
        used=tuple(values.pop("used")),
        days={path: date.fromisoformat(day) for path, day in values.pop("days", {}).items()},
        **values,
    )
    if len(plan.manifest["fixed"]["scenes"]) != len(plan.scenes):
        raise ValueError("its scenes are not those of its manifest")
    return plan


def check_as_planned(frozen: FrozenPlan, found: Mapping[str, Any]) -> None:
    """Refuse scenes, a model or options that are not those of a plan any longer.

    Args:
        frozen: the plan.
        found: manifest of the run as it would be now, with versions of some of the scenes.

    Raises:
        RunError: something differs.
    """
    planned = frozen.manifest
    now: Mapping[str, Any] = json.loads(json.dumps(found))
    changed = differences(planned["fixed"], now["fixed"])
    changed += differences(planned.get("results"), now.get("results"), "results")
    changed += [
        f"{path} (the file was replaced)"
        for path, version in now["versions"].items()
        if planned["versions"].get(path, version) != version
    ]
    if changed:
        raise RunError(
            f"the run differs from its plan in {'; '.join(changed)}; restore what it was planned "
            "with, or plan it anew and detect all its parts"
        )


def check_given(
    frozen: FrozenPlan,
    scenes: Sequence[str],
    model: str | None,
    options: DetectOptions,
    crs: str | None,
) -> None:
    """Refuse what is given beside a plan and contradicts it; what is left out is the plan's.

    Raises:
        OptionError: scenes, model, options or CRS differ.
    """
    fixed = frozen.manifest["fixed"]
    changed = []
    if scenes:
        full = [absolute(path) for path in find_scenes(scenes, asset=options.asset)]
        changed += differences(fixed["scenes"], full, "scenes")
    if model is not None or options != DetectOptions():
        loaded = load_model(frozen.model if model is None else model)
        changed += differences(fixed["model"], loaded.fingerprint, "model")
        if options != DetectOptions():
            wanted = suited(options, loaded.card)
            if wanted.precision == "auto":
                wanted = replace(wanted, precision=frozen.options.precision)
            if wanted.runtime == "auto":
                wanted = replace(wanted, runtime=frozen.options.runtime)
            if wanted.aoi is not None:
                wanted = replace(wanted, aoi=os.path.abspath(wanted.aoi))
            changed += differences(asdict(frozen.options), asdict(wanted), "options")
    if crs is not None and (
        frozen.crs is None or not is_same(parse_crs(crs), parse_crs(frozen.crs))
    ):
        changed.append("crs")
    if changed:
        raise OptionError(
            f"what is given beside the plan differs from it in {'; '.join(changed)}; leave it out, "
            "or plan anew with it"
        )


def batches_of(
    units: Sequence[Sequence[PlannedBlock]], jobs: Mapping[Key, BlockJob], *, first: int
) -> list[TaskBatch]:
    """Make task batches of the blocks of units that are to be done, as the whole run has them.

    Args:
        units: of the plan.
        jobs: those that are to be done, by scene and block.
        first: index of the first batch.
    """
    chosen = [tuple(jobs[b.key] for b in unit if b.key in jobs) for unit in units]
    return [TaskBatch(i, each) for i, each in enumerate(filter(None, chosen), first)]
