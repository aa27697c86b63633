"""Searching a STAC API on this machine, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from support.stac_server import make_item, serve_items
from support.stubs import paint, write_scene

from geo_retina import FindOptions, find_items, find_scenes
from geo_retina.errors import OptionError, OutputError, SceneError
from geo_retina.scene import scene_names

pytest.importorskip("pystac_client", reason="searching needs the extra stac")

WEST, SOUTH = -121.9, 39.7
STEP = 0.05
BBOX = (WEST, SOUTH, WEST + 2 * STEP, SOUTH + STEP)


def quad(col: int, date: str, *, shift: float = 0.0, **about: object) -> dict:
    """One of two neighbours, that overlap a little."""
    west = WEST + col * STEP + shift
    box = (west - 0.002, SOUTH - 0.002, west + STEP + 0.002, SOUTH + STEP + 0.002)
    return make_item(f"q{col}_{date}", box, date, **about)


ITEMS = [
    quad(0, "2018-06-01"),
    quad(1, "2018-06-02"),
    quad(0, "2022-05-01", shift=0.0001),
    quad(1, "2020-05-01"),
    make_item("elsewhere", (10, 50, 10.1, 50.1), "2022-01-01"),
    quad(0, "2021-01-01", collection="sentinel"),
]


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve_items(ITEMS) as served:
        yield served


def naip(**more: object) -> FindOptions:
    return FindOptions(**{"collections": ("naip",), "bbox": BBOX, **more})


def ids(path: Path) -> list[str]:
    return [item["id"] for item in json.loads(path.read_text())["features"]]


def test_all_pages_are_read_and_the_newest_comes_first(api, tmp_path):
    api.page = 1
    out = tmp_path / "naip.json"
    found = find_items(api.url, out, naip())
    assert ids(out) == ["q0_2022-05-01", "q1_2020-05-01", "q1_2018-06-02", "q0_2018-06-01"]
    assert (found.items, found.added, found.gone, found.left_out) == (4, 4, (), 0)
    assert (found.first_date, found.last_date) == ("2018-06-01", "2022-05-01")
    assert found.gsd_m == (0.6, 0.6)
    assert found.bytes == 4000
    # Two years over all of the ground.
    true_km2 = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.box(*BBOX))[0] / 1e6
    assert found.searched_km2 == pytest.approx(true_km2, rel=1e-3)
    assert found.covered_km2 == pytest.approx(true_km2, rel=1e-3)
    assert found.overlap == pytest.approx(2.0, abs=0.1)


def test_detect_takes_what_was_found(api, tmp_path):
    for name in ("q0_2022-05-01", "q1_2020-05-01"):
        write_scene(tmp_path / f"{name}.tif", paint((64, 64), np.empty((0, 4))))
    api.items = [
        {**item, "assets": {"image": {**item["assets"]["image"], "href": f"./{item['id']}.tif"}}}
        for item in ITEMS
    ]
    find_items(api.url, tmp_path / "naip.json", naip(newest=True))
    assert find_scenes(tmp_path / "naip.json") == [
        str(tmp_path / "q0_2022-05-01.tif"),
        str(tmp_path / "q1_2020-05-01.tif"),
    ]


def test_newest_keeps_what_alone_shows_its_ground(api, tmp_path):
    found = find_items(api.url, tmp_path / "naip.json", naip(newest=True))
    assert ids(tmp_path / "naip.json") == ["q0_2022-05-01", "q1_2020-05-01"]
    assert found.left_out == 2
    assert found.overlap < 1.1
    # An older one with half of its ground to itself stays.
    api.items = [quad(0, "2018-06-01"), quad(0, "2022-05-01", shift=STEP / 2)]
    find_items(api.url, tmp_path / "half.json", naip(newest=True))
    assert ids(tmp_path / "half.json") == ["q0_2022-05-01", "q0_2018-06-01"]


def test_dates_are_asked_of_the_api(api, tmp_path):
    find_items(api.url, tmp_path / "a.json", naip(datetime="2019/2020"))
    assert ids(tmp_path / "a.json") == ["q1_2020-05-01"]


def test_an_area_is_searched_exactly(api, tmp_path):
    """The server goes by bounding boxes; what lies beside the polygon is dropped here."""
    api.slack_deg = 0.2
    triangle = shapely.Polygon([(WEST, SOUTH), (WEST + 0.04, SOUTH), (WEST, SOUTH + 0.04)])
    aoi = tmp_path / "aoi.gpkg"
    gpd.GeoDataFrame(geometry=[triangle], crs=4326).to_crs(32610).to_file(aoi)
    find_items(api.url, tmp_path / "a.json", naip(bbox=None, aoi=str(aoi)))
    assert ids(tmp_path / "a.json") == ["q0_2022-05-01", "q0_2018-06-01"]


def test_ground_over_the_antimeridian_is_searched_on_both_sides(api, tmp_path):
    api.items = [
        make_item("east", (179.5, -17, 180, -16), "2020-01-01"),
        make_item("west", (-180, -17, -179.5, -16), "2020-01-01"),
        make_item("far", (0, -17, 1, -16), "2020-01-01"),
    ]
    found = find_items(api.url, tmp_path / "a.json", naip(bbox=(179.6, -17, -179.6, -16)))
    assert set(ids(tmp_path / "a.json")) == {"east", "west"}
    true_km2 = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(
        shapely.segmentize(shapely.box(179.6, -17, 180.4, -16), 0.01)
    )[0]
    assert found.covered_km2 == pytest.approx(true_km2 / 1e6, rel=2e-3)
    aoi = tmp_path / "fiji.gpkg"
    fiji = gpd.GeoDataFrame(geometry=[shapely.box(179.6, -17, 180.4, -16)], crs=4326)
    fiji.to_crs(3460).to_file(aoi)
    find_items(api.url, tmp_path / "b.json", naip(bbox=None, aoi=str(aoi)))
    assert set(ids(tmp_path / "b.json")) == {"east", "west"}


def test_a_detailed_outline_is_sent_shorter_and_searched_exactly(api, tmp_path):
    round_ = shapely.Point(WEST + 0.02, SOUTH + 0.02).buffer(0.02, quad_segs=400)
    aoi = tmp_path / "aoi.gpkg"
    gpd.GeoDataFrame(geometry=[round_], crs=4326).to_file(aoi)
    find_items(api.url, tmp_path / "a.json", naip(bbox=None, aoi=str(aoi)))
    sent = shapely.geometry.shape(api.asked[0]["intersects"])
    assert shapely.get_num_coordinates(sent) <= 400
    assert sent.buffer(1e-9).contains(round_)
    assert ids(tmp_path / "a.json") == ["q0_2022-05-01", "q0_2018-06-01"]


def test_an_update_adds_what_is_new_and_keeps_the_rest_in_order(api, tmp_path):
    out = tmp_path / "naip.json"
    find_items(api.url, out, naip())
    before = ids(out)
    api.items = [item for item in ITEMS if item["id"] != "q0_2018-06-01"]
    api.items.append(quad(1, "2024-05-01"))
    with pytest.raises(OutputError, match="exists"):
        find_items(api.url, out, naip())
    found = find_items(api.url, out, naip(), update=True)
    assert ids(out) == [*before, "q1_2024-05-01"]
    assert (found.items, found.added, found.gone) == (5, 1, ("q0_2018-06-01",))


def test_an_item_that_changed_is_refused_by_name(api, tmp_path):
    out = tmp_path / "naip.json"
    find_items(api.url, out, naip())
    before = out.read_bytes()
    changed = json.loads(json.dumps(api.items[0]))
    changed["assets"]["image"]["file:size"] = 7
    api.items[0] = changed
    with pytest.raises(SceneError, match=r"q0_2018-06-01 has changed"):
        find_items(api.url, out, naip(), update=True)
    assert out.read_bytes() == before


@pytest.mark.parametrize("content", ["[]", "{}", "no json", '{"features": []}'])
def test_only_a_search_is_updated(api, tmp_path, content):
    out = tmp_path / "naip.json"
    out.write_text(content)
    with pytest.raises(SceneError, match="no result of a search"):
        find_items(api.url, out, naip(), update=True)
    assert out.read_text() == content


def test_signatures_are_made_when_a_file_is_read(api, tmp_path):
    href = "https://naipeuwest.blob.core.windows.net/naip/v002/ca/m 1.tif"
    api.items = [quad(0, "2022-05-01", href=href)]
    find_items(api.url, tmp_path / "a.json", naip(sign="planetary-computer"))
    (path,) = find_scenes(tmp_path / "a.json")
    assert path.startswith("/vsicurl?pc_url_signing=yes&pc_collection=naip&url=https%3A%2F%2F")
    assert scene_names([path]) == ["m 1"]
    with pytest.raises(OptionError, match="sign"):
        find_items(api.url, tmp_path / "a.json", naip(), update=True)


def test_what_cannot_be_searched_is_one_sentence(api, tmp_path):
    out = tmp_path / "a.json"
    with pytest.raises(SceneError, match="finds no item of naip there"):
        find_items(api.url, out, naip(bbox=(50, 50, 51, 51)))
    with pytest.raises(SceneError, match="limit = 3"):
        find_items(api.url, out, naip(limit=3))
    with pytest.raises(SceneError, match=r"cannot be searched|does not answer"):
        find_items(f"{api.url}/nothing", out, naip())
    with pytest.raises(SceneError, match="does not answer as a STAC API"):
        find_items(f"{api.url}/html", out, naip())
    api.status = 400
    with pytest.raises(SceneError, match="not today"):
        find_items(api.url, out, naip())
    with pytest.raises(OptionError, match=r"\.json"):
        find_items(api.url, tmp_path / "a.gpkg", naip())
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"collections": ()}, "collections is empty"),
        ({"bbox": None}, "not given"),
        ({"aoi": "a.gpkg"}, "both given"),
        ({"bbox": (1, 2, 0.5, 1)}, "latitude"),
        ({"bbox": (200, 2, 201, 3)}, "longitude"),
        ({"aoi_layer": "a"}, "without FindOptions.aoi"),
        ({"limit": 0}, "limit"),
        ({"datetime": "last week"}, "datetime is 'last week'"),
        ({"datetime": "2022/2023/2024"}, "datetime"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(OptionError, match=said):
        naip(**options)
