"""The Dask cluster that a run uses: in this process, or one that is running already.

Every worker has the model before its first task: a worker of this process is lent it, a worker
elsewhere is sent it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from geo_retina.engine import Engine, Place, check_runtime, list_devices, place_here
from geo_retina.errors import RunError
from geo_retina.model import MakePredictor, Model, load_model
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.quiet import raised_levels

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

_Answer = TypeVar("_Answer")

_CONNECT_S = 20.0
"""How long one try to reach a scheduler may take."""

_LOOP = {"tornado.application": logging.CRITICAL}
"""What Dask's event loop says when a question to it is interrupted stays unsaid."""

_CLUSTER = dict.fromkeys(("distributed", "distributed.client"), logging.ERROR)
"""A cluster that lives for one run comes and goes without a word."""

_LOOPBACK = "127.0.0.1"

_MOST_ENGINES = 8
"""Engines that a worker process keeps: one a device, for the runs it met last."""


@dataclass(frozen=True)
class EngineKey:
    """What an engine is made from.

    Attributes:
        model: the model's name among the workers, as ``workers`` gives it.
        options: what changes the result.
        devices: devices of a run's workers, the first worker's first.
        batch: tiles through the network at once, or None.
    """

    model: str
    options: DetectOptions
    devices: tuple[str, ...]
    batch: int | None


class _Workplace:
    """Models and engines of this process; its workers and runs share them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.models: dict[str, Model] = {}
        self.users: Counter[str] = Counter()
        self.engines: dict[tuple[EngineKey, str], Engine] = {}

    def engine(self, key: EngineKey, device: str) -> Engine:
        with self.lock:
            place = key, device
            if place not in self.engines:
                if key.model not in self.models:
                    raise RunError("this worker was not given the model")
                while len(self.engines) >= _MOST_ENGINES:  # the oldest; its users keep it alive
                    del self.engines[next(iter(self.engines))]
                self.engines[place] = Engine(
                    self.models[key.model], key.options, device=device, batch=key.batch
                )
            return self.engines[place]

    def take(self, name: str, model: Model) -> None:
        with self.lock:
            self.models[name] = model
            self.users[name] += 1

    def leave(self, name: str) -> None:
        """Forget a model that no run needs any longer."""
        with self.lock:
            self.users[name] -= 1
            if self.users[name] > 0:
                return
            del self.users[name]
            self.models.pop(name, None)
            for place in [place for place in self.engines if place[0].model == name]:
                del self.engines[place]


_workplace = _Workplace()
_cluster_lock = threading.Lock()  # two clusters that start at once trip over Dask's imports


def engine_here(key: EngineKey) -> Engine:
    """Return the engine of the worker that runs this task.

    Raises:
        RunError: the worker was not given the model.
        OptionError: it has no such device.
    """
    device = key.devices[0]
    if len(key.devices) > 1:
        from distributed import get_worker

        device = key.devices[int(get_worker().name) % len(key.devices)]
    return _workplace.engine(key, device)


@contextmanager
def workers(
    model: Model, run: RunOptions, options: DetectOptions, *, patience_s: float = 0.0
) -> Iterator[tuple[Client, str, tuple[str, ...]]]:
    """Start a Dask client whose workers have the model.

    Args:
        model: network and card.
        run: how the run is carried out.
        options: what changes the result, such as a runtime that the workers must have.
        patience_s: for how long to try again to reach the scheduler.

    Yields:
        The client, the model's name among its workers, and the devices that they use in turn.

    Raises:
        RunError: the scheduler asked for cannot be reached.
    """
    name = _name_among_workers(model)
    if run.scheduler is not None:
        with raised_levels(_LOOP), _given(run, model, name, options, patience_s) as client:
            yield client, name, (run.device,)  # each worker looks for its own
        return
    from distributed import Client

    devices = list_devices(run.device)
    with (
        raised_levels(_LOOP | _CLUSTER),
        _lent(model, name),
        _local_cluster(run, len(devices)) as cluster,
        Client(cluster) as client,
    ):
        yield client, name, devices


def _name_among_workers(model: Model) -> str:
    """Name a model so that runs share its engines where they would be the same.

    Two predictors of one name may differ, such as functions made by one function.
    """
    return model.fingerprint if model.predictor is None else uuid.uuid4().hex


def find_dashboard(client: Client, run: RunOptions) -> str | None:
    """Find where Dask shows its work; without bokeh, a cluster of our own has no dashboard."""
    from importlib.util import find_spec

    from distributed.utils import format_dashboard_link

    if run.scheduler is not None:
        link: str | None = client.dashboard_link
        return link
    if find_spec("bokeh") is None:
        return None
    # Dask names the address of the machine, where nothing listens.
    port = client.scheduler_info(n_workers=0)["services"]["dashboard"]
    return str(format_dashboard_link(_LOOPBACK, port))


@contextmanager
def _lent(model: Model, name: str) -> Iterator[None]:
    """Keep a model for the workers in this process while a run needs it."""
    _workplace.take(name, model)
    try:
        yield
    finally:
        _workplace.leave(name)


@contextmanager
def _local_cluster(run: RunOptions, devices: int) -> Iterator[LocalCluster]:
    import dask
    from distributed import LocalCluster

    # The limits count the whole process; blocks in flight bound memory instead.
    unlimited = {"distributed.worker.memory.pause": False, "distributed.worker.memory.spill": False}
    with _cluster_lock, dask.config.set(unlimited):
        cluster = LocalCluster(
            n_workers=run.workers or devices,
            threads_per_worker=run.threads,
            processes=False,
            # Left alone, Dask's status pages listen on every interface.
            dashboard_address=f"{_LOOPBACK}:0",
            worker_dashboard_address=f"{_LOOPBACK}:0",
            memory_limit=0,
            silence_logs=False,  # Dask's own way takes it from other threads' clusters
        )
    with cluster:
        cluster.loop.asyncio_loop.set_exception_handler(_pass_over_timeouts)
        yield cluster


def _pass_over_timeouts(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing of waits for messages that were still going on when a run's cluster ended.

    They come up only when Python clears them away, long after the run.
    """
    if not isinstance(context.get("exception"), TimeoutError):
        loop.default_exception_handler(context)


