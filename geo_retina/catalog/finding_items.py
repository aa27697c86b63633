"""Searching a STAC API, and keeping what it finds in a file that ``detect`` takes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geo_retina.catalog.footprints import DEGREES, Footprints, on_equal_area, split_at_antimeridian
from geo_retina.catalog.signing import sign_item
from geo_retina.errors import OptionError, SceneError
from geo_retina.files import check_file_output, parse_json, read_text, write_text
from geo_retina.options import FindOptions
from geo_retina.scene import choose_asset, item_date
from geo_retina.vector import read_area

SUFFIXES = (".json", ".geojson")

_MOST_VERTICES = 400
"""Of the ground that is sent to a server; a more detailed outline is sent as its hull."""

_SEARCH = "geo_retina:search"
"""Member of the file that says what was asked."""


@dataclass(frozen=True, kw_only=True)
class FoundItems:
    """What a search found.

    Attributes:
        out: the collection of items.
        items: how many it holds.
        added: how many of them were not in the file before.
        gone: ids of items in the file that the catalogue no longer finds; they are kept.
        left_out: items that show no ground of their own, as newer ones show all of it.
        first_date: of the oldest item, as YYYY-MM-DD; None without items.
        last_date: of the newest.
        gsd_m: smallest and largest metres a pixel, where items say so.
        covered_km2: searched ground that at least one item shows.
        searched_km2: ground that was searched.
        overlap: how often covered ground is shown on average; 0 without items.
        bytes: of the assets, where items say so; None where none does.
        items_with_bytes: how many items say so.
    """

    out: Path
    items: int
    added: int
    gone: tuple[str, ...]
    left_out: int
    first_date: str | None
    last_date: str | None
    gsd_m: tuple[float, float] | None
    covered_km2: float
    searched_km2: float
    overlap: float
    bytes: int | None
    items_with_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Give all values for JSON."""
        return {**asdict(self), "out": str(self.out)}


def find_items(
    api: str,
    out: str | Path,
    options: FindOptions,
    *,
    update: bool = False,
    overwrite: bool = False,
    modifier: Callable[[Any], Any] | None = None,
) -> FoundItems:
    """Search a STAC API for scenes, and write a collection of items that ``detect`` takes.

    Items are written from the newest to the oldest, so that of scenes that are read as a mosaic
    the newest counts.

    Args:
        api: address of the API.
        out: file to write, ending ``.json`` or ``.geojson``.
        options: which items.
        update: keep the items that the file holds, and add what is new after them.
        overwrite: write the file anew.
        modifier: called with what pystac-client reads, to sign or change it; see its
            ``Client.open``.

    Raises:
        OptionError: the file's ending, or a search that the API refuses.
        SceneError: the API cannot be read, or finds nothing, or more than the limit; an item that
            the file holds has changed.
        OutputError: the file exists.

    Examples:
        >>> from geo_retina import FindOptions, find_items
        >>> options = FindOptions(collections=("naip",), bbox=(-121.9, 39.7, -121.7, 39.8))
        >>> find_items("https://example.com/stac", "naip.gpkg", options)
        Traceback (most recent call last):
        geo_retina.errors.OptionError: naip.gpkg does not end in .json or .geojson, expected one
    """
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise OptionError(f"{out} does not end in {' or '.join(SUFFIXES)}, expected one")
    known = _read_known(out, options) if update and out.exists() else []
    check_file_output(out, overwrite=overwrite or bool(known))
    ground = _ground(options)
    found = [sign_item(item, options.sign) for item in _search(api, options, ground, modifier)]
    found = _sorted(_on_ground(found, ground))
    left_out = 0
    if options.newest:
        kept = Footprints.of(found, ground).newest(range(len(found)))
        left_out = len(found) - len(kept)
        found = [found[i] for i in kept]
    items, added, gone = _merge(known, found, out)
    document = {"type": "FeatureCollection", _SEARCH: _asked(api, options), "features": items}
    write_text(out, json.dumps(document, indent=1) + "\n")
    shown = Footprints.of(items, ground)
    dates = sorted(filter(None, map(item_date, items)))
    gsd = [gsd for gsd in map(_gsd, items) if gsd is not None]
    sizes = [size for size in (_bytes(item, options.asset) for item in items) if size is not None]
    covered = shown.area_km2
    return FoundItems(
        out=out,
        items=len(items),
        added=added,
        gone=gone,
        left_out=left_out,
        first_date=dates[0] if dates else None,
        last_date=dates[-1] if dates else None,
        gsd_m=(min(gsd), max(gsd)) if gsd else None,
        covered_km2=covered,
        searched_km2=float(shapely.area(on_equal_area(np.array([ground], object))).sum()) / 1e6,
        overlap=shown.sum_km2 / covered if covered else 0.0,
        bytes=sum(sizes) if sizes else None,
        items_with_bytes=len(sizes),
    )


