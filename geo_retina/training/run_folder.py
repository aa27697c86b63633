"""The folder of a run: what lets a training go on after a kill, its logs and its pictures."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from geo_retina.errors import OutputError, TrainingError
from geo_retina.files import new_file, parse_json, write_text

_OWN_FILES = ("run.json", "last.ckpt", "epochs.csv", "training.png", "rates.csv")
_OWN_FOLDERS = ("pictures", "steps", "tensorboard")

_INPUT = {
    "labels": "the labels or the scenes' names or shapes",
    "split": "the validation or test ground",
    "files": "the scenes' files",
}
"""What a run works on, as its fingerprints name it."""

_NO_RESULT = (
    *("name", "description", "licence", "attribution", "device", "devices", "workers"),
    *("picture_every", "tensorboard", "precision"),
)
"""Options that a resumed run may change: they do not alter what is learned, or, as precision,
are kept in the manifest in the form that was found out."""


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A folder with one training run in it.

    Attributes:
        path: the folder.
        options: of the run, as JSON gives them back.
        facts: what the run found out once and keeps: its learning rate, its precision, how
            often it was started, and the seconds up to its last whole epoch.
    """

    path: Path
    options: Mapping[str, Any]
    facts: dict[str, Any]
    _started: float = field(default_factory=time.perf_counter)
    _seconds_before: float = 0.0

    @classmethod
    def open(
        cls, path: Path, options: Mapping[str, Any], *, resume: bool, overwrite: bool
    ) -> RunFolder:
        """Begin a run, or go on with the one in the folder.

        Raises:
            TrainingError: there is nothing to resume, the options differ from the run's, or
                the folder holds epochs of an unfinished run and neither flag speaks of them.
            OutputError: the folder cannot be written.
        """
        found = _read_manifest(path)
        if resume:
            if found is None:
                raise TrainingError(
                    f"{path} holds no training run to resume; leave out resume=True to begin one"
                )
            _refuse_other_options(path, found["options"], options)
            facts = dict(found["facts"])
            folder = cls(path, options, facts, _seconds_before=facts.get("seconds", 0.0))
        else:
            if _checkpoint(path).exists() and not overwrite:
                raise TrainingError(
                    f"{path} holds a training run that did not finish; give resume=True to go on "
                    "with it, or overwrite=True to begin anew"
                )
            folder = cls(path, options, {})
            try:
                path.mkdir(parents=True, exist_ok=True)
                _clear(path)
            except OSError as error:
                raise OutputError(f"{path} cannot be written: {error.strerror}") from error
        folder.facts["starts"] = folder.facts.get("starts", 0) + 1
        return folder

    @property
    def checkpoint(self) -> Path:
        """The state after the last epoch that ended."""
        return _checkpoint(self.path)

    @property
    def seconds(self) -> float:
        """Seconds of all starts; of those that were stopped, up to their last whole epoch."""
        return round(self._seconds_before + time.perf_counter() - self._started, 1)

    def read_state(self) -> dict[str, Any] | None:
        """Read the state after the last whole epoch, mapped from the file; None before the first.

        Raises:
            TrainingError: the file holds something else than plain values and tensors, or is
                damaged.
        """
        if not self.checkpoint.exists():
            return None
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a damaged file fails in as many ways as there are bytes
            raise TrainingError(
                f"{self.checkpoint} cannot be read ({type(error).__name__}), expected the state of "
                "a training as train writes it; give overwrite=True to begin anew"
            ) from error
        assert isinstance(state, dict)
        return state

    def write_manifest(self) -> None:
        """Keep the options and facts, to compare with those of a resumed run."""
        text = json.dumps({"options": self.options, "facts": self.facts}, indent=1)
        write_text(_manifest(self.path), text)

    def keep_data(self, fingerprints: Mapping[str, str]) -> None:
        """Keep the input's fingerprints, or refuse other input than the run began with.

        From here on the run can be resumed: what could be wrong with its input was found out.

        Args:
            fingerprints: as ``input_fingerprints`` makes them.

        Raises:
            TrainingError: labels, split or scenes have changed since.
        """
        known = self.facts.setdefault("data", dict(fingerprints))
        if not isinstance(known, dict):
            raise TrainingError(
                f"the run in {self.path} was begun by another version of geo-retina; give "
                "overwrite=True to begin anew"
            )
        changed = [what for name, what in _INPUT.items() if known.get(name) != fingerprints[name]]
        if changed:
            raise TrainingError(
                f"{' and '.join(changed)} changed since the run in {self.path} began; bring the "
                "old state back, or give overwrite=True to begin anew"
            )
        self.write_manifest()

    def write_epochs(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write one row per epoch, with every number that any epoch has."""
        names = list(dict.fromkeys(name for record in history for name in record))
        with (
            new_file(self.path / "epochs.csv") as draft,
            draft.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(history)

    @contextlib.contextmanager
    def left_if_begun(self) -> Iterator[None]:
        """Remove the folder again where nothing came to be in it before an error."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # it holds something
                self.path.rmdir()
            raise

    def finish(self) -> None:
        """Drop what only a resumed run needs; logs and pictures stay."""
        self.checkpoint.unlink(missing_ok=True)
        _manifest(self.path).unlink(missing_ok=True)


class LastCheckpoint(Callback):
    """Writes the state of the training after every epoch, whole or not at all.

    It must come after the callbacks whose state belongs to that epoch.

    Args:
        folder: where; it exists.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file; a kill leaves the old one or the new."""
        if not trainer.is_global_zero:
            # Takes part in gathering the state, and writes nothing.
            trainer.save_checkpoint(self._folder.checkpoint)
            return
        with new_file(self._folder.checkpoint) as draft:
            trainer.save_checkpoint(draft)
        self._folder.facts["seconds"] = self._folder.seconds
        self._folder.write_manifest()


def _clear(path: Path) -> None:
    """Remove what an earlier run left, and nothing else that may be in the folder."""
    for name in _OWN_FILES:
        (path / name).unlink(missing_ok=True)
    for name in _OWN_FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)


def _checkpoint(path: Path) -> Path:
    return path / "last.ckpt"


def _manifest(path: Path) -> Path:
    return path / "run.json"


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Read the manifest of an unfinished run; None where there is none."""
    try:
        found = parse_json(_manifest(path).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("options"), dict):
            raise ValueError("it holds no options")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{_manifest(path)} cannot be read ({error}); give overwrite=True to begin anew"
        ) from error
    return found


def as_plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options to what JSON gives back: tuples are lists, and paths are text."""
    plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return plain


def _refuse_other_options(path: Path, known: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Name the first option that would make another training of it."""
    before, now = (_flat(values) for values in (known, options))
    different = [
        f"{key} was {before.get(key)} and is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in _NO_RESULT
    ]
    if different:
        raise TrainingError(
            f"the run in {path} cannot be resumed with other options: {'; '.join(different[:3])}; "
            "give the same ones, or overwrite=True to begin anew"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
