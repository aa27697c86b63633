"""Options of a training's data: labels, scenes, the split of the ground, and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from geo_retina.errors import OptionError
from geo_retina.options.aliases import accept_old_names
from geo_retina.options.checks import INFINITY, check, check_encoding, same_text
from geo_retina.options.network import Padding

Multi = Literal["explode", "box"]
"""What a multi-part geometry is: a label for each part, or one label around all of them."""

Rotate = Literal["none", "any"]
"""By which angles samples are turned, beside the quarters of ``flips``."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """One layer of labels; what is left out is as ``data`` says for all layers."""

    path: str
    """Vector file with one polygon or point per object, or annotations in COCO's JSON."""

    layer: str | None = None
    """Layer of the file; needed where it holds several."""

    where: str | None = None
    """Attribute filter on the labels, as in SQL's WHERE."""

    class_column: str | None = None
    """Column with the class names."""

    class_name: str | None = None
    """The class of all labels of this layer, instead of a column."""

    scene_column: str | None = None
    """Column that names the stem of the scene file a label belongs to."""

    point_size_m: float | None = None
    """Side of the square drawn around point labels."""

    point_size_column: str | None = None
    """Column with that side, in metres, for each label."""

    length_column: str | None = None
    """Column with the length in metres of the rectangle that a point stands for; with the width
    and the azimuth."""

    width_column: str | None = None
    """Column with that rectangle's width in metres."""

    azimuth_column: str | None = None
    """Column with the direction of its length: degrees clockwise from the grid north of the
    labels' CRS, geodesic where that is in degrees."""

    ignore_column: str | None = None
    """Column that is true, or not 0, for labels that are neither object nor background."""

    ignore: bool = False
    """The layer's polygons are ground that counts as not labelled."""

    multi: Multi | None = None
    """explode: each part of a multi-part geometry is a label; box: all of them are one."""

    encoding: str | None = None
    """Encoding of the texts in a shapefile, or another file that does not say it, such as GBK."""

    def __post_init__(self) -> None:
        check(self, {"point_size_m": (1e-6, INFINITY)})
        check_encoding(self, "encoding")
        if self.class_column is not None and self.class_name is not None:
            raise OptionError(
                "LabelOptions.class_column and class_name are both given; give the column, or "
                "the one class of the layer"
            )

    def filled(self, shared: Mapping[str, str | float | None]) -> LabelOptions:
        """Fill what is left out with options that all layers share.

        Ground to ignore has no classes and sizes, and one class for all needs no column.
        """
        if self.ignore:
            return self if self.encoding else replace(self, encoding=shared["encoding"])  # type: ignore[arg-type]
        given = {f.name for f in fields(self) if getattr(self, f.name) is not None}
        if self.class_name is not None:
            given |= {"class_column"}
        if self.point_size_m is not None:
            given |= {"point_size_column"}
        missing = {key: value for key, value in shared.items() if key not in given}
        return replace(self, **missing)  # type: ignore[arg-type]


