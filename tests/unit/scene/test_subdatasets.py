"""Rasters inside files, by the names that GDAL and our own messages give them."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from support.rasters import write_raster
from support.stubs import NORTH_UP, tiny_model

from geo_retina.cli import main
from geo_retina.config import load_train_options
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.errors import SceneError
from geo_retina.files import is_subdataset, subdataset_file, with_file
from geo_retina.options import DataOptions
from geo_retina.scene import describe_scene, find_scenes, note_other_rasters, open_scene

PLACED = {"crs": "EPSG:32633", "transform": NORTH_UP}
PIXELS = np.random.default_rng(0).integers(1, 255, (3, 40, 50)).astype(np.uint8)


def has(driver):
    with rasterio.Env() as env:
        return driver in env.drivers()


needs_netcdf = pytest.mark.skipif(not has("netCDF"), reason="this rasterio has no netCDF driver")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a space that holds a cube and a GeoPackage of two tables; worked in."""
    folder = tmp_path / "a b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for table, append in (("first", "NO"), ("my tiles", "YES")):
        write_raster(
            folder / "r x.gpkg", PIXELS, driver="GPKG", RASTER_TABLE=table, TILE_FORMAT="PNG",
            APPEND_SUBDATASET=append, **PLACED,
        )  # fmt: skip
    if has("netCDF"):
        source = write_raster(folder / "s.tif", PIXELS, **PLACED)
        rasterio.shutil.copy(str(source), "cube one.nc", driver="netCDF")
    return folder


@needs_netcdf
@pytest.mark.parametrize(
    "name",
    [
        "netcdf:cube one.nc:Band2",
        'netcdf:"cube one.nc":Band2',
        'NETCDF:"./cube one.nc":Band2',
        r'netcdf:"..\a b\cube one.nc":Band2',
        "netcdf:cube*.nc:Band2",
        'netcdf:"{folder}/cube one.nc":Band2',
        "netcdf:{folder}/cube one.nc:Band2",
    ],
)
def test_a_variable_of_netcdf_is_opened_however_its_file_is_named(folder, name):
    (path,) = find_scenes(name.format(folder=folder))
    scene = open_scene(path)
    assert scene.name == "cube one"
    np.testing.assert_array_equal(scene.read(scene.grid.window)[0][0], PIXELS[1])


@needs_netcdf
def test_a_list_and_a_config_name_it_from_their_own_folder(folder, monkeypatch):
    (folder / "scenes.txt").write_text("netcdf:cube one.nc:Band3\nGPKG:r x.gpkg:my tiles\n")
    text = "data: {scenes: ['netcdf:cube one.nc:Band3'], labels: l.gpkg}\n"
    (folder / "train.yaml").write_text(text)
    monkeypatch.chdir("/")
    first, second = find_scenes(folder / "scenes.txt")
    assert first == f"netcdf:{folder}/cube one.nc:Band3"
    assert second == f"GPKG:{folder}/r x.gpkg:my tiles"
    (named,) = load_train_options(folder / "train.yaml").data.scenes
    assert find_scenes(named) == [first]


def test_what_a_message_advises_works_word_for_word(folder, capsys):
    said = r"holds 2 rasters and none of its own \(first, my tiles\).*, such as "
    with pytest.raises(SceneError, match=said) as caught:
        open_scene("r x.gpkg")
    advised = str(caught.value).split("such as ")[1]
    assert main(["info", advised]) == 0
    assert main(["plan", advised, "--model", "demo"]) == 0
    scene = open_scene(advised)
    pixels, valid = scene.read(scene.grid.window)
    np.testing.assert_array_equal(pixels[:, valid], PIXELS[:, valid])
    assert valid.any()


def test_what_is_not_there_is_named(folder):
    with pytest.raises(SceneError, match=r"^none\.nc does not exist"):
        open_scene("netcdf:none.nc:Band1")
    with pytest.raises(SceneError, match=r"holds first, my tiles; name one as GPKG:r x\.gpkg:f"):
        open_scene("GPKG:r x.gpkg:other")
    with pytest.raises(SceneError, match=r"no file matches none\*\.nc"):
        find_scenes("netcdf:none*.nc:Band1")
    with pytest.raises(SceneError, match=r"^C:\\maps\\cube one\.nc does not exist"):
        open_scene(find_scenes(r'netcdf:"C:\maps\cube one.nc":Band1')[0])


