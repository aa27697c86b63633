"""RetinaNet, composed: backbone, feature pyramid, class and box subnets, anchors.

Lin et al. 2017, arXiv:1708.02002. Shapes: N batch, C channels, H W size, A anchors per cell,
K classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from geo_retina.errors import ModelError
from geo_retina.nn.anchors import AnchorGrid
from geo_retina.nn.backbones import Backbone
from geo_retina.nn.heads import Outputs, Subnet
from geo_retina.nn.pyramid import Pyramid

__all__ = ["Outputs", "RetinaNet", "torchvision_state_dict"]


class RetinaNet(nn.Module):
    """A one-stage detector.

    Args:
        backbone: images to features.
        pyramid: features to pyramid levels.
        class_subnet: K logits per anchor.
        box_subnet: 4 offsets per anchor, or 8 for oriented boxes.
        anchor_grid: the anchors, for the pyramid's levels.
    """

    def __init__(
        self,
        backbone: Backbone,
        pyramid: Pyramid,
        class_subnet: Subnet,
        box_subnet: Subnet,
        anchor_grid: AnchorGrid,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = pyramid
        self.class_subnet = class_subnet
        self.box_subnet = box_subnet
        self.anchor_grid = anchor_grid

    @property
    def stride_px(self) -> int:
        """The coarsest stride in the network; shifts by its multiples change nothing inside."""
        return int(2 ** max(*self.backbone.levels, *self.pyramid.levels))

    def anchors(self, image_shape: tuple[int, int], device: torch.device | str) -> list[Tensor]:
        """Make (H_l*W_l*A, 4) boxes per level for images of that (height, width)."""
        return self.anchor_grid(image_shape, device)

    def forward(self, images_NCHW: Tensor) -> Outputs:
        """Compute logits and box offsets.

        Args:
            images_NCHW: normalised images; sides should be multiples of ``stride_px``.

        Returns:
            Raw outputs per level, in order of (h, w, a), in autocast's dtype where it is on.
        """
        levels = self.pyramid(self.backbone(images_NCHW))
        return Outputs(self.class_subnet(levels), self.box_subnet(levels))

    def forward_at(
        self, images_NCHW: Tensor, choose: Callable[[list[Tensor]], list[Tensor]]
    ) -> Outputs:
        """Compute logits, and box offsets where they are used; elsewhere those mean nothing.

        Args:
            images_NCHW: as for ``forward``.
            choose: given (N, H_l*W_l*A, K) logits per level, (N, H_l*W_l*A) bool per level.

        Returns:
            Raw outputs per level, in order of (h, w, a).
        """
        levels = self.pyramid(self.backbone(images_NCHW))
        logits = self.class_subnet(levels)
        return Outputs(logits, self.box_subnet.forward_at(levels, choose(logits)))


def torchvision_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a torchvision RetinaNet to ours.

    Takes state of torchvision's ``retinanet_resnet50_fpn`` and its second version, also with
    the key names of releases before 0.13 and behind a ``model.`` prefix, as DeepForest saves
    it. The networks are equal then if ours has ``round_anchors``, the same levels, ``norm`` and
    ``extra_levels_from``, and ``bn_eps`` 1e-5 (0 for torchvision's own COCO weights).

    Returns:
        A new dict of the same tensors; batch norms without a step counter get one at 0.

    Raises:
        ModelError: a key belongs to no part of a RetinaNet on a ResNet.
    """
    prefix = "model." if all(key.startswith("model.") for key in state) else ""
    renamed = {_rename(key.removeprefix(prefix)): value for key, value in state.items()}
    for key in list(renamed):
        if key.endswith(".running_mean"):
            renamed.setdefault(
                key.removesuffix("running_mean") + "num_batches_tracked", torch.tensor(0)
            )
    return renamed


_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.body\.(.+)", r"backbone.body.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?\.(weight|bias)", r"pyramid.lateral.c<\1>.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?\.(weight|bias)", r"pyramid.smooth.p<\1>.\2"),
    (r"backbone\.fpn\.extra_blocks\.(p\d)\.(weight|bias)", r"pyramid.extra.\1.\2"),
    (r"head\.(\w+)_head\.conv\.(\d)\.0\.(weight|bias)", r"\1.convs.\2.\3"),
    (r"head\.(\w+)_head\.conv\.(\d)\.1\.(weight|bias)", r"\1.norms.\2.\3"),
    # Before 0.13 convolutions and ReLUs alternated in one sequence.
    (r"head\.(\w+)_head\.conv\.(\d)\.(weight|bias)", r"\1.convs.{\2}.\3"),
    (r"head\.(\w+)_head\.(?:cls_logits|bbox_reg)\.(weight|bias)", r"\1.output.\2"),
)


def _rename(key: str) -> str:
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, key)
        if match:
            name = match.expand(replacement)
            # torchvision counts the pyramid's blocks from C3 on.
            name = re.sub(r"<(\d)>", lambda m: str(int(m[1]) + 3), name)
            name = re.sub(r"\{(\d)\}", lambda m: str(int(m[1]) // 2), name)
            name = re.sub(r"^classification\.", "class_subnet.", name)
            return re.sub(r"^regression\.", "box_subnet.", name)
    raise ModelError(
        f"the tensor {key} belongs to no RetinaNet of torchvision; give the state dict of "
        "retinanet_resnet50_fpn or retinanet_resnet50_fpn_v2"
    )
