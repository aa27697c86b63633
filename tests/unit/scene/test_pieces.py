"""What is read of scenes of which a part is damaged or missing, and what is said to be lost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from support.rasters import break_block
from support.stubs import NORTH_UP, UTM, write_scene

from geo_retina.grid import Window
from geo_retina.scene import make_mosaic, open_scene, read_pieces
from geo_retina.scene.damage import pieces, vrt_sources

CORNERS = [(0, 0), (0, 200), (200, 0), (200, 200)]  # rows and columns, on no lattice of blocks


def positions(height: int = 200, width: int = 200, first: int = 0) -> np.ndarray:
    """Pixels that differ from their neighbours and are nowhere 0."""
    rows, cols = np.mgrid[:height, :width]
    return np.stack([(rows * 7 + cols * 3 + first + band) % 251 + 1 for band in range(3)]).astype(
        np.uint8
    )


def vrt(path: Path, names: list[str], *, crs: str = UTM, affine: Affine = NORTH_UP) -> Path:
    """Write a VRT of four sources of 200 x 200 px."""
    bands = ""
    for band in (1, 2, 3):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="{int("/" not in name)}">{name}'
            f"</SourceFilename><SourceBand>{band}</SourceBand>"
            '<SrcRect xOff="0" yOff="0" xSize="200" ySize="200"/>'
            f'<DstRect xOff="{col}" yOff="{row}" xSize="200" ySize="200"/></SimpleSource>'
            for name, (row, col) in zip(names, CORNERS, strict=True)
        )
        bands += f'<VRTRasterBand dataType="Byte" band="{band}">{sources}</VRTRasterBand>'
    transform = ", ".join(map(repr, affine.to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="400" rasterYSize="400"><SRS>{crs}</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


@pytest.fixture
def quarters(tmp_path) -> list[str]:
    """Names of four files; that of the third is of none."""
    for i in (0, 1, 3):
        write_scene(tmp_path / f"{i}.tif", positions(first=60 * i))
    return ["0.tif", "1.tif", "gone.tif", "3.tif"]


def lost_windows(found) -> list[Window]:
    return [part.window for part in found.lost]


def test_one_broken_block_costs_that_block(tmp_path):
    pixels = positions(300, 400)
    path = write_scene(tmp_path / "a.tif", pixels)
    break_block(path, row=1, col=2)
    scene = open_scene(path)
    found = read_pieces(scene, Window(10, 10, 280, 380))
    assert lost_windows(found) == [Window(64, 128, 64, 64)]
    assert "IReadBlock failed at X offset 2, Y offset 1" in found.lost[0].error
    expected, valid = pixels.copy(), np.ones((300, 400), bool)
    expected[:, 64:128, 128:192], valid[64:128, 128:192] = 0, False
    assert (found.pixels == expected[:, 10:290, 10:390]).all()
    assert (found.valid == valid[10:290, 10:390]).all()


@pytest.mark.parametrize("gsd_m", [0.25, 0.6])
def test_on_a_scaled_grid_a_broken_block_costs_its_ground_alone(tmp_path, gsd_m):
    path = write_scene(tmp_path / "a.tif", positions(300, 400))
    whole = open_scene(path, gsd_m=gsd_m)
    expected, _ = whole.read(whole.grid.window)
    break_block(path, row=1, col=2)
    scene = open_scene(path, gsd_m=gsd_m)
    window = Window(9, 11, scene.grid.height - 20, scene.grid.width - 30)
    found = read_pieces(scene, window)
    [lost] = lost_windows(found)
    rows, cols = (
        np.flatnonzero(((at := (np.arange(n) + 0.5) * size / n) >= low) & (at < low + 64))
        for n, size, low in zip(scene.grid.shape, (300, 400), (64, 128), strict=True)
    )
    assert lost == Window(int(rows[0]), int(cols[0]), len(rows), len(cols))
    ground = np.ones(scene.grid.shape, bool)
    ground[np.ix_(rows, cols)] = False
    here = np.s_[9 : 9 + window.height, 11 : 11 + window.width]
    np.testing.assert_array_equal(found.valid, ground[here])
    # Beside what is lost, values are of fewer pixels than before.
    near = np.zeros_like(ground)
    near[rows[0] - 2 : rows[-1] + 3, cols[0] - 2 : cols[-1] + 3] = True
    same = ~near[here]
    np.testing.assert_array_equal(found.pixels[:, same], expected[:, *here][:, same])
    assert (found.pixels[:, found.valid] > 0).all()


def test_one_broken_strip_costs_that_strip(tmp_path):
    pixels = positions(90, 120)
    how = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 90, "width": 120}
    place = {"crs": UTM, "transform": NORTH_UP, "compress": "deflate", "blockysize": 8}
    with rasterio.open(tmp_path / "a.tif", "w", **how, **place) as dataset:
        dataset.write(pixels)
    break_block(tmp_path / "a.tif", row=3, col=0)
    found = read_pieces(open_scene(tmp_path / "a.tif"), Window(0, 20, 90, 80))
    assert lost_windows(found) == [Window(24, 20, 8, 80)]
    assert (found.pixels[:, 32:] == pixels[:, 32:, 20:100]).all()


@pytest.mark.parametrize("kind", ["plain", "nested"])
def test_a_missing_source_costs_its_ground_alone(tmp_path, quarters, kind):
    path = vrt(tmp_path / "m.vrt", quarters)
    if kind == "nested":
        write_scene(tmp_path / "near.tif", positions(400, 400))
        path.rename(tmp_path / "inner.vrt")
        text = (tmp_path / "inner.vrt").read_text()
        outer = "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename '
            f'relativeToVRT="1">inner.vrt</SourceFilename><SourceBand>{band}</SourceBand>'
            '<SrcRect xOff="0" yOff="0" xSize="400" ySize="400"/>'
            '<DstRect xOff="0" yOff="0" xSize="400" ySize="400"/></SimpleSource></VRTRasterBand>'
            for band in (1, 2, 3)
        )
        path.write_text(text[: text.index("<VRTRasterBand")] + outer + "</VRTDataset>")
    scene = open_scene(path)
    for _ in range(3):  # GDAL says only once that a source does not open
        found = read_pieces(scene, scene.grid.window)
        assert lost_windows(found) == [Window(200, 0, 200, 200)]
        assert "gone.tif: No such file" in found.lost[0].error
        for i, (row, col) in enumerate(CORNERS):
            here = np.s_[row : row + 200, col : col + 200]
            expected = 0 if i == 2 else positions(first=60 * i)
            assert (found.pixels[:, *here] == expected).all()
            assert (found.valid[here] == (i != 2)).all()


def test_a_source_that_an_address_does_not_give_costs_its_ground_alone(
    tmp_path, quarters, monkeypatch
):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setattr(vrt_sources, "_failed", {})
    quarters[2] = "/vsicurl/http://127.0.0.1:9/gone.tif"
    scene = open_scene(vrt(tmp_path / "m.vrt", quarters))
    for _ in range(2):
        found = read_pieces(scene, scene.grid.window)
        assert lost_windows(found) == [Window(200, 0, 200, 200)]
        assert (found.pixels[:, :200, :200] == positions()).all()


@pytest.mark.parametrize("kind", ["degrees", "coarser"])
def test_through_a_view_a_missing_source_costs_the_blocks_that_need_it(tmp_path, kind):
    """The file is larger than a block of the view, on which it is read or lost."""
    side, gsd_m = (700, 0.6) if kind == "degrees" else (1000, 0.9)
    for name in ("0.tif", "1.tif", "3.tif"):
        write_scene(tmp_path / name, np.full((3, 1, 1), 9, np.uint8))
    affine = Affine(6e-6, 0, 15, 0, -6e-6, 1) if kind == "degrees" else NORTH_UP
    path = vrt(
        tmp_path / "m.vrt",
        ["0.tif", "1.tif", "gone.tif", "3.tif"],
        crs="EPSG:4326" if kind == "degrees" else UTM,
        affine=affine,
    )
    text = path.read_text().replace('"200"', f'"{side}"').replace('"400"', f'"{2 * side}"')
    text = text.replace(f'<SrcRect xOff="0" yOff="0" xSize="{side}" ySize="{side}"/>', ONE_PIXEL)
    path.write_text(text)
    scene = open_scene(path, gsd_m=gsd_m)
    assert scene.view is not None
    height, width = scene.grid.shape
    assert min(height, width) > 1024
    for _ in range(2):
        found = read_pieces(scene, scene.grid.window)
        [part] = {(each.row, each.col) for each in lost_windows(found)}
        assert part == (512, 0)
        assert (found.pixels[:, :512, : width - 8] == 9)[:, 8:, 8:].all()
        assert found.valid[8:512, 8 : width - 8].all()
        assert not found.valid[1024:, :512].any()
        assert (found.pixels[:, 1040 : height - 8, 1040 : width - 8] == 9).all()


ONE_PIXEL = '<SrcRect xOff="0" yOff="0" xSize="1" ySize="1"/>'


def test_a_scene_that_does_not_open_is_not_tried_piece_by_piece(tmp_path, monkeypatch):
    path = write_scene(tmp_path / "a.tif", positions(300, 400))
    scene = open_scene(path)
    path.unlink()
    monkeypatch.setattr(type(scene), "read", lambda *_: pytest.fail("it was read"))
    found = read_pieces(scene, Window(0, 0, 300, 400))
    assert lost_windows(found) == [Window(0, 0, 300, 400)]
    assert "does not exist" in found.lost[0].error


def test_pieces_stay_large_where_failing_takes_long(tmp_path, monkeypatch):
    path = write_scene(tmp_path / "a.tif", positions(256, 256))
    break_block(path, row=0, col=0)
    scene = open_scene(path)
    monkeypatch.setattr(pieces, "_PATIENCE_S", 0.0)
    assert lost_windows(read_pieces(scene, scene.grid.window)) == [scene.grid.window]


def test_whoever_waits_no_longer_stops_the_reading(tmp_path):
    path = write_scene(tmp_path / "a.tif", positions(256, 256))
    scene = open_scene(path)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_pieces(scene, scene.grid.window, go_on=stop)


def test_in_a_mosaic_another_scene_shows_what_one_lost(tmp_path):
    first = write_scene(tmp_path / "a.tif", positions(128, 256))
    moved = NORTH_UP @ Affine.translation(100, 0)
    second = write_scene(tmp_path / "b.tif", positions(128, 256, first=90), affine=moved)
    for col in (0, 2, 3):
        break_block(first, row=0, col=col)
    mosaic, _ = make_mosaic([open_scene(first), open_scene(second)], "m")
    found = read_pieces(mosaic, mosaic.grid.window)
    assert lost_windows(found) == [Window(0, 0, 64, 64)]
    assert (found.pixels[:, :64, 128:256] == positions(128, 256, first=90)[:, :64, 28:156]).all()
    assert (found.pixels[:, 64:, :256] == positions(128, 256)[:, 64:]).all()
    assert found.valid.sum() == 128 * 356 - 64 * 64


def test_ground_lost_twice_counts_once(tmp_path):
    path = write_scene(tmp_path / "a.tif", positions(128, 128))
    break_block(path, row=0, col=0)
    one = open_scene(path)
    mosaic, _ = make_mosaic([one, dataclasses.replace(one)], "m")
    assert lost_windows(read_pieces(mosaic, mosaic.grid.window)) == [Window(0, 0, 64, 64)]
