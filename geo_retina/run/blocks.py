"""Carry out units of work on Dask: one task is one unit, end to end inside one worker.

Pixels never travel. A task reads its block, detects, and returns a small table; what goes wrong
inside it is caught there and returned, so that one bad block costs only its own ground.
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo_retina.detections import Detections
from geo_retina.engine import BlockDetections, BlockPixels, Engine
from geo_retina.errors import GeoRetinaError, RunError
from geo_retina.merge import merge_block
from geo_retina.model import Model, load_model
from geo_retina.options import DetectOptions, MergeOptions, RunOptions
from geo_retina.run.ledger import PartRecord
from geo_retina.run.plan import Part, Unit

if TYPE_CHECKING:
    from distributed import Client, LocalCluster


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        units_done: tasks finished.
        units: tasks of the run.
        pixels_done: pixels of the ground of finished blocks, each counted once.
        pixels: pixels of the ground of all blocks.
        detections: found so far, before blocks are merged with each other.
    """

    units_done: int
    units: int
    pixels_done: int
    pixels: int
    detections: int


@dataclass(frozen=True)
class _EngineKey:
    """What an engine is made from; a worker keeps the last few that it made."""

    model: str
    options: DetectOptions
    device: str
    batch: int | None


_models: dict[str, Model] = {}  # by fingerprint, in each worker process
_users: Counter[str] = Counter()  # runs in this process that need a model, by fingerprint
_engines: dict[_EngineKey, Engine] = {}
_MOST_ENGINES = 4  # a worker of a long-lived cluster meets many models and options
_engine_lock = threading.Lock()
_cluster_lock = threading.Lock()  # two clusters that start at once trip over Dask's imports


def _engine(key: _EngineKey) -> Engine:
    with _engine_lock:
        if key not in _engines:
            if key.model not in _models:
                raise RunError("this worker was not given the model")
            while len(_engines) >= _MOST_ENGINES:  # the oldest; runs that use it keep it alive
                del _engines[next(iter(_engines))]
            _engines[key] = Engine(
                _models[key.model], key.options, device=key.device, batch=key.batch
            )
        return _engines[key]


def _detect_unit(unit: Unit, key: _EngineKey, retries: int) -> list[PartRecord]:
    """The task: read, detect, merge, and say what became of every part."""
    failed: dict[int, str] = {}
    blocks: dict[int, BlockPixels] = {}
    for i, part in enumerate(unit.parts):
        try:
            blocks[i] = _retried(partial(_read_block, part), retries)
        except Exception as error:
            failed[i] = _sentence(error)
    found = {}
    if blocks:
        try:
            results = _retried(lambda: _engine(key).detect(list(blocks.values())), retries)
            found = dict(zip(blocks, results, strict=True))
        except Exception as error:
            failed |= dict.fromkeys(blocks, _sentence(error))
    return [
        _done(part, found[i], key.options.merge) if i in found else _failed(part, failed[i])
        for i, part in enumerate(unit.parts)
    ]


def _retried(work: Callable[[], Any], retries: int) -> Any:
    for _ in range(retries):
        try:
            return work()
        except Exception:
            continue
    return work()


def _read_block(part: Part) -> BlockPixels:
    pixels, valid = part.scene.read(part.block.window)
    return BlockPixels(
        pixels,
        valid,
        part.block.window,
        part.tiles,
        part.tiles.tiles_of(part.block),
        part.scene.values,
    )


def _done(part: Part, found: BlockDetections, options: MergeOptions) -> PartRecord:
    settled, undecided = merge_block(found.detections, part.tiles, part.block, options)
    return PartRecord(
        part.scene_index,
        part.block.index,
        part.block.window,
        settled,
        found.tiles,
        found.skipped,
        found.truncated,
        undecided=undecided,
    )


def _failed(part: Part, error: str) -> PartRecord:
    return PartRecord(
        part.scene_index, part.block.index, part.block.window, Detections.empty(), error=error
    )


def _sentence(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, GeoRetinaError) else f"{type(error).__name__}: {first}"


