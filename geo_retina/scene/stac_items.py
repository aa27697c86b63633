"""STAC items and item collections: which of their assets are the scenes.

Only what finding a file needs is read: https://github.com/radiantearth/stac-spec, versions
0.9 to 1.1, which agree on it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from geo_retina.errors import SceneError
from geo_retina.files import find_spelling, parse_json, read_text
from geo_retina.scene.remote import fetch_json, is_remote, plain_address

_ENDINGS = (".json", ".geojson")
_API = re.compile(r"/(items(/[^/]+)?|search)/?$")
_IMAGE_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "image/x.geotiff")
_IMAGE_ENDINGS = (".tif", ".tiff", ".jp2", ".vrt", ".ntf", ".nitf", ".img")
_ASIDE_ROLES = {"thumbnail", "overview", "metadata"}


def is_stac(path: str) -> bool:
    """Check whether a path may be a STAC document: by its ending, or as an API's address."""
    if not path.lower().startswith(("http://", "https://")):
        return path.lower().endswith(_ENDINGS)
    place = urlsplit(path).path
    return place.lower().endswith(_ENDINGS) or bool(_API.search(place))


def find_assets(path: str, key: str | None) -> dict[str, date | None]:
    """List the files that a STAC item, or every item of a collection of items, has.

    Args:
        path: a local file or an address. A relative ``href`` is taken from the item: from the
            file of a single item, from the ``self`` link of an item in a collection where it
            has one. Pages of an answer at an address are followed.
        key: asset to take. Left out, the item's only image, where thumbnails, overviews and
            metadata do not count; of several, the only one with the role ``data`` or
            ``visual``.

    Returns:
        Files in the order of the items, each once, with the day of the first of its items that
        tells one.

    Raises:
        SceneError: the document cannot be read or is neither, or an item lacks the asset or
            leaves a choice; the assets are listed.
    """
    return with_first_days(
        {_resolve(choose_asset(item, key, path)["href"], base): parse_day(item_date(item))}
        for item, base in _read_items(path)
    )


def with_first_days(parts: Iterable[Mapping[str, date | None]]) -> dict[str, date | None]:
    """Put files together, each once, with the first day that is told of it."""
    found: dict[str, date | None] = {}
    for part in parts:
        for path, day in part.items():
            found[path] = found.get(path) or day
    return found


def item_date(item: Mapping[str, Any]) -> str:
    """Read when an item was taken, as YYYY-MM-DD; of a span of time its end; empty if unknown."""
    properties = item.get("properties")
    if not isinstance(properties, dict):
        return ""
    text = properties.get("datetime") or properties.get("end_datetime")
    return str(text or properties.get("start_datetime") or "")[:10]


def parse_day(text: str) -> date | None:
    """Read the day that a text begins with, as YYYY-MM-DD; None where it is no day."""
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None


