"""Choose which logs a training writes, and quieten what Lightning says beside them."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from geo_retina.errors import TrainingError
from geo_retina.quiet import ignored_warnings, raised_levels
from geo_retina.training.run_folder import RunFolder

_LEVELS = {f"lightning.{name}": logging.ERROR for name in ("pytorch", "fabric")}


_EXPECTED_WARNINGS = (
    r"The '?train_dataloader'? does not have many workers",
    r"The number of training batches",
    r"You defined a `validation_step`",
    r"Checkpoint directory .* exists and is not empty",
    r"Experiment logs directory .* exists",
    r".*GPU available but not used",
    r".*tensorboardX",
    r"The `srun` command is available",  # on a node of a cluster, outside its queue
    r"Found \d+ module\(s\) in eval mode",  # frozen batch norms
    r"This process .* is multi-threaded, use of fork",  # the reading processes, Python 3.12
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.15
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says about choices that are made here on purpose."""
    with ignored_warnings(*_EXPECTED_WARNINGS), raised_levels(_LEVELS):
        yield


def check_loggers(*, tensorboard: bool) -> None:
    """Refuse a log that cannot be written, before anything is read.

    Raises:
        TrainingError: tensorboard is asked for and not installed.
    """
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise TrainingError(
            "tensorboard: true needs the package tensorboard, which is not installed; run "
            "pip install tensorboard, or leave it out: epochs.csv has the same numbers"
        )


def make_loggers(folder: RunFolder, *, tensorboard: bool) -> list[Logger]:
    """Make a CSV log of the steps for every start of the run, and TensorBoard's if wished."""
    start = f"{folder.facts['starts']:03d}"
    loggers: list[Logger] = [CSVLogger(folder.path / "steps", name="", version=start)]
    if tensorboard:
        loggers.append(TensorBoardLogger(folder.path / "tensorboard", name="", version=start))
    return loggers
