"""Addresses that need a signature, which GDAL gets when it reads them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from geo_retina.options.catalog import Signing

_AZURE = ".blob.core.windows.net"


def sign_item(item: Mapping[str, Any], sign: Signing) -> dict[str, Any]:
    """Rewrite the addresses of an item's assets, so that they are signed when they are read.

    A signature lasts for an hour, a run for days: no signature is kept in the file. See GDAL's
    ``/vsicurl``, options ``pc_url_signing`` and ``pc_collection``.
    """
    signed = copy.deepcopy(dict(item))
    if sign == "none":
        return signed
    for asset in signed.get("assets", {}).values():
        href = asset.get("href")
        if isinstance(href, str) and (urlsplit(href).hostname or "").endswith(_AZURE):
            options = {
                "pc_url_signing": "yes",
                "pc_collection": item.get("collection") or "",
                "url": href,
            }
            asset["href"] = "/vsicurl?" + urlencode({k: v for k, v in options.items() if v})
    return signed
