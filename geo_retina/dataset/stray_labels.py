"""Where labels are that lie on no scene, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geo_retina.dataset.label_placement import scenes_named
from geo_retina.dataset.regions import footprint
from geo_retina.dataset.sources import Source
from geo_retina.scene import Scene
from geo_retina.vector import CocoLabels, Ground, explain_elsewhere


def why_on_no_scene(source: Source, scenes: Sequence[Scene]) -> str:
    """Explain why no label of a layer lies on a scene: where both are, and what to check."""
    count = len(source)
    if isinstance(source.layer, CocoLabels):
        known = ", ".join(str(name) for name in source.layer.files[:3])
        return (
            f"{source.name} gives {count} labels for {len(scenes)} scenes, but the images that it "
            f"names, such as {known or 'none'}, are none of them; its file_name must be the name "
            f"of the scene's file, such as {Path(scenes[0].path).name}"
        )
    layer, column = source.layer, source.options.scene_column
    if layer.scenes is not None:
        named = [str(name) for name in dict.fromkeys(layer.scenes) if name is not None]
        if not scenes_named(source, scenes):
            return (
                f"{source.name} gives {count} labels for {len(scenes)} scenes, but no label names "
                f"one of them in its column {column}, which holds {', '.join(named[:3])}; it must "
                f"hold the stems of the scene files, such as {scenes[0].name}"
            )
    return (
        f"{source.name} gives {count} labels for {len(scenes)} scenes, but no label lies on any of "
        f"them: {explain_elsewhere(layer, _grounds(scenes), 'the scenes')}"
    )


def _grounds(scenes: Sequence[Scene]) -> list[Ground]:
    """Outline the ground of scenes, by their CRS."""
    by_crs: dict[int, list[Scene]] = {}
    for scene in scenes:
        by_crs.setdefault(id(scene.grid.crs), []).append(scene)
    return [
        Ground(own[0].grid.crs, np.array([footprint(s.grid) for s in own], dtype=object))
        for own in by_crs.values()
        if own[0].grid.crs is not None
    ]
