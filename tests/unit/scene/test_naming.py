"""Names of scenes in labels, as several programs write them."""

import pytest

from geo_retina.errors import LabelError
from geo_retina.scene import match_names

PATHS = ["/data/north/a 1.tif", "/data/north/b.tif", "/data/south/b.tif", "/data/c.v2.TIF"]


@pytest.mark.parametrize(
    ("name", "scene"),
    [
        ("a 1", 0),
        ("a 1.tif", 0),
        ("a 1.jpg", 0),
        ("A 1.TIF", 0),
        ("a%201.tif", 0),
        ("../label/a 1.tif", 0),
        (r"..\label\a 1.tif", 0),
        (r"C:\maps\north\a 1.tif", 0),
        ("https://host/data/a%201.tif?sig=abc", 0),
        ("/d/uploads/?d=north/a.png", None),
        ("north/b", 1),
        (r"south\b.tif", 2),
        ("/data/south/b.tif", 2),
        ("c.v2", 3),
        ("c.v2.tif", 3),
        ("c", None),
        ("c.v3", None),
        ("", None),
        ("..", None),
    ],
)
def test_a_name_means_a_scene_however_it_is_written(name, scene):
    assert match_names([name], PATHS, given_in="l.json") == ({} if scene is None else {0: scene})


def test_a_better_rule_goes_first():
    paths = ["/d/val/a.tif", "/d/b.tif"]
    names = ["train/a.tif", "val/a.tif", "B", "b"]
    assert match_names(names, paths, given_in="l") == {1: 0, 3: 1}


def test_a_raster_inside_a_file_goes_by_the_files_name():
    assert match_names(["cube.nc"], ['netcdf:"/d/cube.nc":Band1'], given_in="l") == {0: 0}
    assert match_names(["a"], ["https://h/x/a.tif?k=1"], given_in="l") == {0: 0}


def test_what_could_mean_several_is_refused():
    with pytest.raises(LabelError, match=r"share the stem b, so b\.tif in l cannot tell"):
        match_names(["b.tif"], PATHS, given_in="l")
    with pytest.raises(LabelError, match=r"l has 2 names that could be .*x/q\.png and y/q\.png"):
        match_names(["x/q.png", "y/q.png"], ["/d/q.tif"], given_in="l")
    # The very file, with suffix or without, may be named both ways, but has one image.
    assert match_names(["q", "q.tif"], ["/d/q.tif"], given_in="l") == {0: 0, 1: 0}
    with pytest.raises(LabelError, match="l has 2 names"):
        match_names(["q", "q.tif"], ["/d/q.tif"], given_in="l", alone=True)


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("given", [NFC, NFD])
@pytest.mark.parametrize("on_disk", [NFC, NFD])
@pytest.mark.parametrize("name", ["{}.tif", "{}", "north/{}.tif", "{}.TIF", "NORTH/{}.png"])
def test_accents_may_be_parted_from_their_letters(given, on_disk, name):
    paths = [f"/d/north/{on_disk}.tif", "/d/cafe.tif"]
    assert match_names([name.format(given)], paths, given_in="l") == {0: 0}


def test_percent_encoded_accents_too():
    assert match_names(["cafe%CC%81.tif"], [f"/d/{NFC}.tif"], given_in="l") == {0: 0}


def test_both_spellings_of_one_scene_mean_it():
    assert match_names([NFC, NFD], [f"/d/{NFD}.tif"], given_in="l") == {0: 0, 1: 0}
    with pytest.raises(LabelError, match="l has 2 names that could be"):
        match_names([NFC, NFD], [f"/d/{NFD}.tif"], given_in="l", alone=True)


def test_scenes_that_differ_in_nothing_else_are_told_apart():
    paths = [f"/d/{NFD}.tif", f"/d/{NFC}.tif"]
    assert match_names([NFC, NFD], paths, given_in="l") == {0: 1, 1: 0}


def test_with_suffix_or_without_a_name_means_one_scene():
    """Columns that several people filled have both; a folder tells of another file."""
    for paths in (["s"], ["s.tif"], ["in/s.tif", "in/t.tif"]):
        assert match_names(["s", "s.tif"], paths, given_in="x") == {0: 0, 1: 0}
    assert match_names(["s", "img/s"], ["s.tif"], given_in="x") == {0: 0}
