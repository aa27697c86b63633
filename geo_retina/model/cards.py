"""The card of a model: all that is needed to use it rightly. Reading one needs no PyTorch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from geo_retina.errors import GeoRetinaError, ModelError, OptionError
from geo_retina.files import parse_json
from geo_retina.options import NetworkOptions, Padding
from geo_retina.options.aliases import OLD_CARD_KEYS, with_new_names

FORMAT_VERSION = 1
"""Version of the card; a file with a newer one is refused."""

_BACKBONE_LEVEL = 5
"""The backbones' last level, at stride 32, feeds the pyramid even where no anchor is on it."""

OVERLAP_MARGIN_PX = 24
"""Context beyond the largest object that neighbouring tiles share by default."""

OVERLAPS_PER_TILE = 3
"""Tiles are at least this many overlaps wide, or most pixels would be seen several times."""

_TILE_PX = 1024  # a larger tile pays for few more pixels of overlap, and takes more memory

_STRIDES_PER_TILE = 16
"""Overlaps are whole strides: of tiles with fewer strides they would be more than a fifth."""

_MOST_PX = 65_536
"""Tiles and objects beyond this are a mistake: one tile would fill the memory."""

ROUNDING = 2
"""Rises whenever 8-bit integers are rounded otherwise, so that their cost is to be measured anew.
1: kernels to 8 bits; 2: sums of two neighbouring weights, too."""

WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Band:
    """A band that the model sees: its name, and its default place (from 1) in a file."""

    name: str
    index: int


@dataclass(frozen=True)
class Radiometry:
    """How pixels become the network's input: (pixel - offset) / scale.

    Attributes:
        dtype: numpy name of the pixels' type.
        offset: per band, in pixel values.
        scale: per band, in pixel values.
    """

    dtype: str
    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.scale) or 0 in self.scale:
            raise ModelError(
                f"radiometry has offsets {self.offset} and scales {self.scale}; expected as many "
                "of each, and no scale of 0"
            )


@dataclass(frozen=True)
class ScoreMap:
    """How scores of a class become probabilities: logit p = intercept + slope logit s.

    Attributes:
        intercept: above 0 where scores are too low.
        slope: above 0, so that a better score never has the lower probability.
    """

    intercept: float
    slope: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.intercept) and 0 < self.slope < math.inf):
            raise ModelError(
                f"a map of scores has the intercept {self.intercept} and the slope {self.slope}, "
                "expected finite numbers, the second above 0"
            )

    @staticmethod
    def logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute log(s / (1 - s)), for scores up to 1e-6 off their ends."""
        inside = np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6)
        return np.asarray(np.log(inside / (1 - inside)))

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn (N,) scores into probabilities."""
        return np.asarray(1 / (1 + np.exp(-self.intercept - self.slope * self.logits(scores))))


@dataclass(frozen=True)
class Prescreen:
    """A first look through coarser pixels, which tells the tiles that need no other one.

    Attributes:
        factor: pixels along a side of which it sees one, 2 or 4.
        score: a tile where it finds nothing from this score on is looked at no further.
        thresholds: scores, one a class, of the objects that it was measured to keep.
    """

    factor: int
    score: float
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.factor not in (2, 4) or not 0 < self.score < 1:
            raise ModelError(
                f"a first look has the factor {self.factor} and the score {self.score}, expected "
                "2 or 4, and a score between 0 and 1"
            )


