"""What commands tell people: numbers, progress, failures."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo_retina.cli import _streams, _voice
from geo_retina.cli._option_names import as_flags
from geo_retina.files import write_text

if TYPE_CHECKING:
    from geo_retina.detector import RunReport
    from geo_retina.run import Failure, Progress, Workload
    from geo_retina.scene import Scene
    from geo_retina.training import TrainProgress

_EVENT_EVERY_S = 1.0
_LINE_EVERY_S = 60.0
"""Least time between two lines on how far a command is."""


_MOST_FAILURES = 20


def note(text: str) -> None:
    """Print progress, to a person at a terminal only."""
    if is_watched():
        _streams.tell(text)


def warn(text: str) -> None:
    """Tell what the user must know, apart from the results."""
    _voice.warn(text)


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 scene``, ``1,200 scenes``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def columns(rows: Mapping[str, str], *, indent: str = "") -> str:
    """Format labels and texts under one another, one pair a line."""
    width = max((len(label) for label in rows), default=0)
    return "\n".join(f"{indent}{label:<{width}}  {text}".rstrip() for label, text in rows.items())


def duration(seconds: float) -> str:
    """Write a duration as people say it: ``8.1 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Write a number of bytes in MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


@contextmanager
def progress(how: _voice.ProgressStyle) -> Iterator[Callable[[Progress], None] | None]:
    """Show how far a detection is: as a bar, as a line a minute, as lines of JSON, or not at all.

    ``auto`` is a bar where somebody watches, else lines.
    """
    if how == "json":
        yield lambda state: _voice.print_event("progress", **_progress_event(state))
    elif how == "bar" or (how == "auto" and is_watched()):
        with _bar() as show:
            yield show
    elif how == "none":
        yield None
    else:
        interval = Interval(_LINE_EVERY_S)
        yield lambda state: _streams.tell(progress_text(state)) if interval.is_due() else None


def is_watched() -> bool:
    """Check whether somebody watches standard error on a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Interval:
    """Tells whether a time has passed since it last did so; it can be pickled.

    Args:
        seconds: that time, counted from now at first.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether it has passed, and begin anew then."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def training_progress(
    how: _voice.ProgressStyle,
) -> bool | Callable[[TrainProgress], None]:
    """Show how far a training is, as ``progress`` does; True is Lightning's own bar.

    What is called is an object, since several devices need it pickled, which a closure cannot be.
    """
    if how == "json":
        return TrainingEvents()
    if how == "bar" or (how == "auto" and is_watched()):
        return True
    return False if how == "none" else TrainingLine()


class TrainingEvents:
    """Sends how far a training is: an event after each epoch, and one a second in between."""

    def __init__(self) -> None:
        self._interval = Interval(_EVENT_EVERY_S)

    def __call__(self, state: TrainProgress) -> None:
        """Send the event where one is due."""
        if not self._interval.is_due() and state.step not in (0, state.steps):
            return
        done = state.epoch - 1 + state.step / max(1, state.steps)
        fraction = round(done / max(1, state.epochs), 4)
        text = training_text(state)
        _voice.print_event("progress", fraction=fraction, text=text, **asdict(state))


class TrainingLine:
    """Prints how far a training is: a line after each epoch, in long ones a line a minute."""

    def __init__(self) -> None:
        self._interval = Interval(_LINE_EVERY_S)

    def __call__(self, state: TrainProgress) -> None:
        """Print the line where one is due."""
        if self._interval.is_due() or state.step == state.steps:
            _streams.tell(training_text(state))


def training_text(state: TrainProgress) -> str:
    """Write epoch, losses, scores and time left on one line."""
    parts = [f"epoch {state.epoch} of {state.epochs}"]
    if state.step < state.steps:
        parts.append(f"step {state.step:,} of {state.steps:,}")
    numbers = {**state.losses, **state.scores}
    parts += [f"{name} {value:.4g}" for name, value in numbers.items()]
    if state.seconds_left is not None:
        parts.append(f"{duration(state.seconds_left)} left")
    return ", ".join(parts)


def _progress_event(state: Progress) -> dict[str, Any]:
    left = state.seconds_left
    return {
        "fraction": round(state.pixels_done / max(1, state.pixels), 4),
        "text": progress_text(state),
        **asdict(state),
        "px_per_s": round(state.px_per_s),
        "seconds_left": None if left is None else round(left, 1),
    }


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
        transient=True,
    )
    with bars:
        task = bars.add_task("detecting", total=None, text="")
        shown: list[str] = []

        def show(state: Progress) -> None:
            if state.dashboard and state.dashboard not in shown:
                shown.append(state.dashboard)
                bars.console.print(f"Dask shows what it does at {state.dashboard}")
            text = progress_text(state)
            bars.update(task, total=state.pixels, completed=state.pixels_done, text=text)

        yield show


def progress_text(state: Progress) -> str:
    """Write ground covered, objects found, rate and time left on one line."""
    done, total = state.pixels_done / 1e6, state.pixels / 1e6
    parts = [f"{done:,.0f} of {total:,.0f} Mpx", f"{state.detections:,} found"]
    if state.failed:
        parts.append(f"{plural(state.failed, 'block')} failed")
    if state.seconds_left is not None:
        parts.append(f"{state.px_per_s / 1e6:.2f} Mpx/s")
        parts.append(f"{duration(state.seconds_left)} left")
    return ", ".join(parts)


