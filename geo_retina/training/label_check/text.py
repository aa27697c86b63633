"""A check of labels in words: the report, and what in it needs attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from geo_retina.dataset.sources import LabelCounts
from geo_retina.training.label_check.numbers import LabelNumbers

_BAR = 40  # characters of the longest bar
_FEW = 30  # labels from which a class can be scored and given a threshold
_SMALL_PX = 4.0  # a side under which the finest level sees a single cell
_CROWDED = 0.5  # IoU of labels that suppression can hardly tell from one object found twice


def describe_check(found: LabelNumbers, warnings: Sequence[str]) -> str:
    """Write the report as text of several lines."""
    lines = [f"check of the labels for {found.name}", ""]
    lines += _pairs([*_scenes(found), *_labels(found), *_split(found)])
    lines += ["", "sizes (px, square root of the area)", *_bars(found.histogram_px)]
    if found.angles is not None:
        about = f", without {found.angles.near_square:,} that are nearly squares"
        lines += ["", f"angles (degrees in pixels, clockwise from the right{about})"]
        lines += _bars(found.angles.histogram_deg)
    lines += [""]
    lines += _pairs([*_shape(found), *_windows(found), *_suggestions(found)])
    if warnings:
        lines += ["", "look at"]
        lines += [f"  - {warning}" for warning in warnings]
    return "\n".join(lines)


def _pairs(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {label:<12}{text}" for label, text in rows]


def _scenes(found: LabelNumbers) -> list[tuple[str, str]]:
    (low_h, low_w), (high_h, high_w) = found.scene_px
    size = f"{low_w} x {low_h}"
    if (low_h, low_w) != (high_h, high_w):
        size += f" to {high_w} x {high_h}"
    low, high = found.gsd_m
    gsd = f"{low:.4g} m" if high / low < 1.001 else f"{low:.4g} to {high:.4g} m"
    crs = ", ".join(f"{name} ({count:,})" for name, count in found.crs.items())
    return [
        (
            "scenes",
            f"{found.scenes:,} of {size} px, {found.bands} bands of {found.dtype}, {gsd}",
        ),
        ("CRS", crs),
    ]


def _labels(found: LabelNumbers) -> list[tuple[str, str]]:
    rows = [("labels", _counts(count)) for count in found.sources]
    if len(found.sources) > 1:
        rows.append(("in all", _counts(found.counts)))
    for name, count in found.counts.per_class.items():
        by_part = ", ".join(f"{part} {n.per_class[name]:,}" for part, n in found.parts.items())
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


def _split(found: LabelNumbers) -> list[tuple[str, str]]:
    return [
        (
            part,
            f"{n.labels:,} labels, {n.hectares:,.1f} ha of {n.scenes:,} scenes"
            + (f"; {found.split[part]}" if part in found.split else ""),
        )
        for part, n in found.parts.items()
    ]


def _bars(histogram: Sequence[tuple[float, float, int]]) -> list[str]:
    most = max([1, *(count for _, _, count in histogram)])
    return [
        f"  {low:7.1f} to {high:6.1f} {count:9,}  {'#' * round(_BAR * count / most)}".rstrip()
        for low, high, count in histogram
    ]


def _shape(found: LabelNumbers) -> list[tuple[str, str]]:
    sides = ", ".join(f"{side:.1f} ({p} %)" for p, side in found.sides_px.items())
    hectares = sum(part.hectares for part in found.parts.values())
    density = found.counts.used / hectares if hectares else 0.0
    steps = [f"{share:.1%} above {step:g}" for step, share in found.overlap.items() if step > 0]
    touching = f"{found.overlap[0.0]:.1%} overlap another label; by greatest IoU "
    return [
        ("sides", f"{sides}; longer side {found.longest_px:.1f} (99 %)"),
        ("density", f"{density:,.1f} labels a hectare"),
        ("overlap", touching + ", ".join(steps)),
    ]


def _windows(found: LabelNumbers) -> list[tuple[str, str]]:
    windows = found.windows
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


def _suggestions(found: LabelNumbers) -> list[tuple[str, str]]:
    levels = ", ".join(str(level) for level in found.levels)
    sides = ", ".join(f"[{', '.join(f'{s:g}' for s in level)}]" for level in found.anchor_sides_px)
    ratios = ", ".join(f"{ratio:g}" for ratio in found.anchor_ratios)
    text = (
        f"levels [{levels}], sides [{sides}] px, ratios [{ratios}]: "
        f"{found.anchor_coverage:.1%} of labels fit one"
    )
    rows = [("anchors", text)]
    if found.own_coverage is not None:
        rows.append(
            ("", f"of the config's own anchors, {found.own_coverage:.1%} of labels fit one")
        )
    rows.append(("tiles", f"up to {found.tile_px} px, overlapping by {found.overlap_px} px"))
    return rows


def find_warnings(found: LabelNumbers, *, window_px: int) -> list[str]:
    """Warn in one sentence of each thing that may spoil a training."""
    said: list[str] = []
    counts = found.counts
    if counts.no_scene > counts.read / 2:
        said.append(
            f"{counts.no_scene:,} of {counts.read:,} labels lie on no scene: fine if the layer "
            "covers more ground than the scenes do, else check its CRS and the scene column"
        )
    if counts.off_ground:
        said.append(
            f"{counts.off_ground:,} labels lie on ground that was not labelled: they are objects "
            "where a sample shows them, yet no sample is drawn around them; check data.ground"
        )
    said += _class_warnings(found)
    if found.sides_px[50] < _SMALL_PX:
        said.append(
            f"the middle label is {found.sides_px[50]:.1f} px wide, and little can be seen in "
            "so few pixels; resample the scenes to finer pixels with data.gsd_m"
        )
    if found.longest_px > window_px:
        said.append(
            f"labels are up to {found.longest_px:.0f} px long, more than a sample of "
            f"{window_px} px shows; raise samples.window_px or data.gsd_m"
        )
    if found.overlap[0.95] > 0.01:
        said.append(
            f"{found.overlap[0.95]:.1%} of labels lie almost exactly on another one; look for "
            "objects that were labelled twice, or in several years without a scene column"
        )
    if found.overlap[_CROWDED] > 0.05:
        said.append(
            f"{found.overlap[_CROWDED]:.1%} of labels overlap another by an IoU above "
            f"{_CROWDED:g}; such objects are found only with an nms_iou above that, and then "
            "other objects are more often found twice"
        )
    return said


def _class_warnings(found: LabelNumbers) -> list[str]:
    said = []
    for part, numbers in found.parts.items():
        for name, count in numbers.per_class.items():
            if count == 0:
                said.append(
                    f"no label of class {name} lies on the {_verb(part)} ground; change "
                    "split.block_m, the split's fractions or the seed"
                )
            elif count < _FEW:
                said.append(
                    f"only {count} labels of class {name} lie on the {_verb(part)} ground, "
                    f"expected {_FEW} or more for numbers that mean something"
                )
    return said


def _verb(part: str) -> str:
    return {"train": "training", "val": "validation", "test": "test"}[part]
