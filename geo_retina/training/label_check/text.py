"""A check of labels in words: the report, and what in it should be looked at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from geo_retina.options import TrainOptions

if TYPE_CHECKING:
    from geo_retina.dataset.sources import LabelCounts
    from geo_retina.training.label_check.report import LabelReport

_BAR = 40  # characters of the longest bar
_FEW = 30  # labels from which a class can be scored and given a threshold
_SMALL_PX = 4.0  # a side under which the finest level sees a single cell
_COVERED = 0.9
_CROWDED = 0.5  # IoU of labels that suppression can hardly tell from one object found twice


def describe_check(report: LabelReport) -> str:
    """Write the report as text of several lines."""
    lines = [f"check of the labels for {report.name}", ""]
    lines += _pairs([*_scenes(report), *_labels(report), *_split(report)])
    lines += ["", "sizes (px, square root of the area)", *_histogram(report), ""]
    lines += _pairs([*_shape(report), *_windows(report), *_suggestions(report)])
    if report.warnings:
        lines += ["", "look at"]
        lines += [f"  - {warning}" for warning in report.warnings]
    return "\n".join(lines)


def _pairs(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {label:<12}{text}" for label, text in rows]


def _scenes(report: LabelReport) -> list[tuple[str, str]]:
    (low_h, low_w), (high_h, high_w) = report.scene_px
    size = f"{low_w} x {low_h}"
    if (low_h, low_w) != (high_h, high_w):
        size += f" to {high_w} x {high_h}"
    low, high = report.gsd_m
    gsd = f"{low:.4g} m" if high / low < 1.001 else f"{low:.4g} to {high:.4g} m"
    crs = ", ".join(f"{name} ({count:,})" for name, count in report.crs.items())
    return [
        (
            "scenes",
            f"{report.scenes:,} of {size} px, {report.bands} bands of {report.dtype}, {gsd}",
        ),
        ("CRS", crs),
    ]


def _labels(report: LabelReport) -> list[tuple[str, str]]:
    rows = [("labels", _counts(count)) for count in report.sources]
    if len(report.sources) > 1:
        rows.append(("in all", _counts(report.counts)))
    for name, count in report.counts.per_class.items():
        by_part = ", ".join(f"{part} {n.per_class[name]:,}" for part, n in report.parts.items())
        rows.append(("class", f"{name}: {count:,} ({by_part})"))
    return rows


def _counts(count: LabelCounts) -> str:
    out = {
        "on no scene": count.no_scene - count.other_scene,
        "naming a file that is no scene": count.other_scene,
        "of other classes": count.other_class,
        "without a geometry": count.no_geometry,
        "empty": count.empty,
        "without area or not finite": count.invalid,
    }
    kept = {
        "ignored": count.ignored,
        "repaired": count.repaired,
        "on ground that was not labelled": count.off_ground,
        "placed without a scene's name": count.by_place,
    }
    text = f"{count.name}: " if count.name else ""
    text += f"{count.read:,} read, {count.used:,} on scenes"
    text += "".join(f", {n:,} {what}" for what, n in kept.items() if n)
    left = ", ".join(f"{n:,} {what}" for what, n in out.items() if n)
    return f"{text}; left out: {left or 'none'}"


def _split(report: LabelReport) -> list[tuple[str, str]]:
    return [
        (
            part,
            f"{n.labels:,} labels, {n.hectares:,.1f} ha of {n.scenes:,} scenes"
            + (f"; {report.split[part]}" if part in report.split else ""),
        )
        for part, n in report.parts.items()
    ]


def _histogram(report: LabelReport) -> list[str]:
    most = max((count for _, _, count in report.histogram_px), default=1)
    return [
        f"  {low:7.1f} to {high:6.1f} {count:9,}  {'#' * round(_BAR * count / most)}".rstrip()
        for low, high, count in report.histogram_px
    ]


def _shape(report: LabelReport) -> list[tuple[str, str]]:
    sides = ", ".join(f"{side:.1f} ({p} %)" for p, side in report.sides_px.items())
    hectares = sum(part.hectares for part in report.parts.values())
    density = report.counts.used / hectares if hectares else 0.0
    steps = [f"{share:.1%} above {step:g}" for step, share in report.overlap.items() if step > 0]
    touching = f"{report.overlap[0.0]:.1%} overlap another label; by greatest IoU "
    return [
        ("sides", f"{sides}; longer side {report.longest_px:.1f} (99 %)"),
        ("density", f"{density:,.1f} labels a hectare"),
        ("overlap", touching + ", ".join(steps)),
    ]


def _windows(report: LabelReport) -> list[tuple[str, str]]:
    windows = report.windows
    if windows is None:
        return [("samples", "none, as there is no training ground")]
    share = 1 / max(windows.labels, 1)
    return [
        (
            "samples",
            f"{windows.cut * share:.1%} of the labels in them are cut by a border, "
            f"{windows.ignored * share:.1%} ignored, {windows.dropped * share:.1%} dropped; at "
            f"most {windows.most:,} in one",
        ),
        ("empty", f"{windows.empty:.1%} of windows on training ground show no label"),
    ]


def _suggestions(report: LabelReport) -> list[tuple[str, str]]:
    levels = ", ".join(str(level) for level in report.levels)
    sides = ", ".join(f"[{', '.join(f'{s:g}' for s in level)}]" for level in report.anchor_sides_px)
    text = f"levels [{levels}], sides [{sides}] px: {report.anchor_coverage:.1%} of labels fit one"
    rows = [("anchors", text)]
    if report.own_coverage is not None:
        rows.append(
            ("", f"of the config's own anchors, {report.own_coverage:.1%} of labels fit one")
        )
    rows.append(("tiles", f"up to {report.tile_px} px, overlapping by {report.overlap_px} px"))
    return rows


def find_warnings(report: LabelReport, options: TrainOptions) -> list[str]:
    """Warn in one sentence of each thing that may spoil a training."""
    found: list[str] = []
    counts = report.counts
    if counts.no_scene > counts.read / 2:
        found.append(
            f"{counts.no_scene:,} of {counts.read:,} labels lie on no scene: fine if the layer "
            "covers more ground than the scenes do, else check its CRS and the scene column"
        )
    if counts.off_ground:
        found.append(
            f"{counts.off_ground:,} labels lie on ground that was not labelled: they are objects "
            "where a sample shows them, yet no sample is drawn around them; check data.ground"
        )
    found += _class_warnings(report)
    if report.sides_px[50] < _SMALL_PX:
        found.append(
            f"the middle label is {report.sides_px[50]:.1f} px wide, and little can be told from "
            "so few pixels; resample the scenes to finer pixels with data.gsd_m"
        )
    if report.longest_px > options.samples.window_px:
        found.append(
            f"labels are up to {report.longest_px:.0f} px long, more than a sample of "
            f"{options.samples.window_px} px shows; raise samples.window_px or data.gsd_m"
        )
    if report.overlap[0.95] > 0.01:
        found.append(
            f"{report.overlap[0.95]:.1%} of labels lie almost exactly on another one; look for "
            "objects that were labelled twice, or in several years without a scene column"
        )
    if report.overlap[_CROWDED] > 0.05:
        found.append(
            f"{report.overlap[_CROWDED]:.1%} of labels overlap another by an IoU above "
            f"{_CROWDED:g}; such objects are found only with an nms_iou above that, and then "
            "other objects are more often found twice"
        )
    if report.own_coverage is not None and report.own_coverage < _COVERED:
        found.append(
            f"only {report.own_coverage:.1%} of labels fit an anchor of the config; leave "
            "network.anchor_sides_px and levels out to have them fitted"
        )
    return found


def _class_warnings(report: LabelReport) -> list[str]:
    found = []
    for part, numbers in report.parts.items():
        for name, count in numbers.per_class.items():
            if count == 0:
                found.append(
                    f"no label of class {name} lies on the {_verb(part)} ground; change "
                    "split.block_m, the split's fractions or the seed"
                )
            elif count < _FEW:
                found.append(
                    f"only {count} labels of class {name} lie on the {_verb(part)} ground, "
                    f"expected {_FEW} or more for numbers that mean something"
                )
    return found


def _verb(part: str) -> str:
    return {"train": "training", "val": "validation", "test": "test"}[part]
