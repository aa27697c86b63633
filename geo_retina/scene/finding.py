"""Finding scenes, and telling them and their versions apart. No file is opened."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geo_retina.errors import SceneError

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".ntf", ".nitf")
"""Files that a folder is searched for."""


def find_scenes(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """List the scenes that files, folders and globs name.

    Args:
        paths: a file, a folder (searched for rasters, not deeper), a glob, or several of them.

    Returns:
        Paths in the order given, those of a folder or glob sorted; each once. Files are not
        opened: one that is no raster is found out, and reported, when it is used.

    Raises:
        SceneError: a path does not exist, or a folder or glob holds no raster.
    """
    found: dict[str, str] = {}
    for given in [paths] if isinstance(paths, (str, Path)) else paths:
        for path in _expand(os.fspath(given)):
            # The same file by another name or link must not give its objects twice.
            found.setdefault(absolute(path), path)
    if not found:
        raise SceneError("no scene was given, wanted at least one file, folder or glob")
    return list(found.values())


def absolute(path: str) -> str:
    """A local file's one full name; other addresses as they are."""
    return os.path.realpath(path) if os.path.exists(path) else path


def scene_names(paths: Sequence[str]) -> list[str]:
    """Names that tell scenes apart in a result: the stem, or the path where stems are alike."""
    stems = [Path(path).stem for path in paths]
    count = Counter(stems)
    return [stem if count[stem] == 1 else path for stem, path in zip(stems, paths, strict=True)]


def _expand(path: str) -> list[str]:
    if "://" in path or path.startswith("/vsi") or os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        inside = sorted(
            entry.path
            for entry in os.scandir(path)
            if entry.is_file() and entry.name.lower().endswith(RASTER_SUFFIXES)
        )
        if not inside:
            raise SceneError(
                f"{path} holds no raster, wanted files ending {', '.join(RASTER_SUFFIXES)}"
            )
        return inside
    matches = sorted(match for match in glob.glob(path, recursive=True) if os.path.isfile(match))
    if not matches:
        raise SceneError(f"{path} does not exist")
    return matches


def fingerprint(path: str) -> dict[str, Any]:
    """What tells one version of a file from another without reading it: size and time."""
    if not os.path.exists(path):
        return {}
    stat = os.stat(path)
    return {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