def _read_known(out: Path, options: FindOptions) -> list[dict[str, Any]]:
    try:
        document = parse_json(read_text(out))
        asked = document[_SEARCH]
        items = list(document["features"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SceneError(
            f"{out} is no result of a search, expected one to update; write another file"
        ) from error
    for name in ("collections", "sign"):
        before, now = asked.get(name), json.loads(json.dumps(asdict(options)[name]))
        if before != now:
            raise OptionError(
                f"FindOptions.{name} is {now}, and {out} was searched with {before}; an update "
                "takes the same, or write another file"
            )
    return items


def _asked(api: str, options: FindOptions) -> dict[str, Any]:
    return {"api": api, **asdict(options)}


def _ground(options: FindOptions) -> Any:
    """Make the ground that is searched, in degrees between -180 and 180."""
    if options.bbox is not None:
        west, south, east, north = options.bbox
        box = shapely.box(west, south, east + (360 if east < west else 0), north)
        return split_at_antimeridian(box)
    assert options.aoi is not None
    area = read_area(options.aoi, options.aoi_layer)
    return split_at_antimeridian(shapely.union_all(area.outlines_in(DEGREES)))


def _search(
    api: str,
    options: FindOptions,
    ground: Any,
    modifier: Callable[[Any], Any] | None,
) -> list[dict[str, Any]]:
    try:
        import pystac_client
        from pystac_client.exceptions import APIError
        from requests import RequestException
    except ImportError as error:
        raise SceneError(
            "searching a catalogue needs pystac-client, which is not installed; install it with "
            "pip install 'geo-retina[stac]'"
        ) from error
    try:
        client = pystac_client.Client.open(api, modifier=modifier)
        search = client.search(
            collections=list(options.collections),
            intersects=shapely.geometry.mapping(_simple(ground)),
            datetime=options.datetime,
            query=list(options.query) or None,
            max_items=options.limit + 1,
        )
        items = list(
            itertools.chain.from_iterable(
                page.get("features", []) for page in search.pages_as_dicts()
            )
        )
    except (APIError, RequestException, OSError) as error:
        raise SceneError(f"{api} cannot be searched: {_one_line(error)}") from error
    except (KeyError, TypeError, ValueError, NotImplementedError, AttributeError) as error:
        raise SceneError(
            f"{api} does not answer as a STAC API that can be searched ({_one_line(error)}); give "
            "the address of its landing page, and check the date and the conditions"
        ) from error
    if len(items) > options.limit:
        raise SceneError(
            f"{api} finds more than FindOptions.limit = {options.limit} items; raise it, or "
            "search less ground or fewer years"
        )
    if not items:
        raise SceneError(
            f"{api} finds no item of {', '.join(options.collections)} there; check the names of "
            "the collections, the ground and the dates"
        )
    return items


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def _simple(ground: Any) -> Any:
    """Shorten an outline to what servers accept; it never shrinks."""
    if shapely.get_num_coordinates(ground) <= _MOST_VERTICES:
        return ground
    parts = shapely.get_parts(ground)
    hulls = shapely.union_all(shapely.convex_hull(parts))
    if shapely.get_num_coordinates(hulls) <= _MOST_VERTICES:
        return hulls
    return shapely.envelope(ground)


def _on_ground(items: Sequence[dict[str, Any]], ground: Any) -> list[dict[str, Any]]:
    """Drop what a server finds beside the ground, and items that come twice."""
    once = {(item.get("collection"), item.get("id")): item for item in items}
    footprints = Footprints.of(list(once.values()), ground)
    shown = shapely.area(footprints.polygons_m) > 0
    return [item for item, is_shown in zip(once.values(), shown, strict=True) if is_shown]


def _sorted(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort from the newest to the oldest, those of a day by name."""
    return sorted(sorted(items, key=lambda i: str(i.get("id"))), key=item_date, reverse=True)


def _merge(
    known: list[dict[str, Any]], found: list[dict[str, Any]], out: Path
) -> tuple[list[dict[str, Any]], int, tuple[str, ...]]:
    """Put new items after known ones, which keep their order, and so a run its units."""
    now = {(item.get("collection"), item.get("id")): item for item in found}
    before = {(item.get("collection"), item.get("id")): item for item in known}
    for key, item in before.items():
        if key in now and _version(item) != _version(now[key]):
            raise SceneError(
                f"item {key[1]} has changed in the catalogue since {out} was written; detect with "
                "a new search, written to another file"
            )
    new = [item for key, item in now.items() if key not in before]
    gone = tuple(str(key[1]) for key in before if key not in now)
    return [*known, *new], len(new), gone


def _version(item: Mapping[str, Any]) -> tuple[Any, ...]:
    """Tell versions of an item apart: where its files are, how large, and their checksums."""
    kept = ("href", "file:size", "file:checksum")
    assets = item.get("assets") or {}
    return tuple(sorted((k, *(str(a.get(m)) for m in kept)) for k, a in assets.items()))


def _gsd(item: Mapping[str, Any]) -> float | None:
    value = (item.get("properties") or {}).get("gsd")
    return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else None


def _bytes(item: Mapping[str, Any], key: str | None) -> int | None:
    try:
        size = choose_asset(item, key).get("file:size")
    except SceneError:
        return None
    return int(size) if isinstance(size, (int, float)) else None
