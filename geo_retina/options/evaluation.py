"""Options of evaluating."""

from __future__ import annotations

from dataclasses import dataclass

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check, check_encoding


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How detections are matched with labels, and what is made of it."""

    layer: str | None = None
    """Layer of the labels' file; needed where it holds several."""

    ground: str | None = None
    """Polygons of the ground that was labelled; detections and labels outside do not count."""

    ignore: str | None = None
    """Polygons of ground on which nothing counts, neither as true nor as false or missed."""

    where: str | None = None
    """Attribute filter on the labels, as in SQL's WHERE."""

    ignore_where: str | None = None
    """The same for labels that may be found but need not be, such as doubtful ones."""

    scene_column: str | None = None
    """Column that names the stem of the scene file a label belongs to."""

    class_column: str | None = None
    """Column of the labels with the class names; left out, classes are not distinguished."""

    encoding: str | None = None
    """Encoding of the texts in a shapefile of labels that does not say it, such as GBK."""

    length_column: str | None = None
    """Column of point labels with the length in metres of the rectangle that each stands for."""

    width_column: str | None = None
    """Column with that rectangle's width in metres."""

    azimuth_column: str | None = None
    """Column with the direction of its length: degrees clockwise from the grid north of the
    labels' CRS, geodesic where that is in degrees."""

    iou: float = 0.5
    """Polygon labels: the least IoU of a match in precision, recall and F1."""

    radius_m: float | None = None
    """Point labels: the greatest distance of a match from the detection's centre; left out, 6."""

    in_box: bool = False
    """Point labels: match where the point lies inside the detection instead."""

    rectangles: bool = False
    """Polygon labels: count each as the smallest rectangle around it, at any angle."""

    score: float | None = None
    """Count detections from this score on; AP uses all of them either way."""

    sizes_px: tuple[float, ...] = (32, 96)
    """Polygon labels: sides in pixels that part small from larger objects."""

    sizes_m: tuple[float, ...] | None = None
    """The same in metres; left out, thirds of the labels."""

    gsd_m: float | None = None
    """Metres a pixel, for sizes in pixels; left out, from the detections' pixel columns."""

    cell_m: float | None = None
    """Also compare counts on a grid with cells of this side."""

    zones: str | None = None
    """Polygons on each of which counts are compared."""

    block_m: float | None = None
    """Side of the ground blocks that intervals are drawn from; left out, by the labels' extent."""

    resamples: int = 1000
    """Draws of ground blocks behind the 95 % intervals; 0 for none."""

    seed: int = 0
    """Seed of these draws."""

    def __post_init__(self) -> None:
        length = (1e-9, INFINITY)
        check(
            self,
            {
                "iou": (0, 1),
                "radius_m": length,
                "score": (0, 1),
                "sizes_px": length,
                "sizes_m": length,
                "gsd_m": length,
                "cell_m": (0.1, INFINITY),
                "block_m": (0.1, INFINITY),
                "resamples": (0, 100_000),
                "seed": (0, INFINITY),
            },
        )
        check_encoding(self, "encoding")
        if self.in_box and self.radius_m is not None:
            raise OptionError("in_box and radius_m exclude each other; give one of them")
        for name in ("sizes_px", "sizes_m"):
            sides = getattr(self, name)
            if sides is not None and list(sides) != sorted(set(sides)):
                raise OptionError(f"EvaluateOptions.{name} is {sides}, expected rising numbers")
