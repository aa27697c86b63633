"""The ledger: what a run has done so far, on disk, so that it can go on after a crash.

A folder with ``manifest.json``, one Parquet file per finished unit, and ``run.log`` for people.
Every file but the log is written beside its place and renamed into it, by the client alone. A lock
keeps a second run out; it goes with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from geo_retina.detections import Detections
from geo_retina.errors import OutputError, RunError
from geo_retina.files import parse_json
from geo_retina.grid import Window
from geo_retina.run.guard import LOCK, lock_folder, open_log

RESULTS = 2
"""Rises whenever the same scenes, model and options give other detections than before, so that
what an older geo-retina left half done is not mixed with new ones. 1: no number, padding by a
constant; 2: padding by mirrored ground."""

_MANIFEST = "manifest.json"
_LOG = "run.log"


@dataclass(frozen=True, eq=False)
class BlockResult:
    """What became of one block of one scene.

    Attributes:
        scene_index: position of the scene in the run.
        block: index of the block in the scene's plan.
        window: the block's pixels.
        detections: those that the merge inside the block settled; empty where it failed.
        tiles: tiles that went through the network.
        skipped: tiles without a valid pixel.
        truncated: tiles that reached a limit.
        error: one sentence, where it failed.
        reduced_batch: tiles through the network at once, where memory made that fewer.
        undecided: detections whose fate other blocks decide.
    """

    scene_index: int
    block: int
    window: Window
    detections: Detections
    tiles: int = 0
    skipped: int = 0
    truncated: int = 0
    error: str | None = None
    reduced_batch: int | None = None
    undecided: Detections = field(default_factory=Detections.empty)


@dataclass(frozen=True, eq=False)
class SceneRecord:
    """One scene in the ledger.

    Attributes:
        scene_index: position of the scene in the run.
        results: what became of its blocks, in order; their detections stay on disk.
    """

    scene_index: int
    results: tuple[BlockResult, ...]
    _places: dict[int, tuple[Path, int]]
    _files: _Files

    def undecided(self) -> Detections:
        """Read the undecided detections of all blocks, one block at a time."""
        return Detections.concat(self._read(result.block).undecided for result in self.results)

    def settled(self, blocks: Collection[int]) -> Detections:
        """Read the settled detections of some blocks, by index."""
        wanted = [result.block for result in self.results if result.block in blocks]
        return Detections.concat(self._read(block).detections for block in wanted)

    def _read(self, block: int) -> BlockResult:
        path, place = self._places[block]
        return self._files.read(path)[place]


class _Files:
    """Reads files of finished units; holds one, as small scenes share them."""

    def __init__(self) -> None:
        self._last: tuple[Path | None, list[BlockResult]] = None, []

    def read(self, path: Path) -> list[BlockResult]:
        if path != self._last[0]:
            self._last = path, _read(path)
        return self._last[1]


class Ledger:
    """A run's folder, locked until ``close``; ``log`` writes to the file in it."""

    def __init__(self, folder: Path, manifest: dict[str, Any], lock: FileLock) -> None:
        self.folder = folder
        self.manifest = manifest
        self.log = open_log(folder / _LOG)
        self._lock = lock
        self._damaged: set[Path] = set()

    @classmethod
    def open(cls, folder: Path, manifest: dict[str, Any], *, restart: bool = False) -> Ledger:
        """Begin a run, or go on with one that was begun.

        Args:
            folder: the run's folder; made where it is missing.
            manifest: as ``manifest_for`` makes it.
            restart: discard what is there.

        Raises:
            RunError: the folder holds another run, or is no run's folder, or a run that is
                still going on.
            OutputError: it cannot be written.
        """
        if restart:
            _check_own(folder)
        else:
            cls.peek(folder)
        lock = lock_folder(folder)
        try:
            return cls._open_locked(folder, manifest, lock, restart=restart)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open_locked(
        cls, folder: Path, manifest: dict[str, Any], lock: FileLock, *, restart: bool
    ) -> Ledger:
        if restart:
            for entry in folder.iterdir():
                if entry.name != LOCK:
                    entry.unlink()
        found = cls.peek(folder)
        versions = manifest["versions"]
        if found is not None:
            _check_results(folder, found)
            changed = _differences(found["fixed"], manifest["fixed"])
            changed += [
                f"{path} (the file was replaced)"
                for path, version in versions.items()
                if found["versions"].get(path, version) != version
            ]
            if changed:
                raise RunError(
                    f"{folder} holds an unfinished run that differs in {'; '.join(changed)}; "
                    "repeat that run's command to finish it, or discard it with --restart"
                )
            versions = {**found["versions"], **versions}
        try:
            ledger = cls(folder, found or manifest, lock)
            ledger._find_damaged()
            ledger.update({"versions": versions})
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}") from error
        return ledger

    @staticmethod
    def peek(folder: Path) -> dict[str, Any] | None:
        """Read the manifest in a folder; None where there is none.

        Raises:
            RunError: there is a folder, but no run's.
        """
        if not folder.exists():
            return None
        try:
            found = parse_json((folder / _MANIFEST).read_text("utf-8"))
            _check_manifest(found)
        except FileNotFoundError:
            if folder.is_dir() and all(entry.name == LOCK for entry in folder.iterdir()):
                return None
            raise _foreign(folder) from None
        except (ValueError, KeyError, OSError) as error:
            raise RunError(
                f"{folder / _MANIFEST} cannot be read ({error}); discard the run with --restart"
            ) from error
        return dict(found)

    def update(self, changes: dict[str, Any]) -> None:
        """Change the manifest, on disk too."""
        self.manifest = {**self.manifest, **changes}
        text = json.dumps(self.manifest, indent=1, sort_keys=True)
        _replace(self.folder / _MANIFEST, lambda path: path.write_text(text, "utf-8"))

    def _file(self, task_batch: int) -> Path:
        return self.folder / f"unit-{task_batch:07d}.parquet"

    def parts_done(self) -> set[tuple[int, int]]:
        """List scene and block of every block that finished without an error."""
        return {key for key, (_, _, stats) in self._index().items() if not stats["error"]}

    def _find_damaged(self) -> None:
        """Pass over files cut short by a crash of the machine: their parts are done again."""
        scenes = len(self.manifest["fixed"]["scenes"])
        for path in self._files():
            try:
                records = _read(path)
                if all(_is_sound(record, scenes) for record in records):
                    continue
                reason = "it names no parts of this run"
            except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
                reason = str(error)
            self.log.warning("%s is damaged (%s), so its parts are done again", path.name, reason)
            self._damaged.add(path)

    def next_task_batch(self) -> int:
        """Choose a number that no finished task batch has."""
        return max((int(path.stem.removeprefix("unit-")) for path in self._files()), default=-1) + 1

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("unit-*.parquet"))

    def _index(self) -> dict[tuple[int, int], tuple[Path, int, dict[str, Any]]]:
        """Index file, place in it and record of each block; of several, the best and latest."""
        index: dict[tuple[int, int], tuple[Path, int, dict[str, Any]]] = {}
        for path in self._files():
            if path in self._damaged:
                continue
            for place, result in enumerate(_result_stats(pq.read_schema(path))):
                key = result["scene_index"], result["block"]
                if key not in index or index[key][2]["error"]:
                    index[key] = path, place, result
        return index

    def write(self, task_batch: int, records: list[BlockResult]) -> None:
        """Record a finished unit.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        rows = [kind for record in records for kind in (record.detections, record.undecided)]
        results = [
            {**_stats(record), "rows": [len(record.detections), len(record.undecided)]}
            for record in records
        ]
        table = pa.concat_tables(kind.to_arrow() for kind in rows).replace_schema_metadata(
            {"parts": json.dumps(results)}
        )
        try:
            _replace(self._file(task_batch), lambda path: pq.write_table(table, path))
        except OSError as error:
            raise OutputError(
                f"{self._file(task_batch)} cannot be written ({error.strerror or error}); what was "
                "finished before is kept, and the same command goes on from there"
            ) from error

    def scenes(self) -> Iterator[SceneRecord]:
        """Read what was found, scene by scene in the run's order."""
        files = _Files()
        index = sorted(self._index().items(), key=lambda entry: entry[0])
        for scene, entries in groupby(index, key=lambda entry: entry[0][0]):
            places, results = {}, []
            for (_, block), (path, place, stats) in entries:
                places[block] = path, place
                results.append(_record(stats))
            yield SceneRecord(scene, tuple(results), places, files)

    def close(self) -> None:
        """Let others have the folder."""
        for handler in self.log.handlers:
            with contextlib.suppress(OSError):  # what was not flushed does not fit on the disk
                handler.close()
        self._lock.release()

    def remove(self) -> None:
        """Delete the folder, the lock at last."""
        for entry in self.folder.iterdir():
            if entry.name != LOCK:
                entry.unlink()
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _check_results(folder: Path, found: dict[str, Any]) -> None:
    """Refuse to go on with detections that this geo-retina would make otherwise.

    Raises:
        RunError: the run was begun by such a one.
    """
    version = found.get("results", 1)  # there was no number at first
    if version != RESULTS:
        raise RunError(
            f"{folder} holds an unfinished run of another geo-retina, whose detections differ "
            f"(results version {version}, this one's is {RESULTS}); finish it with the "
            "geo-retina that began it, or discard it with --restart"
        )


