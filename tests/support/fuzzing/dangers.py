"""Small files that ask for very much: each of a kind that ends careless readers."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from support.fuzzing.kitchen import CPU

Danger = Callable[[Path, Path], list[str]]
"""Takes the folder of good files and an empty one; writes a file and gives the command."""

_HUGE = """<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32633</SRS>
<GeoTransform>400000,0.5,0,5000000,0,-0.5</GeoTransform>{bands}</VRTDataset>"""
_BAND = """<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename
relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>{rest}</SimpleSource>
</VRTRasterBand>"""


def _vrt(path: Path, side: int, source: Path) -> Path:
    bands = "".join(_BAND.format(band=band, source=source, rest="") for band in (1, 2, 3))
    path.write_text(_HUGE.format(side=side, bands=bands))
    return path


def _detect(kitchen: Path, folder: Path, scene: Path) -> list[str]:
    model, out = str(kitchen / "model.safetensors"), str(folder / "out.gpkg")
    return ["detect", str(scene), "--model", model, "--out", out, "--force", *CPU]


def huge_vrt_plan(kitchen: Path, folder: Path) -> list[str]:
    """Plan a VRT of 10^9 x 10^9 px."""
    path = _vrt(folder / "huge.vrt", 10**9, kitchen / "good.tif")
    return ["plan", str(path), "--model", str(kitchen / "model.safetensors")]


def huge_vrt_info(kitchen: Path, folder: Path) -> list[str]:
    """Describe a VRT of 10^9 x 10^9 px, and what a model would do with it."""
    path = _vrt(folder / "huge.vrt", 10**9, kitchen / "good.tif")
    return ["info", str(path), "--model", str(kitchen / "model.safetensors")]


def huge_vrt_detect(kitchen: Path, folder: Path) -> list[str]:
    """Detect on a VRT of 10^9 x 10^9 px."""
    return _detect(kitchen, folder, _vrt(folder / "huge.vrt", 10**9, kitchen / "good.tif"))


def huge_vrt_preview(kitchen: Path, folder: Path) -> list[str]:
    """Draw a VRT of 10^9 x 10^9 px."""
    path = _vrt(folder / "huge.vrt", 10**9, kitchen / "good.tif")
    return ["preview", str(kitchen / "found.gpkg"), str(path), "--out", str(folder / "out.png")]


def fine_gsd(kitchen: Path, folder: Path) -> list[str]:
    """Resample a scene to a hundred-millionth of a metre a pixel."""
    model = str(kitchen / "model.safetensors")
    return ["plan", str(kitchen / "good.tif"), "--model", model, "--gsd", "1e-8", "--force"]


def vrt_of_itself(kitchen: Path, folder: Path) -> list[str]:
    """Detect on a VRT whose source is itself."""
    path = folder / "loop.vrt"
    return _detect(kitchen, folder, _vrt(path, 96, path))


def vrt_ring(kitchen: Path, folder: Path) -> list[str]:
    """Detect on one of two VRTs that name each other."""
    one, other = folder / "one.vrt", folder / "other.vrt"
    _vrt(other, 96, one)
    return _detect(kitchen, folder, _vrt(one, 96, other))


def vrt_laughs(kitchen: Path, folder: Path) -> list[str]:
    """Describe a VRT whose entities multiply to 10^9 letters."""
    names = "abcdefghij"
    entities = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise(names))
    path = _vrt(folder / "laughs.vrt", 96, kitchen / "good.tif")
    text = path.read_text().replace("EPSG:32633", "&j;")
    path.write_text(f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{entities}]>{text}')
    return ["info", str(path)]


def deep_vrt(kitchen: Path, folder: Path) -> list[str]:
    """Describe a VRT of elements nested 200,000 levels deep."""
    path = folder / "deep.vrt"
    path.write_text("<VRTDataset>" + "<a>" * 200_000 + "</a>" * 200_000 + "</VRTDataset>")
    return ["info", str(path)]


def huge_tiff(kitchen: Path, folder: Path) -> list[str]:
    """Plan a GeoTIFF that says it has one compressed tile of 40,000 x 40,000 px."""
    path = folder / "huge.tif"
    entries = [(256, 40_000), (257, 40_000), (258, 8), (259, 8), (262, 1), (277, 3)]
    entries += [(322, 40_000), (323, 40_000), (324, 8), (325, 200)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack("<2sHI", b"II", 42, 300) + b"\x78\x9c" + bytes(290)
    path.write_bytes(head + struct.pack("<H", len(entries)) + body + bytes(4))
    return ["plan", str(path), "--model", str(kitchen / "model.safetensors"), "--force"]


def zip_bomb(kitchen: Path, folder: Path) -> list[str]:
    """Evaluate with a shapefile whose table unpacks to 3 GB of blanks."""
    path = folder / "bomb.shp.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for part in sorted((kitchen / "shape").iterdir()):
            if part.suffix != ".dbf":
                file.write(part, part.name)
        head = bytearray((kitchen / "shape" / "labels.dbf").read_bytes())
        with file.open("labels.dbf", "w", force_zip64=True) as table:
            table.write(head)
            for _ in range(96):
                table.write(b" " * (32 << 20))
    return ["evaluate", str(kitchen / "found.gpkg"), str(path)]


def many_members(kitchen: Path, folder: Path) -> list[str]:
    """Evaluate with a zip of 20,000 empty shapefiles."""
    path = folder / "many.shp.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i in range(20_000):
            file.writestr(f"{i}/a.shp", b"")
    return ["evaluate", str(kitchen / "found.gpkg"), str(path)]


def alias_bomb(kitchen: Path, folder: Path) -> list[str]:
    """Read a config whose aliases multiply to 10^9 values."""
    path = folder / "bomb.yaml"
    names = "abcdefghij"
    lines = [f"a: &a [{', '.join('1' * 10)}]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in pairwise(names)]
    path.write_text("\n".join(lines))
    return ["check-labels", str(path)]


def deep_geojson(kitchen: Path, folder: Path) -> list[str]:
    """Evaluate with GeoJSON nested 100,000 levels deep."""
    path = folder / "deep.geojson"
    deep = "[" * 100_000 + "]" * 100_000
    path.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, '
        f'"geometry": {{"type": "Polygon", "coordinates": {deep}}}}}]}}'
    )
    return ["evaluate", str(kitchen / "found.gpkg"), str(path)]


def deep_collection(kitchen: Path, folder: Path) -> list[str]:
    """Evaluate with a collection of collections, 500 levels deep."""
    path = folder / "deep.geojson"
    inner = '{"type": "Point", "coordinates": [15, 45]}'
    for _ in range(500):
        inner = f'{{"type": "GeometryCollection", "geometries": [{inner}]}}'
    path.write_text(f'{{"type": "Feature", "properties": {{}}, "geometry": {inner}}}')
    return ["evaluate", str(kitchen / "found.gpkg"), str(path)]


def far_objects(kitchen: Path, folder: Path) -> list[str]:
    """Count objects at both ends of the Earth in cells of a metre."""
    path = folder / "far.geojson"
    points = [(-179.0, -80.0), (179.0, 80.0)]
    features = [
        {
            "type": "Feature",
            "properties": {"class": "car", "score": 0.5},
            "geometry": {"type": "Point", "coordinates": point},
        }
        for point in points
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return ["preview", str(path), "--density", "1m", "--out", str(folder / "out.tif")]


def huge_wkb(kitchen: Path, folder: Path) -> list[str]:
    """Evaluate with a geometry that says it has 4 * 10^9 rings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(kitchen / "labels.parquet")
    bad = struct.pack("<BII", 1, 3, 2**32 - 1) + bytes(16)
    at = table.column_names.index("geometry")
    wkb = pa.array([bad] * len(table), table.schema.field("geometry").type)
    metadata = {b"geo": pq.read_metadata(kitchen / "labels.parquet").metadata[b"geo"]}
    path = folder / "huge.parquet"
    pq.write_table(table.set_column(at, "geometry", wkb).replace_schema_metadata(metadata), path)
    return ["evaluate", str(kitchen / "found.gpkg"), str(path)]


