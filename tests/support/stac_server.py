"""A STAC API on this machine: a landing page and a search over given items, in pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlencode

import shapely

from support.http_server import listening

_CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#query",
]


@dataclass
class Catalogue:
    """What the API holds and was asked.

    Attributes:
        url: address of its landing page.
        items: all of them.
        page: items an answer holds at the most.
        status: of the answers to searches.
        asked: bodies of all searches.
        slack_deg: how far beside the asked ground items are found nevertheless, as servers that
            search by bounding boxes do.
    """

    url: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)
    page: int = 10
    status: int = 200
    asked: list[dict[str, Any]] = field(default_factory=list)
    slack_deg: float = 0.0


def make_item(
    name: str,
    box: Sequence[float],
    date: str,
    *,
    collection: str = "naip",
    href: str | None = None,
    size: int | None = 1000,
) -> dict[str, Any]:
    """Make an item whose footprint is a box in degrees."""
    ground = shapely.box(*box)
    asset = {
        "href": href or f"https://example.com/{name}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "title": "imagery",
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "geometry": shapely.geometry.mapping(ground),
        "bbox": list(ground.bounds),
        "properties": {"datetime": f"{date}T00:00:00Z", "gsd": 0.6},
        "links": [],
        "assets": {"image": asset | ({} if size is None else {"file:size": size})},
    }


@contextmanager
def serve_items(items: Sequence[dict[str, Any]]) -> Iterator[Catalogue]:
    """Serve items at 127.0.0.1."""
    catalogue = Catalogue(items=list(items))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/":
                self.answer(200, _landing_page(catalogue.url))
            elif path == "/api":
                self.answer(200, _SERVICE, "application/vnd.oai.openapi+json;version=3.0")
            elif path == "/html":
                self.answer(200, "a page for people", "text/html")
            elif path == "/search":
                self.search(_from_query(query), by_post=False)
            else:
                self.answer(404, {"code": "NotFound", "description": "no such page"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.search(body, by_post=True)

        def search(self, body: dict[str, Any], *, by_post: bool) -> None:
            catalogue.asked.append(body)
            if catalogue.status != 200:
                self.answer(catalogue.status, {"code": "x", "description": "not today"})
                return
            try:
                found = _search(catalogue, body, by_post=by_post)
            except (ValueError, TypeError, KeyError, shapely.errors.ShapelyError) as error:
                self.answer(400, {"code": "BadRequest", "description": str(error)})
                return
            self.answer(200, found, "application/geo+json")

        def answer(self, status: int, content: Any, kind: str = "application/json") -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    with listening(Handler) as catalogue.url:
        yield catalogue


def _landing_page(url: str) -> dict[str, Any]:
    search = {"rel": "search", "href": f"{url}/search", "type": "application/geo+json"}
    described = "application/vnd.oai.openapi+json;version=3.0"
    return {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "stub",
        "description": "Scenes of a test.",
        "conformsTo": _CONFORMS,
        "links": [
            {"rel": "self", "href": f"{url}/", "type": "application/json"},
            {"rel": "root", "href": f"{url}/", "type": "application/json"},
            {"rel": "service-desc", "href": f"{url}/api", "type": described},
            {"rel": "service-doc", "href": f"{url}/html", "type": "text/html"},
            {**search, "method": "GET"},
            {**search, "method": "POST"},
        ],
    }


_SERVICE = {"openapi": "3.0.3", "info": {"title": "stub", "version": "1"}, "paths": {}}


def _from_query(query: str) -> dict[str, Any]:
    """Make the body of a search of the words after a question mark."""
    body: dict[str, Any] = dict(parse_qsl(query))
    for name in ("ids", "collections", "bbox"):
        if name in body:
            body[name] = body[name].split(",")
    for name, read in (("limit", int), ("token", int), ("intersects", json.loads)):
        if name in body:
            body[name] = _read(read, body[name])
    return body


def _read(read: Callable[[str], Any], text: str) -> Any:
    """Read a value; one that is none stays a text, and is refused by the search."""
    try:
        return read(text)
    except ValueError:
        return text


def _search(catalogue: Catalogue, body: dict[str, Any], *, by_post: bool) -> dict[str, Any]:
    """Find items, a page of them.

    Raises:
        ValueError, TypeError, KeyError, ShapelyError: the search is none.
    """
    ground, (first, last) = _ground(body), _instants(body.get("datetime"))
    limit = body.get("limit", catalogue.page)
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"the limit is {limit}")
    page = min(catalogue.page, limit)
    found = [
        item
        for item in catalogue.items
        if item["collection"] in body.get("collections", [item["collection"]])
        and item["id"] in body.get("ids", [item["id"]])
        and (
            ground is None
            or shapely.intersects(
                shapely.buffer(ground, catalogue.slack_deg),
                shapely.geometry.shape(item["geometry"]),
            )
        )
        and first <= datetime.fromisoformat(item["properties"]["datetime"]) <= last
    ]
    start = body.get("token", 0)
    links = [{"rel": "self", "href": f"{catalogue.url}/search"}]
    links.append({"rel": "root", "href": f"{catalogue.url}/", "type": "application/json"})
    if start + page < len(found):
        links.append(_next(catalogue.url, {**body, "token": start + page}, by_post=by_post))
    return {
        "type": "FeatureCollection",
        "features": found[start : start + page],
        "links": links,
    }


def _next(url: str, body: dict[str, Any], *, by_post: bool) -> dict[str, Any]:
    """Link to the next page."""
    link = {"rel": "next", "href": f"{url}/search", "type": "application/geo+json"}
    if by_post:
        return {**link, "method": "POST", "body": body}
    words = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in body.items()}
    if "intersects" in words:
        words["intersects"] = json.dumps(words["intersects"])
    return {**link, "method": "GET", "href": f"{url}/search?{urlencode(words)}"}


def _ground(body: dict[str, Any]) -> Any:
    """Make the ground that is asked for; None for all of it."""
    if "bbox" in body and "intersects" in body:
        raise ValueError("bbox and intersects are both given")
    if "bbox" in body:
        numbers = [float(number) for number in body["bbox"]]
        if len(numbers) not in (4, 6):
            raise ValueError(f"a bbox of {len(numbers)} numbers")
        half = len(numbers) // 2
        west, south, east, north = *numbers[:2], *numbers[half : half + 2]
        if south > north:
            raise ValueError("a bbox whose south lies north")
        return shapely.box(west, south, east + (360 if east < west else 0), north)
    return shapely.geometry.shape(body["intersects"]) if "intersects" in body else None


def _instants(text: str | None) -> tuple[datetime, datetime]:
    """Read the first and last instant of an interval, or one that is both; of none, all."""
    if text is None:
        return _ALWAYS
    ends = text.split("/")
    if len(ends) > 2 or not {*ends} - {"", ".."}:
        raise ValueError(f"{text} is no interval")
    first, last = (
        open_end if each in ("", "..") else _instant(each)
        for each, open_end in zip((ends[0], ends[-1]), _ALWAYS, strict=True)
    )
    if first > last:
        raise ValueError(f"{text} ends before it begins")
    return first, last


_ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _instant(text: str) -> datetime:
    if not _INSTANT.fullmatch(text):
        raise ValueError(f"{text} is no instant as RFC 3339 has it")
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper()))
