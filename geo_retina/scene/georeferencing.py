"""Where a file's pixels lie: by an affine, by control points, by a camera's RPCs, or nowhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import GCPTransformer, RPCTransformer

from geo_retina.errors import GridError, SceneError
from geo_retina.geodesy import WGS84, metric_crs, move, unit_m
from geo_retina.grid import Grid
from geo_retina.scene.datasets import crs_of

PIXEL_FRAME = Affine(1, 0, 0, 0, -1, 0)
"""Pixel (x, y) at (x, -y): where a GIS draws an image without georeferencing."""

_EDGE_POINTS = 33
_WIDEST_M = 5e6  # a plane map of more ground is no map of it


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a file's pixels lie.

    Attributes:
        kind: how the file says so. ``affine`` may come without a CRS.
        grid: the file's pixels; for control points and RPCs its affine only touches the truth
            at the centre, which is enough for the size of a pixel.
        gcps: control points.
        rpcs: the camera's rational polynomials, in WGS 84.
    """

    kind: Literal["affine", "gcps", "rpcs", "none"]
    grid: Grid
    gcps: tuple[GroundControlPoint, ...] = ()
    rpcs: RPC | None = None

    @property
    def is_warped(self) -> bool:
        """Whether the pixels form no grid on a plane map."""
        crs = self.grid.crs
        return self.kind in ("gcps", "rpcs") or (crs is not None and crs.is_geographic)

    def to_crs(self, points_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move (N, 2) pixel positions x, y to the file's CRS."""
        if self.kind in ("affine", "none"):
            return self.grid.pixels_to_crs(points_px)
        return _to_crs(_transformer(self.gcps, self.rpcs), points_px)

    def sized(self, pixel_m: float | None) -> Placement:
        """Set the size of the pixels, where there is no CRS to tell it."""
        if pixel_m is None or self.grid.crs is not None:
            return self
        return replace(self, grid=replace(self.grid, pixel_m=pixel_m))

    @property
    def middle_x(self) -> float:
        """First coordinate of the image's middle, in degrees its longitude as the file counts."""
        own = self.grid
        return float(self.to_crs(np.array([[own.width / 2, own.height / 2]]))[0, 0])

    @property
    def height_m(self) -> float:
        """The height above the ellipsoid on which RPCs are met: the middle of their range."""
        return float(self.rpcs.height_off) if self.rpcs else 0.0


def georeference(dataset: rasterio.DatasetReader, path: str) -> Placement:
    """Find where a file's pixels lie; by affine, else by control points, else by RPCs.

    Raises:
        SceneError: control points or RPCs place no pixel.
    """
    height, width = dataset.height, dataset.width
    gcps, gcp_crs = dataset.gcps
    if not dataset.transform.is_identity:
        try:
            grid = Grid(crs_of(dataset), dataset.transform, height, width)
        except GridError as error:
            raise SceneError(f"{path} cannot be placed: {error}") from error
        return Placement("affine", grid)
    if gcps and gcp_crs:
        crs, rpcs = pyproj.CRS.from_wkt(gcp_crs.to_wkt()), None
    elif dataset.rpcs is not None:
        crs, rpcs, gcps = WGS84, dataset.rpcs, []
    else:
        return Placement("none", Grid(None, PIXEL_FRAME, height, width))
    try:
        with _transformer(tuple(gcps), rpcs) as transformer:
            affine = _touching(transformer, height, width)
        grid = Grid(crs, affine, height, width)
    except (GridError, ValueError, rasterio.errors.RasterioError) as error:
        how = "RPCs" if rpcs else f"{len(gcps)} control points"
        raise SceneError(
            f"{path} has {how} that place no pixel ({error}); warp it first with gdalwarp"
        ) from error
    return Placement("rpcs" if rpcs else "gcps", grid, tuple(gcps), rpcs)


def _transformer(gcps: tuple[GroundControlPoint, ...], rpcs: RPC | None) -> Any:
    if rpcs is None:
        return GCPTransformer(list(gcps))
    return RPCTransformer(rpcs, rpc_height=rpcs.height_off)


def _to_crs(transformer: Any, points_px: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = points_px.T
    return np.column_stack(transformer.xy(y, x, offset="ul")).astype(np.float64)


def _touching(transformer: Any, height: int, width: int) -> Affine:
    """Approximate a transformer by the affine that agrees with it at the image's centre."""
    centre = np.array([width / 2, height / 2])
    steps = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5], [0, 0]]) * [width, height] / 8
    west, east, north, south, middle = _to_crs(transformer, centre + steps)
    (a, d), (b, e) = (east - west) * 8 / width, (south - north) * 8 / height
    c, f = middle - [a * centre[0] + b * centre[1], d * centre[0] + e * centre[1]]
    return Affine(a, b, c, d, e, f)


def metric_grid(path: str, placement: Placement, gsd_m: float | None) -> Grid:
    """Make a north-up grid in metres that holds all of a scene.

    Its CRS is the UTM zone of the scene's centre, or the polar stereographic one that goes with
    UTM beyond 84 degrees north and 80 south, on the scene's own datum: nothing is shifted.

    Args:
        path: of the scene, for errors.
        placement: where its pixels lie.
        gsd_m: side of a pixel; left out, about that of the file's.

    Raises:
        SceneError: the scene is larger than a plane map can show.
    """
    own = placement.grid
    assert own.crs is not None  # checked by the caller
    geodetic = own.crs.geodetic_crs or own.crs
    centre = placement.to_crs(np.array([[own.width / 2, own.height / 2]]))
    degrees = unit_m(geodetic) / math.radians(1)
    lon, lat = (move(centre, own.crs, geodetic.to_2d())[0] * degrees).tolist()
    crs = metric_crs(geodetic.to_2d(), lon, lat)
    points = move(placement.to_crs(_outline(own)), own.crs, crs)
    low, high = points.min(axis=0), points.max(axis=0)
    if not np.isfinite(points).all() or (high - low).max() > _WIDEST_M:
        raise SceneError(
            f"{path} covers more ground than one map in metres can show; cut it into scenes of "
            "some degrees with gdal_translate -projwin"
        )
    side_m = gsd_m or own.gsd_m
    assert side_m is not None
    width, height = (max(1, math.ceil(v)) for v in (high - low) / side_m - 1e-6)
    affine = Affine(side_m, 0, low[0], 0, -side_m, high[1])
    return Grid(crs, affine, height, width)


def _outline(grid: Grid) -> NDArray[np.float64]:
    """Return (N, 2) pixel positions along the image's edges, and a lattice in it."""
    along = np.linspace(0, 1, _EDGE_POINTS)
    x, y = np.meshgrid(along, along)
    on_edge = (np.minimum(x, y) == 0) | (np.maximum(x, y) == 1)
    coarse = np.zeros_like(on_edge)
    coarse[::4, ::4] = True
    chosen = on_edge | coarse
    return np.column_stack([x[chosen] * grid.width, y[chosen] * grid.height])
