"""Folders, lists, STAC documents and VRTs as ways to name scenes."""

from __future__ import annotations

import codecs
import json
import os
import re
from datetime import date

import numpy as np
import pytest
from rasterio.shutil import copy
from support.http_server import serve
from support.stubs import write_scene

from geo_retina.errors import SceneError
from geo_retina.scene import find_dated, find_scenes, fingerprint, mosaic_name, scene_names
from geo_retina.scene.damage.vrt_sources import sources_read
from geo_retina.scene.remote import fetch_json

PIXELS = np.zeros((3, 64, 64), np.uint8)


@pytest.fixture
def scenes(tmp_path):
    (tmp_path / "in").mkdir()
    return [write_scene(tmp_path / "in" / f"{name}.tif", PIXELS) for name in "abc"]


def item(name, **assets):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {},
        "links": [],
        "assets": assets,
    }


def image(href, **more):
    return {
        "href": href,
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        **more,
    }


def write_json(path, document):
    path.write_text(json.dumps(document))
    return path


def test_a_list_names_scenes_relative_to_itself(tmp_path, scenes, monkeypatch):
    text = "\ufeff# comment\r\nin/b.tif\r\n\r\n  in/a.tif  \nhttps://example.com/x.tif\nin/*.tif\n"
    list_file = tmp_path / "scenes.txt"
    list_file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path.parent)
    a, b, c = map(str, scenes)
    assert find_scenes(list_file) == [b, a, "https://example.com/x.tif", c]
    absolute = tmp_path / "absolute.txt"
    absolute.write_text(f"{c}\n")
    assert find_scenes(absolute) == [c]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("in/a.tif\nmissing.tif\n", r"line 2: .*missing\.tif does not exist"),
        ("# nothing\n", "names no scene"),
        ("other.txt\n", "is a list itself"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(tmp_path, scenes, text, sentence):
    (tmp_path / "scenes.txt").write_text(text)
    with pytest.raises(SceneError, match=sentence):
        find_scenes(tmp_path / "scenes.txt")


def test_a_stac_item_gives_its_only_image(tmp_path, scenes):
    document = item(
        "x",
        thumbnail={"href": "./t.png", "type": "image/png", "roles": ["thumbnail"]},
        preview=image("in/c.tif", roles=["overview"]),
        meta={"href": "in/m.xml", "type": "application/xml"},
        pixels=image("./in/a.tif"),
    )
    path = write_json(tmp_path / "x.json", document)
    assert find_scenes(path) == [str(scenes[0])]


def test_of_several_images_one_is_the_main_one_or_must_be_named(tmp_path, scenes):
    assets = {"red": image("in/a.tif"), "visual": image("in/b.tif")}
    path = write_json(tmp_path / "x.json", item("x", **assets))
    with pytest.raises(
        SceneError, match=r"item x .* has 2 images: red, visual; .*DetectOptions.asset"
    ):
        find_scenes(path)
    assert find_scenes(path, asset="visual") == [str(scenes[1])]
    with pytest.raises(SceneError, match="no asset blue; it has red, visual"):
        find_scenes(path, asset="blue")
    assets["red"]["roles"] = ["data"]
    assert find_scenes(write_json(path, item("x", **assets))) == [str(scenes[0])]


def test_an_item_collection_gives_all_its_items(tmp_path, scenes):
    folder = tmp_path / "stac"
    folder.mkdir()
    features = [item("a", data=image("../in/a.tif")), item("b", data=image(str(scenes[1])))]
    features.append(item("c", data=image("c.tif")))
    features[2]["links"] = [{"rel": "self", "href": "https://example.com/items/c.json"}]
    path = write_json(folder / "items.geojson", {"type": "FeatureCollection", "features": features})
    found = find_scenes(path)
    assert found == [*map(str, scenes[:2]), "https://example.com/items/c.tif"]


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"type": "Catalog", "links": []}, "a STAC Catalog, which only links to items"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature"}]}, "GeoJSON without"),
        ({"type": "FeatureCollection", "features": []}, "holds no item"),
        ([1], "no STAC document"),
        (item("x", thumbnail={"href": "a.png", "type": "image/png"}), "no image among its assets"),
    ],
)
def test_what_is_no_item_is_refused(tmp_path, document, sentence):
    with pytest.raises(SceneError, match=sentence):
        find_scenes(write_json(tmp_path / "x.json", document))


