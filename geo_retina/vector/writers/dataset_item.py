"""A STAC item beside the files of a data set, which says what they are and how they came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

from geo_retina.files import parse_json
from geo_retina.geodesy import is_on_earth, transformer
from geo_retina.vector.formats import GEOMETRY, parquet_files
from geo_retina.vector.writers.dataset import FOOTERS

ITEM = "_item.json"

_TABLE = "https://stac-extensions.github.io/table/v1.2.0/schema.json"
_PARQUET = "application/vnd.apache.parquet"


def write_item(folder: Path, metadata: Mapping[str, str]) -> None:
    """Describe a data set that was written, in a file of its folder.

    Args:
        folder: with all files of the data set.
        metadata: how it came about, texts by name.
    """
    stored = pq.read_metadata(folder / FOOTERS)
    column = json.loads(stored.metadata[b"geo"])["columns"][GEOMETRY]
    ground = _ground(column)
    written = metadata.get("written") or datetime.now(UTC).isoformat(timespec="seconds")
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_TABLE],
        "id": folder.name,
        "geometry": None if ground is None else shapely.geometry.mapping(shapely.box(*ground)),
        **({} if ground is None else {"bbox": ground}),
        "properties": {
            "datetime": datetime.fromisoformat(written)
            .astimezone(UTC)
            .strftime("%Y-%m-%dT%H:%M:%SZ"),
            "table:row_count": stored.num_rows,
            "table:primary_geometry": GEOMETRY,
            "table:columns": _columns(stored.schema.to_arrow_schema()),
            **{f"geo_retina:{name}": _value(text) for name, text in metadata.items()},
        },
        "links": [],
        "assets": {
            **{
                each.stem: {"href": f"./{each.name}", "type": _PARQUET, "roles": ["data"]}
                for each in parquet_files(folder)
            },
            "footers": {"href": f"./{FOOTERS}", "type": _PARQUET, "roles": ["metadata"]},
        },
    }
    text = json.dumps(item, indent=1, ensure_ascii=False)
    (folder / ITEM).write_text(text + "\n", encoding="utf-8")


def _ground(column: Mapping[str, Any]) -> list[float] | None:
    """Bound the objects in longitudes and latitudes; None where there are none, or no place."""
    if column.get("crs") is None or "bbox" not in column:
        return None
    crs = pyproj.CRS.from_json_dict(column["crs"])
    if not is_on_earth(crs):
        return None
    return list(transformer(crs, pyproj.CRS("OGC:CRS84")).transform_bounds(*column["bbox"]))


def _columns(schema: pa.Schema) -> list[dict[str, str]]:
    return [{"name": field.name, "type": str(field.type)} for field in schema]


def _value(text: str) -> Any:
    """Read what is JSON; any other text as it is."""
    try:
        return parse_json(text)
    except ValueError:
        return text
