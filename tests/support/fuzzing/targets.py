"""What is damaged, and the command that reads it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from support.fuzzing.choosing import (
    ODD_VALUES,
    Choose,
    damage_bytes,
    damage_json,
    json_text,
    pick,
)
from support.fuzzing.dangers import DANGERS, Danger
from support.fuzzing.kitchen import CPU, copy_run

Target = Callable[[Choose, Path, Path], list[str]]
"""Takes who chooses, the folder of good files and an empty one for the damaged; gives a command."""


def _scene_command(choose: Choose, kitchen: Path, folder: Path, scene: Path) -> list[str]:
    model = str(kitchen / "model.safetensors")
    what = choose(12)
    if what < 5:
        return ["info", str(scene)]
    if what < 11:
        return ["plan", str(scene), "--model", model, "--force"]
    out = str(folder / "out.gpkg")
    return ["detect", str(scene), "--model", model, "--force", "--out", out, *CPU]


def _layer_command(choose: Choose, kitchen: Path, folder: Path, layer: Path) -> list[str]:
    good, labels, out = str(kitchen / "found.gpkg"), str(kitchen / "labels.gpkg"), folder / "out"
    bad = str(layer)
    commands = (
        ["evaluate", good, bad],
        ["evaluate", bad, labels],
        ["evaluate", good, labels, "--ground", bad],
        ["compare", good, bad, labels],
        ["filter", bad, "--out", f"{out}.gpkg"],
        ["filter", good, "--aoi", bad, "--out", f"{out}.parquet"],
        ["merge", good, bad, "--out", f"{out}.gpkg"],
        ["preview", bad, "--density", "10m", "--out", f"{out}.tif"],
        ["preview", bad, str(kitchen / "good.tif"), "--out", f"{out}.png"],
        _labels_command(kitchen, folder, layer),
    )
    return list(pick(choose, commands))


def _labels_command(kitchen: Path, folder: Path, labels: Path) -> list[str]:
    config = folder / "config.yaml"
    scene = json.dumps(str(kitchen / "good.tif"))
    config.write_text(
        f"data: {{scenes: [{scene}], labels: {json.dumps(str(labels))}}}\npretrained: false\n"
    )
    return ["check-labels", str(config)]


def geotiff(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage a GeoTIFF, mostly in its header and tags."""
    data = (kitchen / pick(choose, ("good.tif", "plain.tif"))).read_bytes()
    path = folder / "bad.tif"
    path.write_bytes(damage_bytes(choose, data, first=pick(choose, (64, 600, None))))
    return _scene_command(choose, kitchen, folder, path)