def run_units(
    units: list[Unit],
    model: Model,
    options: DetectOptions,
    run: RunOptions,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[int, list[PartRecord]]]:
    """Carry out units, in any order, a bounded number of them in flight.

    Args:
        units: the work.
        model: network and card.
        options: what changes the result.
        run: how it is carried out.
        progress: called after every unit.

    Yields:
        Index of a finished unit, and what became of each of its parts.

    Raises:
        RunError: the scheduler asked for cannot be reached.
    """
    if not units:
        return
    key = _EngineKey(model.fingerprint, options, run.device, run.batch)
    total_px = sum(_pixels(unit) for unit in units)
    done = pixels_done = detections = 0
    with _client(model, run) as client:
        for unit, records in _in_flight(client, units, key, run):
            done += 1
            pixels_done += _pixels(unit)
            detections += sum(len(record.detections) + len(record.undecided) for record in records)
            yield unit.index, records
            if progress is not None:
                progress(Progress(done, len(units), pixels_done, total_px, detections))


def _pixels(unit: Unit) -> int:
    cores = (part.tiles.core_of(part.block) for part in unit.parts)
    return sum(core.height * core.width for core in cores)


def _in_flight(
    client: Client, units: Iterable[Unit], key: _EngineKey, run: RunOptions
) -> Iterator[tuple[Unit, list[PartRecord]]]:
    """Submit a new task for every one that finishes, so that memory stays bounded."""
    from distributed import as_completed

    waiting = iter(units)
    unit_of: dict[str, Unit] = {}
    finished = as_completed()

    def submit() -> None:
        # Asked anew each time, as workers come and go.
        limit = max(2, sum(client.nthreads().values()) + 1)
        while len(unit_of) < limit and (unit := next(waiting, None)) is not None:
            future = client.submit(_detect_unit, unit, key, run.retries, pure=False)
            unit_of[future.key] = unit
            finished.add(future)

    submit()
    for future in finished:
        unit = unit_of.pop(future.key)
        error = future.exception()
        if error is None:
            records = future.result()
        else:  # a worker was lost, several times over
            records = [_failed(part, _sentence(error)) for part in unit.parts]
        future.release()
        submit()
        yield unit, records


@contextmanager
def _client(model: Model, run: RunOptions) -> Iterator[Client]:
    """A Dask client whose workers have the model: in this process, or on a cluster."""
    if run.scheduler is not None:
        with _remote_client(model, run.scheduler) as client:
            yield client
        return
    from distributed import Client

    with _lent(model), _local_cluster(run) as cluster, Client(cluster) as client:
        yield client


@contextmanager
def _lent(model: Model) -> Iterator[None]:
    """Keep a model for the workers in this process while any run needs it."""
    fingerprint = model.fingerprint
    with _engine_lock:
        _models[fingerprint] = model
        _users[fingerprint] += 1
    try:
        yield
    finally:
        with _engine_lock:
            _users[fingerprint] -= 1
            if not _users[fingerprint]:
                del _models[fingerprint]
                for key in [key for key in _engines if key.model == fingerprint]:
                    del _engines[key]


@contextmanager
def _local_cluster(run: RunOptions) -> Iterator[LocalCluster]:
    import dask
    from distributed import LocalCluster

    # The limits count the whole process; blocks in flight bound memory instead.
    unlimited = {"distributed.worker.memory.pause": False, "distributed.worker.memory.spill": False}
    with _cluster_lock, dask.config.set(unlimited):
        cluster = LocalCluster(
            n_workers=run.workers or 1,
            threads_per_worker=run.threads,
            processes=False,
            # Left alone, Dask's status pages listen on every interface.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=40,
        )
    with cluster:
        yield cluster


@contextmanager
def _remote_client(model: Model, address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise RunError(
            f"no Dask scheduler answers at {address} ({error}); start one with dask scheduler, "
            "or leave --scheduler out to run on this machine"
        ) from error
    with client, tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "model.safetensors", half=False)
        client.register_plugin(_model_plugin(model.fingerprint, path.read_bytes()))
        yield client


def _model_plugin(fingerprint: str, data: bytes) -> Any:
    """Gives the model to every worker once, to those that join later too."""
    from distributed import WorkerPlugin

    class ModelPlugin(WorkerPlugin):
        name = "geo-retina-model"
        idempotent = False

        def setup(self, worker: Any) -> None:
            receive_model(fingerprint, data)

    return ModelPlugin()


def receive_model(fingerprint: str, data: bytes) -> None:
    """Keep a model that was sent to this worker process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        _models[fingerprint] = load_model(path)
