"""How several processes share each batch, and which logs are written."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import timedelta

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import Sampler

from geo_retina.dataset.samples import EpochSampler, HardDraw
from geo_retina.errors import TrainingError
from geo_retina.training.loggers import quiet_lightning

_PATIENCE = timedelta(hours=12)
"""How long processes wait for the one that validates; torch's own minutes may be too few."""


class SharedSampler(Sampler[int | HardDraw]):
    """Every so many of the samples' numbers, so that processes share each batch.

    With n processes, this one takes the numbers at its rank, its rank + n, and so on: what the
    processes take for a step is together what one process would take for it.

    Args:
        every: the numbers of an epoch.
    """

    def __init__(self, every: EpochSampler) -> None:
        self._every = every

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self._every.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._every) // _place()[1]

    def __iter__(self) -> Iterator[int | HardDraw]:
        rank, processes = _place()
        numbers = list(self._every)[rank::processes]
        return iter(numbers[: len(self)])


def _place() -> tuple[int, int]:
    """Rank of this process, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class _QuietStrategy(DDPStrategy):
    """As its parent, and each process that it begins is as quiet as this one."""

    def setup_environment(self) -> None:
        """Join the other processes."""
        self._silence = quiet_lightning()
        self._silence.__enter__()  # until the process ends
        super().setup_environment()

    def teardown(self) -> None:
        """Leave the other processes, whose threads may abort an interpreter that ends with them."""
        super().teardown()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def share_batches() -> DDPStrategy:
    """Start one process per device, each begun by this one, whatever program this is.

    Weights that a network does not use, as some backbones have them, must not stop it.
    """
    return _QuietStrategy(start_method="spawn", find_unused_parameters=True, timeout=_PATIENCE)


def check_progress(progress: object, count: int) -> None:
    """Refuse what cannot be handed to the processes of several devices, before anything is read.

    Raises:
        TrainingError: it cannot be pickled.
    """
    if count == 1:
        return
    try:
        pickle.dumps(progress)
    except Exception as error:  # whatever the object's own way of being pickled raises
        raise TrainingError(
            f"progress is {progress!r}, which cannot be pickled ({error}), and {count} devices "
            "need that; give a function of a module or an object of a class, or lower "
            "TrainOptions.devices to 1"
        ) from error


def check_devices(count: int, device: torch.device) -> None:
    """Refuse more devices than there are, before anything is read.

    Raises:
        TrainingError: there are fewer, or only one of several is named.
    """
    if count == 1 or device.type == "cpu":
        return
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if count > there or device.index is not None:
        raise TrainingError(
            f"{count} devices were asked for and {device} is "
            f"{'one' if device.index is not None else f'there {there} times'}; lower devices, or "
            "give a device without a number"
        )
