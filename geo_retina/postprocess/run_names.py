"""Names of the scenes of several runs, which tell images apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from geo_retina.postprocess.earlier_runs import Run, SceneGround


def scene_names(runs: Sequence[Run]) -> list[str]:
    """Name all scenes, with the run's name before those that stand for several images."""
    images: dict[str, list[SceneGround]] = {}
    for run in runs:
        for scene in run.scenes:
            known = images.setdefault(scene.name, [])
            if not any(scene.is_same_image(other) for other in known):
                known.append(scene)
    stems = Counter(run.path.stem for run in runs)

    def name(run: Run, scene: SceneGround) -> str:
        if len(images[scene.name]) == 1:
            return scene.name
        of_run = run.path.with_suffix("").as_posix() if stems[run.path.stem] > 1 else run.path.stem
        return f"{of_run}/{scene.name}"

    return [name(run, scene) for run in runs for scene in run.scenes]
