"""``train``: the public verb that runs the loop and gives the model."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from geo_retina.draw import draw_training_curves
from geo_retina.engine import choose_device
from geo_retina.errors import GeoRetinaError, TrainingError
from geo_retina.model import Card, Model, build_network, check_model_output
from geo_retina.options import RunOptions, TrainOptions
from geo_retina.training.precision import choose_training_precision, depthwise_in_single_precision
from geo_retina.training.prepare import Preparation, prepare
from geo_retina.training.samples import CACHE_BYTES, EpochSampler, FitSamples, collate
from geo_retina.training.task import AverageWeights, RetinaNetTask, loss_settings
from geo_retina.training.validate import TuningGround, TuningScores, validate

log = logging.getLogger(__name__)

_CLIP_NORM = 10.0

_EXPECTED_WARNINGS = (
    r"The '?train_dataloader'? does not have many workers",
    r"The number of training batches",
    r"You defined a `validation_step`",
    r"Checkpoint directory .* exists and is not empty",
    r"Experiment logs directory .* exists",
    r".*GPU available but not used",
    r".*tensorboardX",
    r"This process .* is multi-threaded, use of fork",  # the reading processes, Python 3.12
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.15
)


def train(
    options: TrainOptions,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    folder: Path | None = None,
    progress: bool = False,
) -> Model:
    """Train a RetinaNet from scenes and a label layer.

    The ground is split by place into fit and tune. Samples show only ground that fits; after
    every few epochs the averaged weights detect on the ground that tunes, through the same
    path as ``detect`` and ``evaluate``, and the best-scoring ones are the result, with the
    score threshold per class that gave the best F1.

    Args:
        options: the whole run.
        out: model file to write; ``OUT.config.yaml`` and ``OUT.training.png`` go beside it.
        overwrite: replace an existing output.
        folder: where logs and the last checkpoint go; left out, ``OUT.training``, or nowhere
            without ``out``.
        progress: show a progress bar.

    Returns:
        The model, on the CPU, as it was written.

    Raises:
        OutputError: the output exists, or its folder cannot be written.
        TrainingError: the ground or the labels allow no training.
        GeoRetinaError: scenes, labels or options cannot be used.
    """
    target = None if out is None else Path(out)
    if target is not None:
        check_model_output(target, overwrite=overwrite)
        folder = folder or target.with_name(f"{target.name}.training")
    device = choose_device(options.device)
    # The caller's own chance is left as it was.
    gpus = [device] if device.type == "cuda" else []
    with (
        tempfile.TemporaryDirectory() as scratch,
        torch.random.fork_rng(devices=gpus),
        _quiet_lightning(),
    ):
        torch.manual_seed(options.seed)
        model = _fit(prepare(options), options, device, Path(folder or scratch), progress)
    if target is not None:
        _write(model, target, options, overwrite=overwrite)
    return model


def _fit(
    prepared: Preparation, options: TrainOptions, device: torch.device, folder: Path, progress: bool
) -> Model:
    """Run the loop and make the model of its best epoch."""
    start = time.perf_counter()
    samples = FitSamples(
        prepared.training_set,
        prepared.split,
        prepared.bands,
        options.samples,
        seed=options.seed,
        cache_bytes=CACHE_BYTES // max(1, options.workers),
    )
    loader = _loader(samples, options, device)
    task = RetinaNetTask(
        prepared.network,
        loss_settings(options, prepared.training_set.counts.per_class),
        lr=options.lr,
        weight_decay=options.weight_decay,
    ).to(memory_format=torch.channels_last)
    average = AverageWeights(prepared.network, decay=options.ema)
    validation = Validation(prepared.card, average, prepared.tuning, options, device)
    trainer = _trainer(options, device, folder, [average, validation], progress)
    _run(trainer, task, loader)
    facts = {
        "device": device.type,
        "precision": trainer.precision,
        "seconds": round(time.perf_counter() - start, 1),
        "samples_per_epoch": len(loader.sampler),  # type: ignore[arg-type]
    }
    return validation.best_model(facts)


def _run(trainer: pl.Trainer, task: RetinaNetTask, loader: DataLoader[Any]) -> None:
    """Let Lightning run the loop, and its workers' errors stay one sentence."""
    mixed_on_cpu = isinstance(trainer.accelerator, CPUAccelerator) and (
        trainer.precision == "bf16-mixed"
    )
    with depthwise_in_single_precision(task.network) if mixed_on_cpu else nullcontext():
        try:
            trainer.fit(task, loader)
        except GeoRetinaError as error:
            # A worker process hands its error over as the text of a traceback.
            *before, last = str(error).strip().splitlines()
            sentence = last.partition("Error: ")[2] if before else last
            raise type(error)(sentence or last) from error