def report_result(report: RunReport) -> dict[str, Any]:
    """Name what a run did."""
    left_out = ("failures", "stretches", "out", "outs")
    facts = {name: value for name, value in vars(report).items() if name not in left_out}
    facts["notes"] = [as_flags(note) for note in report.notes]
    facts["work"] = work_result(report.work)
    return {**facts, "outs": report.outs, "not_covered": failures_result(report.failures)}


def work_result(work: Workload) -> dict[str, Any]:
    """Name where the time of workers went."""
    return {**vars(work), "idle": work.idle, "busy": work.busy}


def failures_result(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """Name what was not covered, and why."""
    return [
        {
            "scene": each.scene,
            "error": as_flags(each.error),
            "window_px": None if each.window is None else each.window.box_px,
        }
        for each in failures
    ]


def headline(report: RunReport) -> str:
    """Sum up how much was found in how much, and how fast."""
    mpx = report.pixels / 1e6
    rate = mpx / max(report.seconds, 1e-9)
    return (
        f"{plural(report.detections, 'object')} in {plural(report.scenes, 'scene')}, "
        f"{mpx:,.1f} Mpx in {duration(report.seconds)} ({rate:.2f} Mpx/s)"
    )


def summary(report: RunReport) -> str:
    """Sum up in text what a detection found, how fast, and where it is."""
    lines = [headline(report)]
    if len(report.counts) > 1:
        counts = {name: f"{count:>9,}" for name, count in report.counts.items()}
        lines.append(columns(counts, indent="  "))
    if report.skipped_tiles:
        lines.append(f"{plural(report.skipped_tiles, 'tile')} had no valid pixel")
    if report.screened_tiles:
        share = report.screened_pixels / max(1, report.pixels)
        lines.append(
            f"{plural(report.screened_tiles, 'tile')}, {share:.1%} of the ground, screened out by "
            "a first look"
        )
    if report.outside_tiles:
        scenes = f", {plural(report.outside_scenes, 'whole scene')} among them"
        lines.append(
            f"{plural(report.outside_tiles, 'tile')} outside, not read"
            + (scenes if report.outside_scenes else "")
        )
    if report.work.busy is not None:
        lines.append(work_line(report.work, report.km2_per_hour))
    if report.not_covered_pixels:
        lines.append(not_covered_line(report.not_covered_pixels, report.pixels))
    outs = ", ".join(map(str, report.outs))
    where = f"in {report.crs}" if report.crs else "without a CRS"
    lines.append(f"written to {outs}, {where}")
    return "\n".join(lines)


def work_line(work: Workload, km2_per_hour: float | None) -> str:
    """Say how fast ground was covered, how busy workers were, and what waited for what."""
    shares = {
        "reading": work.reading,
        "waiting for the device": work.turn,
        "detecting": work.detecting,
        "merging": work.merging,
        "without a block of their own": work.idle,
    }
    spent = sum(shares.values())
    parts = [f"{seconds / spent:.0%} {what}" for what, seconds in shares.items()]
    rate = "" if km2_per_hour is None else f"{km2_per_hour:,.3g} km2 an hour; "
    return f"{rate}threads spent {', '.join(parts)}"


def not_covered_line(missing_px: int, covered_px: int) -> str:
    """Say how much ground of scenes that could be opened is not covered."""
    share = missing_px / (missing_px + covered_px)
    return f"{missing_px / 1e6:,.2f} Mpx ({share:.2%}) could not be covered"


def stretch_notes(report: RunReport) -> dict[str, str]:
    """Describe how the values of each stretched scene were changed, as label and text."""
    return {
        f"stretch of {path}": ", ".join(
            f"{scale!r} x + {offset!r}"
            for scale, offset in zip(values.scale, values.offset, strict=True)
        )
        for path, values in report.stretches.items()
    }


def warn_of_limits(report: RunReport) -> None:
    """Warn of tiles that may hold more than was found, and of too little memory."""
    from geo_retina.run import limit_notes

    for note in limit_notes(report):
        warn(note)


def warn_of_other_rasters(scenes: Sequence[Scene]) -> None:
    """Warn where files hold more rasters than the first, which is read."""
    from geo_retina.scene import note_other_rasters

    note = note_other_rasters(scenes)
    if note is not None:
        warn(f"note: {note}")


def warn_of_failures(failures: Sequence[Failure]) -> None:
    """Warn of ground that was not covered, and why."""
    for failure in failures[:_MOST_FAILURES]:
        about = failure.scene
        if failure.window is not None:
            x_min, y_min, x_max, y_max = failure.window.box_px
            about = f"{about}, columns {x_min} to {x_max}, rows {y_min} to {y_max}"
        names_scene = failure.error.startswith(failure.scene) and failure.window is None
        warn(f"not covered: {failure.error if names_scene else f'{about}: {failure.error}'}")
    if len(failures) > _MOST_FAILURES:
        warn(f"not covered: {len(failures) - _MOST_FAILURES:,} further parts")


def write_config(out: Path, options_yaml: str, about: Mapping[str, str]) -> None:
    """Leave the resolved options beside an output; ``about`` goes on top as comments."""
    from geo_retina import __version__

    lines = {"geo-retina": __version__, **about}
    head = "".join(f"# {key}: {' '.join(text.split())}\n" for key, text in lines.items())
    write_text(out.with_name(f"{out.name}.config.yaml"), head + options_yaml)
