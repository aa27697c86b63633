"""Several files of detections into one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import CrsError, LabelError, OptionError
from geo_retina.files import scratch_beside
from geo_retina.geodesy import transformer
from geo_retina.merge import check_scene_options
from geo_retina.options import MergeOptions
from geo_retina.postprocess.across import AcrossScenes, Found, merge_across
from geo_retina.postprocess.earlier_runs import (
    Run,
    first_days,
    read_found,
    read_run,
)
from geo_retina.postprocess.lattices import Lattices, lattices_of
from geo_retina.postprocess.run_names import scene_names
from geo_retina.vector import (
    AZIMUTH,
    DATES,
    FIRST_SEEN,
    PROBABILITY,
    SCENE_DATE,
    Companions,
    Target,
    azimuths_in,
    check_target,
    cut_table,
    detection_schema,
    detections_table,
    file_crs,
    geometry_of,
    is_oriented,
    open_stream,
    reproject_rings,
    reproject_table,
    rings_to_wkb,
    same_days,
    with_days,
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
        crs: of the files written, by their order where they differ, as GeoJSON has but one.
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
    discard_review: bool = False,
) -> CombineReport:
    """Make one set of objects of runs over neighbouring or overlapping scenes.

    Scenes on one lattice (one CRS, pixels of one size and turn) merge by the rule for tiles, as
    ``merge_scenes`` has it. Boxes of different lattices, such as those of two UTM zones, are
    compared by the areas of their polygons, in an equal-area CRS around scenes that lie together;
    there a cut one gives way to a whole one, and nothing is joined. Scenes of one file are
    combined too, unless that file is itself a result of this.

    Args:
        paths: files that ``detect_to_file`` wrote, with polygons.
        out: the file to write, or several.
        options: thresholds, as for tiles; other ranks and methods than the default are refused.
        crs: CRS of the result; left out, that of the files, or EPSG:4326 where they differ.
        overwrite: replace existing files; what a person entered in them is carried over.
        discard_review: when replacing, discard what a person entered.

    Returns:
        What became of them. The rows of the result are in the order of the files, objects that
        were joined last. Memory: about 150 bytes per detection, and the pairs that meet.

    Raises:
        LabelError: a file cannot be read, lacks columns, holds no boxes, or oriented ones where
            another has upright ones, does not say what was scanned, or lies in a plane from which
            no way leads to the result's CRS.
        OptionError: no file was named, the CRS is unknown, or an option does not apply.
        OutputError: the output cannot be written, or exists.

    Examples:
        >>> from geo_retina import combine_runs
        >>> report = combine_runs(["detections.gpkg", "detections.gpkg"], "one.gpkg")
        >>> report.read == 2 * report.written
        True
    """
    outs = tuple(Path(o) for o in ([out] if isinstance(out, (str, Path)) else out))
    options = options or MergeOptions()
    check_scene_options(options)
    if {o.resolve() for o in outs} & {Path(p).resolve() for p in paths} or not paths:
        raise OptionError(
            f"{len(paths)} files are to become {', '.join(map(str, outs))}; name at least one, "
            "and an output that is none of them"
        )
    runs = [read_run(path) for path in paths]
    _check_one_kind(runs)
    # Scenes keep nothing of each other that a tile would suppress, as tiles of a scene don't.
    options = replace(options, iou=min(options.iou, *(run.nms_iou for run in runs)))
    target_crs = _choose_crs(crs, runs)
    targets = [Target(o, overwrite, discard_review) for o in outs]
    for target in targets:
        check_target(target, "polygon")
    crs_of_outs = list(dict.fromkeys(file_crs(o, target_crs) or target_crs for o in outs))
    _check_ways(runs, [target_crs, *crs_of_outs])
    with scratch_beside(outs[0]) as scratch:
        work = _Work.of(runs, options, target_crs, scratch)
    written = write_outputs(
        targets,
        work.tables(),
        work.companions(),
        crs=target_crs,
        classes=work.classes,
        geometry="polygon",
    )
    return CombineReport(
        read=work.across.read,
        written=written.rows,
        suppressed=work.across.suppressed,
        joined=len(work.across.joined),
        exact=len(work.lattices.grids) == 1,
        crs=" and ".join(dict.fromkeys(map(_crs_name, crs_of_outs))),
        outs=outs,
    )


def _check_one_kind(runs: Sequence[Run]) -> None:
    """Refuse oriented boxes beside upright ones; a file without detections goes with both.

    Raises:
        LabelError: there are both.
    """
    kinds = {is_oriented(run.columns): run.path for run in runs if run.columns}
    if len(kinds) > 1:
        raise LabelError(
            f"{kinds[True]} holds oriented boxes and {kinds[False]} upright ones, expected one "
            "kind; merge the runs of each kind by themselves"
        )


def _crs_name(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.name


def _choose_crs(requested: str | None, runs: Sequence[Run]) -> pyproj.CRS:
    if requested is not None:
        try:
            return pyproj.CRS.from_user_input(requested)
        except pyproj.exceptions.CRSError:
            raise OptionError(
                f"{requested} is not a CRS that PROJ knows, expected for example EPSG:4326"
            ) from None
    same = all(run.crs == runs[0].crs for run in runs)
    return runs[0].crs if same else pyproj.CRS.from_user_input(FALLBACK_CRS)


def _check_ways(runs: Sequence[Run], targets: Sequence[pyproj.CRS]) -> None:
    """Refuse what has no way from a run's CRS to the result's, before work is spent on it.

    Raises:
        LabelError: a run lies in a plane of its own, which has no place on the Earth.
    """
    for run in runs:
        for target in targets:
            try:
                if run.crs != target:
                    transformer(run.crs, target)
            except CrsError:
                raise LabelError(
                    f"{run.path} is in {run.crs.name}, from which no way leads to {target.name}, "
                    "expected for the result; merge runs of that CRS alone, and write .gpkg in it"
                ) from None


@dataclass(frozen=True, eq=False)
class _Work:
    """All detections of all runs, and what became of them.

    Attributes:
        runs: the files.
        crs: of the result.
        names: of all scenes, run by run.
        days: on which they were taken, likewise; None where that is not known.
        lattices: that the scenes are on.
        classes: names by label.
        across: what became of the detections.
    """

    runs: list[Run]
    crs: pyproj.CRS
    names: list[str]
    days: list[date | None]
    lattices: Lattices
    classes: list[str]
    across: AcrossScenes

    @classmethod
    def of(cls, runs: list[Run], options: MergeOptions, crs: pyproj.CRS, scratch: Path) -> _Work:
        """Read and decide."""
        scenes = [scene for run in runs for scene in run.scenes]
        lattices = lattices_of([scene.grid for scene in scenes], _settled(runs))
        classes = _classes(runs)
        found, first = [], 0
        dated = _is_dated(runs)
        for run in runs:
            read = partial(read_found, run, first, lattices, classes, dated=dated)
            found.append(Found(read, run.is_merged))
            first += len(run.scenes)
        across = merge_across(found, lattices, options, scratch)
        days = [scene.day for scene in scenes]
        return cls(runs, crs, scene_names(runs), days, lattices, classes, across)

    def tables(self) -> Iterator[pa.Table]:
        """Stream the kept rows as they were, file by file, then the joined objects."""
        row = scene = 0
        schema = _schema(self.runs)
        dated = FIRST_SEEN in schema.names
        yield schema.empty_table()
        for run in self.runs:
            names = {s.name: self.names[scene + k] for k, s in enumerate(run.scenes)}
            with open_stream(run.path) as stream:
                for table in stream.tables:
                    mask = pa.array(self.across.stays(row, row + table.num_rows))
                    if dated:
                        table = self._dated(table, row)
                    row += table.num_rows
                    kept = table.filter(mask)
                    yield _in_schema(kept, names, (run.crs, self.crs), schema)
            scene += len(run.scenes)
        for scene in np.unique(self.across.joined.tile):
            yield _filled(self._joined(int(scene)), schema)

    def _dated(self, table: pa.Table, row: int) -> pa.Table:
        """Put the days on which objects were first seen into a part of a file."""
        days = self.across.first_seen(first_days(table), row)
        others = [name for name in table.column_names if name != FIRST_SEEN]
        return with_days(table.select(others), {FIRST_SEEN: days})

    def _joined(self, scene: int) -> pa.Table:
        """Build the objects of several fragments, the first of which lies in a scene."""
        joined = self.across.joined
        found = joined.take(joined.tile == scene)
        table = detections_table(
            replace(found, tile=np.full(len(found), -1)),  # no one tile
            self.lattices.grid_of(scene),
            classes=self.classes,
            scene=self.names[scene],
            to_file=None,  # they lie in several files
            crs=self.crs,
        )
        if found.first_seen is None:
            return table
        own = same_days(self.days[scene], len(found))
        return with_days(table, {SCENE_DATE: own, FIRST_SEEN: found.first_seen})

    def companions(self) -> Companions:
        """Join the ground that any run scanned, and what none did."""
        scanned = _ground(self.runs, "scanned", self.crs)
        assert scanned is not None  # no run is read without
        given, names = iter(self.names), list[str]()
        for run in self.runs:
            assert run.companions.scanned is not None
            renamed = {scene.name: next(given) for scene in run.scenes}
            names += [renamed[name] for name in run.companions.scanned["scene"].to_pylist()]
        scanned = scanned.set_column(
            scanned.column_names.index("scene"), "scene", pa.array(names, pa.string())
        )
        missing = _ground(self.runs, "not_covered", self.crs)
        about = {str(run.path): dict(run.companions.metadata) for run in self.runs}
        metadata = {"merged_from": json.dumps(about), **_common(list(about.values()))}
        return Companions(scanned, without_ground(missing, scanned), metadata)


def _schema(runs: Sequence[Run]) -> pa.Schema:
    """Give the columns of the result: of its kind of boxes, and with probabilities if any."""
    return detection_schema(
        oriented=any(is_oriented(run.columns) for run in runs),
        calibrated=any(PROBABILITY in run.columns for run in runs),
        dates=DATES if _is_dated(runs) else (),
    )


def _is_dated(runs: Sequence[Run]) -> bool:
    """Check whether any run tells when its scenes were taken."""
    return any({*DATES} & {*run.columns} for run in runs)


def _in_schema(
    table: pa.Table,
    names: dict[str, str],
    systems: tuple[pyproj.CRS, pyproj.CRS],
    schema: pa.Schema,
) -> pa.Table:
    """Convert a file's rows to the columns and, of ``systems``, from the first to the second."""
    source, target = systems
    rings = wkb_to_rings(geometry_of(table))
    assert rings is not None  # it was read before
    wkb = rings_to_wkb(reproject_rings(rings, source, target))
    renamed = pa.array([names[name] for name in table["scene"].to_pylist()], pa.string())
    given = {**{n: table[n] for n in table.column_names}, "geometry": wkb, "scene": renamed}
    if is_oriented(table.column_names):
        given[AZIMUTH] = azimuths_in(table, source, target)
    return _filled(pa.table(given), schema)


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a table to some columns; those that it lacks are null."""
    columns = [
        table[f.name].cast(f.type)
        if f.name in table.column_names
        else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _settled(runs: Sequence[Run]) -> NDArray[np.int64]:
    """Assign (S,) numbers to scenes, equal ones to those of a run that were merged before."""
    numbers: list[int] = []
    for run in runs:
        first = len(numbers)
        numbers += [first if run.is_merged else first + k for k in range(len(run.scenes))]
    return np.array(numbers, dtype=np.int64)


def _classes(runs: Sequence[Run]) -> list[str]:
    """List the classes in the order of the models."""
    names: dict[str, None] = {}
    for run in runs:
        names.update(dict.fromkeys(json.loads(run.companions.metadata.get("thresholds", "{}"))))
    return list(names)


def _common(abouts: Sequence[dict[str, str]]) -> dict[str, str]:
    """Find the score above which all runs have all detections: of each class the highest."""
    floors = [json.loads(about.get("min_score", "null")) for about in abouts]
    highest = _highest(json.loads(about.get("thresholds", "{}")) for about in abouts)
    floor = None if None in floors else max(floors)
    common = {"thresholds": json.dumps(highest), "min_score": json.dumps(floor)}
    filtered = [json.loads(about["filtered"]) for about in abouts if "filtered" in about]
    if filtered:  # what one of them left out, the result does not have
        limits = _highest(each["thresholds"] for each in filtered)
        chosen = [set(each["classes"]) for each in filtered if each.get("classes")]
        classes = sorted(set.intersection(*chosen)) if chosen else None
        common["filtered"] = json.dumps({"thresholds": limits, "classes": classes})
    return common


def _highest(limits: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Take of each class the highest score."""
    highest: dict[str, float] = {}
    for each in limits:
        for name, score in each.items():
            highest[name] = max(score, highest.get(name, 0.0))
    return highest


