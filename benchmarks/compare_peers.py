"""The same weights over the same tiles through DeepForest, SAHI, a plain loop, and geo-retina.

    pip install "geo-retina[peers]"
    python benchmarks/compare_peers.py --out benchmarks/results
    python benchmarks/compare_peers.py --stock --size 1280 --out benchmarks/results

A drawn scene is detected by each, from its file to boxes of the whole scene, with torchvision's
ResNet-50 RetinaNet, random weights or ``--checkpoint``. The size of the scene is such that all cut
it into the very same tiles, and each tile reaches the network in its own pixels (torchvision's own
resizing to 800 px is turned off for all). The score threshold is set so that some 20 boxes a tile
pass it, as random weights would find nothing or everything. geo-retina also writes a GeoPackage,
and comes last, as its command tells the C library to keep freed memory in the whole process.
With ``--precision int8`` ranges are measured on a drawn tile, not on the scene, and the graphs that
the first run on a machine makes and keeps are there already.

With ``--stock`` each tool has its own settings: patches of 400 px overlapping by a twentieth and
enlarged to 800 px (DeepForest), slices of 512 px overlapping by a fifth, enlarged to 800 px, and
one look at the whole scene (SAHI), and geo-retina's plan. Pixels are then those of the scene.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from reports import Row, arguments, head, keep, parse, table
from torch import nn
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.ops import nms

import geo_retina
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.nn.quantizing import measure
from geo_retina.run.memory import keep_freed_memory

TILE_PX, OVERLAP_PX = 640, 128  # a fifth, as SAHI has it
COLUMNS = (
    "tool",
    "seconds",
    "cpu_s",
    "tiles",
    "network_mpx_s",
    "scene_mpx_s",
    "boxes",
    "times",
    "times_cpu",
)
TOOLS = ("loop", "sahi", "deepforest", "geo-retina")


def main() -> None:
    args = _arguments()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows: list[Row] = []
    about = head(args)
    with tempfile.TemporaryDirectory() as folder:
        scene, tile = Path(folder, "scene.tif"), Path(folder, "tile.tif")
        for path, side in ((scene, args.size), (tile, TILE_PX)):
            synth = geo_retina.SynthOptions(height=side, width=side, nodata_corner=False, seed=9)
            geo_retina.draw_scene(path, synth)
        network = torchvision_network(args, scene)
        weights = Path(folder, "weights.pth")
        torch.save(network.state_dict(), weights)
        tools: dict[str, Callable[[Path], int]] = {
            "geo-retina": _ours(weights, network, tile, args),
            "loop": lambda path: loop(path, network, args.device),
            "sahi": lambda path: sahi(path, network, args),
            "deepforest": lambda path: deepforest(path, network, args),
        }
        for tool in args.tool:
            if args.stock:
                network.transform.min_size, network.transform.max_size = (800,), 1333
            else:
                network.transform.min_size, network.transform.max_size = (TILE_PX,), TILE_PX
            tools[tool](tile)  # imports and first calls are nobody's speed
            if tool == "geo-retina" and args.precision == "int8":
                tools[tool](scene)  # makes the graphs that a machine keeps
            rows.append({"tool": tool, **_timed(tools[tool], scene, args)})
            table(rows[-1:], COLUMNS[:-2])
    for row in rows:
        row["times"] = row["seconds"] / rows[-1]["seconds"]
        row["times_cpu"] = row["cpu_s"] / rows[-1]["cpu_s"]
    print("\n(times: of the last one's seconds, by the wall and by the CPU)")
    table(rows, COLUMNS)
    result = about | {"stock": args.stock, "size_px": args.size, "versions": _versions()}
    result |= {"precision": args.precision, "block_px": args.block_px}
    keep(args, "peers-stock" if args.stock else "peers", result | {"runs": rows})


def _timed(tool: Callable[[Path], int], scene: Path, args: argparse.Namespace) -> Row:
    wall, cpu = time.perf_counter(), time.process_time()
    boxes = tool(scene)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    row: Row = {"seconds": wall, "cpu_s": cpu, "boxes": boxes}
    row["scene_mpx_s"] = args.size**2 / wall / 1e6
    if not args.stock:
        tiles = (math.ceil((args.size - TILE_PX) / (TILE_PX - OVERLAP_PX)) + 1) ** 2
        row |= {"tiles": tiles, "network_mpx_s": tiles * TILE_PX**2 / wall / 1e6}
    return row


def torchvision_network(args: argparse.Namespace, scene: Path) -> nn.Module:
    """Build torchvision's RetinaNet, with a threshold that some boxes of the middle pass."""
    torch.manual_seed(0)
    network = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    if args.checkpoint:
        state = torch.load(args.checkpoint, weights_only=True)
        network.load_state_dict(state)
    network.eval().to(args.device)
    network.score_thresh, network.nms_thresh = 0.0, 0.5
    network.transform.min_size, network.transform.max_size = (TILE_PX,), TILE_PX
    middle = (args.size - TILE_PX) // 2
    pixels = _read(scene)[:, middle : middle + TILE_PX, middle : middle + TILE_PX]
    image = _as_image(pixels, args.device)
    with torch.inference_mode():
        if not args.checkpoint:  # louder, so that scores differ by more than bf16 rounds
            levels = list(network.backbone(network.transform([image])[0].tensors).values())
            logits = network.head.classification_head(levels)
            network.head.classification_head.cls_logits.weight.mul_(float(1.5 / logits.std()))
        scores = network([image])[0]["scores"]
    network.score_thresh = float(scores[min(len(scores) - 1, args.boxes)])
    return network


