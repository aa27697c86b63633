"""Read what can be read of a window: in smaller and smaller pieces, where one of them fails."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_retina.errors import one_sentence
from geo_retina.grid import Window, rectangles
from geo_retina.resampling import Rescaling
from geo_retina.scene.mosaic import Member, Mosaic
from geo_retina.scene.reading import Scene
from geo_retina.scene.validity import bounds_of

_NUMBERS = re.compile(r"\d+")

_PATIENCE_S = 60.0
"""Pieces are not made smaller once so much time has gone into reading those that fail."""


class LostPart(NamedTuple):
    """Ground that cannot be read.

    Attributes:
        window: its pixels.
        error: why, in one sentence.
    """

    window: Window
    error: str


class Pieces(NamedTuple):
    """What can be read of a window.

    Attributes:
        pixels: (bands, height, width), 0 where nothing could be read.
        valid: (height, width), false there too.
        lost: what could not be read, no pixel of it twice, from top to bottom.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    lost: tuple[LostPart, ...]


def read_pieces(
    scene: Scene | Mosaic, window: Window, *, go_on: Callable[[], None] = lambda: None
) -> Pieces:
    """Read a window of which a part may be damaged or missing.

    A window that fails is read in halves, cut where the file's blocks or a VRT's sources end, and
    these likewise, until a piece is one block. In a mosaic, ground that another scene shows is
    not lost.

    Args:
        scene: to read.
        window: whole pixels inside its grid.
        go_on: called before each piece; may raise to give up.
    """
    lost: list[LostPart] = []
    if isinstance(scene, Scene):
        pixels, valid = _read_scene(scene, window, lost, go_on)
        return Pieces(pixels, valid, _without_overlap(lost))

    def read(member: Member, own: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        found: list[LostPart] = []
        read = _read_scene(member.scene, own, found, go_on)
        for part in found:
            row, col, height, width = part.window
            moved = Window(row + member.row, col + member.col, height, width)
            lost.append(LostPart(moved, part.error))
        return read

    pixels, valid = scene.compose(window, read)
    left = [_not_shown(part, window, valid) for part in lost]
    return Pieces(pixels, valid, _without_overlap([part for part in left if part is not None]))


def _read_scene(
    scene: Scene, window: Window, lost: list[LostPart], go_on: Callable[[], None]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if scene.source is not None:
        return _read_scaled(scene, window, lost, go_on)
    pixels = np.zeros((len(scene.bands), window.height, window.width), scene.dtype)
    valid = np.zeros((window.height, window.width), np.bool_)
    try:
        scene.check_opens()
    except Exception as error:
        lost.append(LostPart(window, one_sentence(error)))
        return pixels, valid
    waiting, failing_s = [window], 0.0
    while waiting:
        go_on()
        piece = waiting.pop()
        start = time.monotonic()
        try:
            read, is_valid = scene.read(piece)
        except Exception as error:
            failing_s += time.monotonic() - start
            halves = _halves(scene, piece) if failing_s < _PATIENCE_S else []
            if not halves:
                lost.append(LostPart(piece, one_sentence(error)))
            waiting += halves
            continue
        row, col = piece.row - window.row, piece.col - window.col
        here = np.s_[row : row + piece.height, col : col + piece.width]
        pixels[:, *here], valid[here] = read, is_valid
    return pixels, valid


def _read_scaled(
    scene: Scene, window: Window, lost: list[LostPart], go_on: Callable[[], None]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read the pieces of what a window is computed from: lost pixels carry no weight in it."""
    assert scene.source is not None
    part, found = scene.scaling.part(window), list[LostPart]()
    pixels, shown = _read_scene(scene.source, part, found, go_on)
    rows, cols = scene.scaling.nearest(window)
    for each in found:
        x_min, y_min, x_max, y_max = each.window.box_px
        row, bottom = np.searchsorted(rows, (y_min, y_max)).tolist()
        col, right = np.searchsorted(cols, (x_min, x_max)).tolist()
        if bottom > row and right > col:
            here = Window(window.row + row, window.col + col, bottom - row, right - col)
            lost.append(LostPart(here, each.error))
    how = Rescaling(scene.scaling, window, part, shown, scene.dtype)
    return how.on_host(pixels), how.valid


def _halves(scene: Scene, piece: Window) -> list[Window]:
    """Cut a piece near its middle where readable ground may end; empty if nowhere in it."""
    row, col, height, width = piece
    rows, cols = scene.seams(piece)
    if rows and (height >= width or not cols):
        cut = min(rows, key=lambda at: abs(2 * (at - row) - height)) - row
        return [Window(row, col, cut, width), Window(row + cut, col, height - cut, width)]
    if cols:
        cut = min(cols, key=lambda at: abs(2 * (at - col) - width)) - col
        return [Window(row, col, height, cut), Window(row, col + cut, height, width - cut)]
    return []


def _not_shown(part: LostPart, window: Window, valid: NDArray[np.bool_]) -> LostPart | None:
    """Narrow a lost part to what no other scene shows; None for nothing."""
    row, col = part.window.row - window.row, part.window.col - window.col
    dark = ~valid[row : row + part.window.height, col : col + part.window.width]
    if not dark.any():
        return None
    rows, cols = bounds_of(dark)
    top, left = part.window.row + rows.start, part.window.col + cols.start
    shape = rows.stop - rows.start, cols.stop - cols.start
    return part._replace(window=Window(top, left, *shape))


def _without_overlap(lost: Sequence[LostPart]) -> tuple[LostPart, ...]:
    """Join parts that lie side by side with one kind of error, and count no pixel twice.

    Errors of a kind differ in numbers alone, as those of the blocks that a file is cut short by;
    the first stands for all.
    """
    if len(lost) < 2:
        return tuple(lost)
    boxes = np.array([part.window.box_px for part in lost])
    xs, ys = (np.unique(boxes[:, axis::2]) for axis in (0, 1))
    errors: dict[str, str] = {}
    for part in lost:
        errors.setdefault(_kind(part.error), part.error)
    kinds = list(errors)
    which = np.full((len(ys) - 1, len(xs) - 1), -1)
    for part, (x_min, y_min, x_max, y_max) in zip(lost, boxes, strict=True):
        rows = slice(*np.searchsorted(ys, (y_min, y_max)))
        cols = slice(*np.searchsorted(xs, (x_min, x_max)))
        which[rows, cols] = kinds.index(_kind(part.error))
    found = []
    for number, error in enumerate(errors.values()):
        for y, x in rectangles(which == number):
            row, bottom = int(ys[y.start]), int(ys[y.stop])
            col, right = int(xs[x.start]), int(xs[x.stop])
            found.append(LostPart(Window(row, col, bottom - row, right - col), error))
    return tuple(sorted(found))


def _kind(error: str) -> str:
    return _NUMBERS.sub("0", error)
