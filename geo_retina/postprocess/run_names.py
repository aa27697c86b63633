"""Names of the scenes of several runs, which tell images apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from geo_retina.geodesy import is_same
from geo_retina.postprocess.earlier_runs import Run, SceneGround


def scene_names(runs: Sequence[Run]) -> list[str]:
    """Name all scenes, with the run's name before those that stand for several images."""
    images: dict[str, list[SceneGround]] = {}
    for run in runs:
        for scene in run.scenes:
            known = images.setdefault(scene.name, [])
            if not any(_is_same_image(scene, other) for other in known):
                known.append(scene)
    stems = Counter(run.path.stem for run in runs)

    def name(run: Run, scene: SceneGround) -> str:
        if len(images[scene.name]) == 1:
            return scene.name
        of_run = run.path.with_suffix("").as_posix() if stems[run.path.stem] > 1 else run.path.stem
        return f"{of_run}/{scene.name}"

    return [name(run, scene) for run in runs for scene in run.scenes]


def _is_same_image(one: SceneGround, other: SceneGround) -> bool:
    """Tell whether two scenes are one file: by path and, as paths may be relative, by ground."""
    if one.path != other.path or not is_same(one.grid.crs, other.grid.crs):
        return False
    ends = [
        grid.pixels_to_crs(np.array([[0.0, 0.0], [grid.width, grid.height]]))
        for grid in (one.grid, other.grid)
    ]
    sides = [abs(float(each.grid.affine.determinant)) ** 0.5 for each in (one, other)]
    return bool(np.abs(ends[0] - ends[1]).max() <= 2 * max(sides))
