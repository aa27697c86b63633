"""The report of a real command, opened from disk in a real browser."""

import json

import geopandas as gpd
import pytest
from support.pages import assert_shown_as, at, browse, find_browser, read_page

from geo_retina.cli import main
from geo_retina.options import SynthOptions
from geo_retina.synth import draw_scene


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A drawn scene, detections made from its truth with known faults, and their report."""
    folder = tmp_path_factory.mktemp("page")
    scene, truth, found = folder / "scene.tif", folder / "truth.gpkg", folder / "found.gpkg"
    draw_scene(scene, SynthOptions(height=700, width=900, seed=4), truth=truth)
    labels = gpd.read_file(truth, layer="truth")
    kept = labels[labels.index % 5 != 0].copy()  # a fifth is missed
    moved = kept.index % 7 == 0  # some lie too far off
    kept.loc[moved, "geometry"] = kept[moved].translate(9, 9)
    kept["score"] = 1 - 0.5 * (kept.index % 97) / 97
    kept.to_file(found, layer="detections")
    command = ["evaluate", str(found), str(truth), "--class-column", "class", "--cell", "50m"]
    outputs = ["--report", str(folder / "report"), "--json", str(folder / "scores.json")]
    assert main([*command, *outputs, "--scenes", str(scene), "--resamples", "100"]) == 0
    return folder, len(kept), int(moved.sum())


def test_the_page_opens_without_an_error_and_shows_the_numbers_of_the_json(reported, tmp_path):
    folder, found, moved = reported
    dom, console = browse(folder / "report" / "report.html", tmp_path)
    assert console == []
    page = read_page(dom)
    scores = json.loads((folder / "scores.json").read_text())
    assert {key: page.values[key] for key in scores} == scores
    assert len(page.numbers) > 100
    for place, text in page.numbers:
        assert_shown_as(text, at(page.values, place))
    shown = dict(page.numbers)
    # Worked by hand: everything was found in its place but for what was left out or moved.
    assert shown["/overall/detections"] == f"{found:,}"
    assert shown["/overall/matches"] == f"{found - moved:,}"
    assert shown["/overall/precision"] == f"{(found - moved) / found:.3f}"
    assert page.tags.count("image") >= 3
    assert page.tags.count("polyline") >= 7


def test_a_page_with_an_error_would_be_found_out(tmp_path):
    """The test above can fail: a broken script and a missing picture reach the console."""
    (tmp_path / "bad.html").write_text(
        '<img src="https://example.org/a.png"><script>nothing.here()</script><p>5</p>'
    )
    dom, console = browse(tmp_path / "bad.html", tmp_path / "profile")
    assert "<p>5</p>" in dom
    assert any("nothing is not defined" in line for line in console)


def test_nothing_is_wider_than_the_screen(reported, tmp_path):
    """On a phone as on a desk: the page itself never scrolls sideways."""
    page = (reported[0] / "report" / "report.html").read_text(encoding="utf-8")
    probe = (
        "<script>addEventListener('load', () => { const root = document.documentElement;"
        "document.title = JSON.stringify([root.scrollWidth, innerWidth]); })</script>"
    )
    for width in (400, 900, 1600):
        frame = tmp_path / f"{width}.html"
        inner = page.replace("</body>", f"{probe}</body>").replace('"', "&quot;")
        frame.write_text(
            f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{inner}"></iframe>'
            "<script>addEventListener('load', () => setTimeout(() => { document.body.dataset.size ="
            "frames[0].document.title; }, 300))</script>",
            encoding="utf-8",
        )
        dom, _ = browse(frame, tmp_path / f"profile{width}")
        size = dom.split('data-size="')[1].split('"')[0].replace("&quot;", '"')
        needed, there = json.loads(size)
        assert there == width
        assert needed <= there


def test_a_browser_is_looked_for_by_its_names(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="Chromium"):
        find_browser()
