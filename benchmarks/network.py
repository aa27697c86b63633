"""The network alone: pixels a second by preset, tile size, batch, precision, layout and runtime.

    python benchmarks/network.py --out benchmarks/results
    python benchmarks/network.py --model paper --tile 1024 --batch 4 --runtime eager compile

Noise goes through the network as the engine has it, batch norms folded, without decoding. The
runtimes are PyTorch as it is (eager), torch.compile, and in programs of their own ONNX Runtime and
OpenVINO (extra ``benchmarks``). PyTorch counts GFLOP from the shapes, a multiply-add as two;
the roof is what a matrix product of the same precision reached on this machine in the same run, on
a CPU both by CPU time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reports import Row, arguments, head, keep, matmul_roof, model_named, parse, spent, table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from geo_retina.engine.openvino_graphs import import_openvino
from geo_retina.nn.folding import fold_batch_norms
from geo_retina.run.memory import keep_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
RUNTIMES = ("eager", "compile", "onnxruntime", "openvino")
COLUMNS = ("model", "tile_px", "batch", "precision", "layout", "runtime", "mpx_s", "mpx_cpu_s")
COLUMNS += ("gflop_mpx", "roof_share", "error")


def main() -> None:
    args = _arguments()
    keep_freed_memory()  # as detect does
    result = head(args) | {"batch_px": args.batch_px, "roof_tflop_s": {}}
    for precision in args.precision:
        roof = matmul_roof(args.device, DTYPES[precision], args.repeats)
        result["roof_tflop_s"][precision] = roof / 1e12
    rows: list[Row] = []
    for model in args.model:
        network = fold_batch_norms(model_named(model).network)
        flops = flops_per_px(network)
        for choice in itertools.product(
            args.tile, args.batch, args.precision, args.layout, args.runtime
        ):
            row = measure(network, choice, args)
            roof = result["roof_tflop_s"][row["precision"]] * 1e12
            if "mpx_s" in row:
                rate = row["mpx_s" if args.device.startswith("cuda") else "mpx_cpu_s"] * 1e6
                row |= {"gflop_mpx": flops / 1e3, "roof_share": rate * flops / roof}
            rows.append({"model": model, **row})
            table(rows[-1:], COLUMNS)
    print()
    table(rows, COLUMNS)
    keep(args, "network", result | {"runs": rows})


def flops_per_px(network: nn.Module) -> float:
    """Count floating-point operations per input pixel, as PyTorch does."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 512, 512))
    return counter.get_total_flops() / 512**2


def measure(network: nn.Module, choice: tuple[Any, ...], args: argparse.Namespace) -> Row:
    """Measure one combination; what a runtime cannot do is said in ``error``."""
    tile_px, batch, precision, layout, runtime = choice
    count = batch or max(1, args.batch_px // tile_px**2)
    row: Row = {"tile_px": tile_px, "batch": count, "precision": precision}
    row |= {"layout": layout, "runtime": runtime}
    images = torch.randn(count, 3, tile_px, tile_px)
    try:
        with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
            run = _ready(network, images, row, args.device, Path(folder))
            time = spent(run, args.device, args.repeats, warm=2)
    except Exception as error:  # of four runtimes, each has its own
        return row | {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
    pixels = count * tile_px**2 / 1e6
    return row | {"mpx_s": pixels / time.wall_s, "mpx_cpu_s": pixels / time.cpu_s}


def _ready(
    network: nn.Module, images: Tensor, row: Row, device: str, folder: Path
) -> Callable[[], object]:
    """Prepare a call that puts the images through the network once."""
    if row["runtime"] in ("onnxruntime", "openvino"):
        if row["layout"] != "contiguous" and device != "cpu":
            raise ValueError("takes planar images only")
        session = onnx_session if row["runtime"] == "onnxruntime" else openvino_session
        return session(network, images, row["precision"], folder)
    dtype, layout = DTYPES[row["precision"]], LAYOUTS[row["layout"]]
    ready = fold_batch_norms(network).to(device, dtype).to(memory_format=layout)  # a copy
    placed = images.to(device, dtype).to(memory_format=layout)
    if row["runtime"] == "compile":
        torch._dynamo.reset()
        ready = torch.compile(ready, dynamic=False)
    return lambda: ready(placed)


def onnx_session(
    network: nn.Module, images: Tensor, precision: str, folder: Path
) -> Callable[[], object]:
    """Prepare ONNX Runtime on the CPU, whose convolutions know float32 only."""
    import onnxruntime

    if precision != "fp32":
        raise ValueError(f"its CPU provider has no {precision} convolution")
    path = _export(network, images, folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"images": images.numpy()}
    return lambda: session.run(None, feed)


def openvino_session(
    network: nn.Module, images: Tensor, precision: str, folder: Path
) -> Callable[[], object]:
    """Prepare OpenVINO on the CPU."""
    openvino = import_openvino()
    core = openvino.Core()
    hint = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16, "fp16": openvino.Type.f16}
    compiled = core.compile_model(
        core.read_model(_export(network, images, folder)),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": hint[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        },
    )
    pixels = images.numpy()
    return lambda: compiled([pixels])


class _Flat(nn.Module):
    """A network with its outputs in one tuple, as ONNX has them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(images)
        return (*outputs.logits, *outputs.deltas)


def _export(network: nn.Module, images: Tensor, folder: Path) -> str:
    path = str(folder / "network.onnx")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # deprecations between torch and onnxscript
        torch.onnx.export(
            _Flat(network).eval(),
            (images,),
            path,
            input_names=["images"],
            dynamo=True,
            opset_version=18,
            verbose=False,
            external_data=False,
        )
    return path


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", nargs="+", default=["paper", "small"])
    parser.add_argument("--tile", type=int, nargs="+", default=[512, 1024])
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[None], help="left out, by --batch-px"
    )
    parser.add_argument("--batch-px", type=int, default=1 << 20, help="pixels in a batch")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=DTYPES)
    parser.add_argument("--layout", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--runtime", nargs="+", default=["eager"], choices=RUNTIMES)
    return parse(parser)


if __name__ == "__main__":
    main()
