"""Several files of detections into one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.boxes import to_rings
from geo_retina.combine.reading import Run, SceneGround, concat, lattices_of, read_found, read_run
from geo_retina.combine.rule import (
    Found,
    Scenes,
    contested,
    objects_of,
    pairs_of_one_lattice,
    pairs_of_polygons,
    rank,
    select,
)
from geo_retina.detections import Detections
from geo_retina.errors import OptionError
from geo_retina.grid import Grid
from geo_retina.options import MergeOptions
from geo_retina.vector import (
    DETECTION_SCHEMA,
    Companions,
    Target,
    check_target,
    cut_table,
    detections_table,
    geometry_of,
    open_stream,
    reproject_rings,
    reproject_table,
    rings_to_wkb,
    wkb_to_rings,
    write_outputs,
)

FALLBACK_CRS = "EPSG:4326"


@dataclass(frozen=True)
class CombineReport:
    """What became of several runs.

    Attributes:
        read: detections in all of them.
        written: objects in the result.
        suppressed: those left out, being seen better by another scene.
        joined: objects made of fragments at borders.
        exact: whether all scenes are on one grid, so that boxes were compared as such.
        crs: of the result.
        outs: the files written.
    """

    read: int
    written: int
    suppressed: int
    joined: int
    exact: bool
    crs: str
    outs: tuple[Path, ...]


def combine_runs(
    paths: Sequence[str | Path],
    out: str | Path | Sequence[str | Path],
    options: MergeOptions | None = None,
    *,
    crs: str | None = None,
    overwrite: bool = False,
) -> CombineReport:
    """Make one set of objects of runs over neighbouring or overlapping scenes.

    Boxes of scenes on one grid (one CRS, pixels of one size and turn) are compared in its pixels,
    and fragments at a common border are joined. Boxes of different grids, such as those of two
    UTM zones, are compared by the areas of their polygons in an equal-area CRS around all scenes;
    there a cut one gives way to a whole one, and nothing is joined. Scenes of one file are
    combined too.

    Args:
        paths: files that ``detect_to_file`` wrote, with polygons.
        out: the file to write, or several.
        options: thresholds, as for tiles; other ranks and methods than the default are refused.
        crs: CRS of the result; left out, that of the files, or EPSG:4326 where they differ.
        overwrite: replace existing files.

    Returns:
        What became of them. The rows of the result are in the order of the files, objects that
        were joined last. Memory: about 70 bytes per detection, and the pairs that meet.

    Raises:
        LabelError: a file cannot be read, holds no boxes, or does not say what was scanned.
        OptionError: no file was named, the CRS is unknown, or an option does not apply.
        OutputError: the output cannot be written, or exists.
    """
    outs = tuple(Path(o) for o in ([out] if isinstance(out, (str, Path)) else out))
    options = options or MergeOptions()
    if (options.rank, options.method) != ("whole", "select"):
        raise OptionError(
            "runs are merged by keeping the best, whole boxes first; rank "
            f"{options.rank} with method {options.method} is for tiles only"
        )
    if {o.resolve() for o in outs} & {Path(p).resolve() for p in paths} or not paths:
        raise OptionError(
            f"{len(paths)} files are to become {', '.join(map(str, outs))}; name at least one, "
            "and an output that is none of them"
        )
    runs = [read_run(path) for path in paths]
    # Scenes keep nothing of each other that a tile would suppress, as tiles of a scene don't.
    options = replace(options, iou=min(options.iou, *(run.nms_iou for run in runs)))
    target_crs = _choose_crs(crs, runs)
    targets = [Target(o, overwrite) for o in outs]
    for target in targets:
        check_target(target, "polygon")
    work = _Work.read(runs, options, target_crs)
    rows = write_outputs(
        targets,
        work.tables(),
        work.companions,
        crs=target_crs,
        classes=work.classes,
        geometry="polygon",
    )
    authority = target_crs.to_authority()
    return CombineReport(
        read=len(work.found),
        written=rows,
        suppressed=int(work.suppressed),
        joined=len(work.objects),
        exact=len(work.lattices) == 1,
        crs=":".join(authority) if authority else target_crs.name,
        outs=outs,
    )


def _choose_crs(wanted: str | None, runs: Sequence[Run]) -> pyproj.CRS:
    if wanted is not None:
        try:
            return pyproj.CRS.from_user_input(wanted)
        except pyproj.exceptions.CRSError:
            raise OptionError(
                f"{wanted} is not a CRS that PROJ knows, wanted for example EPSG:4326"
            ) from None
    same = all(run.crs == runs[0].crs for run in runs)
    return runs[0].crs if same else pyproj.CRS.from_user_input(FALLBACK_CRS)


@dataclass(eq=False)
class _Work:
    """All detections of all runs, and what became of them."""

    runs: list[Run]
    crs: pyproj.CRS
    names: list[str]
    lattices: list[Grid]
    scenes: Scenes
    classes: list[str]
    found: Found
    kept: NDArray[np.bool_]
    suppressed: int
    objects: list[NDArray[np.int64]]

    @classmethod
    def read(cls, runs: list[Run], options: MergeOptions, crs: pyproj.CRS) -> _Work:
        """Read and decide."""
        grounds = [scene for run in runs for scene in run.scenes]
        lattices, scenes = lattices_of(grounds)
        classes = _classes(runs)
        parts, first = [], 0
        for run in runs:
            numbers = {scene.name: first + k for k, scene in enumerate(run.scenes)}
            parts.append(read_found(run, numbers, lattices, scenes, classes))
            first += len(run.scenes)
        found = concat(parts)
        kept, objects = decide(found, scenes, lattices, options)
        suppressed = len(found) - int(kept.sum()) - sum(map(len, objects))
        return cls(
            runs, crs, _names(runs), lattices, scenes, classes, found, kept, suppressed, objects
        )

    def tables(self) -> Iterator[pa.Table]:
        """The kept rows as they were, file by file, then the joined objects."""
        row = scene = 0
        yield DETECTION_SCHEMA.empty_table()
        for run in self.runs:
            names = {s.name: self.names[scene + k] for k, s in enumerate(run.scenes)}
            with open_stream(run.path) as stream:
                for table in stream.tables:
                    mask = pa.array(self.kept[row : row + table.num_rows])
                    row += table.num_rows
                    yield _in_schema(table.filter(mask), names, run.crs, self.crs)
            scene += len(run.scenes)
        for members in self.objects:
            yield self._joined(members)

    def _joined(self, members: NDArray[np.int64]) -> pa.Table:
        """One object of several fragments: the box around them, with the best one's class."""
        parts = self.found.take(members)
        best = int(np.lexsort((parts.labels, -parts.scores))[0])
        box = np.concatenate([parts.boxes[:, :2].min(axis=0), parts.boxes[:, 2:].max(axis=0)])
        outline = ((parts.boxes == box) * _SIDES).sum(axis=1).astype(np.uint8)
        cut = np.bitwise_or.reduce(parts.cut & outline)
        lattice = self.lattices[self.scenes.lattice[parts.scene[best]]]
        whole = Detections(
            box[None],
            parts.scores[[best]].astype(np.float32),
            np.zeros(1, np.int32),
            np.full(1, -1),  # no one tile
            np.array([cut], np.uint8),
            np.ones(1, bool),
        )
        return detections_table(
            whole,
            lattice,
            classes=[self.classes[parts.labels[best]]],
            scene=self.names[parts.scene[best]],
            to_file=None,  # it lies in several files
            crs=self.crs,
        )

    def companions(self) -> Companions:
        """All ground that any run looked at, and what none did."""
        scanned = _ground(self.runs, "scanned", self.crs)
        assert scanned is not None  # no run is read without
        scanned = scanned.set_column(
            scanned.column_names.index("scene"), "scene", pa.array(self.names, pa.string())
        )
        missing = _ground(self.runs, "not_covered", self.crs)
        about = {str(run.path): dict(run.companions.metadata) for run in self.runs}
        metadata = {"merged_from": json.dumps(about), **_common(list(about.values()))}
        return Companions(scanned, _without(missing, scanned), metadata)


