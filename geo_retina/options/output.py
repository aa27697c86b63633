"""Options of choosing among detections that were written, and of folders for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geo_retina.options.checks import INFINITY, check, check_encoding

ChipForm = Literal["coco", "yolo", "voc", "dota", "yolo-obb"]


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """Which detections of a file to keep."""

    score: float | None = None
    """Keep detections from this score on; left out, from the thresholds that the file names for
    each class."""

    classes: tuple[str, ...] | None = None
    """Keep these classes; left out, all. Several may be one text with commas, in which a name that
    holds a comma itself stands in double quotes, unless it is all of the text."""

    aoi: str | None = None
    """Keep detections whose centre lies in the polygons of this file."""

    aoi_layer: str | None = None
    """Its layer; needed where it has several."""

    encoding: str | None = None
    """Encoding of the texts in a shapefile of detections that does not say it, such as GBK."""

    def __post_init__(self) -> None:
        check(self, {"score": (0, 1)})
        check_encoding(self, "encoding")
        if isinstance(self.classes, (list, str)):
            names = [self.classes] if isinstance(self.classes, str) else self.classes
            object.__setattr__(self, "classes", tuple(names))


@dataclass(frozen=True, kw_only=True)
class ChipOptions:
    """How scenes and labels become folders of small pictures."""

    form: ChipForm = "coco"
    """Annotations as COCO's JSON, as YOLO's text files, or as Pascal VOC's XML; of oriented boxes
    as DOTA's text files, or as YOLO's (yolo-obb)."""

    chip_px: int = 640
    """Side of the pictures."""

    empty_share: float = 0.1
    """Share of the pictures that show no object, where there are enough such."""

    min_visible: float = 0.4
    """An object of which less than this share lies in a picture is left out there."""

    val_fraction: float = 0.2
    """Share of the ground whose pictures are for validation; 0 makes all for training."""

    block_m: float = 500.0
    """Side of the ground blocks that go to training or validation as a whole."""

    seed: int = 0
    """Seed of the split, and of which empty pictures are taken."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "chip_px": (16, 1 << 14),
                "empty_share": (0, 1),
                "min_visible": (0, 1),
                "val_fraction": (0, 0.9),
                "block_m": (1e-3, INFINITY),
            },
        )