_SHARED = (
    "layer",
    "where",
    "class_column",
    "scene_column",
    "point_size_m",
    "point_size_column",
    "length_column",
    "width_column",
    "azimuth_column",
    "ignore_column",
    "multi",
    "encoding",
)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Scenes and the label layers that belong to them."""

    scenes: tuple[str, ...]
    """Files, folders, globs, lists or STAC documents of scenes."""

    asset: str | None = None
    """Key of the asset that is taken of STAC items; left out, an item's only image."""

    labels: str | tuple[LabelOptions, ...] = ()
    """Vector file with one polygon or point per object, or several layers of them, each a path
    or a group of LabelOptions. May be left out where there is a review."""

    review: str | None = None
    """GeoPackage that `geo-retina review` prepared and a person corrected: objects, false positives
    and completed cells to learn from. Cells to count by are left out."""

    layer: str | None = None
    """Layer of the file; needed where it holds several."""

    where: str | None = None
    """Attribute filter on the labels, as in SQL's WHERE."""

    class_column: str | None = None
    """Column with the class names; left out, every object is of the one class in ``classes``."""

    classes: tuple[str, ...] | dict[str, tuple[str, ...]] | None = None
    """The model's classes in order, or each class with the names in the column that it stands
    for; left out, those found, sorted."""

    point_size_m: float | None = None
    """Side of the square drawn around point labels."""

    point_size_column: str | None = None
    """Column with that side, in metres, for each label."""

    length_column: str | None = None
    """Column with the length in metres of the rectangle that a point stands for; with the width
    and the azimuth."""

    width_column: str | None = None
    """Column with that rectangle's width in metres."""

    azimuth_column: str | None = None
    """Column with the direction of its length: degrees clockwise from the grid north of the
    labels' CRS, geodesic where that is in degrees."""

    ignore_column: str | None = None
    """Column that is true, or not 0, for labels that are neither object nor background."""

    multi: Multi = "explode"
    """explode: each part of a multi-part geometry is a label; box: all of them are one."""

    encoding: str | None = None
    """Encoding of the texts in shapefiles of labels and ground, or other files that do not say
    it, such as GBK; left out, as the files say."""

    scene_column: str | None = None
    """Column that names the stem of the scene file a label belongs to; left out, by place."""

    ground: str | None = None
    """Polygons of the ground that was labelled; left out, all valid pixels of the scenes."""

    ground_layer: str | None = None
    """Layer of that file; needed where it holds several."""

    ground_where: str | None = None
    """Attribute filter on the ground, as in SQL's WHERE."""

    ground_scene_column: str | None = None
    """Column that names the scene a piece of ground was labelled in; left out, by place."""

    bands: tuple[int, ...] | None = None
    """The files' bands (from 1) that the model sees; left out, all that are not alpha."""

    band_names: tuple[str, ...] | None = None
    """Names of those bands; left out, the files' own descriptions."""

    gsd_m: float | None = None
    """Metres a pixel that all scenes are resampled to, and what the pixels of a scene without a
    CRS are taken to be; left out, the files' own pixels."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "point_size_m": (1e-6, INFINITY),
                "bands": (1, INFINITY),
                "gsd_m": (1e-6, INFINITY),
            },
        )
        check_encoding(self, "encoding")
        scenes = (self.scenes,) if isinstance(self.scenes, str) else tuple(self.scenes)
        object.__setattr__(self, "scenes", scenes)
        if not self.scenes:
            raise OptionError("DataOptions.scenes is empty, expected at least one file or folder")
        if hasattr(self.labels, "__fspath__"):  # a Path is one file, too
            object.__setattr__(self, "labels", str(self.labels))
        if not isinstance(self.labels, str):
            object.__setattr__(self, "labels", tuple(self.labels))
        if hasattr(self.review, "__fspath__"):
            object.__setattr__(self, "review", str(self.review))
        if self.review is None and not any(not source.ignore for source in self.sources):
            raise OptionError(
                "DataOptions.labels is empty, expected at least one layer of labels, "
                "or a review in DataOptions.review"
            )
        if isinstance(self.classes, list):
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.classes is not None and not self.classes:
            raise OptionError("DataOptions.classes is empty, expected a class, or leave it out")
        self.class_of  # noqa: B018 - refuses a name in two classes now rather than later

    @property
    def sources(self) -> tuple[LabelOptions, ...]:
        """The label layers, complete."""
        shared = {name: getattr(self, name) for name in _SHARED}
        if isinstance(self.labels, str):
            return (LabelOptions(path=self.labels, **shared),)
        return tuple(source.filled(shared) for source in self.labels)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The model's classes in order; None where those found are taken."""
        return None if self.classes is None else tuple(map(same_text, self.classes))

    @property
    def class_of(self) -> dict[str, str]:
        """The class that each name in the labels stands for; empty where names are classes."""
        if self.classes is None:
            return {}
        if not isinstance(self.classes, dict):
            return {same_text(name): same_text(name) for name in self.classes}
        classes: dict[str, str] = {}
        for own, names in ((same_text(o), map(same_text, n)) for o, n in self.classes.items()):
            for name in names:
                if classes.setdefault(name, own) != own:
                    raise OptionError(
                        f"DataOptions.classes has {name} in {classes[name]} and in {own}; a name "
                        "stands for one class"
                    )
        return classes


