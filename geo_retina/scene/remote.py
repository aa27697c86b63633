"""Files at addresses: how GDAL is told to read them, and how small documents are fetched."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import rasterio
from rasterio.env import getenv, hasenv

from geo_retina.errors import SceneError
from geo_retina.files import is_subdataset, parse_json, subdataset_file

# Left at GDAL's default, as they changed neither requests nor bytes of reading windows of a COG
# (tests/unit/scene/test_remote.py counts them): VSI_CACHE, GDAL_INGESTED_BYTES_AT_OPEN,
# GDAL_HTTP_MERGE_CONSECUTIVE_RANGES, GDAL_HTTP_MULTIPLEX. GDAL fetches whole blocks of a file,
# several at once, and those that follow each other as one range.
_SETTINGS = {
    # Listing the folder of a bucket, or asking for .ovr, .msk and .aux.xml beside every file,
    # costs more requests than reading does. A file at an address carries its overviews and
    # mask inside; GDAL_DISABLE_READDIR_ON_OPEN=FALSE looks for them beside it again.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Object stores answer 429 and 503 when they are busy, and connections break: GDAL retries
    # both, waiting twice as long each time. It remembers a file that did not open as missing,
    # so it is better to retry here than to open anew.
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # Without these, a server that accepts the connection and then says nothing stops a run.
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
}

_LOCAL = "GDAL_DISABLE_READDIR_ON_OPEN"
"""The setting that would also hide masks and overviews beside the local files of a VRT."""

_ACCESS = {
    ("s3://", "/vsis3/"): (
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        "AWS_NO_SIGN_REQUEST=YES for a public bucket",
    ),
    ("gs://", "/vsigs/"): (
        "GOOGLE_APPLICATION_CREDENTIALS, or GS_ACCESS_KEY_ID and GS_SECRET_ACCESS_KEY",
        "GS_NO_SIGN_REQUEST=YES for a public bucket",
    ),
    ("az://", "/vsiaz/"): (
        "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_ACCESS_KEY or "
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_ACCOUNT and AZURE_NO_SIGN_REQUEST=YES for a public container",
    ),
}
"""What opens the doors of each store, in the environment; GDAL knows further ways."""

_ASKS_FOR_ACCESS = ("not defined", "InvalidCredentials", "No valid")
"""Of what GDAL says where it has no credentials to try; a store that refuses some says 403."""

_REFUSED = ("response code: 401", "response code: 403", "AccessDenied", "SignatureDoesNotMatch")

_TRIES = 4
_WAIT_S = 0.5
_TIMEOUT_S = 60
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that may be gone at the next try."""


def is_remote(path: str) -> bool:
    """Check whether a path is an address or one of GDAL's virtual file systems."""
    if is_subdataset(path):
        return is_remote(subdataset_file(path))
    return ("://" in path and not path.startswith("<")) or path.startswith("/vsi")


def gdal_settings(path: str) -> AbstractContextManager[Any]:
    """Make the context in which a file is opened and read, with GDAL's settings, in this thread.

    Settings of the user win: in the environment (``GDAL_HTTP_MAX_RETRY=10 geo-retina ...``) or
    in a ``rasterio.Env`` around the call. A local file needs none, but a VRT may name others.
    """
    is_vrt = path.startswith("<") or path.lower().endswith(".vrt")
    if not is_remote(path) and not is_vrt:
        return nullcontext()
    given: set[str] = {*os.environ, *(getenv() if hasenv() else ())}
    if not is_remote(path):
        given.add(_LOCAL)
    return rasterio.Env(**{k: v for k, v in _SETTINGS.items() if k not in given})


def about_access(path: str, said: str) -> str | None:
    """Explain credentials in one sentence where those of a store are lacking; else None.

    Args:
        path: as it was given.
        said: what GDAL said when it could not open it; empty before it is asked.
    """
    for beginnings, (keys, public) in _ACCESS.items():
        if not path.lower().startswith(beginnings):
            continue
        remedy = f"set {keys} in the environment, or {public}"
        lacking = any(sign in said for sign in _ASKS_FOR_ACCESS)
        # Without the name of an account rasterio goes to one that is called None.
        if lacking or ("az://" in beginnings and not _names_account()):
            return f"{path} cannot be opened without credentials; {remedy}"
        if any(sign in said for sign in _REFUSED):
            return f"{path} is not to be had with these credentials ({said}); {remedy}"
    return None


def _names_account() -> bool:
    given = {*os.environ, *(getenv() if hasenv() else ())}
    return bool(given & {"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING"})


def fetch_json(address: str) -> Any:
    """Read a JSON document over HTTP, patiently.

    Raises:
        SceneError: it is not there, no JSON, or at an address that is not http or https.
    """
    if not address.lower().startswith(("http://", "https://")):
        raise SceneError(
            f"{address} is not read from there; give the document's https address or a local copy"
        )
    request = urllib.request.Request(
        address,
        headers={"Accept": "application/geo+json, application/json", "User-Agent": "geo-retina"},
    )
    for tries_left in reversed(range(_TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                return parse_json(answer.read())
        except urllib.error.HTTPError as error:
            if error.code not in _PASSING or not tries_left:
                raise SceneError(f"{address} answered {error.code} {error.reason}") from error
        except (OSError, TimeoutError) as error:
            if not tries_left:
                raise SceneError(f"{address} cannot be reached: {error}") from error
        except ValueError as error:
            raise SceneError(f"{address} is not JSON: {error}") from error
        time.sleep(_WAIT_S * 2 ** (_TRIES - 1 - tries_left))
    raise AssertionError("the last try returns or raises")
