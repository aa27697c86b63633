"""Options of taking over a checkpoint of another program."""

from __future__ import annotations

from dataclasses import dataclass

from geo_retina.errors import OptionError
from geo_retina.options.checks import INFINITY, check
from geo_retina.options.network import Padding


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a checkpoint does not say about itself."""

    gsd_m: float
    """Metres a pixel of the images that it was trained on."""

    patch_px: int | None = None
    """Side of those images; torchvision resizes them to 800 px, so the model works at
    patch / 800 of their pixels' size. Left out, 400 for DeepForest's checkpoints and 800 for
    others."""

    classes: tuple[str, ...] | None = None
    """Class names in the order of the outputs; left out, those in the checkpoint, if it has
    any."""

    score: float = 0.3
    """Default score threshold of every class."""

    object_px: tuple[float, float, float] = (16.0, 64.0, 256.0)
    """Sides of small, middling and the largest objects in the pixels that the network sees;
    tiles overlap by the last."""

    bn_eps: float | None = None
    """Epsilon of the backbone's batch norms; left out, 0 for torchvision's own COCO weights and
    1e-5 for others."""

    padding: Padding = "constant"
    """What the network is shown beyond a scene and over nodata: 0 after normalisation, as
    torchvision pads its images, or mirror for ground mirrored at its edge."""

    name: str | None = None
    """Name on the model's card; left out, the checkpoint's."""

    description: str = ""
    """What the model finds and in what imagery, for its card."""

    licence: str = ""
    """Licence of the weights, for the card."""

    attribution: str = ""
    """Whom a user of the model must name, for the card."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "gsd_m": (1e-6, INFINITY),
                "patch_px": (1, INFINITY),
                "score": (0, 1),
                "object_px": (1e-3, INFINITY),
                "bn_eps": (0, 1),
            },
        )
        if list(self.object_px) != sorted(self.object_px):
            raise OptionError(
                f"ImportOptions.object_px is {self.object_px}, expected sides in ascending order"
            )
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise OptionError(
                f"ImportOptions.classes is {', '.join(self.classes)}, expected each name once"
            )