def _foreign(folder: Path) -> RunError:
    return RunError(f"{folder} is not the folder of a run; move it away, or name another output")


def _check_own(folder: Path) -> None:
    """Refuse to discard any other folder; a run's is one also where its manifest is damaged.

    Raises:
        RunError: it holds what no run writes.
    """
    own = (_MANIFEST, LOCK, _LOG, "unit-*.parquet", ".*.tmp")
    if folder.exists() and (
        not folder.is_dir()
        or not all(any(fnmatch(entry.name, each) for each in own) for entry in folder.iterdir())
    ):
        raise _foreign(folder)


def _stats(record: BlockResult) -> dict[str, Any]:
    names = ("scene_index", "block", "window", "tiles", "skipped", "truncated", "error")
    return {name: getattr(record, name) for name in (*names, "reduced_batch")}


def _result_stats(schema: pa.Schema) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = parse_json(schema.metadata[b"parts"])
    return results


def _is_sound(record: BlockResult, scenes: int) -> bool:
    """Check whether a block's record, which somebody may have edited, has the right types."""
    numbers = (record.scene_index, record.block, record.tiles, record.skipped, record.truncated)
    return (
        all(type(number) is int and number >= 0 for number in (*numbers, *record.window))
        and record.scene_index < scenes
        and isinstance(record.error, (str, type(None)))
        and isinstance(record.reduced_batch, (int, type(None)))
    )


