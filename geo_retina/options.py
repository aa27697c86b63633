"""Every option, with its one default. Imports nothing heavy: the command line reads it first.

Frozen, keyword-only, checked at birth. Python, YAML and the command line all speak these
dataclasses; nowhere else is a default written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from geo_retina.errors import OptionError

Device = str
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def _check(options: object, ranges: dict[str, tuple[float, float]]) -> None:
    """Refuse fields outside their closed range; None passes, and lists become tuples."""
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(options, name, value)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and not (low <= item <= high and item < INFINITY):
                raise OptionError(
                    f"{type(options).__name__}.{name} is {item}, wanted {_span(low, high)}"
                )


def _span(low: float, high: float) -> str:
    return f"{low:g} or more" if high == INFINITY else f"{low:g} to {high:g}"


INFINITY = float("inf")


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """How detections of neighbouring tiles become one set of objects."""

    iou: float = 0.4
    """A detection suppresses a lower-ranked one of another tile above this overlap."""

    share: float = 0.5
    """It also suppresses a cut one of whose own area more than this share lies inside it."""

    edge_px: float = 4.0
    """A box this near to a tile side counts as cut by it."""

    join: bool = True
    """Join the fragments of an object that spans a whole overlap."""

    join_iou: float = 0.5
    """Fragments join when their extents along the seam overlap by this 1-D IoU."""

    class_aware: bool = True
    """Only detections of one class suppress each other across tiles."""

    def __post_init__(self) -> None:
        _check(self, {"iou": (0, 1), "share": (0, 1), "join_iou": (0, 1), "edge_px": (0, INFINITY)})


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """What changes the detections of a run; part of its fingerprint."""

    score: float | None = None
    """Keep detections from this score on; left out, the model's own threshold per class."""

    bands: tuple[int, ...] | None = None
    """The file's bands (from 1) in the model's order; left out, as the model's card says."""

    gsd_m: float | None = None
    """Resample the scene to this many metres a pixel; left out, only where it is outside the
    model's range."""

    force: bool = False
    """Run although the scene's data type does not fit the model's card."""

    tile_px: int | None = None
    """Side of the square that the network sees; left out, chosen for the fewest pixels."""

    overlap_px: int | None = None
    """Least overlap of neighbouring tiles; left out, from the object sizes on the card."""

    nms_iou: float = 0.5
    """Within a tile, a box suppresses lower-scored ones of its class above this IoU."""

    candidates: int = 4000
    """Boxes decoded per pyramid level and tile at the most; reaching it is reported."""

    max_per_tile: int = 2000
    """Detections kept per tile at the most; reaching it is reported."""

    precision: Precision = "auto"
    """Arithmetic of the network; auto is bf16 where the hardware has it, else fp32."""

    merge: MergeOptions = field(default_factory=MergeOptions)
    """Merging across tiles."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "score": (0, 1),
                "bands": (1, INFINITY),
                "gsd_m": (1e-6, INFINITY),
                "tile_px": (1, 1 << 16),
                "overlap_px": (0, 1 << 16),
                "nms_iou": (0, 1),
                "candidates": (1, INFINITY),
                "max_per_tile": (1, INFINITY),
            },
        )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out; none of it changes the detections."""

    device: Device = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best one present."""

    batch: int | None = None
    """Tiles through the network at once; left out, chosen by the device and tile size."""

    block_px: int = 4096
    """Side of the blocks that are read and detected as one task."""

    workers: int | None = None
    """Dask workers in this process, which share the device; left out, one."""

    threads: int = 2
    """Blocks in flight per worker, so that reading hides behind computing."""

    scheduler: str | None = None
    """Address of a running Dask scheduler to use instead of this process."""

    retries: int = 1
    """Times a failed block is tried again before its ground is reported as not covered."""

    overwrite: bool = False
    """Replace an existing output."""

    restart: bool = False
    """Discard what an earlier, unfinished run of this output left behind."""

    keep: bool = False
    """Keep the run's folder after it finished."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "batch": (1, INFINITY),
                "block_px": (64, INFINITY),
                "workers": (1, INFINITY),
                "threads": (1, INFINITY),
                "retries": (0, INFINITY),
            },
        )


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Architecture of the RetinaNet."""

    backbone: str = "tf_efficientnet_lite0"
    """A timm model with ``features_only``."""

    levels: tuple[int, ...] | None = None
    """Pyramid levels in ascending order without gaps, level l at stride 2**l; left out, chosen
    by the labels' sizes."""

    channels: int = 96
    """Channels of the pyramid and the subnets."""

    convs: int = 2
    """3 x 3 convolutions in each subnet before the output."""

    norm: Literal["none", "batch", "group"] = "batch"
    """Normalisation after the subnets' convolutions; batch folds away at inference."""

    pyramid_norm: Literal["none", "batch"] = "none"
    """Normalisation after the pyramid's convolutions."""

    extra_levels_from: Literal["c5", "p5"] = "c5"
    """What the first level above the backbone's is made of: the paper's C5 or the top
    pyramid level."""

    anchor_sides_px: tuple[tuple[float, ...], ...] | None = None
    """Anchor sides (square root of the area) of each level; left out, fitted to the labels."""

    anchor_ratios: tuple[float, ...] = (1.0,)
    """Height over width of the anchors, for every side."""

    round_anchors: bool = False
    """Round anchor corners to whole pixels, as torchvision does."""

    prior: float = 0.01
    """Initial probability of an object, set through the class subnet's bias."""

    bn_eps: float | None = None
    """Epsilon of the backbone's batch norms; left out, the backbone's own."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "levels": (2, 9),
                "channels": (1, INFINITY),
                "convs": (0, 16),
                "prior": (1e-9, 0.5),
                "anchor_ratios": (1e-3, 1e3),
            },
        )
        if self.levels is not None and (
            not self.levels or list(self.levels) != list(range(self.levels[0], self.levels[-1] + 1))
        ):
            raise OptionError(
                f"NetworkOptions.levels is {self.levels}, wanted ascending levels without gaps, "
                "such as (3, 4, 5)"
            )
        if self.anchor_sides_px is not None:
            counts = {len(sides) for sides in self.anchor_sides_px}
            if len(counts) != 1 or 0 in counts:
                raise OptionError(
                    "NetworkOptions.anchor_sides_px needs the same number of sides for every "
                    f"level, got {self.anchor_sides_px}"
                )
            if self.levels is not None and len(self.anchor_sides_px) != len(self.levels):
                raise OptionError(
                    f"NetworkOptions.anchor_sides_px is for {len(self.anchor_sides_px)} levels, "
                    f"but there are {len(self.levels)}"
                )


_OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))

PRESETS: dict[str, NetworkOptions] = {
    "small": NetworkOptions(),
    "paper": NetworkOptions(
        backbone="resnet50",
        levels=(3, 4, 5, 6, 7),
        channels=256,
        convs=4,
        norm="none",
        anchor_sides_px=tuple(tuple(32.0 * 2**i * s for s in _OCTAVE) for i in range(5)),
        anchor_ratios=(0.5, 1.0, 2.0),
    ),
}
"""Networks by name: ``small`` for dense small objects at speed, ``paper`` for Lin et al. 2017."""


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """What training minimises."""

    classification: Literal["focal", "balanced", "ce"] = "focal"
    """Focal loss, alpha-balanced cross entropy (focal at gamma 0), or cross entropy."""

    alpha: float = 0.25
    """Weight of objects; background weighs 1 - alpha. Not used by ce."""

    gamma: float = 2.0
    """Focusing exponent of the focal loss."""

    class_weights: Literal["none", "inverse"] = "none"
    """Weigh classes alike, or by the inverse of their frequency in the labels."""

    box: Literal["smooth_l1", "l1", "giou"] = "smooth_l1"
    """Loss of the boxes."""

    beta: float = 1 / 9
    """Where smooth L1 turns from square to linear."""

    box_weight: float = 1.0
    """Weight of the box loss against the class loss."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "alpha": (0, 1),
                "gamma": (0, INFINITY),
                "beta": (0, INFINITY),
                "box_weight": (0, INFINITY),
            },
        )


