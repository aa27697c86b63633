"""Parts of a run that machines do apart from each other, and gathering them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geo_retina.errors import OptionError, RunError
from geo_retina.options import RunOptions
from geo_retina.run.detection_run import DetectionRun
from geo_retina.run.frozen_plan import FrozenPlan, check_as_planned, read_plan
from geo_retina.run.ledger.folder import Ledger
from geo_retina.run.ledger.guard import PARTS, PLAN, lock_folder
from geo_retina.run.ledger.manifest import differences, read_manifest
from geo_retina.run.plan import Chosen, Failure
from geo_retina.run.report import km2_per_hour
from geo_retina.run.resuming import Outputs, run_folder
from geo_retina.run.run_plan import RunPlan, plan_chosen
from geo_retina.run.tasks.tally import Workload

_FORM = re.compile(r"(\d+)\s*/\s*(\d+)")
_MOST_NAMED = 20


@dataclass(frozen=True)
class Part:
    """One of several parts of a run.

    Attributes:
        number: of the part, from 1.
        of: how many there are.

    Examples:
        >>> from geo_retina import Part
        >>> Part.parse("3/40")
        Part(number=3, of=40)
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise OptionError(
                f"the part is {self.number}/{self.of}, expected a number from 1 to {self.of}, such "
                f"as 1/{max(1, self.of)}"
            )

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read a part written as ``3/40``.

        Raises:
            OptionError: it is not written so.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise OptionError(f"the part is {text!r}, expected a number and a count such as 3/40")
        return cls(int(match[1]), int(match[2]))

    @property
    def folder_name(self) -> str:
        """Name of the folder of its results."""
        return f"part-{self.number}-of-{self.of}"


@dataclass(frozen=True)
class PartReport:
    """What a part of a run did.

    Attributes:
        folder: where its results lie, for ``gather_parts``.
        part: which one.
        blocks: of it that are covered.
        pixels: of the ground that was covered, each counted once.
        detections: found, before blocks are merged with each other.
        seconds: wall time.
        failures: ground that is not covered.
        not_covered_pixels: pixels of the ground of its blocks that is not covered.
        km2: ground that was covered; None where a scene has no resolution in metres.
        km2_per_hour: of what this try covered, over its wall time; None where nothing was.
        work: where the time of its workers went.
    """

    folder: Path
    part: Part
    blocks: int
    pixels: int
    detections: int
    seconds: float
    failures: tuple[Failure, ...]
    not_covered_pixels: int = 0
    km2: float | None = None
    km2_per_hour: float | None = None
    work: Workload = field(default_factory=Workload)

    @property
    def complete(self) -> bool:
        """Whether all ground of the part was covered."""
        return not self.failures


def plan_part(
    frozen: FrozenPlan, run: RunOptions, *, outputs: Outputs, only: frozenset[int]
) -> RunPlan:
    """Plan a run over scenes of a frozen plan.

    Args:
        frozen: what was planned.
        run: how it is carried out here; blocks are of the planned size.
        outputs: where its results go.
        only: positions of the scenes that are needed.

    Returns:
        The plan. Its unusable scenes are those that could be used when it was frozen.

    Raises:
        RunError: scenes, model or options are not as planned.
    """
    mosaic = frozen.options.mosaic
    only_these = None if mosaic else only
    scenes = Chosen(tuple(frozen.paths), frozen.name, only_these, frozen.days)
    outputs = replace(outputs, block_px=frozen.block_px)
    plan = plan_chosen(scenes, frozen.model, frozen.options, run, outputs=outputs, crs=frozen.crs)
    check_as_planned(frozen, plan.manifest)
    known = {each.scene for each in frozen.unusable}
    return replace(plan, unusable=tuple(f for f in plan.unusable if f.scene not in known))


def open_part(
    frozen: FrozenPlan, plan: RunPlan, part: Part, writing: Mapping[str, Any], *, restart: bool
) -> Ledger:
    """Open the ledger of a part, new or with what an earlier try finished; it is to be closed.

    Args:
        frozen: what was planned.
        plan: of the scenes that the part needs.
        part: which one.
        writing: how the whole result is to be written, as JSON values.
        restart: discard what an earlier try left.

    Raises:
        RunError: an earlier try was of another plan, or is still going on.
        OutputError: it cannot be written.
    """
    about = {"of": part.of, "number": part.number, "plan": frozen.digest, "writing": dict(writing)}
    fixed = {**plan.manifest["fixed"], "part": about}
    folder = plan.outputs.folder
    ledger = Ledger.open(folder, {**plan.manifest, "fixed": fixed}, restart=restart)
    try:
        frozen.write(folder / PLAN)
    except BaseException:
        ledger.close()
        raise
    return ledger


