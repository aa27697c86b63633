"""``geo-retina detect`` and ``geo-retina plan``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from geo_retina.cli import _flags, _report, _voice
from geo_retina.cli._option_names import as_flags
from geo_retina.errors import OptionError
from geo_retina.files import check_file_output
from geo_retina.options import DetectOptions, RunOptions

if TYPE_CHECKING:
    from geo_retina.detector import FrozenPlan, Part, RunReport
    from geo_retina.run import Estimate, ScenePlan

MaybeScenes = Annotated[list[str] | None, Parameter(name="SCENE...")]
Scenes = Annotated[list[str], Parameter(name="SCENE...")]
Detection = Annotated[DetectOptions, _flags.DETECTION]
Run = Annotated[RunOptions, _flags.RUN]

_DETECTION = DetectOptions()
_RUN = RunOptions()

_MOST_PLANS = 10


def detect(
    scenes: MaybeScenes = None,
    /,
    *,
    model: str | None = None,
    out: _flags.Outs,
    crs: str | None = None,
    part: str | None = None,
    plan: Path | None = None,
    config: Path | None = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
    options: Detection = _DETECTION,
    run: Run = _RUN,
    reporting: _voice.Reports = _voice.REPORTING,
) -> int:
    """Find objects in scenes and write them as polygons.

    Args:
        scenes: Images: files, addresses, folders, globs, .txt lists or STAC .json items.
        model: A bundled model's name (see `geo-retina models`) or a .safetensors file.
        out: File to write; its ending says the format: .gpkg, .shp, .geojson, .parquet or .fgb;
            without one, a folder of GeoParquet files. Given several times, several files.
        crs: CRS of the output, such as EPSG:4326; left out, that of the scenes.
        part: Do one part of the run and write only its folder, for `gather`: 3/40 is the third
            of 40.
        plan: With --part, the plan that all parts share, from `plan --out`; scenes, model and
            options are then the plan's.
        config: YAML file with any of the options below, such as `nms_iou: 0.6`; flags win.
        quiet: Print nothing but warnings and errors.
        options: What changes the detections.
        run: How the run is carried out.
        reporting: How the command reports.
    """
    from geo_retina.config import dump_options
    from geo_retina.detector import detect_to_file
    from geo_retina.run.memory import keep_freed_memory

    _voice.check_json(reporting, overwrite=run.overwrite)
    scenes, how = scenes or [], "none" if quiet else reporting.progress
    if plan is not None and part is None:
        raise OptionError("the argument plan is given without a part; say which with --part 1/40")
    if plan is None and not scenes:
        raise OptionError("no SCENE is given, expected files, addresses, folders or lists")
    if plan is None and model is None:
        raise OptionError("no model is given, expected its name or file; say which with --model")
    keep_freed_memory()
    if part is not None:
        job = _part_of(part, plan, scenes, model, options, run, crs)
        return _detect_part(*job, out, run, how, reporting, quiet=quiet)
    assert model is not None
    try:
        with _report.progress(how) as show:
            report = detect_to_file(scenes, model, out, options, run, crs=crs, progress=show)
    except KeyboardInterrupt:
        _voice.fail(
            f"interrupted; what is finished lies in {out[0]}.run, and the same command continues "
            "from there"
        )
        return 130
    about = {
        "model": model,
        "scenes": ", ".join(scenes),
        "crs": crs or "left out, so that of the scenes",
        **_report.stretch_notes(report),
    }
    for path in out:
        _report.write_config(path, dump_options(options, run), about)
    return _tell(
        report, options, reporting, quiet=quiet, retry="the same command again retries what failed"
    )


def _tell(
    report: RunReport,
    options: DetectOptions,
    reporting: _voice.Reporting,
    *,
    quiet: bool,
    retry: str,
) -> int:
    """Tell what a run came to, and give the exit code."""
    if not quiet:
        _voice.say(_report.summary(report))
        if options.min_score is not None:
            _voice.say(
                f"from score {options.min_score:g} on; geo-retina filter chooses a threshold"
            )
    for note in report.notes:
        _report.warn(note)
    _report.warn_of_limits(report)
    _report.warn_of_failures(report.failures)
    _voice.result(reporting, _report.report_result(report))
    if report.complete:
        return 0
    _report.warn(f"some ground was not covered; {retry}")
    return 3


def _part_of(
    part: str,
    plan: Path | None,
    scenes: list[str],
    model: str | None,
    options: DetectOptions,
    run: RunOptions,
    crs: str | None,
) -> tuple[FrozenPlan, Part]:
    """Read the plan that parts share, or make the one that they all make of the same arguments."""
    from geo_retina.detector import Part, freeze_run
    from geo_retina.run import check_given, read_plan

    which = Part.parse(part)
    if plan is None:
        assert model is not None
        return freeze_run(scenes, model, options, run, crs=crs), which
    frozen = read_plan(plan)
    check_given(frozen, scenes, model, options, crs)
    return frozen, which


def _detect_part(
    frozen: FrozenPlan,
    part: Part,
    out: list[Path],
    run: RunOptions,
    how: _voice.ProgressStyle,
    reporting: _voice.Reporting,
    *,
    quiet: bool,
) -> int:
    """Detect a part of a run, tell what it came to, and give the exit code."""
    from geo_retina.detector import detect_part

    try:
        with _report.progress(how) as show:
            report = detect_part(frozen, part, out, run, progress=show)
    except KeyboardInterrupt:
        _voice.fail(
            f"interrupted; what is finished lies in {out[0]}.run/{part.folder_name}, and the same "
            "command goes on from there"
        )
        return 130
    if not quiet:
        _voice.say(
            f"part {part.number} of {part.of}: {_report.plural(report.blocks, 'block')}, "
            f"{report.pixels / 1e6:,.1f} Mpx in {_report.duration(report.seconds)}, "
            f"{_report.plural(report.detections, 'detection')} before merging\n"
            f"kept in {report.folder}; geo-retina gather {shlex.quote(str(out[0]))} puts all parts "
            "together"
        )
    _report.warn_of_failures(report.failures)
    _voice.result(
        reporting,
        {
            **{k: v for k, v in vars(report).items() if k not in ("failures", "part")},
            "work": _report.work_result(report.work),
            "part": part.number,
            "of": part.of,
            "not_covered": _report.failures_result(report.failures),
        },
    )
    if report.complete:
        return 0
    _report.warn("some ground was not covered; the same command again retries what failed")
    return 3


def gather(
    out: Path,
    folders: Annotated[list[Path] | None, Parameter(name="FOLDER...")] = None,
    /,
    *,
    keep: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    discard_review: Annotated[bool, Parameter(negative="")] = False,
    device: str = _RUN.device,
    quiet: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> int:
    """Put the parts of a run together that `detect --part` did, and write the result.

    Args:
        out: The file that the parts were given as --out.
        folders: Where parts lie, if not in OUT.run: their folders, or folders that hold some.
        keep: Keep the folders of the parts in OUT.run after all is written.
        overwrite: Replace an existing output; what a person entered in its review is carried over.
        discard_review: When replacing, discard what a person entered.
        device: For the few tiles around an area of interest that are detected only now.
        quiet: Print nothing but warnings and errors.
        reporting: How the command reports.
    """
    from geo_retina.config import dump_options
    from geo_retina.detector import gather_parts
    from geo_retina.run import find_parts
    from geo_retina.run.memory import keep_freed_memory

    _voice.check_json(reporting, overwrite=overwrite)
    keep_freed_memory()
    run = RunOptions(keep=keep, overwrite=overwrite, discard_review=discard_review, device=device)
    with _report.progress("none" if quiet else reporting.progress) as show:
        frozen = find_parts(out, folders or []).frozen
        report = gather_parts(out, folders or [], run, progress=show)
    about = {
        "model": frozen.model,
        "scenes": ", ".join(frozen.scenes),
        **_report.stretch_notes(report),
    }
    for path in report.outs:
        _report.write_config(path, dump_options(frozen.options, run), about)
    retry = "detect --part again retries what failed, and gather again takes it"
    return _tell(report, frozen.options, reporting, quiet=quiet, retry=retry)


def plan(
    scenes: Scenes,
    /,
    *,
    model: str,
    out: Path | None = None,
    crs: str | None = None,
    config: Path | None = None,
    options: Detection = _DETECTION,
    run: Run = _RUN,
    cost: bool = True,
    price_per_hour: float | None = None,
    reporting: _voice.Reports = _voice.REPORTING,
) -> int:
    """Show how scenes would be cut and what detecting would cost, without detecting.

    Args:
        scenes: Images: files, addresses, folders, globs, .txt lists or STAC .json items.
        model: A bundled model's name or a .safetensors file.
        out: Write the plan to this .json file, for `detect --part 1/40 --plan`: scenes and model
            as they are now, tiles, blocks, and this machine's precision unless --precision says.
        crs: With --out, CRS of the result; left out, that of the scenes.
        config: YAML file with any of the options below; flags win.
        options: What changes the detections.
        run: How the run is carried out.
        cost: Measure for a few seconds what the network costs on this machine.
        price_per_hour: What an hour of a machine like this one costs, in any currency, to tell
            what the network would cost on one or several of them.
        reporting: How the command reports.
    """
    from geo_retina.detector import freeze_run
    from geo_retina.model import load_card, load_model
    from geo_retina.run import estimate, notes_on, plan_scenes
    from geo_retina.run.memory import keep_freed_memory

    _voice.check_json(reporting, overwrite=run.overwrite)
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise OptionError(
            f"the argument price_per_hour is {price_per_hour:g}, expected a number from 0 on"
        )
    keep_freed_memory()  # as detect does, which is timed here
    if out is not None:
        check_file_output(out, overwrite=run.overwrite)
    plans, failures = plan_scenes(scenes, load_card(model), options, run)
    inside = [each for each in plans if not each.is_outside]
    for each in inside[:_MOST_PLANS]:
        _voice.say(describe_plan(each))
    if len(inside) > _MOST_PLANS:
        _voice.say(f"... and {_report.plural(len(inside) - _MOST_PLANS, 'further scene')}")
    if len(inside) < len(plans):
        outside = _report.plural(len(plans) - len(inside), "scene")
        _voice.say(f"{outside} outside the area of interest")
    found = estimate(inside, load_model(model), options, run) if inside and cost else None
    if found is not None:
        _voice.say(_total(inside, found, price_per_hour))
    notes = [as_flags(note) for note in notes_on([s for each in plans for s in each.scenes])]
    for text in notes:
        _report.warn(text)
    if out is not None:
        freeze_run(scenes, model, options, run, crs=crs).write(out)
        _voice.say(f"written to {out}")
    _report.warn_of_failures(failures)
    _voice.result(
        reporting,
        {
            "scenes": [plan_result(each) for each in plans],
            "cost": None
            if found is None
            else {**asdict(found), "price": _price(found, price_per_hour)},
            "notes": notes,
            "not_covered": _report.failures_result(failures),
        },
    )
    return 3 if failures else 0


def plan_result(each: ScenePlan) -> dict[str, Any]:
    """Name the numbers of one scene's plan."""
    from geo_retina.geodesy import crs_label

    grid, tiles = each.scene.grid, each.tiles
    return {
        "scene": each.scene.path,
        "crs": None if grid.crs is None else crs_label(grid.crs),
        "width": grid.width,
        "height": grid.height,
        "gsd_m": grid.gsd_m,
        "tile_px": tiles.tile_px,
        "overlap_px": tiles.overlap_px,
        "tiles": len(tiles),
        "chosen_tiles": each.chosen_tiles,
        "blocks": len(each.blocks),
        "outside": each.is_outside,
    }