def _read_items(path: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Read every item, with the place that its relative addresses are taken from."""
    page: str | None = path
    seen: set[str] = set()
    while page is not None and page not in seen:
        seen.add(page)
        document = _read(page)
        kind = document.get("type") if isinstance(document, dict) else None
        if kind == "Feature" and "assets" in document:
            yield document, page
            return
        features = document.get("features") if kind == "FeatureCollection" else None
        if not isinstance(features, list) or not all(
            isinstance(f, dict) and "assets" in f for f in features
        ):
            raise SceneError(
                f"{page} is {_kind(document)}, expected a STAC item or a collection of STAC items"
            )
        for item in features:
            yield item, _link(item, "self") or page
        # What a local file holds was chosen; an answer from an address may be one page of it.
        page = _link(document, "next", page) if is_remote(page) else None
    if len(seen) == 1 and not features:
        raise SceneError(f"{path} holds no item")


def _read(path: str) -> Any:
    if is_remote(path):
        return fetch_json(path)
    try:
        return parse_json(read_text(path))
    except FileNotFoundError:
        raise SceneError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise SceneError(f"{path} is not JSON: {error}") from error


def _kind(document: Any) -> str:
    if not isinstance(document, dict):
        return "no STAC document"
    kind = document.get("type")
    if kind in ("Catalog", "Collection"):
        return f"a STAC {kind}, which only links to items"
    return "GeoJSON without assets" if kind else "no STAC document"


def _link(document: Mapping[str, Any], rel: str, base: str | None = None) -> str | None:
    """Find the address of a link that a plain request follows; None where there is none."""
    links = document.get("links")
    for link in links if isinstance(links, list) else ():
        href = link.get("href") if isinstance(link, dict) else None
        if not isinstance(href, str) or not href or link.get("rel") != rel:
            continue
        if str(link.get("method", "GET")).upper() == "GET":
            href = href if base is None else urljoin(base, href)
            return str(href) if base is not None or is_remote(href) else None
    return None


def choose_asset(
    item: Mapping[str, Any], key: str | None, path: str = "the catalogue"
) -> Mapping[str, Any]:
    """Choose the asset of an item that is the scene, as ``find_assets`` does.

    Args:
        item: as JSON has it.
        key: asset to take; left out, the only image.
        path: where the item is from, for messages.

    Raises:
        SceneError: the item lacks the asset, or leaves a choice.
    """
    assets: Mapping[str, Any] = item["assets"]
    name = f"item {item.get('id', '?')} of {path}"
    if not isinstance(assets, dict) or not all(map(_is_asset, assets.values())):
        raise SceneError(
            f"{name} has assets that are not as STAC has them, expected groups with an href, and "
            "texts in it, in type and in roles"
        )
    if key is not None:
        if key not in assets:
            raise SceneError(
                f"{name} has no asset {key}; it has {', '.join(assets) or 'none'}; choose one of "
                "them with DetectOptions.asset"
            )
        return dict(assets[key])
    images = {k: asset for k, asset in assets.items() if _is_image(asset)}
    main = {k: a for k, a in images.items() if {"data", "visual"} & set(a.get("roles") or ())}
    for candidates in (images, main):
        if len(candidates) == 1:
            return dict(next(iter(candidates.values())))
    if images:
        raise SceneError(
            f"{name} has {len(images)} images: {', '.join(images)}; choose one with "
            "DetectOptions.asset"
        )
    raise SceneError(
        f"{name} has no image among its assets {', '.join(assets) or '(none)'}; name one with "
        "DetectOptions.asset if it is one nevertheless"
    )


def _is_asset(asset: Any) -> bool:
    """Check whether what an asset says has the types that STAC requires."""
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
        return False
    roles = asset.get("roles") or []
    texts = [asset.get("type") or "", *(roles if isinstance(roles, list) else [None])]
    return all(isinstance(text, str) for text in texts)


def _is_image(asset: Mapping[str, Any]) -> bool:
    if _ASIDE_ROLES & set(asset.get("roles") or ()):
        return False
    media = (asset.get("type") or "").partition(";")[0].strip().lower()
    ending = urlsplit(plain_address(asset.get("href", ""))).path.lower().endswith(_IMAGE_ENDINGS)
    return media in _IMAGE_TYPES or (ending and not media.startswith(("image/png", "image/jpeg")))


def _resolve(href: str, base: str) -> str:
    """Resolve the full address or path of an asset."""
    if href.startswith("file://"):
        return unquote(urlsplit(href).path)
    if is_remote(href):
        return href
    if os.path.isabs(href) or not is_remote(base):
        return _local(os.path.normpath(os.path.join(os.path.dirname(base), href)))
    if base.lower().startswith(("http://", "https://")):
        return urljoin(base, href)
    # urljoin knows no buckets.
    return f"{base.rpartition('/')[0]}/{href.removeprefix('./')}"


def _local(path: str) -> str:
    """Find the file that an address names: as it is, or percent-encoded."""
    return find_spelling(path) or find_spelling(unquote(path)) or path
