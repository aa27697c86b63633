"""Finding scenes, and telling them and their versions apart. No raster is opened."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from geo_retina.errors import SceneError
from geo_retina.files import (
    find_spelling,
    from_folder,
    is_broken_link,
    is_subdataset,
    read_text,
    say_missing,
    subdataset_file,
    with_file,
)
from geo_retina.scene.damage.vrt_sources import sources
from geo_retina.scene.remote import is_remote, plain_address
from geo_retina.scene.stac_items import find_assets, is_stac, with_first_days

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".ntf", ".nitf")
"""Files that a folder is searched for."""

_ASIDE = (
    *(".aux.xml", ".ovr", ".msk", ".prj", ".wld", ".tfw", ".tifw", ".jgw", ".j2w", ".rpb"),
    *(".imd", ".ige", ".rrd", "thumbs.db", "desktop.ini"),
)
"""Endings of what lies beside rasters: overviews, masks, places, and files of a system."""

LIST_SUFFIX = ".txt"
"""A file of this ending names scenes, one a line."""


def find_scenes(paths: str | Path | Sequence[str | Path], *, asset: str | None = None) -> list[str]:
    """List the scenes that files, folders, globs, lists and STAC documents name.

    Args:
        paths: a file or address, a folder (searched for rasters, not deeper), a glob, a list
            file (``.txt``: one path a line, relative to the list, ``#`` begins a comment), a
            STAC item or item collection (``.json``), or several of them.
        asset: key of the asset that is taken of every STAC item; left out, its only image.

    Returns:
        Paths in the order given, those of a folder or glob sorted; each once. Rasters are not
        opened: one that is none is found out, and reported, when it is used.

    Raises:
        SceneError: a path does not exist, a folder or glob holds no raster, or a list or STAC
            document cannot be understood.

    Examples:
        >>> from geo_retina import find_scenes
        >>> find_scenes("*.tif")
        ['scene.tif']
    """
    return list(find_dated(paths, asset=asset))


def find_dated(
    paths: str | Path | Sequence[str | Path], *, asset: str | None = None
) -> dict[str, date | None]:
    """List scenes as ``find_scenes`` does, with the day that a STAC item tells of each.

    Raises:
        SceneError: as ``find_scenes``.
    """
    given = [paths] if isinstance(paths, (str, Path)) else paths
    found: dict[str, str] = {}
    days: dict[str, date | None] = {}
    for path, day in with_first_days(_expand(os.fspath(each), asset) for each in given).items():
        # The same file by another name or link must not give its objects twice.
        file = absolute(path)
        found.setdefault(file, path)
        days[file] = days.get(file) or day
    if not found:
        raise SceneError("no scene was given, expected at least one file, folder or glob")
    return {path: days[file] for file, path in found.items()}


def absolute(path: str) -> str:
    """Resolve a local file to its one full name; other addresses as they are."""
    return with_file(path, lambda file: os.path.realpath(file) if os.path.exists(file) else file)


def stem(path: str) -> str:
    """Name of a file without folders and ending; what follows ``?`` in an address is no part.

    Of a raster inside a file, that of the file.
    """
    path = plain_address(subdataset_file(path))
    return Path(unquote(urlsplit(path).path)).stem if "://" in path else Path(path).stem


def scene_names(paths: Sequence[str]) -> list[str]:
    """Name scenes apart in a result: by the stem, or the path where stems are alike.

    Of what follows ``?`` in an address, where keys are, no more is taken than tells them apart.
    """
    stems = [stem(path) for path in paths]
    plain = [plain_address(path) for path in paths]
    count = Counter(stems)
    by_place: dict[str, list[str]] = {}
    for path in dict.fromkeys(plain):
        by_place.setdefault(path.partition("?")[0], []).append(path)
    named = {path: name for alike in by_place.values() for path, name in _apart(alike).items()}
    return [
        name if count[name] == 1 else named[path] for name, path in zip(stems, plain, strict=True)
    ]


_KEY = re.compile(r"sig|token|key|expir|credential|secret|password|date|policy|^s[a-z]$|^x-", re.I)
"""Parts of an address that let one in, and change from day to day."""


def _apart(addresses: Sequence[str]) -> dict[str, str]:
    """Name addresses that differ in what follows ``?`` alone, by a part that tells them apart."""
    place = addresses[0].partition("?")[0]
    if len(addresses) == 1:
        return {addresses[0]: place}
    parts = [
        {key: value for key, value in parse_qsl(each.partition("?")[2]) if not _KEY.search(key)}
        for each in addresses
    ]
    shared = set.intersection(*(set(part) for part in parts))
    telling = [key for key in sorted(shared) if len({part[key] for part in parts}) == len(parts)]
    if telling:  # a name of a file rather than a number, and a short one
        key = min(telling, key=lambda k: ("." not in parts[0][k], sum(len(p[k]) for p in parts)))
        parts = [{key: part[key]} for part in parts]
    texts = ["&".join(f"{key}={value}" for key, value in part.items()) for part in parts]
    count = Counter(texts)
    return {
        address: f"{place}?{text}" if count[text] == 1 else f"{place}?{text}#{number}"
        for number, (address, text) in enumerate(zip(addresses, texts, strict=True), 1)
    }


def mosaic_name(paths: str | Path | Sequence[str | Path]) -> str:
    """Name of the mosaic of what was given: of the one folder, list or document, else mosaic."""
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    path = os.fspath(given[0])
    if len(given) > 1 or (_is_pattern(path) and not is_remote(path)):
        return "mosaic"
    return os.path.basename(os.path.realpath(path)) if os.path.isdir(path) else stem(path)


def _expand(path: str, asset: str | None, *, in_list: bool = False) -> dict[str, date | None]:
    if in_list and path.lower().endswith(LIST_SUFFIX):
        raise SceneError(f"{path} is a list itself; name its scenes")
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    if is_subdataset(path):
        return dict.fromkeys(_expand_inside(path))
    if is_stac(path):
        return find_assets(path, asset)
    if is_remote(path):
        return {path: None}
    path = _as_on_disk(path)
    if os.path.isfile(path):
        return _read_list(path, asset) if path.lower().endswith(LIST_SUFFIX) else {path: None}
    if os.path.isdir(path):
        return dict.fromkeys(_search(path))
    matches = [] if is_broken_link(path) else _match(path)
    if not matches:
        raise SceneError(f"no file matches {path}" if _is_pattern(path) else say_missing(path))
    return with_first_days(
        {match: None} if is_broken_link(match) else _expand(match, asset, in_list=in_list)
        for match in matches
    )


def _expand_inside(path: str) -> list[str]:
    """Expand a raster inside a file, or inside each file that a glob in its name matches."""
    file = subdataset_file(path)
    if is_remote(file) or not _is_pattern(file):
        return [with_file(path, _as_on_disk)]
    matches = _match(file)
    if not matches:
        raise SceneError(f"no file matches {file}")
    return [path.replace(file, match, 1) for match in matches]


def _as_on_disk(path: str) -> str:
    """Return a path as it is, or as the disk spells it, or one that Windows wrote.

    It stays as it was given where no such file, folder or glob is found, for the message.
    """
    found = find_spelling(path)
    if found is not None or "\\" not in path:
        return found or path
    other = path.replace("\\", "/")
    return other if _match(other) else path


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not os.path.exists(path)


def _match(pattern: str) -> list[str]:
    """Find files that match a glob as it is, or with accents as the disk may have them."""
    forms = (pattern, *(unicodedata.normalize(form, pattern) for form in ("NFC", "NFD")))
    return next(filter(None, map(_glob, dict.fromkeys(forms))), [])


def _glob(pattern: str) -> list[str]:
    """Find files that match a glob, without those that programs leave beside rasters.

    Folders that stand before the first one that does not exist are taken by their names, so that
    ``site [2020]/*.tif`` looks into that folder.
    """
    parts = Path(pattern).parts
    if not parts:
        return []
    literal = 0
    while literal < len(parts) and os.path.exists(os.path.join(*parts[: literal + 1])):
        literal += 1
    escaped = [glob.escape(part) for part in parts[:literal]]
    found = glob.glob(os.path.join(*escaped, *parts[literal:]), recursive=True)
    asked = pattern.lower().endswith(_ASIDE)
    return sorted(
        match
        for match in found
        if (os.path.isfile(match) or is_broken_link(match))
        and (asked or not _is_aside(os.path.basename(match)))
    )


def _is_aside(name: str) -> bool:
    """Check whether a file is hidden, or belongs to a raster or a system and is no scene."""
    return name.startswith(".") or name.lower().endswith(_ASIDE)


def _search(folder: str) -> list[str]:
    inside = sorted(
        entry.path
        for entry in os.scandir(folder)
        if (entry.is_file() or is_broken_link(entry.path))
        and entry.name.lower().endswith(RASTER_SUFFIXES)
        and not _is_aside(entry.name)
    )
    if not inside:
        raise SceneError(
            f"{folder} holds no raster, expected files ending {', '.join(RASTER_SUFFIXES)}"
        )
    return inside


def _read_list(path: str, asset: str | None) -> dict[str, date | None]:
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(
            f"the list {path} cannot be read ({error}); expected UTF-8 text, one path a line"
        ) from error
    found: list[dict[str, date | None]] = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            found.append(_expand(_beside(entry, path), asset, in_list=True))
        except SceneError as error:
            raise SceneError(f"{path}, line {number}: {error}") from error
    if not found:
        raise SceneError(f"the list {path} names no scene, expected one path a line")
    return with_first_days(found)


def _beside(entry: str, listed_in: str) -> str:
    """Resolve a path of a list from the list's own folder."""
    folder = os.path.dirname(listed_in)
    return with_file(entry, lambda file: file if is_remote(file) else from_folder(folder, file))


def fingerprint(path: str) -> dict[str, Any]:
    """Fingerprint a version of a file without reading it, by size and time.

    A VRT's also covers the local files that it names. Empty for an address: nothing is asked
    of the network. Where VRTs name each other, each is reported once.
    """
    return _fingerprint(path, set())


def _fingerprint(path: str, seen: set[str]) -> dict[str, Any]:
    path = subdataset_file(path)
    if not os.path.exists(path):
        return {}
    seen.add(absolute(path))
    stat = os.stat(path)
    version: dict[str, Any] = {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    if path.lower().endswith(".vrt"):
        inside = {
            name: _fingerprint(name, seen)
            for name in sorted(
                {each.path for each in sources(path, stat.st_mtime_ns, stat.st_size)}
            )
            if not (name.lower().endswith(".vrt") and absolute(name) in seen)
        }
        version |= {"sources": inside} if inside else {}
    return version
