"""Which layers directly follow a convolution: what merging them into it asks for.

Shapes: N batch, C channels, H W size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geo_retina.nn.heads import Outputs
from geo_retina.nn.retinanet import RetinaNet


class _Made(NamedTuple):
    """A convolution's output; held, as ids are unique among living tensors only."""

    conv: nn.Conv2d
    output: Tensor
    version: int


class _Trace:
    """Notes of a trial run, taken by hooks."""

    def __init__(self) -> None:
        self.made: dict[int, _Made] = {}
        self.takers: dict[nn.Conv2d, list[nn.Module | None]] = defaultdict(list)
        self.givers: dict[nn.Module, set[nn.Conv2d | None]] = defaultdict(set)

    def leave_conv(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        self.made[id(output)] = _Made(module, output, output._version)

    def enter_layer(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        made = self.made.get(id(inputs[0]))
        # A sum in place, as of a residual block, lies between them where the version rose.
        direct = made is not None and made.output._version == made.version
        self.givers[module].add(made.conv if made and direct else None)
        if made:
            self.takers[made.conv].append(module if direct else None)

    def pairs(self) -> dict[nn.Conv2d, nn.Module]:
        outputs: dict[nn.Conv2d, int] = defaultdict(int)
        for made in self.made.values():
            outputs[made.conv] += 1
        return {
            conv: taker
            for conv, takers in self.takers.items()
            if len(takers) == outputs[conv]
            for taker in set(takers)
            if taker is not None and set(takers) == {taker} and self.givers[taker] == {conv}
        }


def find_followers(
    network: RetinaNet,
    trial_NCHW: Tensor,
    *,
    leads: Callable[[nn.Conv2d], bool],
    follows: Callable[[nn.Module], bool],
) -> tuple[dict[nn.Conv2d, nn.Module], Outputs]:
    """Find pairs of a convolution and a layer that belong to each other alone.

    The layer takes every output of the convolution, as it was made, and nothing else. What a
    hook cannot see, such as a sum with the same output, shows in the outputs after a change.

    Args:
        network: in evaluation mode.
        trial_NCHW: images to run it on.
        leads: tells which convolutions are asked for.
        follows: tells which layers are.

    Returns:
        The layer that follows each convolution, and the network's outputs in the trial.
    """
    trace = _Trace()
    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and leads(module):
            hooks.append(module.register_forward_hook(trace.leave_conv))
        elif follows(module):
            hooks.append(module.register_forward_pre_hook(trace.enter_layer))
    try:
        with torch.inference_mode(False), torch.no_grad():  # which counts no versions
            outputs = network(trial_NCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return trace.pairs(), outputs
