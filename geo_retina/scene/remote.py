"""Files at addresses: how GDAL is set up to read them, and how small documents are fetched."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import rasterio
from rasterio.env import getenv, hasenv

from geo_retina.errors import SceneError
from geo_retina.files import is_subdataset, parse_json, subdataset_file

if TYPE_CHECKING:
    import urllib3

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

_HEADERS = {"Accept": "application/geo+json, application/json", "User-Agent": "geo-retina"}
_RETRIES = 3
_REDIRECTS = 10
_WAIT_S = 0.5
_TIMEOUT_S = 60
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that may be gone at the next try."""


def is_remote(path: str) -> bool:
    """Check whether a path is an address or one of GDAL's virtual file systems."""
    if is_subdataset(path):
        return is_remote(subdataset_file(path))
    return ("://" in path and not path.startswith("<")) or path.startswith("/vsi")


def plain_address(path: str) -> str:
    """Give the address that GDAL signs or reads with options: ``/vsicurl?...&url=ADDRESS``."""
    if not path.startswith("/vsicurl?"):
        return path
    return parse_qs(path.partition("?")[2]).get("url", [path])[0]


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
    import urllib3

    patience = urllib3.Retry(
        None,
        connect=_RETRIES,
        read=_RETRIES,
        status=_RETRIES,
        other=_RETRIES,
        redirect=_REDIRECTS,
        backoff_factor=_WAIT_S,
        status_forcelist=_PASSING,
        raise_on_status=False,
        respect_retry_after_header=False,  # hours, if the server likes
    )
    try:
        with _pool_for(address) as pool:
            answer = pool.request(
                "GET", address, headers=_HEADERS, retries=patience, timeout=_TIMEOUT_S
            )
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        fault = getattr(error, "reason", None) or error
        raise SceneError(f"{address} cannot be reached: {fault.__cause__ or fault}") from error
    if answer.status >= 400:
        raise SceneError(f"{address} answered {answer.status} {answer.reason}")
    try:
        return parse_json(answer.data)
    except ValueError as error:
        raise SceneError(f"{address} is not JSON: {error}") from error


def _pool_for(address: str) -> urllib3.PoolManager:
    """Open connections to an address, through the proxy that the system names for it."""
    import urllib3

    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme.lower())
    if proxy is None or proxy_bypass(parts.netloc):
        return urllib3.PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    user = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if user else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers)
