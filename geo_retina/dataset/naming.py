"""Scenes that labels should name and none does, and labels that name no scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geo_retina.dataset.label_placement import Placed, scenes_named
from geo_retina.dataset.regions import Regions
from geo_retina.dataset.sources import Source
from geo_retina.scene import Scene, match_names
from geo_retina.vector import CocoLabels

_MOST_NAMES = 5


def with_stems(ground: Regions, scenes: Sequence[Scene], column: str | None) -> Regions:
    """Give polygons that name scenes the scenes' own stems, however the names were written.

    Raises:
        LabelError: a name could mean several scenes.
    """
    if ground.layer.scenes is None:
        return ground
    names = list(dict.fromkeys(str(name) for name in ground.layer.scenes if name is not None))
    # Polygons go by place too, so scenes of one stem need not be distinguished.
    by_stem = {scene.name: scene.path for scene in scenes}
    given_in = f"column {column} of {ground.layer.path}"
    found = match_names(names, list(by_stem.values()), given_in=given_in)
    stems = list(by_stem)
    stem_of = {names[name]: stems[scene] for name, scene in found.items()}
    named = [None if n is None else stem_of.get(str(n), n) for n in ground.layer.scenes]
    return Regions(replace(ground.layer, scenes=np.array(named, dtype=object)))


def names_another(source: Source, scenes: Sequence[Scene]) -> NDArray[np.bool_]:
    """Find (N,) labels that name a file that is none of the scenes."""
    names = source.scene_names
    if names is None:
        return np.zeros(len(source), np.bool_)
    known = scenes_named(source, scenes)
    return np.array([n is not None and str(n) not in known for n in names], np.bool_)


def name_warnings(
    sources: Sequence[Source],
    placed: Sequence[Placed],
    ground: Regions | None,
    scenes: Sequence[Scene],
) -> list[str]:
    """Warn of names that fit no scene, for each layer, and of scenes without a name.

    Args:
        sources: layers of labels; one of which no name is a scene's is left to ``why_on_no_scene``.
        placed: where the labels of each lie; a scene that shows one needs no name.
        ground: labelled ground; a polygon that names a scene says that it was looked at.
        scenes: those of the training.
    """
    naming = [source for source in sources if source.named is not None]
    known = [scenes_named(source, scenes) for source in naming]
    if not any(known):
        return []
    said = [
        _other_files(source, scenes)
        for source, named in zip(naming, known, strict=True)
        if named and names_another(source, scenes).any()
    ]
    shown = {scene for part in [*known, _by_ground(ground, scenes)] for scene in part.values()}
    shown |= {int(number) for part in placed for number in np.unique(part.scene)}
    missing = [scene.name for number, scene in enumerate(scenes) if number not in shown]
    if missing:
        said.append(_without_name(missing, len(scenes), naming))
    return said


def _by_ground(ground: Regions | None, scenes: Sequence[Scene]) -> dict[str, int]:
    if ground is None or ground.layer.scenes is None:
        return {}
    named = set(ground.layer.scenes)
    return {scene.path: i for i, scene in enumerate(scenes) if scene.name in named}


def _other_files(source: Source, scenes: Sequence[Scene]) -> str:
    another = names_another(source, scenes)
    names = source.scene_names
    assert names is not None
    return (
        f"{int(another.sum()):,} of {len(source):,} labels of {source.name} name a file that is "
        f"none of the scenes and are left out: {listed(list(dict.fromkeys(names[another])))}"
    )


def _without_name(missing: Sequence[str], scenes: int, naming: Sequence[Source]) -> str:
    where = [
        f"image or label of {source.name}"
        if isinstance(source.layer, CocoLabels)
        else f"label of {source.name} in its column {source.options.scene_column}"
        for source in naming
    ]
    return (
        f"{len(missing):,} of {scenes:,} scenes are named by no {', nor by a '.join(where)}, so "
        f"they count as ground without objects: {listed(missing)}; correct the names or leave "
        "these scenes out, or, where they hold no object, say so with an image that has no "
        "annotation in COCO's JSON or with a polygon of data.ground that names the scene"
    )


def listed(names: Sequence[object]) -> str:
    """List the first names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(map(str, names[:_MOST_NAMES])) + (f" and {more:,} more" if more > 0 else "")
