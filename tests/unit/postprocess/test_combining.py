"""Runs of several scenes into one set of objects."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
from affine import Affine
from support.detections import detections_of

from geo_retina.boxes import iou, to_polygons
from geo_retina.detections import Cut
from geo_retina.errors import LabelError, OptionError
from geo_retina.grid import Grid
from geo_retina.options import FilterOptions, MergeOptions
from geo_retina.postprocess import combine_runs
from geo_retina.postprocess.filtering import filter_detections
from geo_retina.vector import (
    Companions,
    Target,
    detections_table,
    outline_table,
    read_detections,
    write_outputs,
)

UTM32, UTM33 = pyproj.CRS("EPSG:32632"), pyproj.CRS("EPSG:32633")
AFFINE = Affine(0.5, 0, 500_000, 0, -0.5, 5_300_000)
TURNED = (
    Affine.translation(612_345.6, 5_300_123.4) @ Affine.rotation(23.0) @ Affine.scale(0.3, -0.4)
)
NOT_COVERED = pa.schema([("geometry", pa.binary()), ("scene", pa.string()), ("error", pa.string())])
RIGHT, LEFT = int(Cut.SCENE_RIGHT), int(Cut.SCENE_LEFT)
BOTTOM, TOP = int(Cut.SCENE_BOTTOM), int(Cut.SCENE_TOP)
SOUTH_UP = Affine(0.5, 0, 500_000, 0, 0.5, 5_299_850)
LOCAL = pyproj.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')


def run(
    path, boxes, scores, grid, *, cut=0, classes=("car", "ship"), labels=0, missing=(), **about
):
    """A file as ``detect_to_file`` writes it, of one scene named like the file."""
    found = detections_of(boxes, scores, labels=labels, tile=np.arange(len(boxes)), cut=cut)
    return run_of(path, found, grid, classes=classes, missing=missing, **about)


def run_of(path, found, grid, *, classes=("car", "ship"), missing=(), nms_iou=None, whole=True):
    """The same of detections that are there already."""
    name = path.stem
    rows = detections_table(found, grid, classes=classes, scene=name, to_file=Affine.identity())
    outline = to_polygons(np.array([[0.0, 0, grid.width, grid.height]]), grid)
    about = {
        "scene": [name],
        "path": [f"{name}.tif"],
        "width_px": [grid.width],
        "height_px": [grid.height],
        "grid_crs": [grid.crs.to_wkt()],
        "affine": [" ".join(map(repr, map(float, tuple(grid.affine)[:6])))],
        **({} if whole is None else {"whole": [whole]}),
    }
    seen = shapely.difference(outline[0], shapely.union_all(list(missing)))
    seen = np.array([shapely.MultiPolygon(list(shapely.get_parts(seen)))], dtype=object)
    scanned = outline_table(seen, about, grid.crs, grid.crs)
    holes = np.array([shapely.multipolygons([hole]) for hole in missing], dtype=object)
    errors = {"scene": about["path"] * len(missing), "error": ["x"] * len(missing)}
    nowhere = outline_table(holes, errors, grid.crs, grid.crs).cast(NOT_COVERED)
    metadata = {"thresholds": json.dumps(dict.fromkeys(classes, 0.5)), "min_score": "null"}
    if nms_iou is not None:
        metadata["options"] = json.dumps({"nms_iou": nms_iou})
    write_outputs(
        [Target(path, True)],
        [rows],
        Companions(scanned, nowhere, metadata),
        crs=grid.crs,
        classes=classes,
        geometry="polygon",
    )
    return path


def moved(affine, cols, rows=0):
    return affine @ Affine.translation(cols, rows)


def px(frame, affine):
    """Boxes of a frame in the pixels of an affine."""
    rings = shapely.get_coordinates(frame.geometry.array).reshape(-1, 5, 2)
    points = Grid(frame.crs, affine, 1, 1).crs_to_pixels(rings)
    return np.hstack([points.min(axis=1), points.max(axis=1)])


@pytest.mark.parametrize("affine", [AFFINE, TURNED], ids=["north up", "turned"])
@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_objects_of_overlapping_scenes_are_told_once(tmp_path, affine, suffix):
    rng = np.random.default_rng(0)
    truth = np.stack(np.meshgrid(np.arange(10, 980, 40.0), np.arange(10, 280, 40.0)), -1)
    truth = np.tile(truth.reshape(-1, 2), 2) + np.array([0, 0, 20, 15])
    scores = rng.uniform(0.5, 1, len(truth))
    grid = Grid(UTM32, affine, 300, 600)
    left = truth[:, 2] < 600
    right = truth[:, 0] > 400
    a = run(tmp_path / f"a{suffix}", truth[left], scores[left], grid)
    other = Grid(UTM32, moved(affine, 400), 300, 600)
    shifted = truth[right] - np.array([400, 0, 400, 0])
    b = run(tmp_path / f"b{suffix}", shifted, scores[right] - 0.01, other)
    report = combine_runs([a, b], tmp_path / "c.gpkg")
    assert report.exact
    assert report.read == left.sum() + right.sum()
    assert report.written == len(truth)
    assert report.suppressed == (left & right).sum() > 20
    got = read_detections(tmp_path / "c.gpkg")
    order = np.lexsort(px(got, affine).round(3).T)
    np.testing.assert_allclose(px(got, affine)[order], truth[np.lexsort(truth.T)], atol=1e-5)
    assert set(got["scene"]) == {"a", "b"}
    # Once more changes nothing, nor does the other order, but for the order of rows.
    again = combine_runs([tmp_path / "c.gpkg"], tmp_path / "d.gpkg")
    assert (again.written, again.suppressed) == (len(truth), 0)
    back = combine_runs([b, a], tmp_path / "e.gpkg")
    assert (back.written, back.suppressed) == (report.written, report.suppressed)


@pytest.mark.parametrize(("nms_iou", "kept"), [(None, 2), (0.5, 2), (0.3, 1)])
def test_scenes_keep_nothing_of_each_other_that_a_tile_would_suppress(tmp_path, nms_iou, kept):
    box, other = [100.0, 100, 120, 120], [109.2, 100, 129.2, 120]
    assert 0.3 < iou(np.array([box]), np.array([other]))[0] < 0.4
    grid = Grid(UTM32, AFFINE, 300, 600)
    a = run(tmp_path / "a.gpkg", [box], [0.9], grid, nms_iou=nms_iou)
    b = run(tmp_path / "b.gpkg", [other], [0.8], grid)
    assert combine_runs([a, b], tmp_path / "c.gpkg").written == kept


def test_fragments_at_a_border_become_one_object(tmp_path):
    """Two adjacent scenes, and two that overlap by 20 px; a long object in each pair."""
    for overlap in (0, 20):
        grid = Grid(UTM32, AFFINE, 300, 500)
        a = run(tmp_path / "a.gpkg", [[450, 100, 500, 120]], 0.7, grid, cut=RIGHT)
        right = Grid(UTM32, moved(AFFINE, 500 - overlap), 300, 500)
        b = run(tmp_path / "b.gpkg", [[0, 101, 60, 120]], 0.9, right, cut=LEFT)
        out = tmp_path / f"c{overlap}.gpkg"
        report = combine_runs([a, b], out)
        assert (report.written, report.joined, report.suppressed) == (1, 1, 0)
        got = read_detections(out)
        np.testing.assert_allclose(px(got, AFFINE), [[450, 100, 560 - overlap, 120]], atol=1e-5)
        assert got["score"].tolist() == pytest.approx([0.9])
        assert got["joined"].tolist() == [True]
        assert got["cut"].tolist() == [0]
        apart = combine_runs([a, b], tmp_path / "d.gpkg", MergeOptions(join=False), overwrite=True)
        assert apart.written == 2


def test_a_whole_object_outranks_a_surer_fragment(tmp_path):
    grid = Grid(UTM32, AFFINE, 300, 500)
    a = run(tmp_path / "a.gpkg", [[450, 100, 500, 120]], 0.99, grid, cut=RIGHT)
    whole = Grid(UTM32, moved(AFFINE, 400), 300, 500)
    b = run(tmp_path / "b.gpkg", [[50, 100, 150, 120]], 0.55, whole)
    assert combine_runs([a, b], tmp_path / "c.gpkg").written == 1
    got = read_detections(tmp_path / "c.gpkg")
    assert got["scene"].tolist() == ["b"]
    other = run(tmp_path / "b.gpkg", [[50, 100, 150, 120]], 0.55, whole, labels=1)
    assert combine_runs([a, other], tmp_path / "d.gpkg").written == 2
    any_class = MergeOptions(class_aware=False)
    assert combine_runs([a, other], tmp_path / "e.gpkg", any_class).written == 1


def test_across_zones_areas_decide(tmp_path):
    """The same ground in two UTM zones, at the meridian between them."""
    to_33 = pyproj.Transformer.from_crs(UTM32, UTM33, always_xy=True)
    west = Grid(UTM32, Affine(0.5, 0, 720_000, 0, -0.5, 5_400_000), 1000, 1000)
    corner = to_33.transform(720_000, 5_400_000)
    east = Grid(UTM33, Affine(0.5, 0, corner[0], 0, -0.5, corner[1]), 1000, 1000)
    rng = np.random.default_rng(1)
    boxes = rng.uniform(100, 800, (40, 2))
    boxes = np.hstack([boxes, boxes + rng.uniform(20, 60, (40, 2))])
    # Where the same ground lies in the other zone: by centres, in its own pixels.
    x, y = west.pixels_to_crs((boxes[:, :2] + boxes[:, 2:]) / 2).T
    centres = east.crs_to_pixels(np.stack(to_33.transform(x, y), axis=-1))
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    others = np.hstack([centres - half, centres + half])
    a = run(tmp_path / "a.gpkg", boxes, rng.uniform(0.5, 0.7, 40), west)
    b = run(tmp_path / "b.gpkg", others, rng.uniform(0.71, 0.9, 40), east)
    report = combine_runs([a, b], tmp_path / "c.gpkg")
    assert not report.exact
    assert report.crs == "EPSG:4326"
    got = read_detections(tmp_path / "c.gpkg")
    # The better-scored of each pair stays, as a zone turns boxes by 4 degrees and no more.
    assert set(got["scene"]) == {"b"}
    assert len(got) == 40
    asked = combine_runs([a, b], tmp_path / "d.gpkg", crs="EPSG:32632")
    assert asked.crs == "EPSG:32632"


def test_ground_that_one_missed_and_another_saw_is_covered(tmp_path):
    grid = Grid(UTM32, AFFINE, 300, 500)
    hole = shapely.box(500_150, 5_299_900, 500_250, 5_300_000)
    far = shapely.box(500_000, 5_299_850, 500_050, 5_300_000)
    a = run(tmp_path / "a.gpkg", [], 0.5, grid, missing=[hole, far])
    b = run(tmp_path / "b.gpkg", [], 0.5, Grid(UTM32, moved(AFFINE, 400), 300, 500))
    combine_runs([a, b], tmp_path / "c.gpkg")
    missing = gpd.read_file(tmp_path / "c.gpkg", layer="not_covered")
    # b begins at 500,200 m, which leaves the western half of the one and all of the other.
    assert missing.area.tolist() == pytest.approx([50 * 100, 50 * 150])
    assert len(gpd.read_file(tmp_path / "c.gpkg", layer="scanned")) == 2


def test_a_scene_at_two_resolutions_is_combined_again(tmp_path):
    """As two models see it; what was filtered out of one is told of afterwards."""
    files = [tmp_path / "cars" / "a.gpkg", tmp_path / "ships" / "a.gpkg"]
    for k, file in enumerate(files):
        file.parent.mkdir()
        affine = AFFINE @ Affine.scale(k + 1)
        run(file, [[10, 10, 30, 30]], 0.9, Grid(UTM32, affine, 300 // (k + 1), 500 // (k + 1)))
    sure = tmp_path / "sure.gpkg"
    filter_detections(files[0], sure, FilterOptions(score=0.8))
    combine_runs([sure, files[1]], tmp_path / "both.gpkg")
    assert set(read_detections(tmp_path / "both.gpkg")["scene"]) == {"a"}
    combine_runs([tmp_path / "both.gpkg", files[1]], tmp_path / "again.gpkg")
    assert len(read_detections(tmp_path / "again.gpkg")) == 2
    for name in ("both", "again"):
        path = tmp_path / f"{name}.gpkg"
        kept = filter_detections(path, tmp_path / f"{name}-sure.gpkg", FilterOptions(score=0.85))
        assert kept.kept == 2
    with pytest.raises(OptionError, match=r"from score 0.8 on"):
        filter_detections(tmp_path / "both.gpkg", tmp_path / "g.gpkg", FilterOptions(score=0.6))


@pytest.mark.parametrize("whole", [False, None])
def test_ground_that_another_scene_may_lack_stays_not_covered(tmp_path, whole):
    """Nodata is in the outline of what was scanned; the very image holds nothing else."""
    grid = Grid(UTM32, AFFINE, 300, 500)
    hole = shapely.box(500_150, 5_299_900, 500_250, 5_300_000)
    a = run(tmp_path / "a.gpkg", [], 0.5, grid, missing=[hole], whole=whole)
    b = run(tmp_path / "b.gpkg", [], 0.5, grid, whole=whole)
    combine_runs([a, b], tmp_path / "c.gpkg")
    assert gpd.read_file(tmp_path / "c.gpkg", layer="not_covered").area.tolist() == [100 * 100]
    (tmp_path / "again").mkdir()
    again = run(tmp_path / "again" / "a.gpkg", [], 0.5, grid, whole=whole)
    combine_runs([a, b, again], tmp_path / "d.gpkg")
    assert gpd.read_file(tmp_path / "d.gpkg", layer="not_covered").empty


def test_scenes_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "x").mkdir()
    grid = Grid(UTM32, AFFINE, 300, 500)
    a = run(tmp_path / "a.gpkg", [[10, 10, 30, 30]], 0.5, grid)
    b = run(
        tmp_path / "x" / "a.gpkg", [[10, 10, 30, 30]], 0.5, Grid(UTM32, moved(AFFINE, 900), 9, 9)
    )
    frame = gpd.read_file(b, layer="scanned")
    frame["path"] = "elsewhere/a.tif"
    frame.to_file(b, layer="scanned")
    combine_runs([a, b], tmp_path / "c.gpkg")
    names = [f"{tmp_path}/a/a", f"{tmp_path}/x/a/a"]
    assert read_detections(tmp_path / "c.gpkg")["scene"].tolist() == names


def test_one_relative_path_on_other_ground_is_another_scene(tmp_path):
    """As two runs have it that were made in two folders; the result can be combined again."""
    grids = [Grid(UTM32, moved(AFFINE, by), 300, 500) for by in (0, 400)]
    files = [tmp_path / name / "a.gpkg" for name in ("north", "south")]
    for k, (file, grid) in enumerate(zip(files, grids, strict=True)):
        file.parent.mkdir()
        run(file, [[10, 10, 30, 30], [450 - 400 * k, 10, 470 - 400 * k, 30]], 0.5, grid)
        file.rename(tmp_path / f"{file.parent.name}.gpkg")
    both = [tmp_path / f"{name}.gpkg" for name in ("north", "south")]
    combine_runs(both, tmp_path / "c.gpkg")
    assert set(read_detections(tmp_path / "c.gpkg")["scene"]) == {"north/a", "south/a"}
    combine_runs([tmp_path / "c.gpkg", both[0]], tmp_path / "d.gpkg")
    assert len(read_detections(tmp_path / "d.gpkg")) == 3
    scanned = gpd.read_file(tmp_path / "c.gpkg", layer="scanned").assign(scene="a")
    scanned.to_file(tmp_path / "c.gpkg", layer="scanned")
    with pytest.raises(LabelError, match="several scenes named a, so nothing tells whose"):
        combine_runs([tmp_path / "c.gpkg"], tmp_path / "e.gpkg")


def test_what_cannot_be_combined(tmp_path):
    grid = Grid(UTM32, AFFINE, 300, 500)
    a = run(tmp_path / "a.gpkg", [[10, 10, 30, 30]], 0.5, grid)
    frame = gpd.GeoDataFrame({"score": [0.1]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM32)
    frame.to_file(tmp_path / "other.gpkg", layer="detections")
    with pytest.raises(LabelError, match=r"other\.gpkg does not say which ground"):
        combine_runs([a, tmp_path / "other.gpkg"], tmp_path / "c.gpkg")
    with pytest.raises(OptionError, match="none of them"):
        combine_runs([a], a, overwrite=True)
    with pytest.raises(OptionError, match="not a CRS"):
        combine_runs([a], tmp_path / "c.gpkg", crs="EPSG:nonsense")
    assert not (tmp_path / "c.gpkg").exists()


def halves(folder, *, gap_px=0.0, offset_px=500, affine=AFFINE, crs=UTM32, suffix=".gpkg"):
    """Two scenes of 500 px, and in each a box that ends ``gap_px`` short of their border."""
    left = Grid(crs, affine, 300, 500)
    right = Grid(crs, moved(affine, offset_px), 300, 500)
    boxes = [450, 100, 500 - gap_px, 120], [gap_px, 100, 60, 120]
    return (
        run(folder / f"a{suffix}", [boxes[0]], 0.7, left, cut=RIGHT),
        run(folder / f"b{suffix}", [boxes[1]], 0.9, right, cut=LEFT),
    )


@pytest.mark.parametrize("affine", [AFFINE, TURNED, SOUTH_UP], ids=["north", "turned", "south"])
@pytest.mark.parametrize(("gap_px", "objects"), [(0, 1), (1, 2), (3, 2)])
def test_two_objects_on_either_side_of_a_border_stay_two(tmp_path, affine, gap_px, objects):
    """Within ``edge_px`` of the border of abutting scenes both count as cut, but share nothing."""
    report = combine_runs(halves(tmp_path, gap_px=gap_px, affine=affine), tmp_path / "c.gpkg")
    assert (report.written, report.joined) == (objects, 2 - objects)


@pytest.mark.parametrize(
    ("offset_px", "objects"),
    [(499.5, 1), (500.3, 1), (500.9, 1), (501, 2), (503, 2)],
    ids=["overlap by half a pixel", "a third apart", "less than one apart", "one apart", "three"],
)
def test_scenes_a_part_of_a_pixel_apart_join_as_abutting_ones(tmp_path, offset_px, objects):
    report = combine_runs(halves(tmp_path, offset_px=offset_px), tmp_path / "c.gpkg")
    assert report.exact
    assert report.written == objects


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".shp", ".geojson", ".fgb"])
def test_borders_survive_every_format(tmp_path, suffix):
    """Parts that touch the border touch it after a way through longitudes and back, too."""
    assert combine_runs(halves(tmp_path, suffix=suffix), tmp_path / "c.gpkg").joined == 1


def test_a_border_cuts_only_where_another_scene_sees_the_ground_beyond(tmp_path):
    """Of two looks at one scene the surer box wins, as nobody sees more of the object."""
    grid = Grid(UTM32, AFFINE, 300, 500)
    a = run(tmp_path / "a.gpkg", [[440, 100, 500, 120]], 0.6, grid, cut=RIGHT)
    b = run(tmp_path / "b.gpkg", [[450, 100, 500, 120]], 0.9, grid, cut=RIGHT)
    combine_runs([a, b], tmp_path / "c.gpkg")
    assert read_detections(tmp_path / "c.gpkg")["scene"].tolist() == ["b"]
    # With a neighbour to the right both are parts, of which the larger one says more.
    next_to = run(tmp_path / "n.gpkg", [], 0.5, Grid(UTM32, moved(AFFINE, 500), 300, 500))
    combine_runs([a, b, next_to], tmp_path / "d.gpkg")
    assert read_detections(tmp_path / "d.gpkg")["scene"].tolist() == ["a"]


def test_a_scene_within_another_gives_way_with_what_its_borders_cut(tmp_path):
    whole = Grid(UTM32, AFFINE, 300, 500)
    part = Grid(UTM32, moved(AFFINE, 100, 100), 50, 150)
    a = run(tmp_path / "a.gpkg", [[100, 100, 300, 150]], 0.6, whole)
    b = run(tmp_path / "b.gpkg", [[0, 0, 150, 50]], 0.99, part, cut=LEFT | TOP | RIGHT | BOTTOM)
    combine_runs([a, b], tmp_path / "c.gpkg")
    assert read_detections(tmp_path / "c.gpkg")["scene"].tolist() == ["a"]


@pytest.mark.parametrize("corners", [(0, 1, 2, 3), (0, 1, 2), (0, 3), (1, 2)])
def test_parts_around_a_corner_of_scenes_become_one_object(tmp_path, corners):
    parts = (
        ([460, 270, 500, 300], RIGHT | BOTTOM, (0, 0)),
        ([0, 270, 30, 300], LEFT | BOTTOM, (500, 0)),
        ([460, 0, 500, 20], RIGHT | TOP, (0, 300)),
        ([0, 0, 30, 20], LEFT | TOP, (500, 300)),
    )
    runs = []
    for k in corners:
        box, cut, origin = parts[k]
        grid = Grid(UTM32, moved(AFFINE, *origin), 300, 500)
        runs.append(run(tmp_path / f"{k}.gpkg", [box], 0.7, grid, cut=cut))
    assert combine_runs(runs, tmp_path / "c.gpkg").joined == 1
    [box] = px(read_detections(tmp_path / "c.gpkg"), AFFINE)
    np.testing.assert_allclose(box, [460, 270, 530, 320], atol=1e-5)


def test_merging_step_by_step_is_merging_at_once(tmp_path):
    """An object over three scenes goes on where the first merge left it; twice is once."""
    a, b = halves(tmp_path)
    through = Grid(UTM32, moved(AFFINE, 500), 300, 500)
    b = run(b, [[0, 100, 500, 120]], 0.9, through, cut=LEFT | RIGHT)
    last = Grid(UTM32, moved(AFFINE, 1000), 300, 500)
    c = run(tmp_path / "c.gpkg", [[0, 100, 60, 120]], 0.8, last, cut=LEFT)
    combine_runs([a, b], tmp_path / "ab.gpkg")
    combine_runs([tmp_path / "ab.gpkg", c], tmp_path / "steps.gpkg")
    combine_runs([a, b, c], tmp_path / "once.gpkg")
    for name in ("steps", "once"):
        got = read_detections(tmp_path / f"{name}.gpkg")
        np.testing.assert_allclose(px(got, AFFINE), [[450, 100, 1060, 120]], atol=1e-5)
    # What was merged before is settled, also when a member comes along once more.
    again = combine_runs([tmp_path / "ab.gpkg", a, b], tmp_path / "again.gpkg")
    assert (again.written, again.suppressed) == (1, 2)


def test_the_iou_of_models_is_known_of_merged_files_too(tmp_path):
    grid = Grid(UTM32, AFFINE, 300, 600)
    a = run(tmp_path / "a.gpkg", [[100, 100, 120, 120]], 0.9, grid, nms_iou=0.3)
    combine_runs([a], tmp_path / "merged.gpkg")
    b = run(tmp_path / "b.gpkg", [[109.2, 100, 129.2, 120]], 0.8, grid)
    assert combine_runs([tmp_path / "merged.gpkg", b], tmp_path / "c.gpkg").written == 1


def test_an_object_of_many_tiles_competes_with_what_other_scenes_see(tmp_path):
    """Joined within its scene, it is found there as any other."""
    grid = Grid(UTM32, AFFINE, 300, 500)
    a = run(tmp_path / "a.gpkg", [[50, 100, 350, 140]], 0.6, grid)
    frame = gpd.read_file(a, layer="detections")
    frame["joined"] = True
    frame.to_file(a, layer="detections")
    b = run(tmp_path / "b.gpkg", [[52, 100, 350, 141]], 0.9, grid)
    assert combine_runs([a, b], tmp_path / "c.gpkg").written == 1


def test_scenes_on_both_sides_of_the_earth_are_compared_where_they_lie(tmp_path):
    """Two pairs of zones, at antipodes, and one pair across the antimeridian."""
    boxes, runs = [[440, 100, 470, 120]], []
    for k, (zone, next_zone, x, y) in enumerate(
        [(32632, 32633, 720_000, 5_400_000), (32760, 32701, 720_000, 4_600_000)]
    ):
        one, other = pyproj.CRS.from_epsg(zone), pyproj.CRS.from_epsg(next_zone)
        first = Grid(one, Affine(0.5, 0, x, 0, -0.5, y), 300, 500)
        runs.append(run(tmp_path / f"a{k}.gpkg", boxes, 0.9, first))
        centre = first.pixels_to_crs(np.array([455.0, 110.0]))
        there = pyproj.Transformer.from_crs(one, other, always_xy=True).transform(*centre)
        second = Grid(other, Affine(0.5, 0, there[0] - 227.5, 0, -0.5, there[1] + 55), 300, 500)
        runs.append(run(tmp_path / f"b{k}.gpkg", boxes, 0.8, second))
    report = combine_runs(runs, tmp_path / "c.gpkg")
    assert (report.written, report.suppressed) == (2, 2)
    assert read_detections(tmp_path / "c.gpkg")["scene"].tolist() == ["a0", "a1"]


def test_a_plane_of_its_own_is_merged_in_itself(tmp_path):
    """A local CRS has no place on the Earth: areas are compared in it, and nothing leads out."""
    coarse = Grid(LOCAL, AFFINE @ Affine.scale(2), 150, 250)
    a, b = halves(tmp_path, crs=LOCAL)
    c = run(tmp_path / "c.gpkg", [[225, 50, 250, 60], [100, 100, 120, 120]], 0.95, coarse)
    assert combine_runs([a, b], tmp_path / "d.gpkg").joined == 1
    assert combine_runs([a, c], tmp_path / "e.gpkg").written == 2
    utm = run(tmp_path / "utm.gpkg", [], 0.5, Grid(UTM32, AFFINE, 300, 500))
    for runs, out in (([a, utm], "f.gpkg"), ([a], "f.geojson")):
        with pytest.raises(LabelError, match=r"a\.gpkg is in site, from which no way leads"):
            combine_runs(runs, tmp_path / out)


def test_the_report_names_the_crs_of_each_file(tmp_path):
    """GeoJSON has but one, whatever CRS the runs are in."""
    a, _ = halves(tmp_path)
    assert combine_runs([a], tmp_path / "c.geojson").crs == "EPSG:4326"
    outs = [tmp_path / "d.gpkg", tmp_path / "d.geojson"]
    assert combine_runs([a], outs).crs == "EPSG:32632 and EPSG:4326"
    assert combine_runs([a], tmp_path / "e.gpkg", crs="EPSG:3857").crs == "EPSG:3857"


def test_detections_moved_to_another_crs_keep_their_ground(tmp_path):
    """The ground beside them stays in its own CRS, and is found all the same."""
    a, _ = halves(tmp_path)
    frame = gpd.read_file(a, layer="detections").to_crs("EPSG:4326")
    frame.to_file(a, layer="detections")
    assert combine_runs([a], tmp_path / "c.gpkg").crs == "EPSG:4326"
    ground = gpd.read_file(tmp_path / "c.gpkg", layer="scanned")
    assert ground.to_crs(UTM32).total_bounds == pytest.approx(
        [500_000, 5_299_850, 500_250, 5_300_000], abs=0.01
    )


@pytest.mark.parametrize(
    ("suffix", "column"),
    [
        *((".gpkg", name) for name in ("class", "score", "scene", "joined")),
        *((suffix, "cut") for suffix in (".parquet", ".shp", ".geojson")),
    ],
)
def test_a_column_that_is_missing_is_named(tmp_path, suffix, column):
    a, _ = halves(tmp_path, suffix=suffix)
    frame = read_detections(a).drop(columns=column)
    if suffix == ".gpkg":
        frame.to_file(a, layer="detections")
    elif suffix == ".parquet":
        frame.to_parquet(a)
    else:
        frame.to_file(a)
    with pytest.raises(LabelError, match=f"has no column {column}, expected the columns"):
        combine_runs([a], tmp_path / "c.gpkg")


@pytest.mark.parametrize("column", ["class", "score", "scene", "cut"])
def test_a_value_that_is_missing_is_named(tmp_path, column):
    a, _ = halves(tmp_path)
    frame = gpd.read_file(a, layer="detections")
    frame[column] = None
    frame.to_file(a, layer="detections")
    with pytest.raises(LabelError, match=f"1 detections without a value in {column}"):
        combine_runs([a], tmp_path / "c.gpkg")


def test_what_is_not_a_box_is_refused(tmp_path):
    a, b = halves(tmp_path)
    for path, change in ((a, shapely.centroid), (b, shapely.force_3d)):
        frame = gpd.read_file(path, layer="detections")
        frame.set_geometry(change(frame.geometry.array)).to_file(path, layer="detections")
        with pytest.raises(LabelError, match="other geometries than boxes"):
            combine_runs([path], tmp_path / "c.gpkg")


@pytest.mark.parametrize(
    ("west", "next_west"), [(179.9, -180.0), (-180.0, 179.9), (179.9, 180.0), (-110.1, 250.0)]
)
def test_scenes_in_degrees_meet_round_the_earth(tmp_path, west, next_west):
    """Whichever meridian is counted from, and wherever their polygons were put."""
    degrees, side = pyproj.CRS.from_epsg(4326), 0.1 / 500
    boxes, cuts = {-1: [450, 100, 500, 120], 1: [0, 100, 60, 120]}, {-1: RIGHT, 1: LEFT}
    # The second lies to the right of the first, except where it is named first.
    sides = (-1, 1) if west != -180.0 else (1, -1)
    runs = []
    for name, at, which in zip("ab", (west, next_west), sides, strict=True):
        grid = Grid(degrees, Affine(side, 0, at, 0, -side, 10), 300, 500)
        path = tmp_path / f"{name}.gpkg"
        runs.append(run(path, [boxes[which]], 0.7, grid, cut=cuts[which]))
    report = combine_runs(runs, tmp_path / "c.gpkg")
    assert (report.written, report.joined) == (1, 1)
    x_min, _, x_max, _ = read_detections(tmp_path / "c.gpkg").total_bounds
    assert x_max - x_min == pytest.approx(110 * side)
    assert (x_min - (west if sides[0] == -1 else next_west)) % 360 == pytest.approx(450 * side)


def test_a_scene_of_the_whole_earth_keeps_its_place(tmp_path):
    degrees = pyproj.CRS.from_epsg(4326)
    world = Grid(degrees, Affine(0.1, 0, -180, 0, -0.1, 90), 1800, 3600)
    edges = [[0, 100, 20, 120], [3580, 100, 3600, 120], [1790, 100, 1810, 120]]
    a = run(tmp_path / "a.gpkg", edges, 0.7, world)
    b = run(tmp_path / "b.gpkg", edges, 0.8, world)
    report = combine_runs([a, b], tmp_path / "c.gpkg")
    assert (report.written, report.suppressed) == (3, 3)
    got = px(read_detections(tmp_path / "c.gpkg"), world.affine)
    np.testing.assert_allclose(np.sort(got[:, 0]), [0, 1790, 3580], atol=1e-5)