@contextmanager
def _given(
    run: RunOptions, model: Model, name: str, options: DetectOptions, patience_s: float
) -> Iterator[Client]:
    """Give the model to the workers of a scheduler, now and to those that come."""
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "model.safetensors", half=False)
        plugin = _model_plugin(name, path.read_bytes(), model.predictor, options)

    def give(client: Client) -> None:
        try:
            client.register_plugin(plugin)
        except Exception as error:
            if not _is_loss(error):  # else all workers that come would stumble over it
                _unregister(client, plugin.name)
            raise

    with _told(run, give, patience_s) as (client, _):
        try:
            yield client
        finally:
            _unregister(client, plugin.name)


def ask_workers(run: RunOptions) -> tuple[Place, ...]:
    """Ask the workers of a scheduler what they compute with; waits for the first of them.

    Raises:
        RunError: none is there, or they have no such device or geo-retina.
    """

    def ask(client: Client) -> tuple[Place, ...]:
        try:
            client.wait_for_workers(1, timeout=run.patience_s)
        except TimeoutError as error:
            raise without_workers(run.patience_s) from error
        return tuple(client.run(place_here, run.device).values())

    with raised_levels(_LOOP | _CLUSTER), _told(run, ask, 0.0) as (_, places):
        return places


@contextmanager
def _told(
    run: RunOptions, tell: Callable[[Client], _Answer], patience_s: float
) -> Iterator[tuple[Client, _Answer]]:
    """Reach a scheduler and tell or ask all its workers something.

    Dask gives that up where one of them is lost meanwhile. Then it is told again, for up to
    ``run.patience_s``: to a new client, as it may be the scheduler that was lost.

    Args:
        run: with the address of the scheduler.
        tell: what tells the workers.
        patience_s: for how long to try to reach the scheduler at first.

    Raises:
        RunError: the scheduler cannot be reached, or workers do not answer, or with an error.
    """
    assert run.scheduler is not None
    end = time.monotonic() + run.patience_s
    with contextlib.ExitStack() as stack:
        while True:
            client = stack.enter_context(_connect(run.scheduler, patience_s))
            try:
                answer = tell(client)
                break
            except RunError:
                raise
            except Exception as error:  # Dask sends what a worker raised as a plain one
                patience_s = end - time.monotonic()
                if not _is_loss(error):
                    raise _without_package(run.scheduler, error) from error
                if patience_s <= 0:
                    raise _without_answer(run.scheduler, error) from error
            stack.close()
            time.sleep(1)
        yield client, answer


