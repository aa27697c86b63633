"""The files that a VRT names, and what of it cannot be read without them."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geo_retina.errors import SceneError
from geo_retina.files import subdataset_file, with_file
from geo_retina.quiet import ignored_warnings
from geo_retina.scene.datasets import reason, refuse_damage
from geo_retina.scene.remote import gdal_settings, is_remote

Bounds = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max."""


@dataclass(frozen=True)
class Source:
    """A file that a VRT names.

    Attributes:
        path: as GDAL opens it.
        is_raster: whether it is opened as a raster; raw bytes are not.
        bounds_px: x_min, y_min, x_max, y_max in the VRT's pixels; None where it serves everywhere.
        own_px: the same of what is read of it, in its own pixels; None for an unknown part.
        is_plain: whether its name alone opens it, so that it can be tried by itself.
    """

    path: str
    is_raster: bool = True
    bounds_px: Bounds | None = None
    own_px: Bounds | None = None
    is_plain: bool = True

    def meets(self, bounds_px: Bounds | None) -> bool:
        """Check whether it may serve a part of the VRT, or with None any of it."""
        if bounds_px is None or self.bounds_px is None:
            return True
        (left, top, right, bottom), (x_min, y_min, x_max, y_max) = self.bounds_px, bounds_px
        return x_min < right and x_max > left and y_min < bottom and y_max > top

    def to_own(self, bounds_px: Bounds | None) -> Bounds | None:
        """Move a part of the VRT to the source's pixels; None where that is not known."""
        if bounds_px is None or self.bounds_px is None or self.own_px is None:
            return None
        return _moved(bounds_px, self.bounds_px, self.own_px)

    def to_vrt(self, own_px: Bounds | None) -> Bounds | None:
        """Move a part of the source to the VRT's pixels; as far as it is known, all of it."""
        if own_px is None or self.bounds_px is None or self.own_px is None:
            return self.bounds_px
        return _moved(own_px, self.own_px, self.bounds_px)


def _moved(bounds: Bounds, start: Bounds, end: Bounds) -> Bounds:
    """Move bounds as one rectangle is moved and scaled to another."""
    scale_x, scale_y = ((end[i + 2] - end[i]) / (start[i + 2] - start[i]) for i in (0, 1))
    x_min, y_min, x_max, y_max = (each - start[i % 2] for i, each in enumerate(bounds))
    return (
        end[0] + x_min * scale_x,
        end[1] + y_min * scale_y,
        end[0] + x_max * scale_x,
        end[1] + y_max * scale_y,
    )


def is_vrt(path: str) -> bool:
    """Check whether a path is that of a VRT, which reads from other files."""
    return path.lower().endswith(".vrt")


@contextmanager
def sources_read(path: str, bounds_px: Bounds | None = None) -> Iterator[None]:
    """Refuse to read through a VRT what its sources cannot give, before and after GDAL is asked.

    GDAL (3.10) keeps in mind that a source did not open and, asked once more, fails without a
    word; rasterio (1.4) takes a failure without words for success, so that the ground would be
    black. So each source is opened by itself before anything is read through a VRT, once a
    version, and what failed at an address is not asked again by this process.

    Args:
        path: of any raster; only VRTs are looked into.
        bounds_px: the part that will be read, x_min, y_min, x_max, y_max in the file's pixels;
            None for all of it.

    Raises:
        SceneError: a source is missing, or no raster.
    """
    if not is_vrt(path):
        yield
        return
    asked = [path] if is_remote(path) else []
    for source, _ in _serving(path, bounds_px):
        if is_remote(source.path):
            asked.append(source.path)
        else:
            _open_once(path, source)
    for each in asked:
        if each in _failed:
            raise SceneError(f"{path} cannot be read: {_failed[each]}; try again in a new process")
    for each in asked:
        _reach_once(path, each)
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        _failed.update(dict.fromkeys(asked, reason(error)))
        raise


_failed: dict[str, str] = {}
"""Addresses through which a VRT could not be read in this process, and why."""

_reached: set[str] = set()
"""Addresses of sources that could be opened by themselves."""

_opened: set[tuple[str, int, int]] = set()
"""Local sources that could be opened, with the version in which they could."""


