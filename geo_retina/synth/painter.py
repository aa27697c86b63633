"""Any window of a scene, and the truth about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from geo_retina.boxes.oriented import normalise
from geo_retina.grid import Grid, Window
from geo_retina.options import SynthOptions
from geo_retina.synth.ground import draw_ground
from geo_retina.synth.layout import lay_out
from geo_retina.synth.noise import mix, normal_grid
from geo_retina.synth.objects import Patch, Sun, draw_shadow, draw_thing, reach_px
from geo_retina.synth.parcels import CELL_M, FREIGHT_CELL_M, Land
from geo_retina.synth.things import FLAT, Things, boxes_m, corners_m, is_object, labels_of

Pixels = NDArray[np.float32]

_MARGIN_PX = 6
"""Beyond the reach of the blur, so that a window's edge is like its middle."""

_EDGE_X, _EDGE_Y = 0.8, 0.35
"""The empty corner: from this share of the width at the top to this share of the height."""

_LOW_HIGH = {"uint8": (0, 255), "uint16": (0, 10_000), "int16": (0, 10_000), "float32": (0, 1)}
NODATA = {"uint8": 0, "uint16": 0, "int16": -9999, "float32": -9999.0}
"""Value of empty pixels; no valid pixel has it."""


@dataclass(frozen=True)
class Painter:
    """Draws windows of the scene that some options describe.

    Attributes:
        options: the scene.
        bare: leave out everything that stands on the ground.
    """

    options: SynthOptions
    bare: bool = False

    @cached_property
    def land(self) -> Land:
        """The scene's parcels."""
        # A parcel is never so small that a window would hold thousands of them.
        o, freight = self.options, self.options.content == "freight"
        return Land(o.seed, max(FREIGHT_CELL_M if freight else CELL_M, 64 * o.gsd_m), freight)

    @cached_property
    def sun(self) -> Sun:
        """Where shadows fall."""
        turn = 2 * math.pi * mix(self.options.seed, 8) / 2**32
        reach = 0.25 + 0.75 * self.options.difficulty * (
            0.6 + 0.8 * mix(self.options.seed, 9) / 2**32
        )
        return Sun(math.cos(turn), math.sin(turn), reach)

    @cached_property
    def grid(self) -> Grid:
        """Pixels and where they lie on the ground."""
        o = self.options
        turn = math.radians(o.rotation_deg)
        along, across = o.gsd_m * math.cos(turn), o.gsd_m * math.sin(turn)
        x, y = o.origin_xy
        affine = Affine(along, across, x, across, -along, y)
        return Grid(pyproj.CRS.from_epsg(o.epsg), affine, o.height, o.width)

    @cached_property
    def ground_px(self) -> shapely.Polygon:
        """The valid ground, in pixels."""
        height, width = self.options.height, self.options.width
        if not self.options.nodata_corner:
            return shapely.box(0, 0, width, height)
        top, right = (_EDGE_X * width, 0), (width, _EDGE_Y * height)
        return shapely.Polygon([(0, 0), top, right, (width, height), (0, height)])

    def on_ground(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        """Check whether positions lie inside the scene and off the empty corner; broadcasts."""
        height, width = self.options.height, self.options.width
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        if not self.options.nodata_corner:
            return np.asarray(inside)
        beyond = (x / width - _EDGE_X) / (1 - _EDGE_X) - y / height / _EDGE_Y
        return np.asarray(inside & (beyond <= 0))

    def things(self, window: Window) -> Things:
        """List what stands in or reaches into a window, in the order in which it is drawn.

        Only what has its centre on the scene's valid ground.
        """
        gsd_m, cell_px = self.options.gsd_m, self.land.cell_m / self.options.gsd_m
        # A parcel reaches less than a cell and a half beyond its own; its things not farther.
        rows = range(
            math.floor(window.row / cell_px) - 2,
            math.floor((window.row + window.height) / cell_px) + 3,
        )
        cols = range(
            math.floor(window.col / cell_px) - 2,
            math.floor((window.col + window.width) / cell_px) + 3,
        )
        found = np.concatenate([self.things_of(r, c) for r in rows for c in cols])
        reach = reach_px(found, self.sun, gsd_m)
        x_min, y_min, x_max, y_max = window.box_px
        near = (
            (reach[:, 0] < x_max)
            & (reach[:, 2] > x_min)
            & (reach[:, 1] < y_max)
            & (reach[:, 3] > y_min)
        )
        return found[near]

    def things_of(self, row: int, col: int) -> Things:
        """List what stands in one parcel and has its centre on the scene's valid ground."""
        o = self.options
        found = lay_out(self.land, o.density * 1e-6 / o.gsd_m**2, 2 * o.difficulty, row, col)
        return found[self.on_ground(found["x"] / o.gsd_m, found["y"] / o.gsd_m)]

    def truth(self, row: int, col: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """List boxes (N, 4) in pixels of the objects of one parcel, and their (N,) classes.

        Each is the extent of what is visible: cut at the scene's and the valid ground's edge.
        """
        things, labels = self._objects(row, col)
        if self.land.freight:
            shapes = shapely.polygons(corners_m(things) / self.options.gsd_m)
        else:
            shapes = shapely.box(*(boxes_m(things) / self.options.gsd_m).T)
        return shapely.bounds(self._visible(shapes)).reshape(-1, 4), labels

    def rotated_truth(self, row: int, col: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """List rotated boxes (N, 5) in pixels of the objects of one parcel, and their classes.

        Each is the rectangle along the object's sides around what is visible of it.
        """
        things, labels = self._objects(row, col)
        visible = self._visible(shapely.polygons(corners_m(things) / self.options.gsd_m))
        turn = things["angle"]
        return normalise(
            [_around(shape, angle) for shape, angle in zip(visible, turn, strict=True)]
        ), labels

    def _objects(self, row: int, col: int) -> tuple[Things, NDArray[np.int32]]:
        things, freight = self.things_of(row, col), self.land.freight
        things = things[is_object(things, freight=freight)]
        return things, labels_of(things, freight=freight)

    def _visible(self, shapes: NDArray[np.object_]) -> NDArray[np.object_]:
        """Cut (N,) shapes in pixels at the scene's and the valid ground's edge."""
        cut = ~shapely.contains_properly(self.ground_px, shapes)
        shapes[cut] = shapely.intersection(shapes[cut], self.ground_px)
        return shapes

    def draw(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Draw a window of the scene.

        Args:
            window: inside the scene.

        Returns:
            (bands, height, width) pixels of the scene's type, and the (height, width) mask of
            valid ones. Neither depends on how the scene is cut into windows.
        """
        m = _MARGIN_PX
        wide = Window(window.row - m, window.col - m, window.height + 2 * m, window.width + 2 * m)
        light = draw_ground(self.land, wide, self.options.gsd_m, 4 if self.options.bands > 3 else 3)
        if not self.bare:
            self._draw_things(light, wide)
        sigma = 0.4 + 0.4 * self.options.difficulty
        blurred = np.stack([ndimage.gaussian_filter(c, sigma, truncate=4.0) for c in light])
        pixels = self._to_bands(blurred[:, m:-m, m:-m], window)
        x = np.arange(window.col, window.col + window.width)[None, :] + 0.5
        y = np.arange(window.row, window.row + window.height)[:, None] + 0.5
        valid = self.on_ground(x, y)
        pixels[:, ~valid] = NODATA[self.options.dtype]
        return pixels, valid

    def _draw_things(self, light: Pixels, window: Window) -> None:
        things = self.things(window)
        reach = reach_px(things, self.sun, self.options.gsd_m)
        flat = np.isin(things["kind"], FLAT)
        for i in np.flatnonzero(flat):
            self._lay(light, window, Patch(things[i], _window(reach[i]), self.options.gsd_m))
        raised = [
            Patch(things[i], _window(reach[i]), self.options.gsd_m) for i in np.flatnonzero(~flat)
        ]
        depth = min(1.0, 1.2 * self.options.difficulty) * 0.55
        if depth > 0:
            shade = np.zeros(light.shape[1:], np.float32)
            for patch in raised:
                here, there = _overlap(window, patch.window)
                part = draw_shadow(patch, self.sun)[there].astype(np.float32)
                np.maximum(shade[here], part, out=shade[here])
            # The sky still lights a shadow, so it is bluer than the ground beside it.
            for channel, share in zip(light, (1.0, 0.96, 0.86, 1.0), strict=False):
                channel *= 1 - np.float32(depth * share) * shade
        for patch in raised:
            self._lay(light, window, patch)

    def _lay(self, light: Pixels, window: Window, patch: Patch) -> None:
        alpha, colour = draw_thing(patch, self.sun, self.options.difficulty)
        here, there = _overlap(window, patch.window)
        under = light[(slice(None), *here)]
        under += (colour[(slice(0, len(light)), *there)] - under) * alpha[there]

    def _to_bands(self, light: Pixels, window: Window) -> NDArray[np.generic]:
        """Mix channels into bands, add the sensor's noise, and round to the scene's type."""
        o = self.options
        rows = np.arange(window.row, window.row + window.height)
        cols = np.arange(window.col, window.col + window.width)
        low, high = _LOW_HIGH[o.dtype]
        deviation = np.float32(0.004 + 0.024 * o.difficulty)
        pixels = np.empty((o.bands, window.height, window.width), o.dtype)
        for band, weights in enumerate(band_weights(o.bands)):
            value = sum(np.float32(w) * c for w, c in zip(weights, light, strict=False) if w)
            value = value + deviation * normal_grid(rows, cols, mix(o.seed, 11, band))
            value = np.clip(value * np.float32(high), low, high)
            # Empty pixels are 0 in unsigned types, so valid ones are not.
            pixels[band] = value if o.dtype == "float32" else np.maximum(np.rint(value), 1)
        return pixels


def band_weights(bands: int) -> NDArray[np.float64]:
    """Compute (bands, 4) shares of red, green, blue and near infrared in each band."""
    if bands == 1:
        return np.array([[0.30, 0.59, 0.11, 0.0]])
    weights = np.eye(max(bands, 4), 4)
    for band in range(4, bands):
        parts = np.array([1.0 + mix(band, i) / 2**30 for i in range(4)])
        weights[band] = parts / parts.sum() * (0.7 + 0.3 * mix(band, 9) / 2**32)
    return weights[:bands]


def _around(shape: shapely.Geometry, angle: float) -> list[float]:
    """Measure the rectangle of a direction in radians around a shape: (5,) as ``boxes`` has it."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along = shapely.get_coordinates(shape) @ turn
    low, high = along.min(axis=0), along.max(axis=0)
    x, y = turn @ (low + high) / 2
    return [x, y, *(high - low), math.degrees(angle)]


def _window(box: NDArray[np.int64]) -> Window:
    x_min, y_min, x_max, y_max = (int(v) for v in box)
    return Window(y_min, x_min, y_max - y_min, x_max - x_min)


def _overlap(a: Window, b: Window) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Find what two windows share, as slices of each."""
    top, left = max(a.row, b.row), max(a.col, b.col)
    bottom = max(top, min(a.row + a.height, b.row + b.height))
    right = max(left, min(a.col + a.width, b.col + b.width))

    def part(w: Window) -> tuple[slice, slice]:
        return slice(top - w.row, bottom - w.row), slice(left - w.col, right - w.col)

    return part(a), part(b)