def _loader(samples: FitSamples, options: TrainOptions, device: torch.device) -> DataLoader[Any]:
    per_epoch = options.samples_per_epoch or max(
        options.batch, round(samples.fit_px / options.samples.window_px**2)
    )
    return DataLoader(
        samples,
        batch_size=options.batch,
        sampler=EpochSampler(per_epoch),
        drop_last=per_epoch >= options.batch,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
    )


def _trainer(
    options: TrainOptions,
    device: torch.device,
    folder: Path,
    callbacks: list[Callback],
    progress: bool,
) -> pl.Trainer:
    checkpoint = ModelCheckpoint(
        dirpath=folder, filename="last", save_top_k=1, enable_version_counter=False
    )
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=1 if device.index is None else [device.index],
        precision=choose_training_precision(options.precision, device),
        max_epochs=options.epochs,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[*callbacks, checkpoint],
        gradient_clip_val=_CLIP_NORM,
        enable_progress_bar=progress,
        enable_model_summary=False,
        log_every_n_steps=10,
    )


@dataclass(frozen=True, eq=False)
class Best:
    """The best epoch so far."""

    epoch: int
    f1: float
    weights: Mapping[str, Tensor]
    card: Card


@dataclass(eq=False)
class Validation(Callback):
    """Scores the averaged weights on the tuning ground, and keeps the best.

    Attributes:
        card: of the model, without scores.
        average: the weights that are scored.
        ground: what they are scored on.
        options: of the run.
        device: where to detect.
        history: one record per epoch: losses, and scores where it was validated.
        best: the best epoch; None before the first validation.
    """

    card: Card
    average: AverageWeights
    ground: TuningGround
    options: TrainOptions
    device: torch.device
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the epoch, and score it where it is due."""
        assert isinstance(pl_module, RetinaNetTask)
        epoch = trainer.current_epoch + 1
        record: dict[str, Any] = {"epoch": epoch, **pl_module.epoch_losses()}
        if epoch % self.options.validate_every == 0 or epoch == self.options.epochs:
            record |= self._score(epoch)
            pl_module.log("f1", record["f1"], prog_bar=True)
        self.history.append(record)
        log.info("%s", record)

    def _score(self, epoch: int) -> dict[str, float]:
        model = Model(self.average.network, self.card)
        scores = validate(model, self.ground, RunOptions(device=str(self.device)))
        if self.best is None or scores.f1 > self.best.f1:
            state = self.average.network.state_dict()
            weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
            self.best = Best(epoch, scores.f1, weights, self._scored_card(scores))
        return scores.numbers()

    def best_model(self, facts: Mapping[str, Any]) -> Model:
        """The network of the best epoch on the CPU; ``facts`` go into its training record.

        Raises:
            TrainingError: no epoch was validated.
        """
        if self.best is None:
            raise TrainingError(
                "training was stopped before its first validation, so there is no model"
            )
        record = {**facts, "best_epoch": self.best.epoch, "history": self.history}
        card = self.best.card
        card = replace(card, training={**card.training, **record})
        card = Card.from_json(card.to_json())  # equal to what a reader of the file gets
        network = build_network(
            card.network, in_channels=len(card.bands), classes=len(card.classes)
        )
        network.load_state_dict(self.best.weights)
        return Model(network.eval(), card)

    def _scored_card(self, scores: TuningScores) -> Card:
        metrics = {"tune": scores.to_dict(), "measured_on": self.ground.measured_on}
        return replace(self.card, thresholds=scores.thresholds, metrics=metrics)


def _write(model: Model, target: Path, options: TrainOptions, *, overwrite: bool) -> None:
    """The model, and beside it the resolved options and a plot of the run."""
    model.save(target, overwrite=overwrite)
    text = yaml.safe_dump(_plain(asdict(options)), sort_keys=False, allow_unicode=True)
    target.with_name(f"{target.name}.config.yaml").write_text(text, encoding="utf-8")
    draw_training_curves(
        model.card.training["history"], target.with_name(f"{target.name}.training.png")
    )


def _plain(value: Any) -> Any:
    """Tuples as lists and paths as text, which is what YAML has."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says about choices that are made here on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
