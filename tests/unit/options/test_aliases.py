"""Old names of options and of keys on cards are read, said to be old, and never mixed with new."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from support.stubs import tiny_card

from geo_retina.config import load_detect_config, load_train_options
from geo_retina.errors import ModelError, OptionError
from geo_retina.model import Card, bundled_models, load_card
from geo_retina.options import DetectOptions, MergeOptions, RunOptions, SplitOptions
from geo_retina.options.aliases import OLD_CARD_KEYS, OLD_OPTIONS, OldNameWarning

DATA = "data: {scenes: [a.tif], labels: b.gpkg}\n"


def write(path, text):
    path.write_text(text)
    return path


def test_options_in_python():
    with pytest.warns(OldNameWarning, match=r"SplitOptions\.tune_fraction is the old name of"):
        assert SplitOptions(tune_fraction=0.3) == SplitOptions(val_fraction=0.3)
    with pytest.warns(OldNameWarning, match=r"DetectOptions\.views .* write tta"):
        assert DetectOptions(views=2).tta == 2
    with pytest.raises(OptionError, match=r"DetectOptions\.views and DetectOptions\.tta are both"):
        DetectOptions(views=2, tta=2)


def test_a_config_of_training(tmp_path):
    split = "split: {column: town, tune: [a], tune_fraction: 0.3}\n"
    path = write(tmp_path / "old.yaml", DATA + split)
    with pytest.warns(OldNameWarning) as told:
        options = load_train_options(path)
    assert [str(each.message).partition("old.yaml: ")[2] for each in told] == [
        "split.tune is the old name of split.val; write val",
        "split.tune_fraction is the old name of split.val_fraction; write val_fraction",
    ]
    assert options.split == SplitOptions(column="town", val=("a",), val_fraction=0.3)
    both = write(tmp_path / "both.yaml", DATA + "split: {tune_fraction: 0.3, val_fraction: 0.2}\n")
    with pytest.raises(OptionError, match=r"both\.yaml: split\.tune_fraction and split\.val_frac"):
        load_train_options(both)


def test_a_change_of_a_config(tmp_path):
    """A change outranks the file, whichever of the two names either of them uses."""
    new = write(tmp_path / "new.yaml", DATA + "split: {val_fraction: 0.2}\n")
    with pytest.warns(
        OldNameWarning, match=r"the override split\.tune_fraction=0\.3: split\.tune_frac"
    ):
        assert load_train_options(new, ["split.tune_fraction=0.3"]).split.val_fraction == 0.3
    old = write(tmp_path / "old.yaml", DATA + "split: {tune_fraction: 0.2}\n")
    with pytest.warns(OldNameWarning, match="old.yaml"):
        assert load_train_options(old, ["split.val_fraction=0.3"]).split.val_fraction == 0.3
    with pytest.warns(OldNameWarning, match="the override"):
        changed = load_train_options(new, ["split={tune_fraction: 0.3}"])
    assert changed.split.val_fraction == 0.3


def test_a_config_of_detecting(tmp_path):
    path = write(tmp_path / "d.yaml", "views: 4\nbatch: 2\n")
    with pytest.warns(OldNameWarning, match=r"d\.yaml: views is the old name of tta"):
        detect, run = load_detect_config(path)
    assert (detect.tta, run.batch) == (4, 2)
    both = write(tmp_path / "both.yaml", "views: 4\ntta: 4\n")
    with pytest.raises(OptionError, match=r"both\.yaml: views and tta are both given"):
        load_detect_config(both)


def test_options_that_are_none_any_more(tmp_path):
    """What a resolved config of before says is read where it changes nothing, else refused."""
    default = "merge: {iou: 0.3, method: select, soft_sigma: 0.5, soft_score: 0.3}\n"
    with pytest.warns(OldNameWarning, match=r"d\.yaml: merge\.\w+ is no option any more") as told:
        read = load_detect_config(write(tmp_path / "d.yaml", default))
    assert read == (DetectOptions(merge=MergeOptions(iou=0.3)), RunOptions())
    assert len(told) == 3
    for given in ("method: fuse", "method: soft-nms", "soft_sigma: 0.7", "soft_score: 0.1"):
        key, value = given.split(": ")
        path = write(tmp_path / "refused.yaml", f"merge: {{{given}}}\n")
        said = (
            rf"merge\.{key} is {value}, but .* in benchmarks/soft_and_fused\.py .* leave {key} out"
        )
        with pytest.raises(OptionError, match=said):
            load_detect_config(path)
    with pytest.raises(OptionError, match=r"MergeOptions\.method is fuse, .* in benchmarks/"):
        MergeOptions(method="fuse")
    with pytest.warns(OldNameWarning, match=r"MergeOptions\.method is no option"):
        assert MergeOptions(method="select") == MergeOptions()


def test_a_card():
    split = {"val": None, "val_fraction": 0.1}
    training = {"train_labels": 3, "labels": {"repaired": 1}, "options": {"split": split}}
    card = tiny_card(metrics={"val": {"f1": 0.5}}, training=training)
    old = {"val": "tune", "val_fraction": "tune_fraction", "train_labels": "fit_labels"}
    text = card.to_json()
    for now, before in {**old, "repaired": "mended"}.items():
        text = text.replace(f'"{now}"', f'"{before}"')
    assert text.count('"tune') == 3
    assert Card.from_json(text) == card  # and no warning: its reader did not write it
    raw = json.loads(text)
    raw["metrics"]["val"] = {}
    with pytest.raises(ModelError, match=r"metrics\.tune and metrics\.val are both given"):
        Card.from_json(json.dumps(raw))


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_bundled_cards_have_the_names_of_today(name):
    text = json.dumps(asdict(load_card(name)))
    assert '"val"' in text
    for paths in OLD_CARD_KEYS.values():
        for old in paths:
            assert f'"{old}"' not in text


def test_no_old_name_is_a_field():
    for options in (SplitOptions, DetectOptions):
        fields = options.__dataclass_fields__
        for old, new in OLD_OPTIONS[options.__name__].items():
            assert old not in fields
            assert new in fields