def _check_manifest(found: Any) -> None:
    """Refuse a manifest that lacks what a run needs to go on.

    Raises:
        ValueError: it does.
    """
    wanted = {"fixed": dict, "versions": dict, "block_px": int}
    for key, kind in wanted.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), kind):
            raise ValueError(f"its {key} is missing or of the wrong type")
    if not isinstance(found["fixed"].get("scenes"), list):
        raise ValueError("its list of scenes is missing")
    if not isinstance(found.get("written", {}), dict):
        raise ValueError("its list of outputs is no group of keys")
    if not 1 <= found["block_px"] <= 2**20:
        raise ValueError(f"its block_px is {found['block_px']}")


def _read(path: Path) -> list[BlockResult]:
    table = pq.read_table(path)
    records, start = [], 0
    for stats in _result_stats(table.schema):
        kinds = []
        for rows in stats["rows"]:
            # Taken, as a view would keep the whole file's columns in memory.
            found = Detections.from_arrow(table.slice(start, rows))
            kinds.append(found.take(np.arange(rows)))
            start += rows
        records.append(_record(stats, *kinds))
    return records


def _record(stats: dict[str, Any], *kinds: Detections) -> BlockResult:
    """Rebuild a block result from what a file records, with its detections, or without any."""
    values = {name: value for name, value in stats.items() if name != "rows"}
    settled, undecided = kinds or (Detections.empty(), Detections.empty())
    window = Window(*values.pop("window"))
    return BlockResult(**values, window=window, detections=settled, undecided=undecided)


def _replace(path: Path, write: Any) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    try:
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """List each leaf that differs, as ``name: old, now new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            text
            for key in keys
            for text in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            text
            for i, (a, b) in enumerate(zip(old, new, strict=True))
            for text in _differences(a, b, f"{name}[{i}]")
        ]
    if old == new:
        return []
    return [f"{name}: {_short(old)}, now {_short(new)}"]


def _short(value: Any) -> str:
    text = f"{len(value)} items" if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:16]}..."


def manifest_for(
    paths: list[str], versions: dict[str, Any], model: str, options: Any, block_px: int
) -> dict[str, Any]:
    """Describe a run as its ledger records it, as JSON values.

    Args:
        paths: all scenes of the run.
        versions: fingerprints of the scenes that can be used.
        model: fingerprint of the model.
        options: the options that change the result.
        block_px: block size, which a run that goes on takes from the ledger.
    """
    manifest = {
        "fixed": {"scenes": paths, "model": model, "options": asdict(options)},
        "versions": versions,
        "block_px": block_px,
        "results": RESULTS,
    }
    normal: dict[str, Any] = json.loads(json.dumps(manifest))
    return normal