@dataclass(frozen=True, eq=False)
class FoundParts:
    """The folders of all parts of a run.

    Attributes:
        folders: of the parts; several where one was done twice.
        frozen: the plan that they share.
        writing: how the result is to be written, as the parts were told.
    """

    folders: tuple[Path, ...]
    frozen: FrozenPlan
    writing: Mapping[str, Any]


def find_parts(out: Path, folders: Sequence[Path]) -> FoundParts:
    """Find all parts of a run, and refuse to gather what is not all of one run.

    Args:
        out: the file that the run writes, beside which its folder may lie.
        folders: of parts, or folders in which those lie; the run's own is looked into in any case.

    Raises:
        RunError: parts are missing, or are of different runs.
    """
    found: dict[Path, dict[str, Any]] = {}
    for given in (run_folder(out), *folders):
        inside = sorted(given.glob(PARTS)) or ([given] if (given / PLAN).exists() else [])
        if not inside and given in folders:
            raise RunError(f"{given} holds no part of a run, expected folders such as part-1-of-40")
        for folder in inside:
            manifest = _manifest_of_part(folder)
            if manifest is not None and "part" in manifest["fixed"]:
                found.setdefault(folder.resolve(), manifest)
    if not found:
        raise RunError(
            f"{run_folder(out)} holds no part of a run; detect its parts first, or "
            "name the folders where they lie"
        )
    first, manifest = next(iter(found.items()))
    about = manifest["fixed"]["part"]
    for folder, other in found.items():
        own = {**other["fixed"]["part"], "number": about["number"]}
        changed = differences({**manifest["fixed"], "part": about}, {**other["fixed"], "part": own})
        if changed:
            raise RunError(
                f"{folder} is a part of another run than {first}, which differs in "
                f"{'; '.join(changed)}; move one of them elsewhere"
            )
    numbers = {other["fixed"]["part"]["number"] for other in found.values()}
    _refuse_missing(sorted({*range(1, about["of"] + 1)} - numbers), about["of"], "were not found")
    frozen = read_plan(first / PLAN)
    if frozen.digest != about["plan"]:
        raise RunError(f"{first / PLAN} is not the plan of its part; detect the part again")
    return FoundParts(tuple(found), frozen, about["writing"])


def _manifest_of_part(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a part; None where it had not begun.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return read_manifest(folder)
    except RunError as error:
        raise RunError(
            f"the part {folder} lacks a manifest.json that can be read, as after a copy that broke "
            "off; copy it again, or detect the part again with RunOptions.restart=True"
        ) from error


def _refuse_missing(numbers: Sequence[int], of: int, why: str) -> None:
    """Name parts that are missing.

    Raises:
        RunError: there are some.
    """
    if not numbers:
        return
    named = ", ".join(f"{number}/{of}" for number in numbers[:_MOST_NAMED])
    more = f" and {len(numbers) - _MOST_NAMED:,} more" if len(numbers) > _MOST_NAMED else ""
    raise RunError(
        f"{len(numbers)} of {of} parts {why}: {named}{more}; detect these, or "
        "name the folders where they lie"
    )


def gather_into(ledger: Ledger, parts: FoundParts) -> None:
    """Let the ledger of a whole run hold what its parts found.

    Raises:
        RunError: a part is still being detected, or is not finished, or two differ.
    """
    of = 0
    for folder in parts.folders:
        manifest = read_manifest(folder)
        assert manifest is not None  # find_parts read it
        of = manifest["fixed"]["part"]["of"]
        with closing(Ledger.open(folder, manifest)) as part:
            ledger.adopt(part)
    known = ledger.blocks_known()
    units = zip(parts.frozen.units, parts.frozen.parts_of_units(of), strict=True)
    unfinished = {part for unit, part in units if any(block.key not in known for block in unit)}
    _refuse_missing(sorted(unfinished), of, "are not finished")


def remove_parts(folder: Path) -> bool:
    """Remove the folders of parts inside the folder of a run, but those in use.

    Returns:
        Whether none is left.
    """
    for part in sorted(folder.glob(PARTS)):
        try:
            lock = lock_folder(part)
        except RunError:
            continue
        lock.release()
        shutil.rmtree(part, ignore_errors=True)
    return not any(folder.glob(PARTS))


def report_on_part(run: DetectionRun, folder: Path, part: Part, seconds: float) -> PartReport:
    """Report on a part that was carried out."""
    found = sum(record.count() for record in run.records)
    totals = run.totals
    return PartReport(
        folder=folder,
        part=part,
        blocks=totals.blocks,
        pixels=totals.pixels,
        detections=found,
        seconds=seconds,
        failures=run.failures,
        not_covered_pixels=totals.not_covered_pixels,
        km2=totals.km2,
        km2_per_hour=km2_per_hour(run, seconds),
        work=run.work,
    )
