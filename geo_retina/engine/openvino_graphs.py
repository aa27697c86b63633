"""Graphs of OpenVINO: made from PyTorch modules, kept in the user's cache folder.

Shapes: N batch, C channels, H W size.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geo_retina.engine.devices import has_bf16
from geo_retina.errors import ModelError, OutputError
from geo_retina.files import new_file
from geo_retina.quiet import ignored_warnings

_MOST_FILES = 100
"""Graphs that are kept; the oldest give way."""

_FORMAT = 4
"""Rises with every change in how graphs are made here, so that kept ones are made anew."""

_DIGEST_BYTES = 32
"""At the start of a kept graph, so that a damaged one is made anew."""

_DIFFERENCE = {"fp32": 0.01, "bf16": 0.05, "int8": 0.1}
"""Greatest difference from PyTorch's result, as a share of its spread, in a trial on noise.

Integers are compared with the same rounding in PyTorch."""

_Kinds = tuple[tuple[tuple[int, ...], torch.dtype], ...]
"""Shape and type of each input."""


def openvino_version() -> str | None:
    """Return the version of OpenVINO here; None where it is not installed."""
    try:
        import_openvino()
        return version("openvino")
    except ImportError:
        return None


_TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, for which it has a stand-in where that is missing.

    It would tell a server of each import, unasked. On Linux it does so from a forked process, which
    may wait for ever for a lock that a thread of GDAL held, and the command for it at its end.

    Raises:
        ImportError: it is not installed.
    """
    with _importing:
        if "openvino" not in sys.modules and _TELEMETRY not in sys.modules:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # as Python says: not there
            try:
                import openvino
            finally:
                del sys.modules[_TELEMETRY]
    import openvino

    return openvino


def cache_folder() -> Path:
    """Name the folder of kept graphs, below the user's own one for caches."""
    home = Path.home()
    if sys.platform == "win32":
        place = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        place = home / "Library" / "Caches"
    else:
        place = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return place / "geo-retina" / "graphs"


