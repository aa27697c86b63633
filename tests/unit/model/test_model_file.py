import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.stubs import tiny_card, tiny_model

from geo_retina.errors import ModelError, OutputError
from geo_retina.model import Card, bundled_models, load_card, load_model


def outputs(model):
    with torch.inference_mode():
        images = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
        return model.network(images)


def test_a_saved_model_gives_the_same_outputs(tmp_path):
    model = tiny_model()
    loaded = load_model(model.save(tmp_path / "m.safetensors", half=False))
    assert loaded.card == model.card
    assert loaded.fingerprint == model.fingerprint
    for a, b in zip(outputs(model).logits, outputs(loaded).logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_half_precision_halves_the_file_and_changes_little(tmp_path):
    model = tiny_model()
    full = model.save(tmp_path / "full.safetensors", half=False)
    half = model.save(tmp_path / "half.safetensors")
    assert half.stat().st_size < 0.55 * full.stat().st_size
    # A model loaded from half precision is a fixed point: saved again, it is the same file.
    again = load_model(half).save(tmp_path / "again.safetensors")
    assert again.read_bytes() == half.read_bytes()
    for a, b in zip(outputs(model).logits, outputs(load_model(half)).logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_the_fingerprint_sees_weights_and_card():
    prints = {
        tiny_model().fingerprint,
        tiny_model(seed=1).fingerprint,
        tiny_model(thresholds=(0.5, 0.6)).fingerprint,
    }
    assert len(prints) == 3
    assert tiny_model().fingerprint in prints


def test_a_card_survives_json():
    card = tiny_card(metrics={"f1": 0.5, "on": "val"}, attribution="Ventura et al.; ümlaut")
    assert Card.from_json(card.to_json()) == card


def test_the_file_holds_one_key_of_metadata_and_no_pickle(tmp_path):
    from safetensors import safe_open

    path = tiny_model().save(tmp_path / "m.safetensors")
    with safe_open(path, framework="pt") as file:
        assert list(file.metadata()) == ["card"]
    assert load_card(path).name == "tiny"


def test_a_newer_format_is_refused(tmp_path):
    raw = {**json.loads(tiny_card().to_json()), "format_version": 99}
    path = tmp_path / "m.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"card": json.dumps(raw)})
    with pytest.raises(ModelError, match="format version 99"):
        load_model(path)


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ModelError, match="not a readable model file"):
        load_model(path)
    with pytest.raises(ModelError, match="neither a model file nor a bundled model"):
        load_model("nowhere")
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="no card"):
        load_model(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"card": tiny_card().to_json()})
    with pytest.raises(ModelError, match="do not fit its card"):
        load_model(path)
    good = tiny_model().save(tmp_path / "good.safetensors")
    good.write_bytes(good.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="not a readable model file"):
        load_model(good)


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    path = tiny_model().save(tmp_path / "m.safetensors")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        tiny_model(seed=3).save(path)
    assert path.read_bytes() == before
    tiny_model(seed=3).save(path, overwrite=True)
    assert path.read_bytes() != before
    assert os.listdir(tmp_path) == ["m.safetensors"]
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        tiny_model().save(tmp_path / "d.safetensors", overwrite=True)
    with pytest.raises(OutputError, match=r"ends in \.pt, expected \.safetensors"):
        tiny_model().save(tmp_path / "m.pt")
    with pytest.raises(OutputError, match=r"no of m\.safetensors does not exist"):
        tiny_model().save(tmp_path / "no" / "m.safetensors")


def test_a_card_that_contradicts_itself_is_refused():
    with pytest.raises(ModelError, match="1 thresholds for 2 classes"):
        tiny_card(thresholds=(0.5,))
    with pytest.raises(ModelError, match="radiometry"):
        tiny_card(bands=tiny_card().bands[:2])


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_bundled_models_are_small_and_say_what_they_are(name):
    path = bundled_models()[name]
    assert path.stat().st_size < 10e6
    model = load_model(name)
    assert model.card.description
    assert model.card.licence
    assert model.card.metrics
    assert model.card.training
    assert all(np.isfinite(p.detach().numpy()).all() for p in model.network.parameters())


def test_a_model_loads_without_what_only_training_needs(tmp_path):
    path = tiny_model().save(tmp_path / "m.safetensors")
    script = (
        "import sys\n"
        "for name in ('lightning', 'tensorboard', 'torchvision.transforms.v2', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"  # importing it fails
        "import geo_retina\n"
        f"model = geo_retina.load_model({str(path)!r})\n"
        "assert next(model.network.parameters()).device.type == 'cpu'\n"
        "geo_retina.detect\n"
        "try:\n"
        "    geo_retina.train\n"
        "except ImportError:\n"
        "    print(model.card.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "tiny", done.stderr
