"""Options of training; the YAML file of ``geo-retina train`` has the keys of TrainOptions."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check, unknown_key
from geo_retina.options.data import DataOptions, SampleOptions, SplitOptions
from geo_retina.options.detection import Device, Precision
from geo_retina.options.losses import AssignOptions, LossOptions
from geo_retina.options.network import PRESETS, NetworkOptions
from geo_retina.options.training_parts import (
    BatchOptions,
    BestBy,
    CardTexts,
    LoopOptions,
    ScheduleOptions,
    ScoringOptions,
    StartOptions,
    UpdateOptions,
)

_Part = TypeVar("_Part")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """A whole training run; the YAML file of ``geo-retina train`` has these keys.

    Examples:
        >>> from geo_retina import DataOptions, LossOptions, TrainOptions
        >>> data = DataOptions(scenes=("scene.tif",), labels="labels.gpkg")
        >>> loss = LossOptions(classification="focal", gamma=1.5)
        >>> TrainOptions(data=data, loss=loss).loss.gamma
        1.5
    """

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

    preset: Literal["small", "paper", "paper-101"] = "small"
    """Network to start from."""

    network: dict[str, Any] = field(default_factory=dict)
    """Fields of NetworkOptions that differ from the preset's; with weights, what the network that
    training starts from must have."""

    pretrained: bool = True
    """Start the backbone from ImageNet weights."""

    weights: str | None = None
    """A model file or bundled model to start from: its network, weights, bands and radiometry
    are taken, and other classes than its own get a fresh class output."""

    freeze: int | Literal["auto"] = 0
    """Stages of the backbone that keep their first weights, from the image on; auto chooses them
    by the number of labels: the fewer, the more."""

    freeze_norms: bool = False
    """Keep all batch norms of the backbone as they start, as for very small batches."""

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
    """Samples in a step, over all devices."""

    accumulate: int = 1
    """Steps whose gradients are gathered before the weights move."""

    clip_norm: float | None = 10.0
    """Greatest norm of the gradient; longer ones are shortened to it."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with Nesterov's momentum."""

    momentum: float = 0.9
    """Momentum of sgd."""

    lr: float | Literal["find"] = 2e-3
    """Peak learning rate; find tries many on a copy before training begins."""

    warm_up: float = 0.1
    """Share of the training in which the rate rises to its peak; then it falls by half a
    cosine."""

    weight_decay: float = 1e-4
    """Weight decay, on kernels only."""

    ema: float = 0.998
    """Decay of the moving average of the weights, which is what is saved; 0 switches it off."""

    patience: int | None = None
    """Validations without a better score after which training ends early."""

    device: Device = "auto"
    """cpu, cuda, mps, or auto for the best one present."""

    devices: int = 1
    """GPUs of this machine, or processes on a cpu, that share each batch."""

    precision: Precision = "auto"
    """Arithmetic in training; auto is bf16 where the hardware has it."""

    workers: int = 1
    """Processes that read samples; 0 reads in the training process."""

    validate_every: int = 1
    """Epochs between validations on the validation ground."""

    best_by: BestBy = "auto"
    """What the best epoch is chosen by: f1; f1_and_ap, the mean of F1 and AP50:95; f1_band, the
    mean F1 over thresholds up to 0.1 around the best one. auto is f1_and_ap for labels scored by
    IoU and f1_band for points. Of equal epochs the last one is kept."""

    picture_every: int = 1
    """Validations between pictures of predicted beside labelled objects; 0 for none."""

    tensorboard: bool = False
    """Write TensorBoard's log too; needs the package tensorboard."""

    nms_iou: float | None = None
    """IoU above which detections suppress each other, on the card too; left out, what gives the
    best F1 on the validation ground when training has ended."""

    quantize: bool = True
    """Measure at the end what 8-bit integers stand for in the network, on training windows, and
    what they cost, on validation ground of 2,000 labels or more."""

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
                "accumulate": (1, INFINITY),
                "clip_norm": (1e-9, INFINITY),
                "momentum": (0, 0.9999),
                "warm_up": (0, 1),
                "patience": (1, INFINITY),
                "devices": (1, INFINITY),
                "picture_every": (0, INFINITY),
                "weight_decay": (0, INFINITY),
                "ema": (0, 0.999999),
                "workers": (0, INFINITY),
                "validate_every": (1, INFINITY),
                "nms_iou": (0, 1),
                "radius_m": (1e-6, INFINITY),
            },
        )
        if self.freeze != "auto":
            check(self, {"freeze": (0, 4)})
        if self.lr != "find":
            check(self, {"lr": (0, INFINITY)})
        if self.batch % self.devices:
            raise OptionError(
                f"TrainOptions.batch is {self.batch}, which {self.devices} devices cannot share "
                "evenly; make it a multiple of devices"
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
        levels = self.network.get("levels", values["levels"])
        if _tuples(levels) != values["levels"]:  # the preset's anchors are for its own levels
            values["anchor_sides_px"] = None
        return NetworkOptions(**{**values, **{k: _tuples(v) for k, v in self.network.items()}})

    @property
    def texts(self) -> CardTexts:
        """What people read on the model's card."""
        return self._part(CardTexts)

    @property
    def start(self) -> StartOptions:
        """What the weights are before training."""
        return self._part(StartOptions)

    @property
    def labels_oriented(self) -> bool:
        """Whether labels are read as oriented boxes, if only to turn samples by any angle."""
        return self.resolved_network.boxes == "oriented" or self.samples.rotate == "any"

    @property
    def scoring(self) -> ScoringOptions:
        """How the model is scored."""
        return ScoringOptions(
            bands=self.data.bands,
            gsd_m=self.data.gsd_m,
            radius_m=self.radius_m,
            precision=self.precision,
            oriented=self.resolved_network.boxes == "oriented",
        )

    @property
    def batches(self) -> BatchOptions:
        """How many samples are read, and by how many processes."""
        return self._part(BatchOptions)

    @property
    def updates(self) -> UpdateOptions:
        """How a gradient moves the weights."""
        return self._part(UpdateOptions)

    @property
    def schedule(self) -> ScheduleOptions:
        """How long training lasts."""
        return self._part(ScheduleOptions)

    @property
    def loop(self) -> LoopOptions:
        """What the loop needs of this run."""
        return self._part(LoopOptions)

    def _part(self, kind: type[_Part]) -> _Part:
        """Take the options that a part has fields for."""
        return kind(**{name: getattr(self, name) for name in kind.__annotations__})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value