def huge_model_header(kitchen: Path, folder: Path) -> list[str]:
    """Describe a model file whose header says it has 2^62 bytes."""
    path = folder / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    return ["info", str(path)]


def _with_card(kitchen: Path, folder: Path, change: Callable[[dict], object]) -> Path:
    data = (kitchen / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    card = json.loads(header["__metadata__"]["card"])
    change(card)
    header["__metadata__"]["card"] = json.dumps(card)
    head = json.dumps(header).encode()
    path = folder / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])
    return path


def huge_network(kitchen: Path, folder: Path) -> list[str]:
    """Load a model whose card says it has layers of 4,096 channels."""
    path = _with_card(kitchen, folder, lambda card: card["network"].update(channels=4096, convs=16))
    out = str(folder / "out.gpkg")
    return ["detect", str(kitchen / "good.tif"), "--model", str(path), "--out", out, *CPU]


def many_classes(kitchen: Path, folder: Path) -> list[str]:
    """Load a model whose card says it has 300,000 classes."""
    classes = [str(i) for i in range(300_000)]
    path = _with_card(
        kitchen,
        folder,
        lambda card: card.update(classes=classes, thresholds=[0.5] * len(classes)),
    )
    out = str(folder / "out.gpkg")
    return ["detect", str(kitchen / "good.tif"), "--model", str(path), "--out", out, *CPU]


def huge_tile(kitchen: Path, folder: Path) -> list[str]:
    """Plan with a model whose tiles have 10^9 px a side."""
    path = _with_card(kitchen, folder, lambda card: card.update(tile_px=10**9))
    return ["plan", str(kitchen / "good.tif"), "--model", str(path)]


def huge_image(kitchen: Path, folder: Path) -> list[str]:
    """Check labels in COCO's JSON of an image of 10^300 px."""
    content = json.loads((kitchen / "coco.json").read_text())
    content["images"][0]["width"] = 10**300
    path, config = folder / "huge.json", folder / "config.yaml"
    path.write_text(json.dumps(content))
    scene, labels = json.dumps(str(kitchen / "good.tif")), json.dumps(str(path))
    config.write_text(f"data: {{scenes: [{scene}], labels: {labels}}}\npretrained: false\n")
    return ["check-labels", str(config)]


def list_of_itself(kitchen: Path, folder: Path) -> list[str]:
    """Plan a list of scenes whose pattern matches the list."""
    path = folder / "scenes.txt"
    path.write_text("*\n")
    return ["plan", str(path), "--model", str(kitchen / "model.safetensors")]


DANGERS: dict[str, Danger] = {
    each.__name__: each
    for each in (
        huge_vrt_plan,
        huge_vrt_info,
        huge_vrt_detect,
        huge_vrt_preview,
        fine_gsd,
        vrt_of_itself,
        vrt_ring,
        vrt_laughs,
        deep_vrt,
        huge_tiff,
        zip_bomb,
        many_members,
        alias_bomb,
        deep_geojson,
        deep_collection,
        far_objects,
        huge_wkb,
        huge_model_header,
        huge_network,
        many_classes,
        huge_tile,
        huge_image,
        list_of_itself,
    )
}
