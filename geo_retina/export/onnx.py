"""The network as ONNX, for programs without PyTorch. ``docs/onnx.md`` tells how to decode it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geo_retina.errors import ModelError, OptionError
from geo_retina.files import check_file_output, new_file
from geo_retina.model import Model, load_model
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.losses import decode_deltas
from geo_retina.nn.retinanet import RetinaNet
from geo_retina.nn.rotated_coding import are_oriented, decode_rotated
from geo_retina.quiet import ignored_warnings, raised_levels

OPSET = 18

INPUT, OUTPUTS = "images", ("scores", "boxes")


def export_onnx(
    model: str | Path | Model,
    out: str | Path,
    *,
    tile_px: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model's network to an ONNX file.

    The graph takes ``images``, (N, C, tile_px, tile_px) float32 as the card's radiometry makes
    them, N free, and gives ``scores``, (N, M, K), the probability of each class, and ``boxes``,
    (N, M, 4), x_min y_min x_max y_max in pixels of the image, for all M anchors; of a model of
    oriented boxes (N, M, 5), centre x, centre y, length, width and degrees of the length from x to
    y. What is left to do is a threshold, a clip to the image and the suppression of overlapping
    boxes. The card travels as the metadata property ``card``.

    Args:
        model: a model, a model file, or the name of a bundled model.
        out: file to write, ending .onnx.
        tile_px: side of the image, a multiple of the network's stride; left out, the card's.
        overwrite: replace an existing file.

    Returns:
        The file.

    Raises:
        ModelError: the model cannot be used, or packages that the export needs are missing.
        OptionError: ``tile_px`` is no multiple of the stride.
        OutputError: the file exists, or cannot be written.

    Examples:
        >>> from geo_retina import export_onnx
        >>> export_onnx("demo", "demo.onnx", tile_px=128).name
        'demo.onnx'
    """
    out = Path(out)
    check_file_output(out, [".onnx"], overwrite=overwrite)
    loaded = model if isinstance(model, Model) else load_model(model)
    side = tile_px or loaded.card.tile_px
    if side < 1 or side % loaded.card.stride_px:
        raise OptionError(
            f"tile_px is {side}, expected a multiple of {loaded.card.stride_px}, the coarsest "
            f"stride of model {loaded.card.name}"
        )
    graph = _Decoded(fold_batch_norms(loaded.network).float().cpu(), side).eval()
    # Two images: a batch of one would be taken for fixed.
    images_NCHW = torch.zeros(2, len(loaded.card.bands), side, side)
    program = _export(graph, images_NCHW)
    for name, value in {"card": loaded.card.to_json(), "tile_px": json.dumps(side)}.items():
        program.model.metadata_props[name] = value
    with new_file(out, overwrite=overwrite) as draft:
        program.save(str(draft))
    return out


class _Decoded(nn.Module):
    """A network with what turns its outputs into probabilities and boxes."""

    anchors_M4: Tensor

    def __init__(self, network: RetinaNet, side: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("anchors_M4", torch.cat(network.anchors((side, side), "cpu")))

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(images_NCHW)
        logits_NMK = torch.cat(list(outputs.logits), dim=1)
        deltas_NMD = torch.cat(list(outputs.deltas), dim=1)
        decode_boxes = decode_rotated if are_oriented(deltas_NMD) else decode_deltas
        return logits_NMK.sigmoid(), decode_boxes(self.anchors_M4, deltas_NMD)


def _export(graph: nn.Module, images_NCHW: Tensor) -> Any:
    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it and says so only in a traceback
    except ImportError as error:
        raise ModelError(
            f"writing ONNX needs the package {error.name}, which is not installed; "
            "install it with: pip install 'geo-retina[onnx]'"
        ) from error
    batch = torch.export.Dim("batch", min=1)
    # Deprecations between torch and onnxscript.
    with raised_levels({"torch.onnx": logging.ERROR}), ignored_warnings(""):
        return torch.onnx.export(
            graph,
            (images_NCHW,),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: batch},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