def _serving(
    vrt: str, bounds_px: Bounds | None, ancestors: tuple[str, ...] = ()
) -> Iterator[tuple[Source, Bounds | None]]:
    """List the sources of a VRT that serve a part of it, and of the VRTs among them.

    Each comes with its place in the pixels of the first VRT; None where it serves everywhere.
    """
    if vrt in ancestors or not os.path.isfile(vrt):
        return
    stat = os.stat(vrt)
    for source in sources(vrt, stat.st_mtime_ns, stat.st_size):
        if not (source.is_plain and source.meets(bounds_px)):
            continue
        yield source, source.bounds_px
        if is_vrt(source.path):
            own_px = source.to_own(bounds_px)
            for inner, place in _serving(source.path, own_px, (*ancestors, vrt)):
                yield inner, source.to_vrt(place)


def source_bounds(path: str, bounds_px: Bounds | None = None) -> list[Bounds]:
    """List where sources of a VRT lie that serve a part of it, in its pixels; none elsewhere."""
    if not is_vrt(path):
        return []
    return list({place for _, place in _serving(path, bounds_px) if place is not None})


def _reach_once(vrt: str, address: str) -> None:
    """Open a source at an address, or the VRT itself, once in this process."""
    if address in _reached or address == vrt:
        return
    try:
        with (
            refuse_damage(vrt),
            gdal_settings(address),
            ignored_warnings("", category=NotGeoreferencedWarning),
        ):
            rasterio.open(address, sharing=False).close()
    except SceneError as error:
        cause = error.__cause__
        _failed[address] = reason(cause) if cause is not None else str(error)
        raise
    _reached.add(address)


def _open_once(vrt: str, source: Source) -> None:
    """Open a local source, unless this version of it was opened before."""
    inside = subdataset_file(source.path)
    if not os.path.exists(inside):
        raise SceneError(f"{vrt} cannot be read: {inside}: No such file or directory")
    stat = os.stat(inside)
    version = source.path, stat.st_mtime_ns, stat.st_size
    if version in _opened:
        return
    if source.is_raster:
        with refuse_damage(vrt), ignored_warnings("", category=NotGeoreferencedWarning):
            rasterio.open(source.path, sharing=False).close()
    _opened.add(version)


@lru_cache(maxsize=64)
def sources(vrt: str, modified_ns: int, size: int) -> tuple[Source, ...]:
    """List the files that a version of a local VRT names; none where GDAL will refuse its text.

    Args:
        vrt: path.
        modified_ns: when it was last modified.
        size: bytes.
    """
    try:
        root = ElementTree.parse(vrt).getroot()
    except (OSError, ElementTree.ParseError):
        return ()
    # As GDAL does, which looks from where a link leads to.
    return tuple(dict.fromkeys(_sources_in(root, os.path.dirname(os.path.realpath(vrt)))))


def _sources_in(
    element: ElementTree.Element, folder: str, *, is_raster: bool = True, is_plain: bool = True
) -> Iterator[Source]:
    # An array of many dimensions is no raster as it stands.
    is_plain = is_plain and element.tag != "Array" and element.find("OpenOptions") is None
    is_raster = is_raster and element.get("subClass") != "VRTRawRasterBand"
    for child in element:
        if child.tag not in ("SourceFilename", "SourceDataset"):
            yield from _sources_in(child, folder, is_raster=is_raster, is_plain=is_plain)
            continue
        name = (child.text or "").strip()
        if not name or name.startswith("<"):
            continue
        if child.get("relativeToVRT") == "1":
            name = with_file(name, lambda file: os.path.join(folder, file))
        place, own = _bounds(element.find("DstRect")), _bounds(element.find("SrcRect"))
        yield Source(name, is_raster, place, own, is_plain)


def _bounds(place: ElementTree.Element | None) -> Bounds | None:
    try:
        x, y, width, height = (float(place.attrib[k]) for k in ("xOff", "yOff", "xSize", "ySize"))  # type: ignore[union-attr]
    except (AttributeError, KeyError, ValueError):
        return None
    if not (width > 0 and height > 0):
        return None
    return x, y, x + width, y + height
