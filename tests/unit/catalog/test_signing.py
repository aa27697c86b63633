"""Addresses that are signed when they are read, against a server on this machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import numpy as np
from support.http_server import serve
from support.stac_server import make_item
from support.stubs import write_scene

from geo_retina.catalog.signing import sign_item
from geo_retina.grid import Window
from geo_retina.scene import open_scene

BLOB = "https://naipeuwest.blob.core.windows.net/naip/ca/m_1.tif"


def test_only_addresses_of_the_store_are_rewritten():
    item = make_item("a", (0, 0, 1, 1), "2022-01-01", href=BLOB)
    item["assets"]["other"] = {"href": "https://example.com/a.tif"}
    signed = sign_item(item, "planetary-computer")
    options = urlencode({"pc_url_signing": "yes", "pc_collection": "naip", "url": BLOB})
    assert signed["assets"]["image"]["href"] == f"/vsicurl?{options}"
    assert signed["assets"]["other"]["href"] == "https://example.com/a.tif"
    assert item["assets"]["image"]["href"] == BLOB
    assert sign_item(item, "none") == item


def test_gdal_asks_for_a_signature_and_uses_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64), np.uint8)
    write_scene(tmp_path / "signed.tif", pixels)
    (tmp_path / "token").mkdir()
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    token = {"msft:expiry": later, "token": "sig=abc"}
    (tmp_path / "token" / "naip").write_text(json.dumps(token))
    with serve(tmp_path) as server:
        monkeypatch.setenv("VSICURL_PC_SAS_TOKEN_URL", f"{server.url}/token/")
        options = {
            "pc_url_signing": "yes",
            "pc_collection": "naip",
            "url": f"{server.url}/signed.tif",
        }
        scene = open_scene(f"/vsicurl?{urlencode(options)}", bands=(1,))
        read, _ = scene.read(Window(0, 0, 64, 64))
    np.testing.assert_array_equal(read, pixels)
    assert server.requests["token/naip"] == 1