@accept_old_names
@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How the ground is divided into train, val and test; never by file."""

    val_fraction: float = 0.15
    """Share of the ground that chooses checkpoint and thresholds."""

    test_fraction: float = 0.0
    """Share of the ground that chooses nothing and is scored once, at the end."""

    block_m: float = 500.0
    """Side of the ground blocks that stay in one part."""

    areas: str | None = None
    """Polygons whose ground is divided out whole, instead of blocks; other ground is for training.
    Without a column, all of them are for validation."""

    areas_layer: str | None = None
    """Layer of that file; needed where it holds several."""

    areas_encoding: str | None = None
    """Encoding of that file's texts, where it does not say it."""

    column: str | None = None
    """Column that names the place to which ground belongs, which stays in one part: of the
    areas, else of the labelled ground, else of the labels."""

    val: tuple[str, ...] | None = None
    """Validation places; left out, drawn by ``val_fraction``."""

    test: tuple[str, ...] | None = None
    """Test places; left out, drawn by ``test_fraction``."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "val_fraction": (0.01, 0.9),
                "test_fraction": (0, 0.9),
                "block_m": (1e-3, INFINITY),
            },
        )
        check_encoding(self, "areas_encoding")
        for name in ("val", "test"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(map(same_text, getattr(self, name))))
        if self.val_fraction + self.test_fraction > 0.95:
            raise OptionError(
                f"SplitOptions.val_fraction {self.val_fraction:g} and test_fraction "
                f"{self.test_fraction:g} leave no ground for training; lower them"
            )
        if self.column is None and (self.val is not None or self.test is not None):
            raise OptionError(
                "SplitOptions.val and test name places, so the column that holds their names "
                "is needed; give SplitOptions.column"
            )
        both = set(self.val or ()) & set(self.test or ())
        if both:
            raise OptionError(
                f"SplitOptions.val and test both name {sorted(both)[0]}; a place has one part"
            )

    @property
    def place_column(self) -> str | None:
        """Column of the labelled ground, or of the labels, that names places; None for areas."""
        return None if self.areas is not None else self.column


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Random windows read from the scenes, and how they are changed."""

    window_px: int = 256
    """Side of a sample."""

    object_share: float = 0.8
    """Share of samples that are drawn around an object, classes alike; the others fall anywhere."""

    empty_share: float = 0.0
    """Share of samples that show no object, where there is such ground."""

    hard_share: float = 0.2
    """Share of samples drawn around the model's own false positives, once there are any."""

    hard_from_epoch: int | None = None
    """Epoch after which false positives are looked for on the training ground; left out, never."""

    min_visible: float = 0.5
    """A label of which at least this share is visible in a sample is an object there."""

    drop_visible: float = 0.0
    """A label of which less than this is visible is dropped, as background; one between the two
    is ignored."""

    padding: Padding = "mirror"
    """What samples show, and detection with the model, beyond a scene and where there is no valid
    ground: ground mirrored at its edge, or constant for 0 after normalisation."""

    over_edge: float = 0.2
    """Share of samples that may reach over the edge of their scene by up to half of their side;
    the others by a sixteenth."""

    nodata: float = 0.1
    """Share of samples into which ground without data is cut: a slanted edge, a corner or a
    hole."""

    flips: bool = True
    """Flip and turn by quarters."""

    rotate: Rotate = "none"
    """any: turn each sample by any angle, for objects without a preferred direction; what is
    then shown of ground beyond the scene is not learned from. none: by quarters at most."""

    scale: tuple[float, float] = (0.9, 1.1)
    """Range of the scale jitter."""

    brightness: float = 0.15
    """Range of the shift per band, as a share of its standard deviation times 1."""

    contrast: float = 0.15
    """Range of the gain per band around 1."""

    blur: float = 0.0
    """Greatest standard deviation of the Gaussian blur, in pixels; each sample draws its own."""

    noise: float = 0.02
    """Standard deviation of the noise added, in units of the band's standard deviation."""

    cache_gb: float = 2.0
    """Memory for decoded pixels, over all reading processes; 0 for none."""

    cache_folder: str | None = None
    """Folder for decoded pixels, shared by the reading processes and by later runs; left out,
    none."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "window_px": (32, 1 << 14),
                "object_share": (0, 1),
                "empty_share": (0, 1),
                "hard_share": (0, 1),
                "hard_from_epoch": (1, INFINITY),
                "min_visible": (0, 1),
                "drop_visible": (0, 1),
                "over_edge": (0, 1),
                "nodata": (0, 1),
                "scale": (0.1, 10),
                "brightness": (0, 2),
                "contrast": (0, 0.99),
                "blur": (0, 10),
                "noise": (0, 2),
                "cache_gb": (0, INFINITY),
            },
        )
        if self.rotate not in get_args(Rotate):
            raise OptionError(f"SampleOptions.rotate is {self.rotate!r}, expected none or any")
        if self.object_share + self.empty_share > 1 + 1e-9:
            raise OptionError(
                f"SampleOptions.object_share {self.object_share:g} and empty_share "
                f"{self.empty_share:g} are more than all samples; lower one of them"
            )
        if self.drop_visible > self.min_visible:
            raise OptionError(
                f"SampleOptions.drop_visible {self.drop_visible:g} is above min_visible "
                f"{self.min_visible:g}; it must not be"
            )