def geotiff_tags(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Change whole entries of a GeoTIFF's first directory: tag, type, count or value."""
    data = bytearray((kitchen / "good.tif").read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for _ in range(1 + choose(3)):
        entry = start + 2 + 12 * choose(count)
        what, at, size = pick(choose, (("<H", 0, 2), ("<H", 2, 2), ("<I", 4, 4), ("<I", 8, 4)))
        number = pick(choose, (0, 1, 2, 3, 5, 12, 255, 256, 257, 65535, 10**6, 2**31, 2**32 - 1))
        struct.pack_into(what, data, entry + at, number & (256**size - 1))
    path = folder / "bad.tif"
    path.write_bytes(data)
    return _scene_command(choose, kitchen, folder, path)


_VRT = """<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{crs}</SRS>
<GeoTransform>{affine}</GeoTransform>{bands}</VRTDataset>"""
_VRT_BAND = """<VRTRasterBand dataType="{dtype}" band="{band}"><{kind}><SourceFilename
relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>{source_band}</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="80"/><DstRect xOff="0" yOff="0"
xSize="{width}" ySize="{height}"/></{kind}></VRTRasterBand>"""
_BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">{}]>'.format(
    "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
)


def vrt(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Write a VRT of odd sizes and sources: itself, one that names it, none."""
    path, other = folder / "bad.vrt", folder / "other.vrt"

    def mostly(good: Any, *odd: Any) -> Any:
        return good if choose(4) else pick(choose, odd)

    values: dict[str, Any] = {
        "width": mostly(96, 0, -1, 1, 10**5, 10**9, 2**31 - 1, 2**31, "x"),
        "height": mostly(80, 0, -1, 1, 10**5, 10**9, 2**31 - 1, 2**31, "x"),
        "crs": mostly("EPSG:32633", "EPSG:4326", "", "nonsense", "EPSG:0", "&i;"),
        "affine": mostly(
            "400000,0.5,0,5000000,0,-0.5",
            "0,0,0,0,0,0",
            "nan,1,0,0,0,-1",
            "1e308,1,0,0,0,-1e308",
            "1,1e-9,0,1,0,-1e-9",
        ),
        "relative": mostly(0, 1),
        "kind": pick(choose, ("SimpleSource", "ComplexSource", "KernelFilteredSource")),
    }
    good = str(kitchen / "good.tif")
    bands = ""
    for band in range(1, 1 + mostly(3, 1, 0, 40)):
        source = mostly(good, str(path), str(other), "none.tif", "", "&i;")
        dtype = mostly("Byte", "Float64", "CFloat32", "Nothing")
        source_band = mostly(1, 2, 4, 0, -1, "mask,1")
        bands += _VRT_BAND.format(
            band=band, source=source, dtype=dtype, source_band=source_band, **values
        )
    text = _VRT.format(bands=bands, **values)
    other.write_text(text.replace(str(other), str(path)))
    text = (_BOMB if choose(8) == 0 else "") + text
    path.write_bytes(text.encode() if choose(5) else damage_bytes(choose, text.encode()))
    return _scene_command(choose, kitchen, folder, path)


def geopackage(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage the pages of a GeoPackage."""
    data = (kitchen / pick(choose, ("labels.gpkg", "found.gpkg"))).read_bytes()
    path = folder / "bad.gpkg"
    path.write_bytes(damage_bytes(choose, data, first=pick(choose, (100, 4096, None))))
    return _layer_command(choose, kitchen, folder, path)


_CELLS = (
    ("gpkg_contents", ("table_name", "data_type", "identifier", "min_x", "max_y", "srs_id")),
    ("gpkg_geometry_columns", ("table_name", "column_name", "geometry_type_name", "srs_id", "z")),
    ("gpkg_spatial_ref_sys", ("srs_id", "organization", "organization_coordsys_id", "definition")),
    ("detections", ("class", "score", "tile", "scene", "joined", "geom", "row_min")),
    ("labels", ("kind", "size", "geom", "fid")),
    ("metadata", ("name", "value")),
    ("sqlite_master", ("sql", "name", "rootpage")),
)


def geopackage_tables(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Change cells, geometries and tables of a GeoPackage through SQLite."""
    path = folder / "bad.gpkg"
    shutil.copy(kitchen / pick(choose, ("labels.gpkg", "found.gpkg")), path)
    with closing(sqlite3.connect(path)) as database:
        for _ in range(1 + choose(3)):
            table, columns = pick(choose, _CELLS)
            try:
                _change_table(choose, database, table, pick(choose, columns))
                database.commit()
            except (sqlite3.Error, UnicodeEncodeError, OverflowError):
                database.rollback()
    return _layer_command(choose, kitchen, folder, path)


def _change_table(choose: Choose, database: sqlite3.Connection, table: str, column: str) -> None:
    for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        database.execute(f'DROP TRIGGER "{trigger}"')
    database.execute("PRAGMA writable_schema = 1")
    what = choose(10)
    if what == 0:
        database.execute(f"DROP TABLE {table}")
    elif what == 1:
        database.execute(f"DELETE FROM {table}")
    elif what == 2:
        database.execute(f'ALTER TABLE {table} RENAME COLUMN "{column}" TO "other"')
    else:
        found = database.execute(f'SELECT "{column}" FROM {table}').fetchone()
        value: Any = pick(choose, ODD_VALUES)
        if found and isinstance(found[0], bytes):
            value = damage_bytes(choose, found[0], first=60)
        elif isinstance(value, (list, dict)):
            value = json.dumps(value)
        database.execute(f'UPDATE {table} SET "{column}" = ?', (value,))


def geoparquet(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage a GeoParquet file, mostly in its footer."""
    data = (kitchen / pick(choose, ("labels.parquet", "found.parquet"))).read_bytes()
    path = folder / "bad.parquet"
    if choose(2):
        data = damage_bytes(choose, data[::-1], first=pick(choose, (12, 3000)))[::-1]
    else:
        data = damage_bytes(choose, data)
    path.write_bytes(data)
    return _layer_command(choose, kitchen, folder, path)


def geoparquet_content(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Change the metadata, the geometries or a column of a GeoParquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = kitchen / pick(choose, ("labels.parquet", "found.parquet"))
    table = pq.read_table(source)
    metadata = {k: v for k, v in pq.read_metadata(source).metadata.items() if k != b"ARROW:schema"}
    key = pick(choose, [b"geo", b"geo", *metadata])
    if choose(2):
        try:
            content = json.loads(metadata[key])
            metadata[key] = json_text(choose, damage_json(choose, content))
        except ValueError:
            metadata[key] = damage_bytes(choose, metadata[key])
    name = pick(choose, ["geometry", "geometry", *table.column_names])
    at = table.column_names.index(name)
    values = table[name].to_pylist()
    what = choose(4)
    if what == 0:
        values = [damage_bytes(choose, v) if isinstance(v, bytes) else None for v in values]
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    elif what == 1:
        value = pick(choose, ([1], "x", None, float("nan"), b"x"))
        table = table.set_column(at, name, pa.array([value] * len(table)))
    elif what == 2:
        table = table.drop_columns([name])
    path = folder / "bad.parquet"
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return _layer_command(choose, kitchen, folder, path)


def shapefile(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage or remove a part of a shapefile, or of one in a zip."""
    for path in (kitchen / "shape").iterdir():
        shutil.copy(path, folder)
    part = folder / f"labels.{pick(choose, ('shp', 'shx', 'dbf', 'prj', 'cpg'))}"
    if choose(6):
        part.write_bytes(damage_bytes(choose, part.read_bytes(), first=pick(choose, (120, None))))
    else:
        part.unlink()
    if choose(2):
        return _layer_command(choose, kitchen, folder, folder / "labels.shp")
    zipped = folder / "bad.shp.zip"
    prefix = pick(choose, ("", "inner/", "../../", "/tmp/", "a/" * 500))
    with zipfile.ZipFile(zipped, "w") as file:
        for path in sorted(folder.glob("labels.*")):
            file.write(path, prefix + path.name)
    if choose(2):
        zipped.write_bytes(damage_bytes(choose, zipped.read_bytes()))
    return _layer_command(choose, kitchen, folder, zipped)


def geojson(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage GeoJSON: wrong types, odd numbers, depth."""
    content = json.loads(
        (kitchen / pick(choose, ("labels", "found"))).with_suffix(".geojson").read_bytes()
    )
    path = folder / pick(choose, ("bad.geojson", "bad.json"))
    path.write_bytes(json_text(choose, damage_json(choose, content)))
    return _layer_command(choose, kitchen, folder, path)


def flatgeobuf(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage a FlatGeobuf file."""
    path = folder / "bad.fgb"
    path.write_bytes(damage_bytes(choose, (kitchen / "labels.fgb").read_bytes()))
    return _layer_command(choose, kitchen, folder, path)


def coco(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage annotations in COCO's JSON."""
    content = json.loads((kitchen / "coco.json").read_text())
    path = folder / "bad.json"
    path.write_bytes(json_text(choose, damage_json(choose, content)))
    return _labels_command(kitchen, folder, path)


_CONFIG: dict[str, Any] = {
    "data": {
        "scenes": ["good.tif"],
        "labels": [{"path": "labels.gpkg", "where": "size > 1", "class_column": "kind"}],
        "point_size_m": 3.0,
        "val_fraction": 0.2,
    },
    "split": {"block_m": 20.0},
    "loss": {"gamma": 2.0, "alpha": 0.25},
    "network": {"backbone": "resnet18", "levels": [2, 3], "channels": 16},
    "pretrained": False,
}
_DETECT_CONFIG: dict[str, Any] = {
    "score": 0.3,
    "bands": [1, 2, 3],
    "tile_px": 128,
    "merge": {"iou": 0.5, "join": True},
    "workers": 1,
}
_YAML = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "a: &a [*a]\n",
    "data: &d {scenes: *d}\n",
    "score: 0.5\nscore: 0.6\n",
    "? [1, 2]\n: 3\n",
    "{" * 3000,
    "[" * 3000 + "]" * 3000,
    "a: " * 3000,
    "- " * 3000,
    "score: !!python/object/apply:os.system ['true']\n",
    "score: !!binary zzz\n",
    "score: 2001-99-99\n",
    "score: !!timestamp x\n",
    "score: !!int x\n",
    "score: !!float x\n",
    "<<: 1\nscore: 1\n",
    "<<: [1]\n",
    "score: 0x\n",
    "score: 0b\n",
    "score: 190:20:30\n",
    "score: 1_000\n",
    "tile_px: " + "9" * 5000 + "\n",
    "\x00",
    "score: \ufffe\n",
    "--- 1\n--- 2\n",
    "%YAML 9.9\n--- {}\n",
    "? score\n",
    "!!set {score}\n",
    "score: .nan\ntile_px: .inf\n",
    "data: !!omap [scenes: x]\n",
    "data: !!pairs [scenes: x]\n",
)


def config(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage a YAML config, of training or of detection."""
    trains = bool(choose(2))
    path = folder / "bad.yaml"
    if choose(3):
        content = _CONFIG if trains else _DETECT_CONFIG
        data = json_text(choose, damage_json(choose, content))
    else:
        data = pick(choose, _YAML).encode()
        data = data if choose(3) else damage_bytes(choose, data)
    path.write_bytes(data)
    if trains:
        return ["check-labels", str(path)]
    model = str(kitchen / "model.safetensors")
    return ["plan", str(kitchen / "good.tif"), "--model", model, "--config", str(path)]


def stac(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage a STAC item or a collection of items."""
    href = str(kitchen / "good.tif")
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "one",
        "assets": {
            "image": {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]},
            "thumb": {"href": "thumb.png", "roles": ["thumbnail"]},
        },
        "links": [{"rel": "self", "href": "item.json"}, {"rel": "next", "href": "bad.json"}],
    }
    content: Any = {"type": "FeatureCollection", "features": [item], "links": item["links"]}
    content = pick(choose, (item, content))
    path = folder / "bad.json"
    path.write_bytes(json_text(choose, damage_json(choose, content)))
    command = _scene_command(choose, kitchen, folder, path)
    return [*command, "--asset", "image"] if choose(2) else command


def scene_list(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Write a list of scenes with odd lines."""
    odd = ("", "# x", "bad.txt", ".", "..", "*", "[", "\x00", "none.tif", "http://", "s3://", "~")
    odd += ("x" * 5000, "/vsizip/", "/vsicurl/", "file://", "**/*", "\ud800", "<VRTDataset>", "?")
    lines = [pick(choose, (str(kitchen / "good.tif"), *odd)) for _ in range(choose(4))]
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    path = folder / "bad.txt"
    path.write_bytes(data if choose(3) else damage_bytes(choose, data))
    return _scene_command(choose, kitchen, folder, path)


def _model_command(choose: Choose, kitchen: Path, folder: Path, model: Path) -> list[str]:
    scene, path = str(kitchen / "good.tif"), str(model)
    commands = (
        ["info", path],
        ["plan", scene, "--model", path],
        ["export-stac", path, "--out", str(folder / "model.json")],
        ["detect", scene, "--model", path, "--out", str(folder / "out.gpkg"), *CPU],
        ["import", path, "--out", str(folder / "new.safetensors"), "--gsd", "0.5"],
    )
    return list(pick(choose, commands))


def model_bytes(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage a model file's bytes, mostly the head."""
    data = (kitchen / "model.safetensors").read_bytes()
    path = folder / "bad.safetensors"
    path.write_bytes(damage_bytes(choose, data, first=pick(choose, (8, 200, None))))
    return _model_command(choose, kitchen, folder, path)


def model_header(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage a model file's header or card as JSON; the tensors stay."""
    data = (kitchen / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    if choose(4):
        card = damage_json(choose, json.loads(header["__metadata__"]["card"]))
        text = json_text(choose, card).decode("utf-8", "replace")
        header["__metadata__"]["card"] = text
    else:
        header = damage_json(choose, header)
    head = json_text(choose, header)
    path = folder / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])
    return _model_command(choose, kitchen, folder, path)


def model_tensors(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Change tensors of a model file: type, shape, values that are not finite."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    source = kitchen / "model.safetensors"
    tensors = load_file(source)
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    name = pick(choose, sorted(tensors))
    tensor = tensors[name]
    dtypes = (torch.int64, torch.bool, torch.float64, torch.bfloat16, torch.uint8)
    tensors[name] = pick(
        choose,
        (
            tensor.flatten().clone(),
            torch.zeros(0),
            torch.zeros(()),
            tensor.to(pick(choose, dtypes)),
            torch.full_like(tensor, 0) if not tensor.is_floating_point() else tensor * float("nan"),
            tensor if not tensor.is_floating_point() else tensor * float("inf"),
        ),
    )
    path = folder / "bad.safetensors"
    save_file(tensors, path, metadata)
    return _model_command(choose, kitchen, folder, path)


def run_folder(choose: Choose, kitchen: Path, folder: Path) -> list[str]:
    """Damage the folder of a run that is then gone on with."""
    copy_run(kitchen, folder)
    path = pick(choose, sorted((folder / "half.gpkg.run").iterdir()))
    data = path.read_bytes()
    if path.suffix == ".json" and choose(4):
        data = json_text(choose, damage_json(choose, json.loads(data)))
    elif path.suffix == ".parquet" and choose(2):
        data = damage_bytes(choose, data[::-1], first=pick(choose, (12, 3000)))[::-1]
    else:
        data = damage_bytes(choose, data)
    path.write_bytes(data)
    scenes = [str(kitchen / "good.tif"), str(kitchen / "broken.tif")]
    model, out = str(kitchen / "model.safetensors"), str(folder / "half.gpkg")
    return ["detect", *scenes, "--model", model, "--out", out, "--overwrite", *CPU]


def _always(danger: Danger) -> Target:
    return lambda choose, kitchen, folder: danger(kitchen, folder)


TARGETS: dict[str, Target] = {
    each.__name__: each
    for each in (
        geotiff,
        geotiff_tags,
        vrt,
        geopackage,
        geopackage_tables,
        geoparquet,
        geoparquet_content,
        shapefile,
        geojson,
        flatgeobuf,
        coco,
        config,
        stac,
        scene_list,
        model_bytes,
        model_header,
        model_tensors,
        run_folder,
    )
}
DANGER_TARGETS: dict[str, Target] = {name: _always(each) for name, each in DANGERS.items()}