_SIDES = np.array([1 | 16, 2 | 32, 4 | 64, 8 | 128])
"""Bits of ``Cut`` that stand for x_min, y_min, x_max and y_max."""


def decide(
    found: Found, scenes: Scenes, lattices: Sequence[Grid], options: MergeOptions
) -> tuple[NDArray[np.bool_], list[NDArray[np.int64]]]:
    """Which detections stay as they are, and which become parts of a joined object.

    Returns:
        (N,) mask, false for parts too; and per object the positions of its parts.
    """
    lattice = scenes.lattice[found.scene]
    at = np.flatnonzero(contested(found, scenes, options))
    if len(lattices) > 1:
        at = np.arange(len(found))
    at = at[rank(found.take(at), scenes)]
    ranked = found.take(at)
    conflicts, links = [], []
    for k in range(len(lattices)):
        own = np.flatnonzero(lattice[at] == k)
        suppress, join = pairs_of_one_lattice(ranked.take(own), scenes, options)
        conflicts.append(own[suppress])
        links.append(own[join])
    if len(lattices) > 1:
        conflicts.append(_across(ranked, scenes, lattices, options))
    kept = select(np.concatenate(conflicts), len(at))
    joins = np.concatenate(links)
    joins = joins[kept[joins].all(axis=1)]
    stays = np.ones(len(found), dtype=bool)
    stays[at] = kept
    if not len(joins):
        return stays, []
    number = objects_of(joins, len(at))
    parts = np.unique(joins)
    stays[at[parts]] = False
    by_object = parts[np.argsort(number[parts], kind="stable")]
    cuts = np.flatnonzero(np.diff(number[by_object])) + 1
    return stays, [at[members] for members in np.split(by_object, cuts)]


