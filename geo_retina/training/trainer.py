"""``train``: the public verb that runs the loop and gives the model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from geo_retina.dataset.samples import EpochSampler, TrainSamples, collate
from geo_retina.engine import choose_device
from geo_retina.errors import GeoRetinaError
from geo_retina.files import write_text
from geo_retina.forks import check_forked
from geo_retina.model import Model, check_model_output
from geo_retina.options import RunOptions, TrainOptions
from geo_retina.options.training_parts import BatchOptions, LoopOptions
from geo_retina.plots import draw_training_curves
from geo_retina.training.distributed import (
    SharedSampler,
    check_devices,
    check_progress,
    share_batches,
)
from geo_retina.training.ema import AverageWeights
from geo_retina.training.epoch_end import Validation
from geo_retina.training.fingerprints import input_fingerprints
from geo_retina.training.finishing import finish
from geo_retina.training.hard_negatives import MineHardNegatives
from geo_retina.training.lightning_module import RetinaNetTask
from geo_retina.training.loggers import check_loggers, make_loggers, quiet_lightning
from geo_retina.training.lr_finder import find_rate
from geo_retina.training.precision import TrainingPrecision, choose_training_precision
from geo_retina.training.progress_lines import Telling, TrainProgress
from geo_retina.training.run_folder import LastCheckpoint, RunFolder, as_plain
from geo_retina.training.setup import Preparation, prepare

log = logging.getLogger(__name__)


def train(
    options: TrainOptions,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    folder: Path | None = None,
    progress: bool | Callable[[TrainProgress], None] = False,
) -> Model:
    """Train a RetinaNet from scenes and a label layer.

    The ground is split by place into train and val. Samples show only training ground; after
    every few epochs the averaged weights detect on the validation ground, through the same
    path as ``detect`` and ``evaluate``, and the best-scoring ones are the result, with the
    score threshold per class that suits them. At the end ranges of 8-bit integers are
    measured on training ground, and on validation ground what they cost.

    The state after every epoch is kept in a folder, so that a training that was killed goes on
    with ``resume``, to the result that it would have had. On a CPU the same seed gives the same
    model.

    Args:
        options: the whole run.
        out: model file to write; ``OUT.config.yaml`` and ``OUT.training.png`` go beside it.
        overwrite: replace an existing output, and an unfinished run.
        resume: go on with an unfinished run of the same options.
        folder: where the state, logs and pictures go; left out, ``OUT.train``, or nowhere
            without ``out``.
        progress: show a progress bar; or what is called, on the first process, when training
            begins, from step to step and after every epoch. With several devices it is pickled.

    Returns:
        The model, on the CPU, as it was written.

    Raises:
        OutputError: the output exists, or its folder cannot be written.
        TrainingError: the ground or the labels allow no training, or the folder holds a run
            that does not fit.
        GeoRetinaError: scenes, labels or options cannot be used.

    Examples:
        >>> from geo_retina import load_train_options, train
        >>> model = train(load_train_options("train.yaml"), "example.safetensors")
        >>> model.card.name, model.card.classes
        ('example', ('tree', 'vehicle'))
    """
    target = None if out is None else Path(out)
    if target is not None:
        check_model_output(target, overwrite=overwrite)
        folder = folder or target.with_name(f"{target.name}.train")
    check_forked()
    device = choose_device(options.device)
    check_loggers(tensorboard=options.tensorboard)
    check_devices(options.devices, device)
    check_progress(progress, options.devices)
    record = as_plain(asdict(options))
    # The caller's own random state is left as it was.
    gpus = [device] if device.type == "cuda" else []
    with (
        tempfile.TemporaryDirectory() as scratch,
        torch.random.fork_rng(devices=gpus),
        quiet_lightning(),
    ):
        run = RunFolder.open(
            Path(folder or Path(scratch) / "train"), record, resume=resume, overwrite=overwrite
        )
        torch.manual_seed(options.seed)
        with run.left_if_begun():
            prepared = prepare(options)
        run.keep_data(input_fingerprints(prepared.training_set, prepared.split))
        model = _fit(prepared, options.loop, device, run, progress)
        if target is not None:
            _write(model, target, record, overwrite=overwrite)
        run.finish()
    return model


def _fit(
    prepared: Preparation,
    options: LoopOptions,
    device: torch.device,
    folder: RunFolder,
    progress: bool | Callable[[TrainProgress], None],
) -> Model:
    """Run the loop and make the model of its best epoch."""
    samples = TrainSamples(
        prepared.training_set,
        prepared.split,
        prepared.bands,
        options.samples,
        seed=options.seed,
        cache_bytes=int(options.samples.cache_gb * 2**30)
        // max(1, options.batches.workers * options.batches.devices),
    )
    per_epoch = options.batches.samples_per_epoch or max(
        options.batches.batch, round(samples.train_px / options.samples.window_px**2)
    )
    sampler = EpochSampler(
        per_epoch,
        seed=options.seed,
        hard_share=options.samples.hard_share,
        rejected=samples.rejected(),
    )
    loader = _loader(samples, sampler, options.batches, device)
    precision, lr = _settle(prepared, options, device, folder, loader)
    task = RetinaNetTask(
        prepared.network, prepared.loss, options.updates, lr=lr, seed=options.seed
    ).to(memory_format=torch.channels_last)
    average = AverageWeights(prepared.network, decay=options.ema)
    validation = Validation(
        *(prepared.card, average, prepared.val_ground),
        *(options.schedule, device, folder, options.seed),
    )
    mining = MineHardNegatives(
        average, samples, sampler, options.samples, batch=options.batches.batch
    )
    callbacks = [average, validation, mining, LastCheckpoint(folder)]
    if callable(progress):
        callbacks.append(Telling(progress, validation))
    trainer = _trainer(options, device, folder, callbacks, precision, progress is True)
    state = folder.read_state()
    if state is not None:  # Lightning lets workers read ahead before it names the epoch
        loader.sampler.set_epoch(state["epoch"] + 1)  # type: ignore[attr-defined]
    _run(trainer, task, loader, None if state is None else folder.checkpoint)
    if options.batches.devices > 1:  # other processes did it all, and left it in the checkpoint
        state = folder.read_state()
        assert state is not None
        validation.load_state_dict(state["callbacks"][validation.state_key])
    facts = {
        "device": device.type,
        "precision": precision,
        "lr": lr,
        "seconds": folder.seconds,
        "starts": folder.facts["starts"],
        "samples_per_epoch": len(loader.sampler),  # type: ignore[arg-type]
    }
    model = validation.best_model(facts)
    return finish(model, prepared, samples, options, RunOptions(device=str(device)))


def _settle(
    prepared: Preparation,
    options: LoopOptions,
    device: torch.device,
    folder: RunFolder,
    loader: DataLoader[Any],
) -> tuple[TrainingPrecision, float]:
    """Choose precision and learning rate, and keep them for when the run is resumed."""
    facts = folder.facts
    if "precision" not in facts:
        facts["precision"] = choose_training_precision(options.precision, device)
    precision: TrainingPrecision = facts["precision"]
    if "lr" not in facts:
        if options.lr == "find":
            trial = find_rate(
                *(prepared.network, loader, prepared.loss, options.updates),
                device=device,
                precision=precision,
            )
            trial.write(folder.path / "rates.csv")
            log.info("learning rate %.3g", trial.best)
            facts["lr"] = trial.best
        else:
            facts["lr"] = options.lr
    folder.write_manifest()
    return precision, float(facts["lr"])


def _run(
    trainer: pl.Trainer, task: RetinaNetTask, loader: DataLoader[Any], done: Path | None
) -> None:
    """Let Lightning run the loop, and its workers' errors stay one sentence."""
    try:
        trainer.fit(task, loader, ckpt_path=done, weights_only=True)
    except GeoRetinaError as error:
        # A worker process hands its error over as the text of a traceback.
        *before, last = str(error).strip().splitlines()
        sentence = last.partition("Error: ")[2] if before else last
        raise type(error)(sentence or last) from error
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from error