@dataclass(frozen=True, kw_only=True)
class AssignOptions:
    """Which anchors stand for which objects."""

    method: Literal["iou", "atss"] = "iou"
    """By fixed IoU thresholds, or adaptively (ATSS)."""

    foreground_iou: float = 0.5
    """An anchor with at least this IoU stands for the object."""

    background_iou: float = 0.4
    """An anchor below this IoU with every object is background; between, it is not used."""

    atss_candidates: int = 9
    """Nearest anchors per level that ATSS looks at."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "foreground_iou": (0, 1),
                "background_iou": (0, 1),
                "atss_candidates": (1, INFINITY),
            },
        )
        if self.background_iou > self.foreground_iou:
            raise OptionError(
                f"AssignOptions.background_iou {self.background_iou} is above foreground_iou "
                f"{self.foreground_iou}; it must not be"
            )


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Scenes and the label layer that belongs to them."""

    scenes: tuple[str, ...]
    """Files, folders or globs of scenes."""

    labels: str
    """Vector file with one polygon or point per object."""

    layer: str | None = None
    """Layer of the file; needed where it holds several."""

    where: str | None = None
    """Attribute filter on the labels, as in SQL's WHERE."""

    class_column: str | None = None
    """Column with the class names; left out, every object is of the one class in ``classes``."""

    classes: tuple[str, ...] | None = None
    """The model's classes in order; left out, those found, sorted."""

    point_size_m: float | None = None
    """Side of the square drawn around point labels."""

    scene_column: str | None = None
    """Column that names the stem of the scene file a label belongs to; left out, by place."""

    ground: str | None = None
    """Polygons of the ground that was labelled; left out, all valid pixels of the scenes."""

    bands: tuple[int, ...] | None = None
    """The files' bands (from 1) that the model sees; left out, all that are not alpha."""

    band_names: tuple[str, ...] | None = None
    """Names of those bands; left out, the files' own descriptions."""

    def __post_init__(self) -> None:
        _check(self, {"point_size_m": (1e-6, INFINITY), "bands": (1, INFINITY)})
        scenes = (self.scenes,) if isinstance(self.scenes, str) else tuple(self.scenes)
        object.__setattr__(self, "scenes", scenes)
        if not self.scenes:
            raise OptionError("DataOptions.scenes is empty, wanted at least one file or folder")


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How the ground is divided into fit and tune; never by file."""

    tune_fraction: float = 0.15
    """Share of the ground blocks that chooses checkpoint and thresholds."""

    block_m: float = 500.0
    """Side of the ground blocks that are dealt out whole."""

    def __post_init__(self) -> None:
        _check(self, {"tune_fraction": (0.01, 0.9), "block_m": (1e-3, INFINITY)})


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Random windows read from the scenes, and how they are changed."""

    window_px: int = 256
    """Side of a sample."""

    object_share: float = 0.8
    """Share of samples that are drawn around an object; the others fall anywhere."""

    min_visible: float = 0.5
    """A label of which less is visible in a sample is ignored there."""

    flips: bool = True
    """Flip and turn by quarters."""

    scale: tuple[float, float] = (0.9, 1.1)
    """Range of the scale jitter."""

    brightness: float = 0.15
    """Range of the shift per band, as a share of its standard deviation times 1."""

    contrast: float = 0.15
    """Range of the gain per band around 1."""

    noise: float = 0.02
    """Standard deviation of the noise added, in units of the band's standard deviation."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "window_px": (32, 1 << 14),
                "object_share": (0, 1),
                "min_visible": (0, 1),
                "scale": (0.1, 10),
                "brightness": (0, 2),
                "contrast": (0, 0.99),
                "noise": (0, 2),
            },
        )


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """A whole training run; the YAML file of ``geo-retina train`` has these keys."""

    data: DataOptions
    """Scenes and labels."""

    name: str = "model"
    """Name on the model's card."""

    description: str = ""
    """What the model finds and in what imagery, for its card."""

    licence: str = ""
    """Licence of the model, for its card."""

    attribution: str = ""
    """Whom a user of the model must name, for its card."""

    preset: Literal["small", "paper"] = "small"
    """Network to start from."""

    network: dict[str, Any] = field(default_factory=dict)
    """Fields of NetworkOptions that differ from the preset's."""

    pretrained: bool = True
    """Start the backbone from ImageNet weights."""

    loss: LossOptions = field(default_factory=LossOptions)
    """What training minimises."""

    assign: AssignOptions = field(default_factory=AssignOptions)
    """Which anchors stand for which objects."""

    split: SplitOptions = field(default_factory=SplitOptions)
    """How the ground is divided."""

    samples: SampleOptions = field(default_factory=SampleOptions)
    """Windows and augmentation."""

    epochs: int = 12
    """Passes over the samples."""

    samples_per_epoch: int | None = None
    """Samples in an epoch; left out, as many as cover the labelled ground once."""

    batch: int = 8
    """Samples in a step."""

    lr: float = 2e-3
    """Peak learning rate of AdamW under a one-cycle schedule."""

    weight_decay: float = 1e-4
    """Weight decay of AdamW."""

    ema: float = 0.998
    """Decay of the moving average of the weights, which is what is saved; 0 switches it off."""

    device: Device = "auto"
    """cpu, cuda, mps, or auto for the best one present."""

    precision: Precision = "auto"
    """Arithmetic in training; auto is bf16 where the hardware has it."""

    workers: int = 1
    """Processes that read samples; 0 reads in the training process."""

    validate_every: int = 1
    """Epochs between validations on the tuning ground."""

    radius_m: float | None = None
    """Score point labels by centre distance within this radius; left out, the point size.
    Polygons are scored by IoU."""

    seed: int = 0
    """Seed of weights, samples and split."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "epochs": (1, INFINITY),
                "samples_per_epoch": (1, INFINITY),
                "batch": (1, INFINITY),
                "lr": (0, INFINITY),
                "weight_decay": (0, INFINITY),
                "ema": (0, 0.999999),
                "workers": (0, INFINITY),
                "validate_every": (1, INFINITY),
                "radius_m": (1e-6, INFINITY),
            },
        )
        self.resolved_network  # noqa: B018 - refuses unknown keys now rather than later

    @property
    def resolved_network(self) -> NetworkOptions:
        """The preset with this run's changes."""
        known = {f.name for f in fields(NetworkOptions)}
        for key in self.network:
            if key not in known:
                raise OptionError(unknown_key(f"network.{key}", [f"network.{k}" for k in known]))
        values = {f.name: getattr(PRESETS[self.preset], f.name) for f in fields(NetworkOptions)}
        return NetworkOptions(**{**values, **{k: _tuples(v) for k, v in self.network.items()}})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


