"""VRTs whose sources fail: never read as empty, however often they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.stubs import UTM, write_scene

from geo_retina.errors import SceneError
from geo_retina.grid import Window
from geo_retina.scene import open_scene
from geo_retina.scene.damage import vrt_sources

LEFT, RIGHT = Window(0, 0, 64, 64), Window(0, 64, 64, 64)


def vrt(path: Path, *names: str) -> Path:
    """Write a VRT of sources of 64 x 64 px side by side, named relative to it."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="64" ySize="64"/>'
            f'<DstRect xOff="{64 * place}" yOff="0" xSize="64" ySize="64"/></SimpleSource>'
            for place, name in enumerate(names)
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{64 * len(names)}" rasterYSize="64"><SRS>{UTM}</SRS>'
        f"<GeoTransform>400000,0.5,0,5000000,0,-0.5</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def square(path: Path, value: int = 9) -> Path:
    return write_scene(path, np.full((3, 64, 64), value, np.uint8))


@pytest.mark.parametrize("kind", ["missing", "no raster", "in a vrt", "resampled"])
def test_a_source_that_fails_is_named_every_time(tmp_path, kind):
    square(tmp_path / "a.tif")
    path = vrt(tmp_path / "m.vrt", "a.tif", "b.tif")
    if kind == "no raster":
        (tmp_path / "b.tif").write_bytes(b"II*\0" + bytes(50))
    if kind == "in a vrt":
        vrt(path, "b.tif", "a.tif")
        path = vrt(tmp_path / "outer.vrt", "m.vrt")
    window = Window(0, 0, 20, 40) if kind == "resampled" else None
    for _ in range(30):  # GDAL forgets that it has said so, and where a handle lay another lies
        scene = open_scene(path, gsd_m=1.6 if kind == "resampled" else None)
        with pytest.raises(SceneError, match=r"b\.tif"):
            scene.read(window or scene.grid.window)


def test_ground_of_other_sources_is_read(tmp_path):
    square(tmp_path / "a.tif")
    scene = open_scene(vrt(tmp_path / "m.vrt", "a.tif", "b.tif"))
    for _ in range(3):
        assert (scene.read(LEFT)[0] == 9).all()
        with pytest.raises(SceneError, match=r"b\.tif: No such file"):
            scene.read(RIGHT)


def test_a_source_that_comes_back_is_read(tmp_path):
    square(tmp_path / "a.tif")
    path = vrt(tmp_path / "m.vrt", "a.tif", "b.tif")
    with pytest.raises(SceneError, match=r"b\.tif: No such file"):
        open_scene(path).read(RIGHT)
    square(tmp_path / "b.tif", 7)
    assert (open_scene(path).read(RIGHT)[0] == 7).all()
    (tmp_path / "b.tif").unlink()
    with pytest.raises(SceneError, match=r"b\.tif: No such file"):
        open_scene(path).read(RIGHT)


def test_what_failed_at_an_address_is_not_asked_again(tmp_path, monkeypatch):
    square(tmp_path / "a.tif")
    address = "/vsicurl/http://127.0.0.1:9/b.tif"
    path = vrt(tmp_path / "m.vrt", "a.tif", "b.tif")
    path.write_text(path.read_text().replace('1">b.tif', f'0">{address}'))
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setattr(vrt_sources, "_failed", {})
    scene = open_scene(path)
    with pytest.raises(SceneError) as first:
        scene.read(RIGHT)
    assert "new process" not in str(first.value)
    for _ in range(3):
        with pytest.raises(SceneError, match="try again in a new process"):
            scene.read(RIGHT)
        assert (scene.read(LEFT)[0] == 9).all()


def test_raw_bytes_are_no_raster_and_are_read(tmp_path):
    (tmp_path / "raw.bin").write_bytes(bytes(range(64)) * 64)
    band = (
        '<VRTRasterBand dataType="Byte" band="{}" subClass="VRTRawRasterBand"><SourceFilename '
        'relativeToVRT="1">raw.bin</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1'
        "</PixelOffset><LineOffset>64</LineOffset></VRTRasterBand>"
    )
    (tmp_path / "raw.vrt").write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>{UTM}</SRS><GeoTransform>400000,0.5,0,'
        f"5000000,0,-0.5</GeoTransform>{''.join(map(band.format, (1, 2, 3)))}</VRTDataset>"
    )
    assert (open_scene(tmp_path / "raw.vrt").read(LEFT)[0][0] == np.arange(64)).all()


def test_vrts_that_name_each_other_end(tmp_path):
    vrt(tmp_path / "a.vrt", "b.vrt")
    vrt(tmp_path / "b.vrt", "a.vrt")
    with pytest.raises(SceneError):
        open_scene(tmp_path / "a.vrt").read(LEFT)