@dataclass(frozen=True)
class Card:
    """All that is needed to use a model rightly, and to know where it came from.

    Attributes:
        name: short name.
        classes: class names in the order of the network's outputs.
        bands: bands in the network's order.
        radiometry: how pixels become input.
        gsd_m: metres a pixel that it was trained at.
        gsd_range_m: finest and coarsest it holds for.
        tile_px: largest tile side it is run at.
        object_px: 1st, 50th and 99th percentile of its objects' longer sides.
        network: the architecture, every field resolved.
        thresholds: default score threshold per class.
        nms_iou: IoU above which a detection suppresses lower-scored ones of its class, unless
            the options say otherwise.
        padding: what the network is shown where there is no valid ground: ``mirror`` for the
            ground beside it, mirrored; ``constant`` for 0 after normalisation, as some networks
            of other programs learned it. Cards of before that do not say mean ``mirror``.
        score_maps: how scores become probabilities, one for each class; none where the model was
            not calibrated.
        prescreen: how ``DetectOptions.prescreen`` looks first; None where that was not measured.
        description: what it finds, in what imagery.
        licence: licence of the weights.
        attribution: whom a user must name.
        metrics: scores, and what they were measured on.
        training: resolved options, data fingerprint, package versions.
        format_version: version of this card's form.

    Examples:
        >>> from geo_retina import Card, load_model
        >>> card = load_model("demo").card
        >>> Card.from_json(card.to_json()) == card
        True
    """

    name: str
    classes: tuple[str, ...]
    bands: tuple[Band, ...]
    radiometry: Radiometry
    gsd_m: float
    gsd_range_m: tuple[float, float]
    tile_px: int
    object_px: tuple[float, float, float]
    network: NetworkOptions
    thresholds: tuple[float, ...]
    nms_iou: float = 0.5
    padding: Padding = "mirror"
    score_maps: tuple[ScoreMap, ...] = ()
    prescreen: Prescreen | None = None
    description: str = ""
    licence: str = ""
    attribution: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if len(self.thresholds) != len(self.classes) or not self.classes:
            raise ModelError(
                f"card of {self.name} has {len(self.thresholds)} thresholds for "
                f"{len(self.classes)} classes, expected one for each"
            )
        if len(self.bands) != len(self.radiometry.offset) or not self.bands:
            raise ModelError(
                f"card of {self.name} has {len(self.bands)} bands and radiometry for "
                f"{len(self.radiometry.offset)}, expected as many"
            )
        if not 0 <= self.nms_iou <= 1:
            raise ModelError(
                f"card of {self.name} has an nms_iou of {self.nms_iou}, expected 0 to 1"
            )
        if len(self.score_maps) not in (0, len(self.classes)):
            raise ModelError(
                f"card of {self.name} has {len(self.score_maps)} maps of scores for "
                f"{len(self.classes)} classes, expected one for each, or none"
            )
        if self.prescreen and len(self.prescreen.thresholds) != len(self.classes):
            raise ModelError(
                f"card of {self.name} has a first look with {len(self.prescreen.thresholds)} "
                f"thresholds for {len(self.classes)} classes, expected one for each"
            )
        self._check_numbers()
        if self.padding not in get_args(Padding):
            raise ModelError(
                f"card of {self.name} has the padding {self.padding!r}, expected "
                f"{' or '.join(get_args(Padding))}"
            )
        if self.network.levels is None or self.network.anchor_sides_px is None:
            raise ModelError(f"card of {self.name} lacks the network's levels or anchors")

    def _check_numbers(self) -> None:
        """Refuse sizes and resolutions that no tile could be cut or placed by."""
        radiometry, sizes = self.radiometry, self.object_px
        numbers = (*radiometry.offset, *radiometry.scale, *self.thresholds)
        positive = (self.gsd_m, *self.gsd_range_m, self.tile_px, *sizes)
        if not all(map(math.isfinite, (*numbers, *positive))) or min(positive) <= 0:
            raise ModelError(
                f"card of {self.name} has numbers that are not finite, or a resolution or size "
                "that is not above 0"
            )
        if max(sizes) > _MOST_PX or self.tile_px > _MOST_PX:
            raise ModelError(
                f"card of {self.name} has tiles of {self.tile_px} px and objects of "
                f"{max(sizes):g} px, expected at most {_MOST_PX}"
            )
        try:
            is_number = np.dtype(radiometry.dtype).kind in "uif"
        except TypeError:
            is_number = False
        if not is_number:
            raise ModelError(
                f"card of {self.name} has pixels of type {radiometry.dtype!r}, expected numbers "
                "such as uint8"
            )

    def probabilities(
        self, scores: NDArray[np.float32], labels: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """Turn scores into probabilities, where the model was calibrated.

        Args:
            scores: (N,) of detections.
            labels: (N,) positions in ``classes``.
        """
        probabilities = np.empty(len(scores), np.float64)
        for label, each in enumerate(self.score_maps):
            rows = labels == label
            probabilities[rows] = each.apply(scores[rows].astype(np.float64))
        return probabilities

    @property
    def stride_px(self) -> int:
        """Coarsest stride of the network: tile sides and origins are multiples of it."""
        assert self.network.levels is not None  # checked at birth
        return int(2 ** max(_BACKBONE_LEVEL, *self.network.levels))

    @property
    def overlap_px(self) -> int:
        """Overlap of neighbouring tiles that lets one of them see an object whole."""
        return math.ceil(self.object_px[2]) + OVERLAP_MARGIN_PX

    @property
    def integers_cost_little(self) -> bool:
        """Whether it was measured that 8-bit integers, as they are rounded now, cost little."""
        about = self.metrics.get("quantization", {})
        return about.get("rounding") == ROUNDING and about.get("costs_little") is True

    def to_json(self) -> str:
        """Write JSON, keys sorted; ``from_json`` reads it."""
        values = asdict(self)
        if self.prescreen is None:  # as it was written, and told from others, before there was one
            del values["prescreen"]
        return json.dumps(values, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, check_types: bool = True) -> Card:
        """Read a card.

        Raises:
            ModelError: the card is of a newer format, or lacks something.
        """
        try:
            raw = parse_json(text)
            version = int(raw["format_version"])
            if version > FORMAT_VERSION:
                raise ModelError(
                    f"the card has format version {version}, this geo-retina reads up to "
                    f"{FORMAT_VERSION}; install a newer geo-retina"
                )
            raw = {key: _tuples(value) for key, value in _with_new_keys(raw).items()}
            raw["bands"] = tuple(Band(**band) for band in raw["bands"])
            raw["radiometry"] = Radiometry(**raw["radiometry"])
            raw["score_maps"] = tuple(ScoreMap(**each) for each in raw.get("score_maps", ()))
            if raw.get("prescreen") is not None:
                raw["prescreen"] = Prescreen(**raw["prescreen"])
            raw["network"] = NetworkOptions(**raw["network"])
            card = cls(**raw)
            # Built first, as pydantic passes over keys that nobody knows.
            if check_types:
                _checker().validate_json(text, strict=True)
            return card
        except OptionError as error:
            raise ModelError(f"the card cannot be used: {error}") from error
        except GeoRetinaError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ModelError(f"the card cannot be read: {_reason(error)}") from error


@cache
def _checker() -> Any:
    """Build the check that a card's values have the types of its fields."""
    from pydantic import TypeAdapter

    return TypeAdapter(Card)


def _reason(error: Exception) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return repr(error)
    found = error.errors(include_url=False)[0]
    key = ".".join(map(str, found["loc"]))
    return f"{key} is {str(found['input'])[:60]!r}, but {found['msg'][:200]}"


def _with_new_keys(group: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Rename a card's old keys to today's; its reader did not write it, so without a warning."""
    renamed = with_new_names(group, OLD_CARD_KEYS.get(path, {}), f"{path}.", quiet=True)
    return {
        key: _with_new_keys(value, f"{path}.{key}".lstrip("."))
        if isinstance(value, Mapping)
        else value
        for key, value in renamed.items()
    }


def _tuples(value: Any) -> Any:
    """Turn lists of a JSON value into tuples; mappings stay mappings."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def choose_tile_px(object_px: float, stride_px: int) -> int:
    """Choose the tile side for objects up to a size, a multiple of the network's stride."""
    wanted_px = max(
        _TILE_PX,
        OVERLAPS_PER_TILE * (object_px + OVERLAP_MARGIN_PX),
        _STRIDES_PER_TILE * stride_px,
    )
    return math.ceil(wanted_px / stride_px) * stride_px


def bundled_models() -> dict[str, Path]:
    """List the files of the models that come with the package, by name, sorted.

    Examples:
        >>> from geo_retina import bundled_models
        >>> list(bundled_models())
        ['cars', 'demo', 'demo-oriented', 'trees-naip', 'trees-naip-rgb']
    """
    paths = sorted(WEIGHTS.glob("*.safetensors"), key=lambda path: path.stem)
    return {path.stem: path for path in paths}


def load_card(name_or_path: str | Path) -> Card:
    """Read the card of a bundled model or a model file, without its weights.

    Raises:
        ModelError: there is no such model, or the file has no readable card.
    """
    path = find_model(name_or_path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from error
    if "card" not in metadata:
        raise ModelError(
            f"{path} holds weights but no card, expected a model that geo-retina train wrote"
        )
    try:
        # Types of our own files are right, and checking them takes longer than reading them.
        bundled = path in bundled_models().values()
        return Card.from_json(metadata["card"], check_types=not bundled)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def find_model(name_or_path: str | Path) -> Path:
    """Find the file of a bundled model, or the model file itself.

    Raises:
        ModelError: there is neither.
    """
    bundled = bundled_models()
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(bundled) or "none"
        raise ModelError(f"{path} is neither a model file nor a bundled model ({names})")
    return path
