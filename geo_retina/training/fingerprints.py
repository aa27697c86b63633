"""What tells the input of one training run from another's, so that a resumed one is the same."""

from __future__ import annotations

import hashlib
import json

import shapely

from geo_retina.dataset.labelled_scenes import TrainingSet
from geo_retina.dataset.split import Split
from geo_retina.scene import fingerprint


def input_fingerprints(training_set: TrainingSet, split: Split) -> dict[str, str]:
    """Hash what a run works on (SHA-256), by what it is.

    Returns:
        ``labels``: of the labels, and of names and shapes of the scenes. ``split``: of the
        training, validation and test ground. ``files``: of size and time of the scenes' files;
        those at an address are not asked.
    """
    versions = [fingerprint(each.scene.path) for each in training_set.scenes]
    return {
        "labels": training_set.fingerprint,
        "split": _of_split(split),
        "files": hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest(),
    }


def _of_split(split: Split) -> str:
    """Hash the ground of the split's parts, whatever files and columns define them."""
    digest = hashlib.sha256(repr((split.block_m, sorted(split.val), sorted(split.test))).encode())
    if split.areas is not None:
        for ground in (split.areas.val, split.areas.test):
            for crs in sorted(ground):
                digest.update(crs.encode() + shapely.to_wkb(shapely.normalize(ground[crs])))
    return digest.hexdigest()
