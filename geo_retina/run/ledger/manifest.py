"""The manifest of a run: what it is a run of, so that another one does not go on with it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geo_retina.errors import RunError
from geo_retina.files import parse_json
from geo_retina.run.ledger.guard import BEGUN, holds_only

MANIFEST = "manifest.json"
"""Its file in the folder of a run."""

RESULTS = 7
"""Rises whenever the same scenes, model and options give other detections than before, so that
what an older geo-retina left half done is not mixed with new ones. 1: no number, padding by a
constant; 2: padding by mirrored ground; 3: mirrored within 64 px, by cells;
4: runtime and precision resolved; 5: finer pixels interpolated by us; 6: what a box subnet is
given in 8-bit integers, rounded once; 7: integers alike on processors without VNNI."""

_AFTER_BLOCKS = ("across_scenes",)
"""Options that change the result, but not what blocks find: a run may go on with other ones."""


def manifest_for(
    paths: list[str], versions: dict[str, Any], model: str, options: Any, block_px: int
) -> dict[str, Any]:
    """Describe a run as its ledger records it, as JSON values.

    Args:
        paths: all scenes of the run.
        versions: fingerprints of the scenes that can be used.
        model: fingerprint of the model.
        options: the options that change the result.
        block_px: block size, which a run that goes on takes from the ledger.
    """
    of_blocks = {k: v for k, v in asdict(options).items() if k not in _AFTER_BLOCKS}
    manifest = {
        "fixed": {"scenes": paths, "model": model, "options": of_blocks},
        "versions": versions,
        "block_px": block_px,
        "results": RESULTS,
    }
    normal: dict[str, Any] = json.loads(json.dumps(manifest))
    return normal


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest in a folder; None where there is none.

    Raises:
        RunError: there is a folder, but no run's.
    """
    if not folder.exists():
        return None
    try:
        found = parse_json((folder / MANIFEST).read_text("utf-8"))
        _check_manifest(found)
    except FileNotFoundError:
        if holds_only(folder, BEGUN):
            return None
        raise foreign_folder(folder) from None
    except (ValueError, KeyError, OSError) as error:
        raise RunError(
            f"{folder / MANIFEST} cannot be read ({error}); discard the run with "
            "RunOptions.restart=True"
        ) from error
    return dict(found)


def foreign_folder(folder: Path) -> RunError:
    """Make the error for a folder that holds something other than a run."""
    return RunError(f"{folder} is not the folder of a run; move it away, or name another output")


def _check_manifest(found: Any) -> None:
    """Refuse a manifest that lacks what a run needs to go on.

    Raises:
        ValueError: it does.
    """
    expected = {"fixed": dict, "versions": dict, "block_px": int}
    for key, kind in expected.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), kind):
            raise ValueError(f"its {key} is missing or of the wrong type")
    if not isinstance(found["fixed"].get("scenes"), list):
        raise ValueError("its list of scenes is missing")
    if not isinstance(found.get("written", {}), dict):
        raise ValueError("its list of outputs is no group of keys")
    if not 1 <= found["block_px"] <= 2**20:
        raise ValueError(f"its block_px is {found['block_px']}")


def extended(found: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """Give a run that was begun the further scenes of another, where its own come first there."""
    before, now = found["fixed"]["scenes"], manifest["fixed"]["scenes"]
    if now[: len(before)] != before:
        return found
    return {**found, "fixed": {**found["fixed"], "scenes": now}}


def check_continues(folder: Path, found: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Refuse to go on with a run that would have given other detections.

    Args:
        folder: of the run, for messages.
        found: manifest of the run that was begun.
        manifest: of the run that is asked for.

    Raises:
        RunError: they differ, or a geo-retina of other results began it.
    """
    _check_results(folder, found)
    changed = differences(found["fixed"], manifest["fixed"])
    changed += [
        f"{path} (the file was replaced)"
        for path, version in manifest["versions"].items()
        if found["versions"].get(path, version) != version
    ]
    if changed:
        raise RunError(
            f"{folder} holds an unfinished run that differs in {'; '.join(changed)}; "
            "repeat that run's command to finish it, or discard it with RunOptions.restart=True"
        )


def _check_results(folder: Path, found: dict[str, Any]) -> None:
    """Refuse to go on with detections that this geo-retina would make otherwise.

    Raises:
        RunError: the run was begun by such a one.
    """
    version = found.get("results", 1)  # there was no number at first
    if version != RESULTS:
        raise RunError(
            f"{folder} holds an unfinished run of another geo-retina, whose detections differ "
            f"(results version {version}, this one's is {RESULTS}); finish it with the "
            "geo-retina that began it, or discard it with RunOptions.restart=True"
        )


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """List each leaf that differs, as ``name: old, now new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            text
            for key in keys
            for text in differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            text
            for i, (a, b) in enumerate(zip(old, new, strict=True))
            for text in differences(a, b, f"{name}[{i}]")
        ]
    if old == new:
        return []
    return [f"{name}: {_short(old)}, now {_short(new)}"]


def _short(value: Any) -> str:
    text = f"{len(value)} items" if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:16]}..."