def unknown_key(key: str, known: Sequence[str]) -> str:
    """One sentence for a key nobody knows, with the likeliest one that somebody does."""
    import difflib

    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
    return f"unknown option {key}; {hint}"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How detections are matched with labels."""

    layer: str | None = None
    """Layer of the labels' file; needed where it holds several."""

    ground: str | None = None
    """Polygons of the ground that was labelled; detections and labels outside do not count."""

    where: str | None = None
    """Attribute filter on the labels, as in SQL's WHERE."""

    scene_column: str | None = None
    """Column that names the stem of the scene file a label belongs to."""

    class_column: str | None = None
    """Column of the labels with the class names; left out, classes are not told apart."""

    iou: float = 0.5
    """Polygon labels: the least IoU of a match in precision, recall and F1."""

    radius_m: float | None = None
    """Point labels: the greatest distance of a match from the detection's centre; left out, 6."""

    in_box: bool = False
    """Point labels: match where the point lies inside the detection instead."""

    score: float | None = None
    """Count detections from this score on; AP uses all of them either way."""

    def __post_init__(self) -> None:
        _check(self, {"iou": (0, 1), "radius_m": (1e-9, INFINITY), "score": (0, 1)})
        if self.in_box and self.radius_m is not None:
            raise OptionError("in_box and radius_m exclude each other; give one of them")


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """A drawn scene with known objects."""

    height: int = 4096
    """Rows."""

    width: int = 4096
    """Columns."""

    gsd_m: float = 0.3
    """Metres a pixel."""

    epsg: int = 32632
    """A projected CRS in metres."""

    origin_xy: tuple[float, float] = (500_000.0, 5_300_000.0)
    """CRS position of the outer corner of the top-left pixel."""

    rotation_deg: float = 0.0
    """Turn of the grid on the ground, counter-clockwise."""

    bands: int = 3
    """Bands: red, green, blue, near infrared, then further ones."""

    dtype: Literal["uint8", "uint16", "int16", "float32"] = "uint8"
    """Type of the pixels."""

    density: float = 300.0
    """Objects per million pixels, in clusters and rows."""

    difficulty: float = 0.5
    """From 0, clean, to 1: contrast falls; clutter, shadows, noise and occlusion grow."""

    nodata_corner: bool = True
    """Leave a slanted corner of the scene empty, as at the edge of an image strip."""

    seed: int = 0
    """Same seed and options, same bytes."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "height": (1, INFINITY),
                "width": (1, INFINITY),
                "gsd_m": (1e-6, INFINITY),
                "bands": (1, 64),
                "density": (0, 1e5),
                "difficulty": (0, 1),
            },
        )
