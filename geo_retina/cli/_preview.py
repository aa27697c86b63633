"""``geo-retina preview`` and ``tiles``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from geo_retina.cli import _report, _voice
from geo_retina.errors import OptionError, OutputError
from geo_retina.files import check_file_output

if TYPE_CHECKING:
    from geo_retina.plots import DensityMap

_CROPS = 3


def preview(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    scene: Annotated[Path | None, Parameter(name="SCENE")] = None,
    /,
    *,
    out: Path,
    density_m: float | None = None,
    score: float | None = None,
    bands: tuple[int, ...] | None = None,
    crops: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=12))] = _CROPS,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Draw a scene with its detections, or map how many there are.

    The picture shows the whole scene and, at full resolution, the places with the most
    detections. With `--density 100m`, the output is a GeoTIFF of counts per cell instead,
    which needs no scene.

    Args:
        detections: Vector file that `detect` wrote, or a folder of them.
        scene: The image they were found in; with --density it may be left out.
        out: File to write: .png, or .tif with --density.
        density_m: Count objects in cells of this side, such as `100m`.
        score: Leave out detections that score less.
        bands: The file's bands to show as red, green and blue, such as `4,1,2`.
        crops: Places to show at full resolution.
        overwrite: Replace the output.
        reporting: How the command reports.
    """
    _voice.check_json(reporting, overwrite=overwrite)
    if density_m is not None:
        made = _map_density(detections, scene, out, density_m, score, overwrite)
        counts = {"cell_m": density_m, "total": made.total, "counts": made.counts}
        _voice.result(reporting, {"out": out, **counts})
        return
    if scene is None:
        raise OptionError(
            "a preview needs the scene that the detections were found in; name it after them, or "
            "map counts with --density"
        )
    from geo_retina.plots import draw_preview
    from geo_retina.scene import open_picture
    from geo_retina.vector import read_detections

    if out.suffix.lower() != ".png":
        raise OutputError(f"the picture {out} does not end in .png; give it that suffix")
    check_file_output(out, overwrite=overwrite)
    found = read_detections(detections)
    if score is not None:
        found = found[found["score"] >= score]
    picture = open_picture(scene, bands=bands)
    _report.warn_of_other_rasters([picture])
    draw_preview(picture, found, out, crops=crops)
    _voice.say(f"written to {out}")
    _voice.result(reporting, {"out": out})


def _map_density(
    detections: Path,
    scene: Path | None,
    out: Path,
    cell_m: float,
    score: float | None,
    overwrite: bool,
) -> DensityMap:
    from geo_retina.plots import draw_density
    from geo_retina.scene import open_picture

    ground = None if scene is None else open_picture(scene)
    _report.warn_of_other_rasters([] if ground is None else [ground])
    made = draw_density(
        detections, out, cell_m=cell_m, scene=ground, score=score, overwrite=overwrite
    )
    _voice.say(_describe(made, cell_m))
    return made


def _describe(made: DensityMap, cell_m: float) -> str:
    grid = made.grid
    lines = [
        f"{_report.plural(made.total, 'object')} in {grid.width:,} x {grid.height:,} cells of "
        f"{cell_m:g} m, at most {made.most:,} in one"
    ]
    if len(made.counts) > 1:
        counts = {name: f"{count:>9,}" for name, count in made.counts.items()}
        lines.append(_report.columns(counts, indent="  "))
    from geo_retina.geodesy import crs_label

    assert grid.crs is not None  # cells are of a size in metres
    lines.append(f"written to {made.path}, in {crs_label(grid.crs)}")
    return "\n".join(lines)


def tiles(
    detections: Annotated[Path, Parameter(name="DETECTIONS")],
    /,
    *,
    out: Path,
    min_zoom: int = 12,
    max_zoom: int = 16,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Write detections as vector tiles for web maps, in one PMTiles file.

    Args:
        detections: Vector file that `detect` wrote, or a folder of them.
        out: File to write, ending .pmtiles.
        min_zoom: The least zoom to draw. Tiles of smaller zooms hold too many objects to show all.
        max_zoom: The greatest zoom to draw; maps enlarge it beyond.
        overwrite: Replace the output.
        reporting: How the command reports.
    """
    from geo_retina.vector import export_tiles

    _voice.check_json(reporting, overwrite=overwrite)
    made = export_tiles(detections, out, min_zoom=min_zoom, max_zoom=max_zoom, overwrite=overwrite)
    if made.beyond:
        many = _report.plural(made.beyond, "object")
        _report.warn(f"{many} beyond 85.05 degrees, where web maps end, left out")
    _voice.say(
        f"{_report.plural(made.objects, 'object')} at zooms {min_zoom} to {max_zoom}, "
        f"written to {out}"
    )
    _voice.result(reporting, vars(made))
