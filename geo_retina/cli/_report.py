"""What commands tell people: numbers, progress, failures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from geo_retina.errors import OutputError

if TYPE_CHECKING:
    from geo_retina.detector import RunReport
    from geo_retina.run import Failure, Progress

_MOST_FAILURES = 20


def note(text: str) -> None:
    """Tell what goes on, to a person at a terminal only."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def warn(text: str) -> None:
    """Tell what the user must know, apart from the results."""
    print(f"geo-retina: {text}", file=sys.stderr)


def plural(count: int, noun: str) -> str:
    """A count with its noun: ``1 scene``, ``1,200 scenes``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def columns(rows: Mapping[str, str], *, indent: str = "") -> str:
    """Labels and texts under one another, one pair a line."""
    width = max((len(label) for label in rows), default=0)
    return "\n".join(f"{indent}{label:<{width}}  {text}".rstrip() for label, text in rows.items())


def duration(seconds: float) -> str:
    """A time as people say it: ``8.1 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """A number of bytes in MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None] | None]:
    """Show how far a detection is; yields None, which is quiet, where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("detecting"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[found]:,} objects"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bars:
        task = bars.add_task("detecting", total=None, found=0)

        def show(progress: Progress) -> None:
            bars.update(
                task,
                total=progress.pixels,
                completed=progress.pixels_done,
                found=progress.detections,
            )

        yield show


def headline(report: RunReport) -> str:
    """How much was found in how much, and how fast."""
    mpx = report.pixels / 1e6
    rate = mpx / max(report.seconds, 1e-9)
    return (
        f"{plural(report.detections, 'object')} in {plural(report.scenes, 'scene')}, "
        f"{mpx:,.1f} Mpx in {duration(report.seconds)} ({rate:.2f} Mpx/s)"
    )


def summary(report: RunReport) -> str:
    """What a detection found, how fast, and where it is."""
    lines = [headline(report)]
    if len(report.counts) > 1:
        counts = {name: f"{count:>9,}" for name, count in report.counts.items()}
        lines.append(columns(counts, indent="  "))
    if report.skipped_tiles:
        lines.append(f"{plural(report.skipped_tiles, 'tile')} had no valid pixel")
    if report.outside_tiles:
        scenes = f", {plural(report.outside_scenes, 'whole scene')} among them"
        lines.append(
            f"{plural(report.outside_tiles, 'tile')} outside, not read"
            + (scenes if report.outside_scenes else "")
        )
    outs = ", ".join(map(str, report.outs))
    where = f"in {report.crs}" if report.crs else "without a CRS"
    lines.append(f"written to {outs}, {where}")
    return "\n".join(lines)


def stretch_notes(report: RunReport) -> dict[str, str]:
    """How the values of each scene that was stretched were changed, as label and text."""
    return {
        f"stretch of {path}": ", ".join(
            f"{scale!r} x + {offset!r}"
            for scale, offset in zip(values.scale, values.offset, strict=True)
        )
        for path, values in report.stretches.items()
    }


def warn_of_truncation(report: RunReport) -> None:
    """Tell of tiles that may hold more than was kept."""
    if report.truncated_tiles:
        warn(
            f"{plural(report.truncated_tiles, 'tile')} reached a limit and may hold more objects; "
            "raise --candidates and --max-per-tile, or give smaller tiles by --tile-px"
        )


def warn_of_failures(failures: Sequence[Failure]) -> None:
    """Tell of ground that was not covered, and why."""
    for failure in failures[:_MOST_FAILURES]:
        about = failure.scene
        if failure.window is not None:
            x_min, y_min, x_max, y_max = failure.window.box_px
            about = f"{about}, columns {x_min} to {x_max}, rows {y_min} to {y_max}"
        told = failure.error.startswith(failure.scene) and failure.window is None
        warn(f"not covered: {failure.error if told else f'{about}: {failure.error}'}")
    if len(failures) > _MOST_FAILURES:
        warn(f"not covered: {len(failures) - _MOST_FAILURES:,} further parts")


def check_text_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a text file that exists or cannot be made, before work is spent on it.

    Raises:
        OutputError: the file exists and is not to be replaced, or its folder is missing.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; give --overwrite or another name")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} of {path.name} does not exist; make it first")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise OutputError(f"{path} cannot be written; check its folder's permissions")


def write_text(path: Path, text: str) -> None:
    """Write a small file beside its place and move it there.

    Raises:
        OutputError: the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def write_config(out: Path, options_yaml: str, about: Mapping[str, str]) -> None:
    """Leave the resolved options beside an output; ``about`` goes on top as comments."""
    from geo_retina import __version__

    lines = {"geo-retina": __version__, **about}
    head = "".join(f"# {key}: {' '.join(text.split())}\n" for key, text in lines.items())
    write_text(out.with_name(f"{out.name}.config.yaml"), head + options_yaml)
