"""Options of training; the YAML file of ``geo-retina train`` has the keys of TrainOptions."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check, unknown_key
from geo_retina.options.detection import Device, Precision
from geo_retina.options.network import PRESETS, NetworkOptions


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
        check(
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
        check(
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
    """Files, folders, globs, lists or STAC documents of scenes."""

    asset: str | None = None
    """Key of the asset that is taken of STAC items; left out, an item's only image."""

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
        check(self, {"point_size_m": (1e-6, INFINITY), "bands": (1, INFINITY)})
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
        check(self, {"tune_fraction": (0.01, 0.9), "block_m": (1e-3, INFINITY)})


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
        check(
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
        check(
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