def _ground(runs: Sequence[Run], name: str, crs: pyproj.CRS) -> pa.Table | None:
    tables = []
    for run in runs:
        table = getattr(run.companions, name)
        if table is not None:
            table = table.drop_columns([c for c in ("id",) if c in table.column_names])
            tables.append(reproject_table(table, run.crs, crs))
    return pa.concat_tables(tables, promote_options="default") if tables else None


def without_ground(missing: pa.Table | None, scanned: pa.Table) -> pa.Table | None:
    """Cut ground that another run scanned out of what one run missed.

    Of scenes that may have pixels without ground only what is missing of the very image is cut.
    """
    if missing is None or not missing.num_rows:
        return missing
    shapes = shapely.from_wkb(scanned["geometry"].to_numpy())
    whole = np.zeros(len(shapes), np.bool_)
    if "whole" in scanned.column_names:
        whole = scanned["whole"].fill_null(False).to_numpy()
    seen_whole = shapely.union_all(shapes[whole])
    paths = np.array(scanned["path"].to_pylist(), dtype=object)
    parts = []
    scenes = np.array(missing["scene"].to_pylist(), dtype=object)
    for scene in dict.fromkeys(scenes):
        looked_at = shapely.union_all([seen_whole, *shapes[paths == scene]])
        own = missing.filter(pa.array(scenes == scene))
        parts.append(cut_table(own, _without(looked_at)))
    return pa.concat_tables(parts)


def _without(ground: Any) -> Callable[[NDArray[np.object_]], NDArray[np.object_]]:
    return lambda polygons: np.asarray(shapely.difference(polygons, ground))