def _loader(
    samples: TrainSamples, sampler: EpochSampler, options: BatchOptions, device: torch.device
) -> DataLoader[Any]:
    return DataLoader(
        samples,
        batch_size=options.batch // options.devices,
        sampler=SharedSampler(sampler),
        drop_last=len(sampler) >= options.batch,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
    )


def _trainer(
    options: LoopOptions,
    device: torch.device,
    folder: RunFolder,
    callbacks: list[Callback],
    precision: TrainingPrecision,
    progress: bool,
) -> pl.Trainer:
    devices, several = options.batches.devices, options.batches.devices > 1
    only = devices if device.index is None else [device.index]
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=devices if several else only,
        strategy=share_batches() if several else "auto",
        use_distributed_sampler=False,
        precision=precision,
        max_epochs=options.schedule.epochs,
        logger=make_loggers(folder, tensorboard=options.tensorboard),
        callbacks=callbacks,
        enable_checkpointing=False,
        gradient_clip_val=options.updates.clip_norm,
        accumulate_grad_batches=options.updates.accumulate,
        enable_progress_bar=progress,
        enable_model_summary=False,
        log_every_n_steps=10,
        default_root_dir=folder.path,
    )


def _write(model: Model, target: Path, record: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write the model, and beside it the resolved options and a plot of the run."""
    model.save(target, overwrite=overwrite)
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
    write_text(target.with_name(f"{target.name}.config.yaml"), text)
    draw_training_curves(
        model.card.training["history"], target.with_name(f"{target.name}.training.png")
    )
