"""Models as STAC items, read back by the extension's own library."""

from __future__ import annotations

import json
from dataclasses import replace

import pystac
import pytest
from stac_model.schema import SCHEMA_URI, MLModelProperties
from support.stubs import TINY_NETWORK, tiny_model

from geo_retina import export_stac
from geo_retina.errors import ModelError, OutputError
from geo_retina.export.stac import EXTENSION
from geo_retina.model import bundled_models, load_card


@pytest.mark.parametrize("name", bundled_models())
def test_the_items_of_bundled_models_are_valid(name, tmp_path):
    card = load_card(name)
    out = export_stac(name, tmp_path / "item.json", href="https://example.org/m.safetensors")
    raw = json.loads(out.read_text("utf-8"))
    item = pystac.Item.from_dict(raw)
    assert item.to_dict()["properties"] == raw["properties"]
    assert item.assets["model"].href == "https://example.org/m.safetensors"
    assert item.stac_extensions == [EXTENSION] == [SCHEMA_URI]
    model = MLModelProperties.model_validate(raw["properties"])
    assert model.name == card.name
    assert {str(task) for task in model.tasks} == {"object-detection"}
    (seen,), (found,) = model.input, model.output
    assert seen.bands == [band.name for band in card.bands]
    assert seen.input.shape == [-1, len(card.bands), card.tile_px, card.tile_px]
    assert [each.mean for each in seen.value_scaling] == list(card.radiometry.offset)
    assert [each.stddev for each in seen.value_scaling] == list(card.radiometry.scale)
    assert [each.name for each in found.classes] == list(card.classes)
    assert [each.value for each in found.classes] == list(range(len(card.classes)))


def test_a_model_file_is_described_with_its_path_and_its_parameters(tmp_path):
    model = tiny_model(nms_iou=0.25, thresholds=(0.3, 0.6), gsd_m=0.5)
    path = model.save(tmp_path / "tiny.safetensors")
    raw = json.loads(export_stac(path, tmp_path / "tiny.json").read_text("utf-8"))
    assert raw["assets"]["model"]["href"] == path.resolve().as_posix()
    about = MLModelProperties.model_validate(raw["properties"])
    assert about.total_parameters == sum(p.numel() for p in model.network.parameters())
    assert about.hyperparameters.model_dump()["nms_iou"] == 0.25
    assert about.hyperparameters.model_dump()["thresholds"] == {"car": 0.3, "tree": 0.6}
    assert raw["properties"]["gsd"] == 0.5


def test_an_item_tells_what_an_oriented_model_gives(tmp_path):
    network = replace(TINY_NETWORK, boxes="oriented")
    path = tiny_model(network=network).save(tmp_path / "m.safetensors")
    raw = json.loads(export_stac(path, tmp_path / "m.json").read_text("utf-8"))
    (found,) = MLModelProperties.model_validate(raw["properties"]).output
    assert found.result.shape == [-1, 7]
    assert "degrees" in found.name


def test_what_cannot_be_written_or_described_is_refused(tmp_path):
    out = tmp_path / "item.json"
    with pytest.raises(ModelError, match="neither a model file nor a bundled model"):
        export_stac("nowhere", out)
    with pytest.raises(OutputError, match=r"ends in \.txt, expected .json"):
        export_stac("demo", tmp_path / "item.txt")
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists; give overwrite=True"):
        export_stac("demo", out)
    assert out.read_text() == "mine"
    assert json.loads(export_stac("demo", out, overwrite=True).read_text())["id"] == "demo"
