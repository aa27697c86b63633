"""Choosing among detections that were written, without running the network again."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray

from geo_retina.errors import LabelError, OptionError
from geo_retina.geodesy import is_same, missing_crs, transformer
from geo_retina.options import FilterOptions, it_has, quoted, same_text, split_names
from geo_retina.vector.formats import GEOMETRY
from geo_retina.vector.readers.area_of_interest import Area, read_area
from geo_retina.vector.readers.arrow_streams import open_stream
from geo_retina.vector.readers.frames import unusable
from geo_retina.vector.tables import cut_table, geometry_of
from geo_retina.vector.wkb import centres, wkb_to_rings
from geo_retina.vector.writers.outputs import (
    Companions,
    Target,
    check_target,
    read_companions,
    write_outputs,
)

Cut = Callable[[NDArray[np.object_]], NDArray[np.object_]]

SEAM_NOTE = (
    "a run made at that threshold could differ slightly where tiles meet, because a whole object "
    "outranks a better-scored fragment there"
)
"""What whoever filters must know."""


@dataclass(frozen=True)
class FilterReport:
    """What was kept.

    Attributes:
        read: detections looked at.
        kept: those written.
        counts: kept ones by class.
        thresholds: the score from which each class was kept; ``*`` for classes not named.
        raised: whether any of them lies above the score from which the file was written.
        outs: the files written.
    """

    read: int
    kept: int
    counts: dict[str, int]
    thresholds: dict[str, float]
    raised: bool
    outs: tuple[Path, ...]


def filter_detections(
    path: str | Path,
    out: str | Path | Sequence[str | Path],
    options: FilterOptions | None = None,
    *,
    overwrite: bool = False,
    discard_review: bool = False,
) -> FilterReport:
    """Keep the detections of a file by score, class and place; holds a part of them at a time.

    What explains the detections comes along: the ground that was scanned, cut to the area of
    interest, the ground that was not, and how it all came about. A run made at the threshold
    itself could differ slightly where tiles meet.

    Args:
        path: a file that ``detect_to_file`` wrote.
        out: the file to write, or several.
        options: what to keep.
        overwrite: replace existing files; what a person entered in them is carried over.
        discard_review: when replacing, discard what a person entered.

    Returns:
        What was kept. Rows keep their order and get new ids from 0.

    Raises:
        LabelError: the file cannot be read, or lacks a column that is needed.
        OptionError: nothing was asked for that the file could answer, such as a score below
            the one from which it was written, or a class that its model does not know.
        OutputError: the output cannot be written, or exists.

    Examples:
        >>> from geo_retina import FilterOptions, filter_detections
        >>> report = filter_detections("detections.gpkg", "sure.gpkg", FilterOptions(score=0.7))
        >>> 0 < report.kept < report.read
        True
    """
    options = options or FilterOptions()
    outs = tuple(Path(o) for o in ([out] if isinstance(out, (str, Path)) else out))
    if Path(path).resolve() in {o.resolve() for o in outs}:
        raise OptionError(f"{path} would be replaced by what is kept of it; name another output")
    companions = read_companions(path)
    metadata = companions.metadata if companions else {}
    names = _chosen_classes(path, options, metadata)
    options = replace(options, classes=names)
    thresholds = _thresholds(str(path), options, metadata)
    raised = _are_raised(thresholds, metadata)
    with open_stream(path, encoding=options.encoding) as stream:
        crs = stream.crs
        area = None if options.aoi is None else _area(path, options, crs)
        choice = _Choice(str(path), options, thresholds, area, crs)
        rows = _Looked(stream.tables)
        head = next(rows, None)
        is_points = head is not None and _are_points(path, head)
        targets = [Target(o, overwrite, discard_review) for o in outs]
        for target in targets:
            check_target(target, "polygon")
        written = write_outputs(
            targets,
            choice.of(() if head is None else chain([head], rows)),
            _filtered(companions, options, thresholds, _cutter(area, crs), raised=raised),
            crs=crs,
            classes=choice.classes,
            geometry="point" if is_points else "polygon",
        )
    counts = dict(written.counts)
    return FilterReport(rows.count, written.rows, counts, thresholds, raised, outs)


class _Looked:
    """Tables of a file on their way, whose rows nobody knows before they were read."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self.count = 0
        self._tables = tables

    def __iter__(self) -> Iterator[pa.Table]:
        return self

    def __next__(self) -> pa.Table:
        table = next(self._tables)
        self.count += table.num_rows
        return table


