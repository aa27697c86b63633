"""What a run will do: scenes fitted to a model, tiles, blocks, and task batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import shapely

from geo_retina.engine import Engine
from geo_retina.errors import GeoRetinaError, OptionError, SceneError
from geo_retina.grid import Block, TilePlan, Window, plan_tiles
from geo_retina.model import OVERLAPS_PER_TILE, Card, Model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run.fitting import check_prescreen, fit_scene
from geo_retina.run.tiles_of_interest import tiles_on, tiles_over
from geo_retina.scene import (
    BLOCK_CACHE_BYTES,
    Mosaic,
    Scene,
    absolute,
    coarsen,
    find_dated,
    make_mosaic,
    mosaic_name,
)
from geo_retina.vector import Area, read_area

_WIDEST = 4
"""A block of a file in strips may have this many times the pixels that blocks should have."""


_BLANKS_IN_UNIT = 64
"""Whole blocks without ground in a unit: they are soon done, and each unit is written by itself."""


@dataclass(frozen=True)
class Failure:
    """Ground that a run did not cover, and why.

    Attributes:
        scene: path of the scene.
        error: one sentence.
        plan: the scene's plan; None for a scene that could not be opened.
        window: pixels of its grid; None for the whole scene.
    """

    scene: str
    error: str
    plan: ScenePlan | None = None
    window: Window | None = None


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """One scene, and how it is cut.

    Attributes:
        index: position among the scenes of the run.
        scene: the scene on the model's grid.
        tiles: its tiles.
        blocks: its blocks of tiles; none where it lies outside the area of interest.
        area_px: the area of interest in pixels of its grid; None where all is of interest.
        coarse: the scene as a first look sees it; None where there is none.
    """

    index: int
    scene: Scene | Mosaic
    tiles: TilePlan
    blocks: tuple[Block, ...]
    area_px: Any | None = None
    coarse: Scene | None = None

    @property
    def scenes(self) -> list[Scene]:
        """The scene, or those of a mosaic."""
        return self.scene.scenes if isinstance(self.scene, Mosaic) else [self.scene]

    def shown_by(self, blocks: Sequence[Block]) -> list[Scene]:
        """List the scenes of which some blocks of it show anything."""
        if isinstance(self.scene, Mosaic):
            return self.scene.under(*(block.window for block in blocks)).scenes
        return [self.scene] if blocks else []

    @property
    def jobs(self) -> list[BlockJob]:
        """Its blocks, as they travel."""
        return [self.job(block) for block in self.blocks]

    def job(self, block: Block) -> BlockJob:
        """Make the job of a block as it travels: of a mosaic, with the scenes that it shows."""
        scene = self.scene.under(block.window) if isinstance(self.scene, Mosaic) else self.scene
        return BlockJob(self.index, scene, self.tiles, block, self.coarse)

    def block(self, index: int) -> Block:
        """Return the block that a block result names.

        Indices after those of ``blocks`` are single tiles, in the plan's order, that turned out
        to be needed for the objects at the border of the area of interest.
        """
        if index < len(self.blocks):
            return self.blocks[index]
        return self.tiles.block_of(index - len(self.blocks), index)

    @cached_property
    def chosen_tiles(self) -> int:
        """Tiles that are scanned; the others lie outside the area or show no scene."""
        return sum(len(block.tile_rows) * len(block.tile_cols) for block in self.blocks)

    @property
    def area_share(self) -> float:
        """Share of the grid that is of interest."""
        if self.area_px is None:
            return float(not self.is_outside)
        height, width = self.tiles.height, self.tiles.width
        inside = shapely.intersection(self.area_px, shapely.box(0, 0, width, height))
        return float(shapely.area(inside)) / (height * width)

    @property
    def is_outside(self) -> bool:
        """Whether none of it is of interest."""
        return not self.blocks


@dataclass(frozen=True, eq=False)
class BlockJob:
    """One block of one scene, as it travels to a worker."""

    scene_index: int
    scene: Scene | Mosaic
    tiles: TilePlan
    block: Block
    coarse: Scene | None = None


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """What one task does: a block, or the blocks of several small scenes."""

    index: int
    jobs: tuple[BlockJob, ...]


@dataclass(frozen=True)
class Estimate:
    """What a run would need on this machine.

    Attributes:
        network_px: pixels through the network, overlap and padding included.
        grid_px: pixels of the ground that is scanned.
        km2: that ground in square kilometres; None where a scene has no resolution in metres.
        px_per_s: rate of the network, measured here on noise.
        seconds: time through the network.
        memory_bytes: peak of the process: what it holds already, libraries and model among it,
            blocks in flight, a batch, and GDAL's cache of blocks.
    """

    network_px: int
    grid_px: int
    km2: float | None
    px_per_s: float
    seconds: float
    memory_bytes: int


def plan_scenes(
    scenes: str | Path | Sequence[str | Path],
    card: Card,
    options: DetectOptions,
    run: RunOptions,
) -> tuple[list[ScenePlan], list[Failure]]:
    """Fit scenes to a model and cut them into tiles and blocks.

    Reads no pixel, but for a sample where values of more than 8 bits must be looked at.

    Args:
        scenes: files, folders, globs, lists or STAC documents.
        card: card of the model.
        options: what changes the result.
        run: how it is carried out.

    Returns:
        Plans in the order of the scenes, those outside the area of interest without blocks, or
        one plan of their mosaic; and the scenes that cannot be used, or not in the mosaic, with
        the reason.

    Raises:
        SceneError: a path names nothing.
        LabelError: the area of interest cannot be read.
        GeoRetinaError: no scene can be used; the first one's error.

    Examples:
        >>> from geo_retina import DetectOptions, RunOptions, load_model, plan_scenes
        >>> card, run = load_model("demo").card, RunOptions(device="cpu")
        >>> plans, failures = plan_scenes("scene.tif", card, DetectOptions(), run)
        >>> len(plans), failures
        (1, [])
    """
    return plan_found(choose_scenes(scenes, options), card, options, run)


@dataclass(frozen=True)
class Chosen:
    """Scenes that were found, or those of them that a part of a run needs.

    Attributes:
        paths: of all scenes of the run.
        name: of their mosaic, where one is asked for.
        only: positions of those to look at, of which none may be usable; None for all.
        days: on which they were taken, by their absolute paths, where a catalogue tells it.
    """

    paths: tuple[str, ...]
    name: str
    only: frozenset[int] | None = None
    days: Mapping[str, date] = field(default_factory=dict)


def choose_scenes(scenes: str | Path | Sequence[str | Path], options: DetectOptions) -> Chosen:
    """Find scenes, and what is told of them.

    Raises:
        SceneError: a path names nothing.
    """
    found = find_dated(scenes, asset=options.asset)
    days = {absolute(path): day for path, day in found.items() if day is not None}
    return Chosen(tuple(found), mosaic_name(scenes), days=days)


def plan_found(
    chosen: Chosen, card: Card, options: DetectOptions, run: RunOptions
) -> tuple[list[ScenePlan], list[Failure]]:
    """Fit scenes that were found to a model, and cut them, as ``plan_scenes`` does."""
    check_prescreen(options, card)
    area = None if options.aoi is None else read_area(options.aoi, options.aoi_layer)
    opened: list[tuple[int, Scene]] = []
    failures: list[Failure] = []
    first_error: GeoRetinaError | None = None
    for index, path in enumerate(chosen.paths):
        if chosen.only is not None and index not in chosen.only:
            continue
        try:
            scene = fit_scene(path, card, options)
            opened.append((index, replace(scene, day=chosen.days.get(absolute(path), scene.day))))
        except OptionError:
            raise
        except GeoRetinaError as error:
            first_error = first_error or error
            failures.append(Failure(path, str(error)))
    if first_error is not None and not opened and chosen.only is None:
        raise first_error
    pictures: Sequence[tuple[int, Scene | Mosaic]] = opened
    if options.mosaic:
        mosaic, refused = make_mosaic([scene for _, scene in opened], chosen.name)
        pictures = [(0, mosaic)]
        failures += [Failure(scene.path, str(error)) for scene, error in refused]
    plans = [
        _cut(scene, card, options, block_px=run.block_px, index=index, area=area)
        for index, scene in pictures
    ]
    return plans, failures


def plan_scene(
    path: str, card: Card, options: DetectOptions, *, block_px: int, index: int = 0
) -> ScenePlan:
    """Fit one scene to a model and cut it into tiles and blocks, of its area of interest if any.

    Raises:
        SceneError: the file is missing or no raster.
        SceneMismatchError: its bands, values or resolution do not fit the model.
        LabelError: the area of interest cannot be read.
        OptionError: the tile size or overlap asked for is not possible.
    """
    area = None if options.aoi is None else read_area(options.aoi, options.aoi_layer)
    scene = fit_scene(path, card, options)
    return _cut(scene, card, options, block_px=block_px, index=index, area=area)


def _cut(
    scene: Scene | Mosaic,
    card: Card,
    options: DetectOptions,
    *,
    block_px: int,
    index: int,
    area: Area | None,
) -> ScenePlan:
    """Cut a scene into tiles and blocks, leaving out tiles with nothing of interest."""
    overlap_px = card.overlap_px if options.overlap_px is None else options.overlap_px
    tiles = plan_tiles(
        scene.grid.shape,
        tile_px=options.tile_px or max(card.tile_px, OVERLAPS_PER_TILE * overlap_px),
        overlap_px=overlap_px,
        stride_px=card.stride_px,
        exact=options.tile_px is not None,
    )
    _refuse_endless(scene, tiles, block_px, whole=area is None and not isinstance(scene, Mosaic))
    area_px = None if area is None else area.on(scene.grid)
    if area is not None and area_px is None:
        return ScenePlan(index, scene, tiles, ())
    coarse = None
    if options.prescreen and card.prescreen is not None and isinstance(scene, Scene):
        coarse = coarsen(scene, card.prescreen.factor)
    if area is None and isinstance(scene, Scene):
        blocks = tuple(blocks_for(scene, tiles, block_px))
        return ScenePlan(index, scene, tiles, blocks, coarse=coarse)
    chosen = np.ones((tiles.rows, tiles.cols), np.bool_)
    if area_px is not None:
        chosen &= tiles_on(tiles, area_px)
    if isinstance(scene, Mosaic):
        chosen &= tiles_over(tiles, scene.boxes_px)
    blocks = tuple(tiles.blocks_over(chosen, block_px))
    return ScenePlan(index, scene, tiles, blocks, area_px, coarse)


_MOST_TILES = 250_000_000  # a byte for each is held where an area chooses among them
_MOST_BLOCKS = 2_000_000


def _refuse_endless(scene: Scene | Mosaic, tiles: TilePlan, block_px: int, *, whole: bool) -> None:
    """Refuse a scene whose plan alone would fill the memory.

    Raises:
        SceneError: it has too many tiles, or blocks where all of it is looked at.
    """
    blocks = (tiles.height / block_px) * (tiles.width / block_px)
    count = tiles.rows * tiles.cols
    if count <= _MOST_TILES and (blocks <= _MOST_BLOCKS or not whole):
        return
    remedy = "choose a part of it with DetectOptions.aoi, or cut it" if whole else "cut it"
    raise SceneError(
        f"{scene.path} has {tiles.width:,} x {tiles.height:,} px at the resolution it would be "
        f"read at, which is {count:,} tiles, expected at most {_MOST_TILES:,} and "
        f"{_MOST_BLOCKS:,} blocks of {block_px} px; {remedy} with gdal_translate -projwin"
    )


def blocks_for(scene: Scene, tiles: TilePlan, block_px: int) -> list[Block]:
    """Group a scene's tiles into blocks that follow the blocks of its file.

    Of a file in strips, which are decoded over their whole width whatever is asked of them,
    blocks are as wide as the scene and so much lower, unless one row of tiles would be far more
    than a square of ``block_px``: memory comes first.
    """
    height, width = scene.file_block_px or (1, 1)
    is_striped = width > block_px and height < tiles.tile_px
    if not is_striped or tiles.tile_px * tiles.width > _WIDEST * block_px**2:
        return tiles.blocks(block_px)
    return tiles.blocks(block_px**2 // tiles.width, width_px=tiles.width + tiles.tile_px)


def pack_task_batches(
    jobs: Iterable[BlockJob], block_px: int, *, first: int = 0
) -> list[TaskBatch]:
    """Group blocks into task batches of about ``block_px`` squared.

    A block of a large scene is a unit; those of small scenes with tiles of one size share one,
    so that they fill batches. Of blocks that a file does not hold, many share one.

    Args:
        jobs: blocks, in the requested order.
        block_px: side of a unit, had it the form of a square.
        first: index of the first unit.
    """
    groups: list[list[BlockJob]] = []
    room, tile_px = 0, 0
    for job in jobs:
        size = job.block.window.height * job.block.window.width
        # Only of large ones is it asked, as that opens a file.
        if size > block_px**2 // 4 and _is_blank(job):
            size //= _BLANKS_IN_UNIT
        if size > room or job.tiles.tile_px != tile_px:
            groups.append([])
            room, tile_px = block_px**2, job.tiles.tile_px
        groups[-1].append(job)
        room -= size
    return [TaskBatch(index, tuple(group)) for index, group in enumerate(groups, first)]


def _is_blank(job: BlockJob) -> bool:
    return isinstance(job.scene, Scene) and job.scene.is_blank(job.block.window)


def estimate(
    plans: Sequence[ScenePlan], model: Model, options: DetectOptions, run: RunOptions
) -> Estimate:
    """Say what a run would need, after timing the network on a batch of noise here."""
    engine = Engine(model, options, device=run.device, batch=run.batch)
    largest = max(plans, key=lambda plan: plan.tiles.tile_px)
    px_per_s, batch_bytes = engine.measure(
        largest.tiles.tile_px, threads=run.threads * (run.workers or 1)
    )
    network_px = sum(plan.chosen_tiles * plan.tiles.tile_px**2 for plan in plans)
    block_bytes = max(
        (
            block.window.height * block.window.width * _bytes_per_px(plan, engine)
            for plan in plans
            for block in plan.blocks
        ),
        default=0,
    )
    # One more is on its way from each worker's threads to the network.
    in_flight = (run.threads + 1) * (run.workers or 1)
    return Estimate(
        network_px=network_px,
        grid_px=sum(_ground_px(plan) for plan in plans),
        km2=_ground_km2(plans),
        px_per_s=px_per_s,
        seconds=network_px / px_per_s,
        memory_bytes=psutil.Process().memory_info().rss
        + in_flight * block_bytes
        + batch_bytes
        + BLOCK_CACHE_BYTES,
    )


def _ground_px(plan: ScenePlan) -> int:
    """Count the pixels of the grid that its blocks own."""
    if plan.area_px is None and isinstance(plan.scene, Scene) and plan.blocks:
        return plan.tiles.height * plan.tiles.width
    cores = (plan.tiles.core_of(block) for block in plan.blocks)
    return sum(core.height * core.width for core in cores)


def _ground_km2(plans: Sequence[ScenePlan]) -> float | None:
    """Measure the ground that blocks own, from the size of a pixel in each scene's middle."""
    total = 0.0
    for plan in plans:
        if plan.scene.grid.gsd_m is None:
            return None
        total += _ground_px(plan) * plan.scene.grid.gsd_m**2 / 1e6
    return total


def _bytes_per_px(plan: ScenePlan, engine: Engine) -> int:
    """Estimate a block's memory per pixel at its peak: while read, or on its way to the device."""
    dtype = np.dtype(plan.scene.dtype)
    beside = max(dtype.itemsize, engine.staged_bytes(dtype))
    count, source = len(plan.scene.bands), getattr(plan.scene, "source", None)
    if source is None:
        return count * (dtype.itemsize + beside) + 1
    grid = plan.scene.grid
    own_share = source.grid.height * source.grid.width / (grid.height * grid.width)
    return count * (dtype.itemsize + beside + math.ceil(own_share * dtype.itemsize)) + 2