class Graph:
    """A compiled graph; each thread that computes has a request of its own."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @contextmanager
    def computed(self, *inputs: Tensor) -> Iterator[list[Tensor]]:
        """Compute the outputs for inputs of the shapes and types that the graph was made for.

        Outputs are the graph's own memory, which the next one to compute takes; nothing is copied.
        """
        try:
            request = self._free.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        arrays = [each.contiguous().numpy() for each in inputs]
        results = request.infer(arrays, share_inputs=True, share_outputs=True)
        yield [torch.from_numpy(results[port]) for port in self._compiled.outputs]
        self._free.put(request)


@dataclass(frozen=True)
class Arithmetic:
    """How graphs compute.

    Attributes:
        precision: fp32, bf16 or int8.
        threads: that compute at once, for all requests together.
        requests: at once.
    """

    precision: str
    threads: int
    requests: int


class GraphMaker:
    """Makes graphs once for inputs of a shape and type; safe to share between threads.

    Args:
        fingerprint: of the model.
        arithmetic: how they compute.
    """

    def __init__(self, fingerprint: str, arithmetic: Arithmetic) -> None:
        self._core = import_openvino().Core()
        self._fingerprint = fingerprint
        self._arithmetic = arithmetic
        self._graphs: dict[tuple[str, _Kinds], Graph] = {}
        self._lock = threading.Lock()
        fast = arithmetic.precision != "fp32" and has_bf16()
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
            "INFERENCE_NUM_THREADS": arithmetic.threads,
            "NUM_STREAMS": arithmetic.requests,
            "ENABLE_CPU_PINNING": False,
        }

    def graph(self, name: str, module: Callable[[], nn.Module], *inputs: Tensor) -> Graph:
        """Return the graph of a module for inputs like those given.

        Args:
            name: of the module, as its graph is kept by.
            module: makes it, in evaluation mode; called where no graph is kept.
            inputs: whose shapes and types count.

        Raises:
            ModelError: the graph does not compute what the module does.
        """
        kinds = tuple((tuple(each.shape), each.dtype) for each in inputs)
        with self._lock:
            if (name, kinds) not in self._graphs:
                self._graphs[name, kinds] = Graph(self._compiled(name, module, kinds))
            return self._graphs[name, kinds]

    def _compiled(self, name: str, module: Callable[[], nn.Module], kinds: _Kinds) -> Any:
        path = cache_folder() / f"{self._key(name, kinds)}.graph"
        kept = _read(path)
        if kept is not None:
            with suppress(RuntimeError):  # of another build of OpenVINO
                return self._core.import_model(io.BytesIO(kept), "CPU", self._config)
        compiled = self._make(module, kinds)
        exported = compiled.export_model()
        _keep(path, exported if isinstance(exported, bytes) else exported.getvalue())
        return compiled

    def _key(self, name: str, kinds: _Kinds) -> str:
        here = (
            _FORMAT,
            operators(),
            self._config["INFERENCE_PRECISION_HINT"],
            self._arithmetic.precision,
        )
        about = repr((self._fingerprint, name, kinds, *here))
        return hashlib.sha256(about.encode()).hexdigest()

    def _make(self, make: Callable[[], nn.Module], kinds: _Kinds) -> Any:
        """Convert and compile a module, and try it."""
        from openvino import PartialShape
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
        from openvino.passes import ConstantFolding, Manager

        with (
            torch.inference_mode(False),
            torch.no_grad(),
            ignored_warnings("", category=Warning),  # of TorchScript's tracer, about sizes
        ):
            module = make()
            trial = _noise(kinds)
            expected = module(*trial)
            traced = torch.jit.trace(module, trial, check_trace=False)
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(traced)  # held, as the graph reads from it
            graph = frontend.convert(frontend.load(decoder))
        # Its shapes and types are unknown until now, with which integers go wrong.
        for port, (shape, dtype) in zip(graph.inputs, kinds, strict=True):
            port.get_node().set_element_type(_element_type(dtype))
            port.get_node().set_partial_shape(PartialShape(list(shape)))
        graph.validate_nodes_and_infer_types()
        # The ends of roundings are sums and products until now, with which no layer is computed in
        # integers.
        folding = Manager()
        folding.register_pass(ConstantFolding())
        folding.run_passes(graph)
        compiled = self._core.compile_model(graph, "CPU", self._config)
        with Graph(compiled).computed(*trial) as found:
            differences = list(map(_difference, expected, found))
        limit = _DIFFERENCE[self._arithmetic.precision]
        if not all(difference <= limit for difference in differences):
            raise ModelError(
                f"OpenVINO computes this model in {self._arithmetic.precision} with a "
                f"difference of {max(differences):.3f} on this processor, expected at most "
                f'{limit}; compute it with DetectOptions.runtime="torch"'
            )
        return compiled


def _noise(kinds: _Kinds) -> tuple[Tensor, ...]:
    """Make inputs for a trial: values around 0, pixels of any brightness, or mostly true."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for shape, dtype in kinds:
        values = torch.randn(shape, generator=generator)
        if dtype is torch.bool:
            made.append(values > -1)
        elif dtype.is_floating_point:
            made.append(values)
        else:
            ends = torch.iinfo(dtype)
            middle, spread = (ends.max + 1 + ends.min) / 2, (ends.max - ends.min) / 4
            made.append((middle + spread * values).clamp(ends.min, ends.max).to(dtype))
    return tuple(made)


def _difference(wanted: Tensor, found: Tensor) -> float:
    """Tell how far outputs differ, as a share of their spread."""
    wanted, found = wanted.float(), found.float()
    # Values are handed on in bf16, whose steps are 1/256 of them, however little they vary.
    spread = wanted.std().clamp(min=float(wanted.abs().mean()) / 16 + 1e-6)
    return float((wanted - found).std() / spread)


def _element_type(dtype: torch.dtype) -> Any:
    """Name a type as OpenVINO does."""
    from openvino import Type

    return {
        torch.float32: Type.f32,
        torch.uint8: Type.u8,
        torch.int8: Type.i8,
        torch.bool: Type.boolean,
    }[dtype]


def has_integers() -> bool:
    """Check whether integers are known to be computed exactly and fast on this processor."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX")


def operators() -> str:
    """Name what computes: results may differ in their last bits between such."""
    return f"openvino {openvino_version()}, {torch.backends.cpu.get_cpu_capability()}"


def _read(path: Path) -> bytes | None:
    """Read a kept graph; None where there is none, or a damaged one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, graph = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return graph if hashlib.sha256(graph).digest() == digest else None


def _keep(path: Path, graph: bytes) -> None:
    """Keep a graph for later; where that is not possible, it is made again then."""
    with suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path, durable=False) as draft:
            draft.write_bytes(hashlib.sha256(graph).digest() + graph)
        kept = sorted(path.parent.glob("*.graph"), key=lambda each: each.stat().st_mtime)
        for old in kept[:-_MOST_FILES]:
            old.unlink(missing_ok=True)
