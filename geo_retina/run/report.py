"""What a run says it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from geo_retina.geodesy import crs_label
from geo_retina.run.detection_run import DetectionRun, Totals
from geo_retina.run.fitting import notes_on
from geo_retina.run.plan import Failure
from geo_retina.run.tasks.tally import Workload
from geo_retina.scene import ValueMap
from geo_retina.vector import Written, file_crs


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes:
        out: the file written, the first of several.
        detections: objects in it.
        counts: objects per class.
        crs: CRS of the file; None for scenes without one.
        scenes: scenes detected, in whole or in part; of a mosaic, its scenes.
        pixels: pixels of the ground that was covered, each counted once.
        seconds: wall time.
        tiles: tiles that went through the network.
        skipped_tiles: tiles without a valid pixel.
        truncated_tiles: tiles that reached the limit of candidates or detections.
        outside_tiles: tiles that were not scanned, as they lie outside the area of interest.
        outside_scenes: scenes that lie outside it as a whole.
        joined: objects made of fragments at seams.
        reduced_batch: tiles through the network at once, where a device's memory made that fewer
            than planned; else None.
        failures: ground that is not covered.
        outs: all files written.
        notes: what a user should know of how scenes were read, in sentences.
        stretches: how the values of each scene that was stretched were changed, by its path.
        not_covered_pixels: pixels of the ground of scenes that could be opened, but not covered.
        out_of_range_tiles: tiles with values far outside those that integers were measured on.
        km2: ground that was covered; None where a scene has no resolution in metres.
        km2_per_hour: of what this try covered, over its wall time; None where nothing was.
        work: where the time of its workers went.
        screened_tiles: tiles at which a first look found nothing, so that there was no other one.
        screened_pixels: pixels of the ground that these own, among ``pixels``.
    """

    out: Path
    detections: int
    counts: dict[str, int]
    crs: str | None
    scenes: int
    pixels: int
    seconds: float
    tiles: int
    skipped_tiles: int
    truncated_tiles: int
    outside_tiles: int
    outside_scenes: int
    joined: int
    reduced_batch: int | None
    failures: tuple[Failure, ...]
    outs: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    stretches: Mapping[str, ValueMap] = field(default_factory=dict)
    not_covered_pixels: int = 0
    out_of_range_tiles: int = 0
    km2: float | None = None
    km2_per_hour: float | None = None
    work: Workload = field(default_factory=Workload)
    screened_tiles: int = 0
    screened_pixels: int = 0

    @property
    def complete(self) -> bool:
        """Whether all ground was covered."""
        return not self.failures


def report_on(run: DetectionRun, written: Written, seconds: float) -> RunReport:
    """Report on a run whose outputs are written.

    Args:
        run: how it was carried out.
        written: what its merged detections came to.
        seconds: wall time.
    """
    plan, totals = run.plan, run.totals
    outs = tuple(target.path for target in plan.outputs.targets)
    crs = file_crs(outs[0], plan.crs) if plan.crs else None
    return RunReport(
        out=outs[0],
        detections=written.rows,
        counts=dict(written.counts),
        crs=None if crs is None else crs_label(crs),
        scenes=totals.scenes,
        pixels=totals.pixels,
        seconds=seconds,
        tiles=totals.tiles,
        skipped_tiles=totals.skipped_tiles,
        truncated_tiles=totals.truncated_tiles,
        outside_tiles=totals.outside_tiles,
        outside_scenes=totals.outside_scenes,
        joined=written.joined,
        reduced_batch=totals.reduced_batch,
        failures=run.failures,
        outs=outs,
        notes=notes_on(plan.scenes),
        stretches=plan.stretches,
        not_covered_pixels=totals.not_covered_pixels,
        out_of_range_tiles=totals.out_of_range_tiles,
        km2=totals.km2,
        km2_per_hour=km2_per_hour(run, seconds),
        work=run.work,
        screened_tiles=totals.screened_tiles,
        screened_pixels=totals.screened_pixels,
    )


def km2_per_hour(run: DetectionRun, seconds: float) -> float | None:
    """Say how fast a try covered ground; None where it covered none, or none of known size.

    Args:
        run: that was carried out, of which an earlier try may have done a part.
        seconds: wall time of this try.
    """
    totals, pixels = run.totals, run.work.pixels
    if not totals.km2 or not pixels:
        return None
    share = min(1.0, pixels / (totals.pixels + totals.not_covered_pixels))
    return totals.km2 * share / max(seconds, 1e-9) * 3600


def limit_notes(run: Totals | RunReport) -> tuple[str, ...]:
    """Say, in sentences, that tiles may hold more than was found, and that memory was too little.

    Args:
        run: totals or report of a run.
    """
    notes = []
    if run.truncated_tiles:
        notes.append(
            f"{_tiles(run.truncated_tiles)} reached a limit and may hold more objects; raise "
            "DetectOptions.candidates and DetectOptions.max_per_tile, or give smaller tiles by "
            "DetectOptions.tile_px"
        )
    if run.out_of_range_tiles:
        notes.append(
            f"{_tiles(run.out_of_range_tiles)} had values far outside those that the model's "
            "8-bit integers were measured on, so that objects may be missed there; detect with "
            'DetectOptions.runtime="torch", or quantize the model on scenes like these'
        )
    if run.reduced_batch is not None:
        notes.append(
            "the device had too little memory for a batch as planned, so that batches were made "
            f"smaller; RunOptions.batch of {run.reduced_batch} begins with that size"
        )
    return tuple(notes)


def _tiles(count: int) -> str:
    return "1 tile" if count == 1 else f"{count:,} tiles"
