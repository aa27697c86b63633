"""What a run will do, with everything checked that can be before the first block."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import pyproj

from geo_retina.engine import Place, name_operators, place_here, resolve_runtime
from geo_retina.errors import OptionError
from geo_retina.forks import check_forked
from geo_retina.geodesy import missing_crs
from geo_retina.model import Model, load_model
from geo_retina.nn.tta import has_tta
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run.cluster import ask_workers
from geo_retina.run.fitting import suited
from geo_retina.run.ledger.manifest import manifest_for
from geo_retina.run.output_crs import choose_output_crs
from geo_retina.run.plan import Chosen, Failure, ScenePlan, choose_scenes, plan_found
from geo_retina.run.resuming import Outputs
from geo_retina.scene import (
    Scene,
    ValueMap,
    absolute,
    fingerprint,
    scene_names,
)
from geo_retina.vector import FIRST_SEEN, SCENE_DATE, check_has_place, read_area


@dataclass(frozen=True, eq=False)
class RunPlan:
    """What a run will do.

    Attributes:
        model: network and card.
        options: what changes the result, as the model's card completes it.
        run: how it is carried out, with blocks of the size of an earlier try.
        outputs: where its results go.
        scene_plans: scenes to detect, or their mosaic, in order.
        unusable: scenes that cannot be used or placed, or are not in the mosaic.
        crs: of the result; None where the scenes have none.
        manifest: what tells it from other runs.
        paths: of all scenes, usable or not.
        days: on which they were taken, by their absolute paths, where a catalogue tells it.
    """

    model: Model
    options: DetectOptions
    run: RunOptions
    outputs: Outputs
    scene_plans: tuple[ScenePlan, ...]
    unusable: tuple[Failure, ...]
    crs: pyproj.CRS | None
    manifest: dict[str, Any]
    paths: tuple[str, ...] = ()
    days: Mapping[str, date] = field(default_factory=dict)

    @cached_property
    def by_index(self) -> dict[int, ScenePlan]:
        """Scene plans, by the position of their scenes among all of the run."""
        return {each.index: each for each in self.scene_plans}

    @cached_property
    def names(self) -> dict[int, str]:
        """Names that the scenes have in the output, by the same position."""
        if self.options.mosaic:
            return {each.index: each.scene.name for each in self.scene_plans}
        names = scene_names([each.scene.path for each in self.scene_plans])
        return dict(zip(self.by_index, names, strict=True))

    @property
    def scenes(self) -> list[Scene]:
        """Every scene that is scanned, those of mosaics one by one."""
        return [scene for each in self.scene_plans for scene in each.scenes]

    @property
    def date_columns(self) -> tuple[str, ...]:
        """Names of the columns of dates in the output; none where no scene has one."""
        if all(each.scene.day is None for each in self.scene_plans):
            return ()
        return (SCENE_DATE, FIRST_SEEN) if self.options.across_scenes else (SCENE_DATE,)

    @property
    def stretches(self) -> dict[str, ValueMap]:
        """How values are changed of scenes that are stretched, by their paths."""
        return _stretches(self.scene_plans, self.options)

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to detect: not where all scenes lie outside the area."""
        return any(not each.is_outside for each in self.scene_plans)


def plan_run(
    scenes: str | Path | Sequence[str | Path],
    model: str | Path | Model,
    options: DetectOptions,
    run: RunOptions,
    *,
    outputs: Outputs,
    crs: str | None,
) -> RunPlan:
    """Check everything that can be checked before the first block.

    Nothing of the scenes is read but headers, and a sample where values must be looked at.

    Args:
        scenes: files, folders, globs, lists or STAC documents.
        model: a model, a model file, or the name of a bundled model.
        options: what changes the result.
        run: how it is carried out.
        outputs: where its results go.
        crs: CRS of the result; None for the scenes' own.

    Raises:
        GeoRetinaError: nothing can be done.
    """
    chosen = choose_scenes(scenes, options)
    return plan_chosen(chosen, model, options, run, outputs=outputs, crs=crs)