@dataclass(frozen=True, eq=False)
class _Choice:
    """Tells which rows to keep."""

    path: str
    options: FilterOptions
    thresholds: Mapping[str, float]
    area: Area | None
    crs: pyproj.CRS | None

    @property
    def classes(self) -> list[str]:
        """The classes that may be kept, as far as they are known."""
        known = [name for name in self.thresholds if name != _ANY]
        return [n for n in known if not self.options.classes or n in self.options.classes]

    def of(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Filter the rows, part by part."""
        return (table.filter(pa.array(self._mask(table))) for table in tables)

    def _mask(self, table: pa.Table) -> NDArray[np.bool_]:
        mask = np.ones(table.num_rows, dtype=bool)
        if self.options.classes:
            names = pa.array(self.options.classes, pa.string())
            mask &= pc.is_in(_column(self.path, table, "class"), names).to_numpy()
        if self.thresholds:
            column = _column(self.path, table, "score")
            if column.null_count:
                raise LabelError(
                    f"{self.path} has {column.null_count:,} objects without a score, as a person "
                    "draws them, expected one for each, since no threshold can choose them; enter "
                    "1 for what is surely there, or delete these rows"
                )
            scores = column.to_numpy()
            mask &= scores >= self._limits(table)
        if self.area is not None:
            assert self.crs is not None  # an area needs one
            mask &= self.area.holds(_centres(self.path, table), self.crs)
        return mask

    def _limits(self, table: pa.Table) -> Any:
        if set(self.thresholds) == {_ANY}:
            return self.thresholds[_ANY]
        names = pa.array([n for n in self.thresholds if n != _ANY], pa.string())
        place = pc.index_in(_column(self.path, table, "class"), names)
        place = pc.fill_null(place, len(names)).to_numpy()
        by_place = [self.thresholds[n] for n in names.to_pylist()]
        return np.array([*by_place, self.thresholds.get(_ANY, self.options.score or 0.0)])[place]


_ANY = "*"


def _chosen_classes(
    path: str | Path, options: FilterOptions, metadata: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Match the classes to keep with the file's spelling; None for all.

    Raises:
        OptionError: the file knows no such class.
    """
    if not options.classes:
        return None
    known = {same_text(n): n for n in json.loads(metadata.get("thresholds", "{}"))}
    asked = _apart(options.classes, known)
    if not known.keys() >= set(asked):  # no metadata, or classes that a person has entered
        known |= {same_text(name): name for name in _classes_in(path, options.encoding)}
        asked = _apart(options.classes, known)
    for name in asked:
        if name not in known:
            raise OptionError(
                f"{path} has no class {quoted(name)}; {it_has(name, list(known.values()))}"
            )
    chosen = tuple(dict.fromkeys(known[name] for name in asked))
    kept, of_model = _earlier(metadata).get("classes"), json.loads(metadata.get("thresholds", "{}"))
    for name in chosen:
        if kept and name in of_model and name not in kept:
            raise OptionError(
                f"{path} was filtered before and holds {', '.join(map(quoted, kept))} alone, so "
                f"{quoted(name)} cannot be had from it; filter the file from which it was made"
            )
    return chosen


def _apart(asked: Sequence[str], known: Collection[str]) -> list[str]:
    """List names one by one: a text that is no name itself is a list of such, with commas."""
    whole = [same_text(text) for text in asked]
    return [n for text in whole for n in ([text] if text in known else split_names(text))]


def _classes_in(path: str | Path, encoding: str | None) -> list[str]:
    """List the classes of a file's rows, sorted."""
    found: set[str] = set()
    with open_stream(path, encoding=encoding) as stream:
        for table in stream.tables:
            found.update(_column(path, table, "class").unique().to_pylist())
    return sorted(found - {None})


def _column(path: str | Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise LabelError(
            f"{path} has no column {name}, expected a file that geo-retina detect wrote"
        )
    return table[name]


def _thresholds(path: str, options: FilterOptions, metadata: Mapping[str, str]) -> dict[str, float]:
    """Score from which each class is kept; none where neither user nor file name any."""
    own: dict[str, float] = json.loads(metadata.get("thresholds", "{}"))
    if options.score is None:
        if not own and options.classes is None and options.aoi is None:
            raise OptionError(
                f"{path} names no thresholds; say what to keep, such as FilterOptions.score=0.5"
            )
        return _raised_to(own, _earlier(metadata).get("thresholds", {}))
    for name, lowest in _floors(metadata).items():
        if options.score < lowest and (not options.classes or name in {*options.classes, _ANY}):
            of = "" if name == _ANY else f" of class {name}"
            instead = (
                "filter the file from which it was made"
                if _earlier(metadata)
                else f"detect again with DetectOptions.min_score={options.score:g}"
            )
            raise OptionError(
                f"{path} holds detections{of} from score {lowest:g} on, so "
                f"{options.score:g} cannot be had from it; {instead}"
            )
    return dict.fromkeys(own, options.score) if own else {_ANY: options.score}


def _floors(metadata: Mapping[str, str]) -> dict[str, float]:
    """Score from which a file holds each class; none where it does not say."""
    own: dict[str, float] = json.loads(metadata.get("thresholds", "{}"))
    floor: float | None = json.loads(metadata.get("min_score", "null"))
    floors = own if floor is None else dict.fromkeys(own, floor)
    earlier: dict[str, float] = _earlier(metadata).get("thresholds", {})
    return _raised_to(floors, earlier)


def _earlier(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read how a file was filtered before; empty where it was not."""
    found: dict[str, Any] = json.loads(metadata.get("filtered", "{}"))
    return found


def _raised_to(thresholds: dict[str, float], floors: Mapping[str, float]) -> dict[str, float]:
    """Raise the threshold of each class to what the file begins at."""
    everywhere = floors.get(_ANY, 0.0)
    raised = {n: max(own, floors.get(n, everywhere)) for n, own in thresholds.items()}
    return {**floors, **raised}


def _are_raised(thresholds: Mapping[str, float], metadata: Mapping[str, str]) -> bool:
    floors = _floors(metadata)
    return any(threshold > floors.get(name, 0.0) for name, threshold in thresholds.items())


def _area(path: str | Path, options: FilterOptions, crs: pyproj.CRS | None) -> Area:
    if crs is None:
        so = "an area of interest has no place in it"
        raise LabelError(missing_crs(str(path), so, file=str(path)))
    assert options.aoi is not None
    area = read_area(options.aoi, options.aoi_layer)
    if not is_same(area.crs, crs):
        transformer(crs, area.crs)  # or it says why there is none, before anything is written
    return area


def _are_points(path: str | Path, table: pa.Table) -> bool:
    wkb = table[GEOMETRY].slice(0, 1).to_numpy()
    return bool((shapely.get_type_id(_from_wkb(path, wkb)) == 0).any())


def _centres(path: str | Path, table: pa.Table) -> NDArray[np.float64]:
    wkb = geometry_of(table)
    rings = wkb_to_rings(wkb)
    if rings is not None:
        return centres(rings)
    geometries = _from_wkb(path, wkb.to_numpy(zero_copy_only=False))
    return np.asarray(shapely.get_coordinates(shapely.centroid(geometries)))


def _from_wkb(path: str | Path, wkb: NDArray[np.object_]) -> NDArray[np.object_]:
    try:
        return np.asarray(shapely.from_wkb(wkb), dtype=object)
    except shapely.errors.ShapelyError as error:
        raise unusable(path, error) from error


def _filtered(
    companions: Companions | None,
    options: FilterOptions,
    thresholds: Mapping[str, float],
    cut: Cut | None,
    *,
    raised: bool,
) -> Companions:
    """Cut the ground layers to the area, and note the filter in the metadata."""
    found = companions or Companions(None, None, {})
    about = {**asdict(options), "thresholds": dict(thresholds)}
    earlier = _earlier(found.metadata)
    about["classes"] = options.classes or earlier.get("classes")
    note = json.dumps({**about, "note": SEAM_NOTE} if raised or "note" in earlier else about)
    return Companions(
        scanned=_cut(found.scanned, cut),
        not_covered=_cut(found.not_covered, cut),
        metadata={**found.metadata, "filtered": note},
    )


def _cutter(area: Area | None, crs: pyproj.CRS | None) -> Cut | None:
    """Make a function that cuts ground in a CRS to the area."""
    if area is None:
        return None
    assert crs is not None  # an area needs one
    return partial(area.cut, crs=crs)


def _cut(table: pa.Table | None, cut: Cut | None) -> pa.Table | None:
    return table if table is None or cut is None else cut_table(table, cut)