def describe_plan(each: ScenePlan) -> str:
    """Describe one scene's plan, as label and text."""
    from geo_retina.scene import describe_reading

    grid, tiles = each.scene.grid, each.tiles
    gsd = f" at {grid.gsd_m:.3g} m" if grid.gsd_m else ""
    chosen = ""
    if each.chosen_tiles < len(tiles):
        chosen = f"; {each.chosen_tiles:,} ({each.chosen_tiles / len(tiles):.1%}) are scanned"
    rows = {
        "size": f"{grid.width:,} x {grid.height:,} px{gsd} (width x height)",
        "tiles": f"{len(tiles):,} of {tiles.tile_px} px ({tiles.cols} x {tiles.rows}){chosen}",
        "overlap": f"{tiles.overlap_px} px",
        "pixel factor": f"{tiles.pixel_factor:.2f} pixels through the network per pixel",
        "blocks": f"{len(each.blocks):,}",
        **describe_reading(each.scene),
    }
    return f"{each.scene.path}\n{_report.columns(rows, indent='  ')}"


def _price(cost: Estimate, per_hour: float | None) -> float | None:
    """Multiply the hours of one machine by their price, which several machines share."""
    return None if per_hour is None else cost.seconds / 3600 * per_hour


def _total(plans: Sequence[ScenePlan], cost: Estimate, per_hour: float | None) -> str:
    """Sum up in text what all scenes together would need."""
    tiles = sum(each.chosen_tiles for each in plans)
    blocks = sum(len(each.blocks) for each in plans)
    scenes = sum(len(each.shown_by(each.blocks)) for each in plans)
    area = "" if cost.km2 is None else f", {cost.km2:,.3g} km2"
    price = _price(cost, per_hour)
    rows = {
        "size": f"{_report.plural(scenes, 'scene')}, {cost.grid_px / 1e6:,.1f} Mpx{area}",
        "tiles": f"{tiles:,} in {_report.plural(blocks, 'block')}",
        "pixel factor": f"{cost.network_px / cost.grid_px:.2f}",
        "memory": f"about {_report.size(cost.memory_bytes)}",
        "time": f"about {_report.duration(cost.seconds)} through the network, at "
        f"{cost.px_per_s / 1e6:.2f} Mpx/s, measured here just now on noise",
        **({} if price is None else {"price": f"about {price:,.2f}, at {per_hour:g} an hour"}),
    }
    return f"in total\n{_report.columns(rows, indent='  ')}"
