"""A STAC API on this machine: a landing page and a search over given items, in pages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

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
            if self.path == "/":
                self.answer(200, _landing_page(catalogue.url))
            elif self.path == "/html":
                self.answer(200, "a page for people")
            else:
                self.answer(404, {"code": "NotFound", "description": "no such page"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            catalogue.asked.append(body)
            if catalogue.status != 200:
                self.answer(catalogue.status, {"code": "x", "description": "not today"})
                return
            self.answer(200, _search(catalogue, body))

        def answer(self, status: int, content: Any) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    with listening(Handler) as catalogue.url:
        yield catalogue


def _landing_page(url: str) -> dict[str, Any]:
    search = {"rel": "search", "href": f"{url}/search", "type": "application/geo+json"}
    return {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "stub",
        "description": "Scenes of a test.",
        "conformsTo": _CONFORMS,
        "links": [
            {"rel": "self", "href": f"{url}/", "type": "application/json"},
            {"rel": "root", "href": f"{url}/", "type": "application/json"},
            {**search, "method": "GET"},
            {**search, "method": "POST"},
        ],
    }


def _search(catalogue: Catalogue, body: dict[str, Any]) -> dict[str, Any]:
    ground = shapely.buffer(shapely.geometry.shape(body["intersects"]), catalogue.slack_deg)
    first, last = (body.get("datetime") or "../..").split("/")
    found = [
        item
        for item in catalogue.items
        if item["collection"] in body["collections"]
        and shapely.intersects(ground, shapely.geometry.shape(item["geometry"]))
        and (first == ".." or item["properties"]["datetime"] >= first)
        and (last == ".." or item["properties"]["datetime"] <= last)
    ]
    start = body.get("token", 0)
    links = [{"rel": "self", "href": f"{catalogue.url}/search"}]
    if start + catalogue.page < len(found):
        following = {**body, "token": start + catalogue.page}
        links.append(
            {
                "rel": "next",
                "href": f"{catalogue.url}/search",
                "method": "POST",
                "body": following,
            }  # type: ignore[dict-item]
        )
    return {
        "type": "FeatureCollection",
        "features": found[start : start + catalogue.page],
        "links": links,
    }