@pytest.mark.skipif(has("HDF4"), reason="this rasterio has the HDF4 driver")
@pytest.mark.parametrize(
    "name", ["HDF4_EOS:EOS_GRID:x.hdf:g:b", 'HDF4_SDS:UNKNOWN:"x.hdf":0', "x.hdf"]
)
def test_a_driver_that_the_build_lacks_is_named(folder, name):
    (folder / "x.hdf").write_bytes(b"\x0e\x03\x13\x01" + bytes(100))
    (path,) = find_scenes(name)
    with pytest.raises(SceneError, match="needs GDAL's driver HDF4, which is not in this build"):
        open_scene(path)


def test_further_pages_of_a_file_are_told(folder):
    for append in ("NO", "YES"):
        write_raster(folder / "p.tif", PIXELS, APPEND_SUBDATASET=append, **PLACED)
    assert describe_scene("p.tif")["more rasters"] == "GTIFF_DIR:1:p.tif, GTIFF_DIR:2:p.tif"
    assert open_scene("GTIFF_DIR:2:p.tif").grid.shape == (40, 50)


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("netcdf:a.nc:v", "a.nc"),
        ('HDF5:"C:\\d\\a.h5"://g/v', "C:\\d\\a.h5"),
        ("GPKG:C:\\d\\a.gpkg:t", "C:\\d\\a.gpkg"),
        ('netcdf:"12:30.nc":v', "12:30.nc"),
        ("GTIFF_DIR:off:8:a.tif", "a.tif"),
        ("netcdf:https://h/a.nc:v", "https://h/a.nc"),
        ('HDF4_EOS:EOS_GRID:"a.hdf":g:b', "a.hdf"),
    ],
)
def test_the_file_in_a_name(path, file):
    assert is_subdataset(path)
    assert subdataset_file(path) == file
    assert with_file(path, lambda own: own) == path
    assert subdataset_file(with_file(path, lambda _: "x.y")) == "x.y"


@pytest.mark.parametrize(
    "path", ["https://h/a.tif", "C:\\d\\a.tif", "/vsizip/a.zip/b.tif", "a.tif"]
)
def test_other_paths_are_no_such_names(path):
    assert not is_subdataset(path)
    assert with_file(path, str.upper) == path.upper()


def test_a_colon_may_belong_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b.nc").write_bytes(b"")
    assert subdataset_file("netcdf:a:b.nc:v") == "a:b.nc"


# --- more rasters than the first ------------------------------------------------------------


@pytest.fixture
def pages(tmp_path):
    """A TIFF of two pages, a model, and a label on the first page."""
    path = tmp_path / "pages.tif"
    for append in ("NO", "YES"):
        write_raster(path, PIXELS, APPEND_SUBDATASET=append, **PLACED)
    tiny_model().save(tmp_path / "tiny.safetensors")
    corners = [NORTH_UP @ (5, 5), NORTH_UP @ (15, 15)]
    shape = shapely.box(*np.min(corners, axis=0), *np.max(corners, axis=0))
    frame = gpd.GeoDataFrame({"class": ["a"], "score": [0.9]}, geometry=[shape], crs="EPSG:32633")
    frame.to_file(tmp_path / "labels.gpkg")
    return path


SAID = "pages.tif holds 2 rasters, of which the first is read; name another as GTIFF_DIR:2:"


def test_a_page_that_is_named_needs_no_note(pages):
    assert open_scene(f"GTIFF_DIR:1:{pages}").rasters == ()
    assert note_other_rasters([open_scene(f"GTIFF_DIR:2:{pages}")]) is None
    one = open_scene(pages)
    assert SAID in note_other_rasters([one])
    assert "2 scenes, such as" in note_other_rasters([one, one])


@pytest.mark.parametrize(
    "command",
    [
        "plan {pages} --model {folder}/tiny.safetensors",
        "detect {pages} --model {folder}/tiny.safetensors --out {folder}/a.gpkg --device cpu",
        "preview {folder}/labels.gpkg {pages} --out {folder}/a.png",
        "preview {folder}/labels.gpkg {pages} --density 5 --out {folder}/a.tif",
    ],
)
def test_a_file_of_several_pages_is_not_read_without_a_word(pages, command, capsys):
    assert main(command.format(pages=pages, folder=pages.parent).split()) == 0
    assert SAID in capsys.readouterr().err


def test_labels_of_a_file_of_several_pages_are_told_of_it(pages, caplog):
    data = DataOptions(
        scenes=(str(pages),), labels=str(pages.parent / "labels.gpkg"), class_column="class"
    )
    with caplog.at_level("WARNING"):
        training_set = load_training_set(data)
    assert SAID in training_set.warnings[-1]
    assert SAID in caplog.text