def _ours(
    weights: Path, network: nn.Module, tile: Path, args: argparse.Namespace
) -> Callable[[Path], int]:
    """Run geo-retina with the imported weights; importing is not timed, as loading is not.

    Nor is it timed to measure what integers stand for, which a model's file holds.
    """
    options = geo_retina.ImportOptions(
        classes=("nothing", "object"), gsd_m=0.3, patch_px=800, object_px=(8.0, 20.0, 60.0)
    )
    model = geo_retina.import_checkpoint(weights, options)
    if args.precision == "int8":
        radiometry = model.card.radiometry
        offset, scale = (
            torch.tensor(each)[:, None, None] for each in (radiometry.offset, radiometry.scale)
        )
        image_NCHW = ((torch.from_numpy(_read(tile)) - offset) / scale)[None].float()
        folded = fold_batch_norms(model.network).eval()
        model = dataclasses.replace(model, quantization=measure(folded, [image_NCHW]))
    detect = geo_retina.DetectOptions(
        score=network.score_thresh,
        tile_px=None if args.stock else TILE_PX,
        overlap_px=None if args.stock else OVERLAP_PX,
        precision=args.precision,
        force=True,
    )
    run = geo_retina.RunOptions(device=args.device, overwrite=True, block_px=args.block_px)

    def call(scene: Path) -> int:
        keep_freed_memory()
        out = scene.with_suffix(".gpkg")
        return geo_retina.detect_to_file(scene, model, out, detect, run).detections

    return call


def loop(scene: Path, network: nn.Module, device: str) -> int:
    """Detect as a careful person writes it in ten lines: tile by tile, then suppress per class."""
    pixels = _read(scene)
    step = TILE_PX - OVERLAP_PX
    starts = range(0, max(1, pixels.shape[1] - OVERLAP_PX), step)
    parts = []
    with torch.inference_mode():
        for row in starts:
            for col in starts:
                tile = pixels[:, row : row + TILE_PX, col : col + TILE_PX]
                found = network([_as_image(tile, device)])[0]
                shift = torch.tensor([col, row, col, row], device=device)
                parts.append((found["boxes"] + shift, found["scores"], found["labels"]))
        boxes, scores, labels = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        kept = 0
        for label in labels.unique():
            of = labels == label
            kept += len(nms(boxes[of].double(), scores[of].double(), 0.5))
    return kept


def sahi(scene: Path, network: nn.Module, args: argparse.Namespace) -> int:
    from sahi.models.torchvision import TorchVisionDetectionModel
    from sahi.predict import get_sliced_prediction

    model = TorchVisionDetectionModel(
        model=network,
        confidence_threshold=network.score_thresh,
        category_mapping={"0": "nothing", "1": "object"},
        device=args.device,
    )
    side = 512 if args.stock else TILE_PX
    with torch.inference_mode():
        result = get_sliced_prediction(
            str(scene),
            model,
            slice_height=side,
            slice_width=side,
            perform_standard_pred=args.stock,
            verbose=0,
        )
    return len(result.object_prediction_list)


def deepforest(scene: Path, network: nn.Module, args: argparse.Namespace) -> int:
    from deepforest import main

    accelerator = "gpu" if args.device.startswith("cuda") else "cpu"
    tool = main.deepforest(
        model=network,
        config_args={
            "num_classes": 2,
            "accelerator": accelerator,
            "score_thresh": network.score_thresh,
            "nms_thresh": 0.5,
        },
    )
    tool.set_labels({"nothing": 0, "object": 1})
    tool.create_trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)
    how = {} if args.stock else {"patch_size": TILE_PX, "patch_overlap": OVERLAP_PX / TILE_PX}
    found = tool.predict_tile(str(scene), **how)
    return 0 if found is None else len(found)


def _read(scene: Path) -> np.ndarray:
    with rasterio.open(scene) as dataset:
        return dataset.read()


def _as_image(pixels: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).float() / 255


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "torchvision", "sahi", "deepforest"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--size", type=int, default=4224, help=f"rows and columns, {TILE_PX} + n x 512"
    )
    parser.add_argument("--tool", nargs="+", default=TOOLS, choices=TOOLS)
    parser.add_argument("--checkpoint", type=Path, help="state of a torchvision RetinaNet")
    parser.add_argument("--boxes", type=int, default=20, help="in a tile above the threshold")
    parser.add_argument("--precision", default="auto", help="geo-retina's; the others have fp32")
    parser.add_argument(
        "--block-px", type=int, default=geo_retina.RunOptions().block_px, help="geo-retina's"
    )
    parser.add_argument("--stock", action="store_true", help="each tool's own settings")
    args = parse(parser)
    if not args.stock and (args.size - TILE_PX) % (TILE_PX - OVERLAP_PX):
        parser.error(f"--size {args.size}: all cut the same tiles only at {TILE_PX} + n x 512")
    return args


if __name__ == "__main__":
    main()
