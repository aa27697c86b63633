"""``geo-retina evaluate``, ``compare`` and ``estimate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from geo_retina.cli import _flags, _report, _voice
from geo_retina.errors import OptionError
from geo_retina.options import EstimateOptions, EvaluateOptions

if TYPE_CHECKING:
    from geo_retina.scene import Scene

COUNTING = Parameter(name="*", group=Group("What is counted", sort_key=1))

_MATCHING = EvaluateOptions()
_COUNTING = EstimateOptions()


def evaluate(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    labels: Annotated[Path, Parameter(name="LABELS")],
    /,
    *,
    report: Path | None = None,
    scenes: list[str] | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[EvaluateOptions, _flags.MATCHING] = _MATCHING,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Score detections against labels, in map coordinates.

    Polygon labels are matched by overlap, point labels by distance, for example
    `--radius 6m`, or with `--in-box`.

    Args:
        detections: Vector file that `detect` wrote.
        labels: Vector file with the true objects.
        report: Folder for a page of plots and pictures, report.html, and for errors.gpkg, with
            what was found rightly, wrongly and not at all.
        scenes: Images, folders or globs, for pictures of the worst places in the report.
        overwrite: Replace these files.
        options: How detections are matched with labels.
        reporting: How the command reports.
    """
    from geo_retina.evaluation import evaluate as score

    imagery = _prepare_report(report, scenes, overwrite=overwrite)
    _voice.check_json(reporting, overwrite=overwrite)
    evaluation = score(detections, labels, options)
    _voice.say(evaluation.table())
    compared = {"detections": str(detections), "labels": str(labels), "options": asdict(options)}
    _voice.result(reporting, {**compared, **evaluation.to_dict()})
    if report is not None:
        from geo_retina.html_report import write_report

        page = write_report(evaluation, report, about=compared, scenes=imagery, overwrite=overwrite)
        _voice.say(f"written to {page}")


def _prepare_report(
    folder: Path | None, scenes: list[str] | None, *, overwrite: bool
) -> list[Scene]:
    """Refuse what could not be reported, before work is spent on it; gives the imagery."""
    if folder is None:
        if scenes:
            raise OptionError(
                "scenes are for the pictures of a report; name its folder with --report"
            )
        return []
    from geo_retina.html_report import check_report
    from geo_retina.scene import find_scenes, open_picture

    check_report(folder, overwrite=overwrite)
    pictures = [open_picture(path) for path in find_scenes(scenes)] if scenes else []
    _report.warn_of_other_rasters(pictures)
    return pictures


def compare(
    a: Annotated[Path, Parameter(name="A")],
    b: Annotated[Path, Parameter(name="B")],
    labels: Annotated[Path | None, Parameter(name="LABELS")] = None,
    /,
    *,
    review: Path | None = None,
    out: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[EvaluateOptions, _flags.MATCHING] = _MATCHING,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Score two sets of detections against the same labels, side by side.

    Differences are B - A. Their intervals come from draws of ground blocks that are the same
    for both, so they show whether a difference is significant; intervals that hold 0 say
    that it may not be.

    Args:
        a: Vector file that `detect` wrote.
        b: Another one, of the same ground.
        labels: Vector file with the true objects.
        review: In place of LABELS, a GeoPackage under review: its completed cells of use count
            are what is scored, and stand for all ground.
        out: GeoPackage for the labels that both, only A, only B or neither found, and for the
            false detections of each.
        overwrite: Replace these files.
        options: How detections are matched with labels.
        reporting: How the command reports.
    """
    from geo_retina.evaluation import compare as score

    _voice.check_json(reporting, overwrite=overwrite)
    if (labels is None) == (review is None):
        raise OptionError(
            f"LABELS and --review are {'both' if labels else 'not'} given, expected one of them; "
            "name a file with the true objects, or a GeoPackage under review with --review"
        )
    if review is not None:
        _compare_on_cells((a, b, review), out, options, reporting)
        return
    assert labels is not None  # one of the two is given
    if out is not None:
        from geo_retina.vector import check_output

        check_output(out, overwrite=overwrite)
    comparison = score(a, b, labels, options)
    _voice.say(f"A: {a}\nB: {b}\n{comparison.table()}")
    compared = {"detections_a": str(a), "detections_b": str(b), "labels_file": str(labels)}
    _voice.result(reporting, {**compared, "options": asdict(options), **comparison.to_dict()})
    if out is not None:
        from geo_retina.html_report import write_agreement

        write_agreement(comparison, out, overwrite=overwrite)
        _voice.say(f"written to {out}")


def _compare_on_cells(
    files: tuple[Path, Path, Path],
    out: Path | None,
    options: EvaluateOptions,
    reporting: _voice.Reporting,
) -> None:
    """Compare on completed cells, where few of the options have a meaning."""
    from geo_retina.estimation import compare_on_cells

    given = asdict(options)
    other = [name for name, value in asdict(_MATCHING).items() if given[name] != value]
    other = [name for name in other if name not in ("radius_m", "score")]
    if out is not None or other:
        name = "--out" if out is not None else f"EvaluateOptions.{other[0]}"
        raise OptionError(
            f"{name} is given with --review, whose cells are compared by "
            "EvaluateOptions.radius_m and EvaluateOptions.score alone; leave it out"
        )
    how = EstimateOptions(radius_m=options.radius_m, score=options.score)
    compared = compare_on_cells(*files, how)
    a, b, review = map(str, files)
    _voice.say(f"A: {a}\nB: {b}\n{compared.table()}")
    about = {"detections_a": a, "detections_b": b, "review": review, "options": asdict(how)}
    _voice.result(reporting, {**about, **compared.to_dict()})


def estimate(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    /,
    *,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    options: Annotated[EstimateOptions, COUNTING] = _COUNTING,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Estimate how many objects there are, with a 95 % interval.

    Detections are put right by the cells of use count that somebody completed in the layers that
    `review` adds. Before any is completed, `--target 5%` says about how many it will take.

    Args:
        detections: GeoPackage that `detect` wrote and `review` prepared.
        overwrite: Replace the file of `--json`.
        options: What is counted, by which estimator.
        reporting: How the command reports.
    """
    from geo_retina.estimation import estimate as count

    _voice.check_json(reporting, overwrite=overwrite)
    estimated = count(detections, options)
    _voice.say(estimated.table())
    about = {"detections": str(detections), "options": asdict(options)}
    _voice.result(reporting, {**about, **estimated.to_dict()})
