"""Decoded pixels kept in memory or on disk, so that reading does not starve the device."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import OrderedDict
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import OutputError
from geo_retina.files import new_file
from geo_retina.grid import Window
from geo_retina.scene import Scene, fingerprint

Chip = tuple[NDArray[Any], NDArray[np.bool_]]
"""Pixels (bands, height, width), and which of them are valid (height, width)."""

_CHIP_PX = 512
_SPARE_BYTES = 2 << 30  # left free on the disk
_SCENE_SHARE = 2  # a scene larger than this many memories would push out its own chips


class CachedReader:
    """Reads windows of scenes, keeping what was decoded in chips of 512 px.

    Small scenes are a chip each. Worker processes have memories of their own and share the
    folder, whose chips later runs find again as long as the file stays the same.

    Args:
        capacity_bytes: decoded pixels kept in memory; 0 for none.
        folder: where decoded chips are kept on disk; None for nowhere.
    """

    def __init__(self, capacity_bytes: int, folder: str | Path | None = None) -> None:
        self._capacity = capacity_bytes
        self._folder = None if folder is None else Path(folder)
        self._held = 0
        self._chips: OrderedDict[tuple[str, int, int], Chip] = OrderedDict()

    def read(self, scene: Scene, window: Window) -> Chip:
        """Read pixels as ``Scene.read`` does."""
        too_large = scene_bytes(scene) > _SCENE_SHARE * self._capacity
        if self._folder is None and too_large:
            return scene.read(window)
        height, width = scene.grid.shape
        pixels = np.zeros((len(scene.bands), window.height, window.width), scene.dtype)
        valid = np.zeros((window.height, window.width), np.bool_)
        top, left = max(window.row, 0), max(window.col, 0)
        bottom = min(window.row + window.height, height)
        right = min(window.col + window.width, width)
        if bottom <= top or right <= left:
            return pixels, valid
        rows = range(top // _CHIP_PX, (bottom - 1) // _CHIP_PX + 1)
        cols = range(left // _CHIP_PX, (right - 1) // _CHIP_PX + 1)
        for row, col in product(rows, cols):
            chip = self._chip(scene, row, col)
            _paste(
                chip, Window(row * _CHIP_PX, col * _CHIP_PX, *chip[1].shape), pixels, valid, window
            )
        return pixels, valid

    def _chip(self, scene: Scene, row: int, col: int) -> Chip:
        key = (scene.path, row, col)
        if key in self._chips:
            self._chips.move_to_end(key)
            return self._chips[key]
        chip = self._from_disk(scene, row, col)
        size = _bytes_of(chip)
        if size <= self._capacity:
            self._chips[key] = chip
            self._held += size
            while self._held > self._capacity:
                self._held -= _bytes_of(self._chips.popitem(last=False)[1])
        return chip

    def _from_disk(self, scene: Scene, row: int, col: int) -> Chip:
        start_row, start_col = row * _CHIP_PX, col * _CHIP_PX
        window = Window(
            start_row,
            start_col,
            min(_CHIP_PX, scene.grid.height - start_row),
            min(_CHIP_PX, scene.grid.width - start_col),
        )
        if self._folder is None:
            return scene.read(window)
        path = self._folder / f"{_name(scene, window)}.npy"
        with suppress(OSError, ValueError, EOFError):  # missing, or cut short
            stack = np.load(path)
            return stack[:-1], stack[-1] != 0
        pixels, valid = scene.read(window)
        self._keep(path, np.concatenate([pixels, valid[None].astype(pixels.dtype)]))
        return pixels, valid

    def _keep(self, path: Path, stack: NDArray[Any]) -> None:
        """Write a chip beside its place and rename it, unless the disk is nearly full."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < _SPARE_BYTES + stack.nbytes:
                return
            # What a power cut leaves short is noticed, and decoded once more.
            with new_file(path, durable=False) as draft:
                np.save(draft, stack)
        except OSError as error:
            raise OutputError(
                f"decoded pixels cannot be kept in {path.parent} ({error.strerror or error}); give "
                "another samples.cache_folder"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Leave the pixels behind: worker processes fill their own memory."""
        return {**self.__dict__, "_held": 0, "_chips": OrderedDict()}


def scene_bytes(scene: Scene) -> int:
    """Count the bytes of all of a scene's pixels, decoded, with their validity."""
    pixel = len(scene.bands) * np.dtype(scene.dtype).itemsize + 1
    return scene.grid.height * scene.grid.width * pixel


def _bytes_of(chip: Chip) -> int:
    return chip[0].nbytes + chip[1].nbytes


def _name(scene: Scene, window: Window) -> str:
    """Derive a name that changes with the file, its bands, the grid and the window."""
    grid = scene.grid
    facts = (
        os.path.abspath(scene.path),
        sorted(fingerprint(scene.path).items()),
        scene.bands,
        tuple(grid.affine)[:6],
        grid.shape,
        tuple(window),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:40]


def _paste(
    chip: Chip, place: Window, pixels: NDArray[Any], valid: NDArray[np.bool_], window: Window
) -> None:
    """Copy the part of a chip that a window shows into the window's arrays."""
    top, left = max(place.row, window.row), max(place.col, window.col)
    bottom = min(place.row + place.height, window.row + window.height)
    right = min(place.col + place.width, window.col + window.width)
    source = np.s_[top - place.row : bottom - place.row, left - place.col : right - place.col]
    target = np.s_[top - window.row : bottom - window.row, left - window.col : right - window.col]
    pixels[:, *target] = chip[0][:, *source]
    valid[target] = chip[1][source]