def _across(
    ranked: Found, scenes: Scenes, lattices: Sequence[Grid], options: MergeOptions
) -> NDArray[np.int64]:
    """Conflicts between lattices, by areas in a CRS that keeps them, around all detections."""
    lattice = scenes.lattice[ranked.scene]
    degrees = pyproj.CRS.from_epsg(4326)
    rings = np.empty((len(ranked), 5, 2))
    for k, grid in enumerate(lattices):
        own = lattice == k
        rings[own] = reproject_rings(to_rings(ranked.boxes[own], grid), grid.crs, degrees)
    if not len(rings):
        return np.empty((0, 2), np.int64)
    # The mean of directions, so that scenes on both sides of the date line have one between them.
    lon, lat = np.radians(rings[:, 0]).T
    mean = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]).mean(1)
    lon_0 = np.degrees(np.arctan2(mean[1], mean[0]))
    lat_0 = np.degrees(np.arctan2(mean[2], np.hypot(mean[0], mean[1])))
    equal_area = pyproj.CRS.from_proj4(f"+proj=laea +lat_0={lat_0:.6f} +lon_0={lon_0:.6f}")
    polygons = shapely.polygons(reproject_rings(rings, degrees, equal_area))
    return pairs_of_polygons(ranked, np.asarray(polygons), lattice, options)


def _in_schema(
    table: pa.Table, names: dict[str, str], source: pyproj.CRS, target: pyproj.CRS
) -> pa.Table:
    """Rows of a file as ``detections_table`` makes them; columns that it lacks are null."""
    rings = wkb_to_rings(geometry_of(table))
    assert rings is not None  # it was read before
    wkb = rings_to_wkb(reproject_rings(rings, source, target))
    renamed = pa.array([names[name] for name in table["scene"].to_pylist()], pa.string())
    given = {**{n: table[n] for n in table.column_names}, "geometry": wkb, "scene": renamed}
    columns = [
        given[f.name].cast(f.type) if f.name in given else pa.nulls(table.num_rows, f.type)
        for f in DETECTION_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=DETECTION_SCHEMA)


def _names(runs: Sequence[Run]) -> list[str]:
    """Names of all scenes, with the run's before those that stand for several images."""
    paths: dict[str, set[str]] = {}
    for run in runs:
        for scene in run.scenes:
            paths.setdefault(scene.name, set()).add(scene.path)

    def name(run: Run, scene: SceneGround) -> str:
        return scene.name if len(paths[scene.name]) == 1 else f"{run.path.stem}/{scene.name}"

    return [name(run, scene) for run in runs for scene in run.scenes]


def _classes(runs: Sequence[Run]) -> list[str]:
    """Classes in the order of the models."""
    names: dict[str, None] = {}
    for run in runs:
        names.update(dict.fromkeys(json.loads(run.companions.metadata.get("thresholds", "{}"))))
    return list(names)


def _common(abouts: Sequence[dict[str, str]]) -> dict[str, str]:
    """Scores from which all runs have all detections: of each class the highest of theirs."""
    highest: dict[str, float] = {}
    floors = [json.loads(about.get("min_score", "null")) for about in abouts]
    for about in abouts:
        for name, score in json.loads(about.get("thresholds", "{}")).items():
            highest[name] = max(score, highest.get(name, 0.0))
    floor = None if None in floors else max(floors)
    return {"thresholds": json.dumps(highest), "min_score": json.dumps(floor)}


def _ground(runs: Sequence[Run], name: str, crs: pyproj.CRS) -> pa.Table | None:
    tables = []
    for run in runs:
        table = getattr(run.companions, name)
        if table is not None:
            table = table.drop_columns([c for c in ("id",) if c in table.column_names])
            tables.append(reproject_table(table, run.crs, crs))
    return pa.concat_tables(tables, promote_options="default") if tables else None


def _without(missing: pa.Table | None, scanned: pa.Table) -> pa.Table | None:
    """Ground that one run missed, less what another looked at."""
    if missing is None or not missing.num_rows:
        return missing
    looked_at = shapely.union_all(shapely.from_wkb(scanned["geometry"].to_numpy()))
    return cut_table(missing, lambda polygons: shapely.difference(polygons, looked_at))