def _is_loss(error: Exception) -> bool:
    """Whether a connection was lost; other errors of the system, as of a full disk, have a number.

    Dask's own errors of connections have none.
    """
    return isinstance(error, ConnectionError) or (
        isinstance(error, OSError) and error.errno is None
    )


def without_workers(patience_s: float) -> RunError:
    """Make the error of a scheduler that had no worker for so long."""
    return RunError(
        f"no worker was connected to the scheduler for {patience_s:g} s; start workers that have "
        "this version of geo-retina, and the same command goes on from what is finished"
    )


def is_unread(error: BaseException) -> bool:
    """Tell whether Dask's scheduler could not read a task, as it has no or another geo-retina."""
    return str(error).startswith("Error during deserialization of the task graph")


def foreign_scheduler(address: str) -> RunError:
    """Make the error of a scheduler that lacks this version of geo-retina."""
    return RunError(
        f"the scheduler at {address} cannot read the tasks of this run; install this version of "
        "geo-retina in its environment and its workers'"
    )


def _without_package(address: str, error: BaseException) -> RunError:
    return RunError(
        f"the workers of {address} cannot take the model ({error}); install this version "
        "of geo-retina in their environment"
    )


def _without_answer(address: str, error: Exception) -> RunError:
    return RunError(
        f"workers of {address} were lost again and again while they were given the model "
        f"({error}); stop those that hang, and repeat the command"
    )


def _connect(address: str, patience_s: float) -> Client:
    """Reach a scheduler, also one that is just being started again."""
    from distributed import Client

    end = time.monotonic() + patience_s
    while True:
        try:
            return Client(address, timeout=_CONNECT_S)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() >= end:
                raise RunError(
                    f"no Dask scheduler answers at {address} ({error}); start one with dask "
                    "scheduler, or leave out RunOptions.scheduler to run on this machine"
                ) from error
            time.sleep(1)


def _unregister(client: Client, name: str) -> None:
    """Free the workers' memory; of a scheduler that is gone there is none to free."""
    if client.status != "running":
        return
    with contextlib.suppress(Exception):  # a worker that lacks it says so
        client.unregister_worker_plugin(name)


def _model_plugin(
    model: str, data: bytes, predictor: MakePredictor | None, options: DetectOptions
) -> Any:
    """Make a plugin that gives the model to every worker once, and takes it back."""
    from distributed import WorkerPlugin

    class ModelPlugin(WorkerPlugin):
        # Two runs with one model on one cluster each have their own.
        name = f"geo-retina-model-{uuid.uuid4().hex}"

        def setup(self, worker: Any) -> None:
            check_runtime(options)
            receive_model(model, data, predictor)

        def teardown(self, worker: Any) -> None:
            return_model(model)

    return ModelPlugin()


def receive_model(name: str, data: bytes, predictor: MakePredictor | None) -> None:
    """Keep a model that was sent to this worker process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        _workplace.take(name, replace(load_model(path), predictor=predictor))


def return_model(name: str) -> None:
    """Forget a model in this worker process, unless another run needs it."""
    _workplace.leave(name)
