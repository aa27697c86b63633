"""What a run will do: scenes fitted to a model, tiles, blocks, and units of work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geo_retina.engine import Engine
from geo_retina.errors import GeoRetinaError, OptionError
from geo_retina.grid import Block, TilePlan, Window, plan_tiles
from geo_retina.model import OVERLAPS_PER_TILE, Card, Model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run.fitting import fit_scene
from geo_retina.scene import Scene, find_scenes


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
        blocks: its blocks of tiles.
    """

    index: int
    scene: Scene
    tiles: TilePlan
    blocks: tuple[Block, ...]

    @property
    def parts(self) -> list[Part]:
        """Its blocks, as they travel."""
        return [Part(self.index, self.scene, self.tiles, block) for block in self.blocks]


@dataclass(frozen=True, eq=False)
class Part:
    """One block of one scene, as it travels to a worker."""

    scene_index: int
    scene: Scene
    tiles: TilePlan
    block: Block


@dataclass(frozen=True, eq=False)
class Unit:
    """What one task does: a block, or the blocks of several small scenes."""

    index: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Estimate:
    """What a run would need on this machine.

    Attributes:
        network_px: pixels through the network, overlap and padding included.
        grid_px: pixels of the scenes' grids.
        px_per_s: rate of the network, measured here on noise.
        seconds: time through the network.
        memory_bytes: peak that blocks, network and batches take together.
    """

    network_px: int
    grid_px: int
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
        scenes: files, folders or globs.
        card: card of the model.
        options: what changes the result.
        run: how it is carried out.

    Returns:
        Plans in the order of the scenes, and the scenes that cannot be used, with the reason.

    Raises:
        SceneError: a path names nothing.
        GeoRetinaError: no scene can be used; the first one's error.
    """
    paths = find_scenes(scenes)
    plans: list[ScenePlan] = []
    failures: list[Failure] = []
    first_error: GeoRetinaError | None = None
    for index, path in enumerate(paths):
        try:
            plans.append(plan_scene(path, card, options, block_px=run.block_px, index=index))
        except OptionError:
            raise
        except GeoRetinaError as error:
            first_error = first_error or error
            failures.append(Failure(path, str(error)))
    if first_error is not None and not plans:
        raise first_error
    return plans, failures


def plan_scene(
    path: str, card: Card, options: DetectOptions, *, block_px: int, index: int = 0
) -> ScenePlan:
    """Fit one scene to a model and cut it into tiles and blocks.

    Raises:
        SceneError: the file is missing or no raster.
        SceneMismatchError: its bands, values or resolution do not fit the model.
        OptionError: the tile size or overlap asked for is not possible.
    """
    scene = fit_scene(path, card, options)
    overlap_px = card.overlap_px if options.overlap_px is None else options.overlap_px
    tiles = plan_tiles(
        scene.grid.shape,
        tile_px=options.tile_px or max(card.tile_px, OVERLAPS_PER_TILE * overlap_px),
        overlap_px=overlap_px,
        stride_px=card.stride_px,
        exact=options.tile_px is not None,
    )
    return ScenePlan(index, scene, tiles, tuple(tiles.blocks(block_px)))


def pack_units(parts: Iterable[Part], block_px: int, *, first: int = 0) -> list[Unit]:
    """Group blocks into units of work of about ``block_px`` squared.

    A block of a large scene is a unit; those of small scenes with tiles of one size share one,
    so that they fill batches.

    Args:
        parts: blocks, in the order wanted.
        block_px: side of a unit, had it the form of a square.
        first: index of the first unit.
    """
    groups: list[list[Part]] = []
    room, tile_px = 0, 0
    for part in parts:
        size = part.block.window.height * part.block.window.width
        if size > room or part.tiles.tile_px != tile_px:
            groups.append([])
            room, tile_px = block_px**2, part.tiles.tile_px
        groups[-1].append(part)
        room -= size
    return [Unit(index, tuple(group)) for index, group in enumerate(groups, first)]


def estimate(
    plans: Sequence[ScenePlan], model: Model, options: DetectOptions, run: RunOptions
) -> Estimate:
    """Say what a run would need, after timing the network on a batch of noise here."""
    engine = Engine(model, options, device=run.device, batch=run.batch)
    largest = max(plans, key=lambda plan: plan.tiles.tile_px)
    px_per_s, batch_bytes = engine.measure(largest.tiles.tile_px)
    network_px = sum(len(plan.tiles) * plan.tiles.tile_px**2 for plan in plans)
    block_bytes = max(
        block.window.height * block.window.width * (2 * len(plan.scene.bands) * _bytes(plan) + 1)
        for plan in plans
        for block in plan.blocks
    )
    in_flight = run.threads * (run.workers or 1)
    return Estimate(
        network_px=network_px,
        grid_px=sum(plan.tiles.height * plan.tiles.width for plan in plans),
        px_per_s=px_per_s,
        seconds=network_px / px_per_s,
        memory_bytes=in_flight * block_bytes + batch_bytes + engine.weight_bytes,
    )


def _bytes(plan: ScenePlan) -> int:
    import numpy as np

    return np.dtype(plan.scene.dtype).itemsize
