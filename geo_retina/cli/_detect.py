"""``geo-retina detect`` and ``geo-retina plan``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from geo_retina.cli import _flags, _report, _voice
from geo_retina.cli._option_names import as_flags
from geo_retina.options import DetectOptions, RunOptions

if TYPE_CHECKING:
    from geo_retina.run import Estimate, ScenePlan

Scenes = Annotated[list[str], Parameter(name="SCENE...")]
Detection = Annotated[DetectOptions, _flags.DETECTION]
Run = Annotated[RunOptions, _flags.RUN]

_DETECTION = DetectOptions()
_RUN = RunOptions()

_MOST_PLANS = 10


def detect(
    scenes: Scenes,
    /,
    *,
    model: str,
    out: _flags.Outs,
    crs: str | None = None,
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
        out: File to write; its ending says the format: .gpkg, .shp, .geojson, .parquet or .fgb.
            Given several times, several files.
        crs: CRS of the output, such as EPSG:4326; left out, that of the scenes.
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
    keep_freed_memory()
    try:
        with _report.progress("none" if quiet else reporting.progress) as show:
            report = detect_to_file(scenes, model, out, options, run, crs=crs, progress=show)
    except KeyboardInterrupt:
        _voice.fail(
            f"interrupted; what is finished lies in {out[0]}.run, and the same command goes on "
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
    _report.warn("some ground was not covered; the same command again retries what failed")
    return 3


def plan(
    scenes: Scenes,
    /,
    *,
    model: str,
    config: Path | None = None,
    options: Detection = _DETECTION,
    run: Run = _RUN,
    cost: bool = True,
    reporting: _voice.Reports = _voice.REPORTING,
) -> int:
    """Show how scenes would be cut and what detecting would cost, without detecting.

    Args:
        scenes: Images: files, addresses, folders, globs, .txt lists or STAC .json items.
        model: A bundled model's name or a .safetensors file.
        config: YAML file with any of the options below; flags win.
        options: What changes the detections.
        run: How the run is carried out.
        cost: Measure for a few seconds what the network costs on this machine.
        reporting: How the command reports.
    """
    from geo_retina.model import load_card, load_model
    from geo_retina.run import estimate, notes_on, plan_scenes
    from geo_retina.run.memory import keep_freed_memory

    _voice.check_json(reporting, overwrite=run.overwrite)
    keep_freed_memory()  # as detect does, which is timed here
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
        _voice.say(_total(inside, found))
    notes = [as_flags(note) for note in notes_on([s for each in plans for s in each.scenes])]
    for text in notes:
        _report.warn(text)
    _report.warn_of_failures(failures)
    _voice.result(
        reporting,
        {
            "scenes": [plan_result(each) for each in plans],
            "cost": None if found is None else asdict(found),
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
        chosen = f"; {each.chosen_tiles:,} ({each.chosen_tiles / len(tiles):.1%}) are looked at"
    rows = {
        "size": f"{grid.width:,} x {grid.height:,} px{gsd} (width x height)",
        "tiles": f"{len(tiles):,} of {tiles.tile_px} px ({tiles.cols} x {tiles.rows}){chosen}",
        "overlap": f"{tiles.overlap_px} px",
        "pixel factor": f"{tiles.pixel_factor:.2f} pixels through the network per pixel",
        "blocks": f"{len(each.blocks):,}",
        **describe_reading(each.scene),
    }
    return f"{each.scene.path}\n{_report.columns(rows, indent='  ')}"


def _total(plans: Sequence[ScenePlan], cost: Estimate) -> str:
    """Sum up in text what all scenes together would need."""
    tiles = sum(each.chosen_tiles for each in plans)
    blocks = sum(len(each.blocks) for each in plans)
    scenes = sum(len(each.shown_by(each.blocks)) for each in plans)
    rows = {
        "size": f"{_report.plural(scenes, 'scene')}, {cost.grid_px / 1e6:,.1f} Mpx",
        "tiles": f"{tiles:,} in {_report.plural(blocks, 'block')}",
        "pixel factor": f"{cost.network_px / cost.grid_px:.2f}",
        "memory": f"about {_report.size(cost.memory_bytes)}",
        "time": f"about {_report.duration(cost.seconds)} through the network, at "
        f"{cost.px_per_s / 1e6:.2f} Mpx/s, measured here just now on noise",
    }
    return f"in total\n{_report.columns(rows, indent='  ')}"