def plan_chosen(
    scenes: Chosen,
    model: str | Path | Model,
    options: DetectOptions,
    run: RunOptions,
    *,
    outputs: Outputs,
    crs: str | None,
) -> RunPlan:
    """Plan a run over scenes that were found, as ``plan_run`` does.

    Raises:
        GeoRetinaError: nothing can be done.
    """
    if run.scheduler is None:
        check_forked()
    loaded, options = _load_fitting(model, options)
    options = outputs.follow(options)
    options = resolve_runtime(options, loaded, _places(loaded, options, run))
    if outputs.block_px is not None:
        run = dataclasses.replace(run, block_px=outputs.block_px)
    paths = list(scenes.paths)
    if run.scheduler is not None:  # its workers may run in another folder
        paths = [absolute(path) for path in paths]
    if run.update and options.mosaic:
        raise OptionError(
            "RunOptions.update is given with DetectOptions.mosaic; a mosaic of other scenes is "
            "another scene, so it is detected anew"
        )
    paths = outputs.with_new(paths)
    scenes = dataclasses.replace(scenes, paths=tuple(paths))
    plans, unfit = plan_found(scenes, loaded.card, options, run)
    if plans or scenes.only is None:
        placed, misplaced, output_crs = choose_output_crs(crs, plans)
    else:  # none of the few that a part needs can be used
        placed, misplaced, output_crs = [], [], None
    for target in outputs.targets:
        check_has_place(target.path, output_crs)
    if options.across_scenes:
        _check_beside_others(placed)
    looked_at = [p for i, p in enumerate(paths) if scenes.only is None or i in scenes.only]
    used = _versions(looked_at, {each.scene for each in unfit}, _stretches(placed, options))
    return RunPlan(
        loaded,
        options,
        run,
        outputs,
        tuple(placed),
        (*unfit, *misplaced),
        output_crs,
        _manifest(paths, used, loaded, options, run.block_px),
        tuple(paths),
        scenes.days,
    )


def _places(model: Model, options: DetectOptions, run: RunOptions) -> tuple[Place, ...]:
    """Find where a run computes, as far as its arithmetic is open."""
    if run.scheduler is None:
        return (place_here(run.device),)
    if model.predictor is not None or options.precision != "auto":
        return ()
    return ask_workers(run)


def _load_fitting(model: str | Path | Model, options: DetectOptions) -> tuple[Model, DetectOptions]:
    """Load a model, and complete the options from its card.

    Raises:
        OptionError: they do not suit it.
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    options = suited(options, loaded.card)
    if not has_tta(loaded.network.anchor_grid, options.tta):
        raise OptionError(
            f"DetectOptions.tta is {options.tta}, but the anchors of model {loaded.card.name} "
            "are not the same in all these views; leave it at 1"
        )
    return loaded, options


def _check_beside_others(plans: Sequence[ScenePlan]) -> None:
    """Refuse to merge scenes of which nothing says how they lie to each other.

    Raises:
        OptionError: one of several has no CRS.
    """
    for each in plans if len(plans) > 1 else ():
        if each.scene.grid.crs is None:
            so = "nothing says where it lies beside the others"
            otherwise = ", or leave out DetectOptions.across_scenes"
            raise OptionError(missing_crs(f"the scene {each.scene.path}", so, otherwise=otherwise))


def _stretches(plans: Sequence[ScenePlan], options: DetectOptions) -> dict[str, ValueMap]:
    if not options.stretch:
        return {}
    scenes = [scene for each in plans for scene in each.scenes]
    return {scene.path: scene.values for scene in scenes if scene.values is not None}


def _versions(
    paths: Sequence[str], unfit: Collection[str], stretches: dict[str, ValueMap]
) -> dict[str, Any]:
    """Describe what must be the same of usable scenes when a run goes on: files and stretches."""
    versions: dict[str, Any] = {}
    for path in paths:
        if path not in unfit:
            values = stretches.get(path)
            version = {} if values is None else {"values": dataclasses.asdict(values)}
            versions[absolute(path)] = {**fingerprint(path), **version}
    return versions


def _manifest(
    paths: Sequence[str],
    versions: dict[str, Any],
    model: Model,
    options: DetectOptions,
    block_px: int,
) -> dict[str, Any]:
    """Describe a run, so that another one does not go on with it."""
    full_paths = [absolute(path) for path in paths]
    if options.aoi is not None:  # told by what the file holds, not by its name
        area = read_area(options.aoi, options.aoi_layer)
        options = dataclasses.replace(options, aoi=area.fingerprint, aoi_layer=None)
    manifest = manifest_for(full_paths, versions, model.fingerprint, options, block_px)
    if (used := name_operators(options)) is not None:
        manifest["fixed"]["operators"] = used
    if options.mosaic:  # its grid and tiles are those of just these scenes
        members = {path: "used" if path in versions else "left out" for path in full_paths}
        manifest["fixed"]["mosaic_members"] = members
    return manifest
