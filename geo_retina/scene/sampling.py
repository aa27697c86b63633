"""Samples of a scene, the same each time: of its values, and of how much of it is ground."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import SceneError
from geo_retina.grid import Window
from geo_retina.scene.mosaic import Mosaic
from geo_retina.scene.reading import Scene

_PLACES = 4  # along a side of a window that is probed for ground
_PROBE_PX = 16

_GLANCE_PX = 1024
"""A scene of this side is looked at whole, a larger one at this size where it has overviews."""

_WINDOW_PX = 256
_WINDOWS = 8  # along a side
_SEARCH_PX = 2048
_MOST = 1 << 21  # values kept per band


def sample_values(scene: Scene) -> NDArray[np.float64]:
    """Sample valid values from all over a scene, or all of a small one's, without random numbers.

    Windows on a lattice are read at full resolution, because overviews may average bright and
    dark away. If there is no ground in any, as in a scene that is nearly empty, it is searched
    from end to end; parts that a mask or missing blocks show to be empty are not decoded.

    Returns:
        (bands, n) in the scene's values, as its tags give them; n is 0 if no pixel is valid.

    Raises:
        SceneError: no part of the scene can be read.
    """
    lattice = _lattice(scene.grid.shape)
    step = math.ceil(sum(window.height * window.width for window in lattice) / _MOST)
    found = _gather(scene, lattice, step)
    if not found.shape[1]:
        found = _gather(scene, _everywhere(scene.grid.shape), 1)
    values = found if scene.values is None else scene.values(found)
    return values.astype(np.float64)


def _gather(scene: Scene, windows: Sequence[Window], step: int) -> NDArray[np.generic]:
    """Gather every ``step``-th valid number of windows in order, until there are enough."""
    parts = [np.empty((len(scene.bands), 0), scene.dtype)]
    count = 0
    error: SceneError | None = None
    for window in windows:
        try:
            pixels, valid = scene.read(window)
        except SceneError as damaged:  # its block will be reported when it is detected on
            error = damaged
            continue
        parts.append(pixels[:, valid][:, ::step])
        count += parts[-1].shape[1]
        if count >= _MOST:
            break
    if error is not None and len(parts) == 1:
        raise error
    return np.concatenate(parts, axis=1)


def _lattice(shape: tuple[int, int]) -> list[Window]:
    rows, cols = (_starts(side) for side in shape)
    height, width = (min(_WINDOW_PX, side) for side in shape)
    return [Window(row, col, height, width) for row in rows for col in cols]


def _starts(side: int) -> list[int]:
    """Place windows along a side: end to end where they would overlap otherwise."""
    if side <= _WINDOWS * _WINDOW_PX:
        return list(range(0, side, _WINDOW_PX))
    return [int(v) for v in np.linspace(0, side - _WINDOW_PX, _WINDOWS)]


def _everywhere(shape: tuple[int, int]) -> list[Window]:
    height, width = shape
    return [
        Window(row, col, _SEARCH_PX, _SEARCH_PX)
        for row in range(0, height, _SEARCH_PX)
        for col in range(0, width, _SEARCH_PX)
    ]


def valid_shares(scene: Scene | Mosaic, windows: Sequence[Window]) -> list[float]:
    """Estimate the share of each window that holds ground, without random numbers.

    Nothing is read of a scene that cannot say that a pixel is none, such as one of whole numbers
    without nodata, mask and missing blocks. A small scene is read whole, once for all windows, one
    with overviews by these; of others, small probes on a lattice are read.

    Returns:
        0 to 1 for each window; what cannot be read counts as ground.
    """
    if not isinstance(scene, Scene):
        return [_probed(scene, window) for window in windows]
    if scene.source is not None:
        return valid_shares(scene.source, [scene.scaling.part(window) for window in windows])
    known = [scene.known_share(window) for window in windows]
    if all(share is not None for share in known):
        return [share for share in known if share is not None]
    try:
        seen = _seen(scene)
    except SceneError:  # some of it may be readable
        seen = None
    if seen is None:
        return [_probed(scene, window) for window in windows]
    scales = [side / whole for side, whole in zip(seen.shape, scene.grid.shape, strict=True)]
    return [round(float(_part(seen, window, scales).mean()), 4) for window in windows]


def _seen(scene: Scene) -> NDArray[np.bool_] | None:
    """Find the ground of a whole scene where that is cheap; None where it is not."""
    height, width = scene.grid.shape
    if max(height, width) <= _GLANCE_PX:
        return scene.read(Window(0, 0, height, width))[1]
    if not scene.has_overviews:
        return None
    return scene.overview(_GLANCE_PX)[1]


def _part(seen: NDArray[np.bool_], window: Window, scales: Sequence[float]) -> NDArray[np.bool_]:
    """Cut what lies under a window, at least a pixel, out of a decimated scene."""
    starts, sides = (window.row, window.col), (window.height, window.width)
    rows, cols = (
        slice(
            min(int(start * scale), whole - 1),
            max(math.ceil((start + side) * scale), int(start * scale) + 1),
        )
        for start, side, scale, whole in zip(starts, sides, scales, seen.shape, strict=True)
    )
    return seen[rows, cols]


def _probed(scene: Scene | Mosaic, window: Window) -> float:
    found = []
    height, width = min(_PROBE_PX, window.height), min(_PROBE_PX, window.width)
    for row in np.linspace(window.row, window.row + window.height - height, _PLACES, dtype=int):
        for col in np.linspace(window.col, window.col + window.width - width, _PLACES, dtype=int):
            try:
                _, valid = scene.read(Window(int(row), int(col), height, width))
            except SceneError:  # its block is reported when it is detected
                found.append(1.0)
                continue
            found.append(float(valid.mean()))
    return round(float(np.mean(found)), 4)