def test_documents_that_are_no_json_are_refused(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(SceneError, match="is not JSON"):
        find_scenes(tmp_path / "x.json")
    with pytest.raises(SceneError, match="does not exist"):
        find_scenes(tmp_path / "y.json")
    with pytest.raises(SceneError, match="https address or a local copy"):
        find_scenes("s3://bucket/x.json")


def test_remote_items_heal_and_pages_are_followed(tmp_path, scenes, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("geo_retina.scene.remote._WAIT_S", 0.01)
    with serve(tmp_path) as server:
        second = {"type": "FeatureCollection", "features": [item("b", data=image("in/b.tif"))]}
        write_json(tmp_path / "second.json", second)
        first = {
            "type": "FeatureCollection",
            "features": [item("a", data=image("in/a.tif"))],
            "links": [{"rel": "next", "href": f"{server.url}/second.json"}],
        }
        write_json(tmp_path / "first.json", first)
        server.failures = 2
        found = find_scenes(f"{server.url}/first.json")
        assert found == [f"{server.url}/in/a.tif", f"{server.url}/in/b.tif"]
        # The same file on disk is what was chosen, and no network is asked.
        server.forget()
        assert find_scenes(tmp_path / "first.json") == [str(scenes[0])]
        assert not server.requests
        with pytest.raises(SceneError, match="answered 404"):
            find_scenes(f"{server.url}/none.json")
        assert server.requests["none.json"] == 1
        server.status = 503
        with pytest.raises(SceneError, match="answered 503"):
            find_scenes(f"{server.url}/first.json")
        assert server.requests["first.json"] == 4


def test_remote_documents_come_through_the_proxy_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr("geo_retina.scene.remote._WAIT_S", 0.01)
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = "http://stac.example/x.json"
    with serve(tmp_path) as server:
        monkeypatch.setenv("http_proxy", server.url)
        with pytest.raises(SceneError, match="answered 404"):
            find_scenes(address)
        assert list(server.requests) == [address]
    with pytest.raises(SceneError, match=r"stac\.example/x\.json cannot be reached: .*refused"):
        find_scenes(address)  # nobody is there any more
    with pytest.raises(SceneError, match="cannot be reached: Invalid IPv6"):
        fetch_json("http://[stac/x.json")


@pytest.mark.parametrize("name", ["a.tif", "a & b.tif"])
def test_a_vrts_version_covers_its_sources(tmp_path, scenes, name):
    vrt = tmp_path / "in" / "all.vrt"
    source = scenes[0].rename(tmp_path / "in" / name)
    copy(source, vrt, driver="VRT")
    link = tmp_path / "link.vrt"
    link.symlink_to(vrt)  # GDAL looks for its sources from where the link leads to
    before = fingerprint(str(link))
    with sources_read(str(link)):
        pass
    assert find_scenes(vrt) == [str(vrt)]
    os.utime(source, ns=(1, 1))
    after = fingerprint(str(link))
    assert before != after
    assert before["modified_ns"] == after["modified_ns"]


@pytest.mark.parametrize(
    ("properties", "day"),
    [
        ({"datetime": "2022-05-19T23:59:59-08:00"}, date(2022, 5, 19)),
        ({"datetime": None, "start_datetime": "2021-01-01", "end_datetime": "2021-03-31"},
         date(2021, 3, 31)),
        ({"start_datetime": "2021-01-01T00:00:00Z"}, date(2021, 1, 1)),
        ({"datetime": "yesterday"}, None),
        ({"datetime": 2022}, None),
        ({"datetime": None}, None),
        ([], None),
        ("2022", None),
        (None, None),
    ],
)  # fmt: skip
def test_an_item_tells_the_day_of_its_scene(tmp_path, scenes, properties, day):
    document = {**item("x", data=image("in/a.tif")), "properties": properties}
    path = write_json(tmp_path / "x.json", document)
    assert find_dated([path, scenes[0]]) == {str(scenes[0]): day}
    assert find_dated([scenes[0], path]) == {str(scenes[0]): day}  # whichever comes first


def test_mosaics_bear_the_name_of_what_was_given(tmp_path, scenes):
    assert mosaic_name(tmp_path / "in") == "in"
    assert mosaic_name(f"{tmp_path}/in/") == "in"
    assert mosaic_name("year_2020.txt") == "year_2020"
    assert mosaic_name("https://example.com/search.json?x=1") == "search"
    assert mosaic_name(f"{tmp_path}/*.tif") == "mosaic"
    assert mosaic_name(["a.tif", "b.tif"]) == "mosaic"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_lists_and_documents_of_other_programs_are_read(tmp_path, scenes, encoding):
    mark = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else b""
    text = "in\\a.tif\r\n.\\in\\b.tif\r\n"
    (tmp_path / "scenes.txt").write_bytes(mark + text.encode(encoding))
    assert find_scenes(tmp_path / "scenes.txt") == [str(path) for path in scenes[:2]]
    document = json.dumps(item("x", data=image("in/c.tif")))
    (tmp_path / "x.json").write_bytes(mark + document.encode(encoding))
    assert find_scenes(tmp_path / "x.json") == [str(scenes[2])]


@pytest.mark.parametrize("href", ["in%20it/a%20b.tif", "in it/a b.tif", "in it\\a b.tif"])
def test_local_files_of_an_item_may_be_percent_encoded(tmp_path, href):
    (tmp_path / "in it").mkdir()
    path = write_scene(tmp_path / "in it" / "a b.tif", PIXELS)
    found = find_scenes(write_json(tmp_path / "x.json", item("x", data=image(href))))
    assert found == [str(path)]


@pytest.mark.parametrize("path", ["C:\\maps\\a.tif", "D:/maps/a.tif", "..\\maps\\a.tif"])
def test_a_missing_path_of_windows_is_shown_as_it_was_given(path):
    with pytest.raises(SceneError) as caught:
        find_scenes(path)
    assert str(caught.value) == f"{path} does not exist"


def test_a_list_shows_it_so_too(tmp_path):
    (tmp_path / "scenes.txt").write_text("C:\\maps\\a.tif\n")
    with pytest.raises(SceneError, match=r"line 1: C:\\maps\\a\.tif does not exist"):
        find_scenes(tmp_path / "scenes.txt")


def test_globs_that_match_nothing_are_said(tmp_path, scenes):
    for pattern in (
        tmp_path / "in" / "*.jp2",
        tmp_path / "no" / "*.tif",
        tmp_path / "in" / "?.png",
    ):
        with pytest.raises(SceneError, match="^no file matches .*" + re.escape(pattern.name)):
            find_scenes(str(pattern))
    (tmp_path / "l.txt").write_text("in/z*.tif")
    with pytest.raises(SceneError, match=r"line 1: no file matches .*in/z\*\.tif"):
        find_scenes(tmp_path / "l.txt")


def test_folders_hold_what_programs_leave_beside_rasters(tmp_path):
    names = ("a.tif", "B.TIF", "c.TIFF", "d.Jp2")
    aside = (
        *("Thumbs.db", ".DS_Store", "desktop.ini", "a.tif.aux.xml", "a.tif.ovr", "a.tif.msk"),
        *("a.tfw", "a.prj", "._a.tif", ".~lock.a.tif", "B.TIF.OVR", "B.TIF.AUX.XML", "notes.md"),
    )
    for name in (*names, *aside):
        (tmp_path / name).write_bytes(b"")
    for hidden in (".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "x.tif").write_bytes(b"")
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "unmounted.tif").symlink_to("/no/disk/x.tif")  # missing, and so to be told
    wanted = sorted(str(tmp_path / name) for name in (*names, "unmounted.tif"))
    assert find_scenes(tmp_path) == wanted
    with pytest.raises(
        SceneError, match=r"unmounted\.tif is a link to /no/disk/x\.tif, which does"
    ):
        find_scenes(wanted[-1])
    found = find_scenes(str(tmp_path / "*"))
    assert found == sorted([*wanted, str(tmp_path / "notes.md")])


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("given", "on_disk"), [(NFC, NFD), (NFD, NFC)])
def test_accents_may_be_parted_from_their_letters(tmp_path, given, on_disk):
    """A list of macOS beside files that came by way of Linux, or the other way round."""
    (tmp_path / on_disk).mkdir()
    scene = write_scene(tmp_path / on_disk / f"{on_disk}.tif", PIXELS)
    named = f"{given}/{given}.tif"
    (tmp_path / "list.txt").write_text(f"{named}\n", encoding="utf-8")
    (tmp_path / "globs.txt").write_text(f"{given}/{given[:3]}*.tif\n", encoding="utf-8")
    write_json(tmp_path / "item.json", item("a", image=image(named)))
    ways = (named, given, f"{given}/*.tif", "list.txt", "globs.txt", "item.json")
    for way in ways:
        assert find_scenes(tmp_path / way) == [str(scene)], way


def test_of_two_spellings_the_one_given_is_taken(tmp_path):
    paths = [write_scene(tmp_path / f"{name}.tif", PIXELS) for name in (NFC, NFD)]
    for path in paths:
        assert find_scenes(path) == [str(path)]


def test_addresses_are_named_apart_by_what_tells_them_apart():
    """Keys, which follow ``?`` too and may be shorter, are in no name."""
    place = "https://a.org/get"
    given = [f"{place}?file=region/{name}.tif&se=1{name}&sig=se{name}" for name in "ab"]
    assert scene_names(given) == [f"{place}?file=region/a.tif", f"{place}?file=region/b.tif"]
    assert scene_names([given[0], "https://b.org/get?sig=secret"]) == [place, "https://b.org/get"]
    assert scene_names(given[:1]) == ["get"]
    assert scene_names([f"{place}?x=1&y=1", f"{place}?x=1&z=2"]) == [
        f"{place}?x=1&y=1",
        f"{place}?x=1&z=2",
    ]
    assert scene_names([f"{place}?x=1&sig=a", f"{place}?x=1&sig=b"]) == [
        f"{place}?x=1#1",
        f"{place}?x=1#2",
    ]
