"""Strict YAML to options and back."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from geo_retina.config import (
    dump_options,
    load_detect_config,
    load_train_options,
    read_detect_config,
)
from geo_retina.errors import OptionError
from geo_retina.options import (
    DataOptions,
    DetectOptions,
    LossOptions,
    MergeOptions,
    RunOptions,
    SampleOptions,
    TrainOptions,
)

MINIMAL = "data:\n  scenes: [a.tif]\n  labels: labels.gpkg\n"


@pytest.fixture
def write(tmp_path):
    """Writes a config into a project's configs folder."""
    folder = tmp_path / "project" / "configs"
    folder.mkdir(parents=True)

    def _write(text: str, name: str = "c.yaml") -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_only_what_the_file_says_differs_from_the_defaults(write):
    path = write(
        MINIMAL + "name: trees\npreset: paper\nlr: 1e-3\nnetwork: {channels: 64, levels: [2, 3], "
        "anchor_sides_px: [[8], [16]]}\nloss: {classification: focal, gamma: 3}\n"
        "samples:\n  scale: [0.5, 2]\n"
    )
    folder = path.parent
    options = load_train_options(path)
    assert options == TrainOptions(
        data=DataOptions(scenes=(f"{folder}/a.tif",), labels=f"{folder}/labels.gpkg"),
        name="trees",
        preset="paper",
        lr=0.001,
        network={"channels": 64, "levels": [2, 3], "anchor_sides_px": [[8], [16]]},
        loss=LossOptions(classification="focal", gamma=3.0),
        samples=SampleOptions(scale=(0.5, 2.0)),
    )
    assert options.resolved_network.levels == (2, 3)
    assert options.resolved_network.convs == 4  # from the preset


def test_dump_reads_back(write):
    options = load_train_options(
        write(MINIMAL + "description: 'Bäume: 0.6 m'\nnetwork: {channels: 64}\nsamples: {noise: 0}")
    )
    again = load_train_options(write(dump_options(options), "again.yaml"))
    assert again == options


def test_dump_holds_every_field():
    dumped = yaml.safe_load(dump_options(DetectOptions(), RunOptions()))
    assert list(dumped) == [f.name for o in (DetectOptions, RunOptions) for f in fields(o)]


def test_detect_and_run_options_share_no_name():
    """They stand side by side in one file and among one command's flags."""
    detect, run = ({f.name for f in fields(o)} for o in (DetectOptions, RunOptions))
    assert not detect & run


def test_detect_config(write):
    path = write("score: 0.25\nbands: [4, 1, 2]\nmerge: {edge_px: 6}\nworkers: 2\n")
    detect, run = load_detect_config(path)
    assert detect == DetectOptions(score=0.25, bands=(4, 1, 2), merge=MergeOptions(edge_px=6.0))
    assert run == RunOptions(workers=2)
    assert set(read_detect_config(path)) == {"score", "bands", "merge", "workers"}


def test_detect_config_reads_back(write):
    detect, run = DetectOptions(tile_px=512, merge=MergeOptions(join=False)), RunOptions(batch=3)
    assert load_detect_config(write(dump_options(detect, run))) == (detect, run)


def test_empty_detect_config_is_the_defaults(write):
    assert load_detect_config(write("# nothing\n")) == (DetectOptions(), RunOptions())


def test_overrides(write):
    path = write(MINIMAL + "loss: {classification: focal, gamma: 1}\n")
    options = load_train_options(
        path, ["loss.gamma=1.5", "epochs=3", "split.block_m=50", "data.classes=[oak, elm]"]
    )
    assert options.loss.gamma == 1.5
    assert options.epochs == 3
    assert options.split.block_m == 50
    assert options.data.classes == ("oak", "elm")
    assert options.data.labels.endswith("labels.gpkg")


def test_paths_of_overrides_are_taken_from_the_current_folder(write, monkeypatch, tmp_path):
    path = write(MINIMAL)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    options = load_train_options(path, ["data.scenes=[a.tif, /b.tif]", "weights=m.safetensors"])
    assert options.data.scenes == (f"{here}/a.tif", "/b.tif")
    assert options.weights == f"{here}/m.safetensors"
    assert options.data.labels == f"{path.parent}/labels.gpkg"  # the file's own
    for labels in ("l.gpkg", "{path: l.gpkg}", "[{path: l.gpkg}]"):
        given = load_train_options(path, [f"data.labels={labels}"]).data.labels
        assert f"{here}/l.gpkg" in (given, getattr(given[0], "path", None))
    data = load_train_options(path, ["data={scenes: [c.tif], review: r.gpkg}"]).data
    assert (data.scenes, data.review) == ((f"{here}/c.tif",), f"{here}/r.gpkg")


def test_data_paths(write, monkeypatch, tmp_path):
    monkeypatch.setenv("GEO_RETINA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ELSEWHERE", "/elsewhere")
    monkeypatch.setenv("HOME", "/home/someone")
    path = write(
        "data:\n  scenes: [$GEO_RETINA_DATA/train, '${ELSEWHERE}/b.tif', ~/c.tif, s3://d/e.tif]\n"
        "  labels: ../labels.gpkg\n  ground: '${GEO_RETINA_DATA}/ground.gpkg'\n  where: a = '$b'\n"
    )
    data = load_train_options(path).data
    assert data.scenes == (
        f"{tmp_path}/data/train",
        "/elsewhere/b.tif",
        "/home/someone/c.tif",
        "s3://d/e.tif",
    )
    assert data.labels == f"{tmp_path}/project/labels.gpkg"
    assert data.ground == f"{tmp_path}/data/ground.gpkg"
    assert data.where == "a = '$b'"


def test_a_folder_of_data_that_nobody_names_is_asked_for(write, monkeypatch):
    monkeypatch.delenv("GEO_RETINA_DATA", raising=False)
    path = write("data: {scenes: [$GEO_RETINA_DATA/a.tif], labels: b.gpkg}")
    with pytest.raises(OptionError, match=r"data\.scenes uses \$GEO_RETINA_DATA, .* set that"):
        load_train_options(path)


def test_config_named_relatively(write, monkeypatch):
    path = write(MINIMAL)
    monkeypatch.chdir(path.parent)
    assert load_train_options("c.yaml").data.scenes == (f"{path.parent}/a.tif",)


@pytest.mark.parametrize(("number", "value"), [("1e-3", 0.001), ("2E+1", 20.0), (".5", 0.5)])
def test_numbers_as_people_write_them(write, number, value):
    assert load_train_options(write(MINIMAL + f"lr: {number}")).lr == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", "unknown option epoch; did you mean epochs?"),
        ("loss: {gamma: 3}", "gamma is 3, but "),
        ("loss: {classification: balanced, gamma: 3}", "is balanced, which does not use it; "),
        ("loss: {gama: 3}", "unknown option loss.gama; did you mean loss.gamma?"),
        ("network: {chanels: 3}", "unknown option network.chanels; did you mean network.channels?"),
        ("xyzzy: 3", "unknown option xyzzy; known are accumulate, "),
        ("epochs: '3'", 'epochs is "3", expected a valid integer'),
        ("epochs: 2.5", "epochs is 2.5, expected a valid integer"),
        ("epochs: 0", "epochs is 0, expected 1 or more"),
        ("epochs:", "epochs is empty, expected a valid integer"),
        ("lr: true", "lr is true, expected a valid number or 'find'"),
        ("pretrained: 1", "pretrained is 1, expected a valid boolean"),
        ("preset: large", "preset is \"large\", expected 'small', 'paper' or 'paper-101'"),
        ("loss: 3", "loss is 3, expected a group of keys"),
        ("loss: {alpha: 2}", "loss.alpha is 2.0, expected 0 to 1"),
        ("samples: {scale: [1]}", "samples.scale.1 is missing"),
        ("network: {channels: x}", 'network.channels is "x", expected a valid integer'),
        ("network: {levels: [2, 4]}", "network.levels is (2, 4), expected ascending levels"),
        (
            "network: {levels: [2, 3], anchor_sides_px: [[8.0]]}",
            "network.anchor_sides_px is for 1 levels",
        ),
        ("batch: 8\ndevices: 3", "batch is 8, which 3 devices cannot share"),
        ("lr: 1\nlr: 2", "line 5, column 1: not valid YAML, the key lr is given twice"),
        ("loss: {beta: 1, beta: 1}", "the key beta is given twice"),
        ("lr: [1", "not valid YAML"),
        ("lr: !!python/object:os.system 1", "not valid YAML"),
        ("3: x", "the key 3 is the value 3, expected a name"),
    ],
)
def test_wrong_keys_and_values_are_one_sentence_each(write, text, said):
    path = write(MINIMAL + text)
    with pytest.raises(OptionError) as caught:
        load_train_options(path)
    message = str(caught.value)
    assert said in message
    assert message.startswith(str(path))
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "data is missing"),
        ("data: {scenes: [a.tif]}", "data.labels is empty"),
        ("data: {scenes: a.tif, labels: b}", "expected a valid list"),
        ("data: {scenes: [], labels: b}", "data.scenes is empty"),
        ("data: {scenes: [1], labels: b}", "data.scenes.0 is 1, expected a valid string"),
        ("data: {scenes: [$NOWHERE/a], labels: b}", "data.scenes uses $NOWHERE, which is not set"),
        ("- a\n- b", "holds a list, expected a mapping"),
    ],
)
def test_wrong_data(write, monkeypatch, text, said):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(OptionError, match=r"c\.yaml") as caught:
        load_train_options(write(text))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs", "the override epochs has no key and value"),
        ("=3", "the override =3 has no key and value"),
        ("epochs=[1", "the override epochs=[1, line 1"),
        ("name.first=3", "name is a text, not a group of keys"),
        ("loss.gama=3", "did you mean loss.gamma?"),
    ],
)
def test_wrong_overrides(write, override, said):
    with pytest.raises(OptionError) as caught:
        load_train_options(write(MINIMAL + "name: x"), [override])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scroe: 0.3", "unknown option scroe; did you mean score?"),
        ("merge: {iuo: 0.3}", "unknown option merge.iuo; did you mean merge.iou?"),
        ("score: 3", "score is 3.0, expected 0 to 1"),
        ("merge: {iou: 3}", "merge.iou is 3.0, expected 0 to 1"),
        ("workers: many", 'workers is "many", expected a valid integer'),
    ],
)
def test_wrong_detect_config(write, text, said):
    with pytest.raises(OptionError, match=r"c\.yaml: ") as caught:
        load_detect_config(write(text))
    assert said in str(caught.value)


def test_unreadable_configs(write, tmp_path):
    with pytest.raises(OptionError, match=r"nowhere\.yaml does not exist"):
        load_train_options(tmp_path / "nowhere.yaml")
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        load_train_options(tmp_path)
    latin = write("")
    latin.write_bytes(b"name: B\xe4ume")
    with pytest.raises(OptionError, match="it is not UTF-8 text"):
        load_train_options(latin)


def test_dump_refuses_what_is_no_options_value():
    with pytest.raises(TypeError, match="not an options value"):
        dump_options(DetectOptions)


def test_label_layers_are_paths_or_groups(write, monkeypatch):
    monkeypatch.setenv("GEO_RETINA_DATA", "/data")
    path = write(
        "data:\n  scenes: [a.tif]\n  class_column: kind\n  labels:\n    - cars.gpkg\n"
        "    - {path: $GEO_RETINA_DATA/trees.shp, class_name: tree, point_size_m: 4}\n"
        "    - {path: clouds.fgb, ignore: true}\n"
        "  classes: {car: [car, van], tree: [tree]}\n"
        "split: {areas: val.gpkg}\nsamples: {cache_folder: chips}\n"
    )
    options = load_train_options(path)
    folder = str(path.parent)
    cars, trees, clouds = options.data.sources
    assert [each.path for each in (cars, trees, clouds)] == [
        f"{folder}/cars.gpkg",
        "/data/trees.shp",
        f"{folder}/clouds.fgb",
    ]
    assert (cars.class_column, cars.class_name, cars.multi) == ("kind", None, "explode")
    assert (trees.class_column, trees.class_name, trees.point_size_m) == (None, "tree", 4)
    assert (clouds.class_column, clouds.ignore) == (None, True)
    assert options.data.class_of == {"car": "car", "van": "car", "tree": "tree"}
    assert options.data.class_names == ("car", "tree")
    assert options.split.areas == f"{folder}/val.gpkg"
    assert options.samples.cache_folder == f"{folder}/chips"
    assert load_train_options(write(dump_options(options), "again.yaml")) == options
    one = load_train_options(write("data: {scenes: [a], labels: {path: b.gpkg, layer: x}}"))
    assert one.data.sources[0].layer == "x"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("labels: 3", "data.labels is 3, expected a file, or a list of layers"),
        ("labels: [3]", "data.labels.0 is 3, expected a file or a group of keys"),
        ("labels: []", "data.labels is empty, expected at least one layer"),
        (
            "labels: [{path: b, clas_name: x}]",
            "unknown option data.labels.0.clas_name; did you mean data.labels.0.class_name?",
        ),
        ("labels: [b, {layer: x}]", "data.labels.1.path is missing"),
        ("labels: [{path: b, ignore: 1}]", "data.labels.0.ignore is 1, expected a valid boolean"),
        (
            "labels: [{path: b, point_size_m: 0}]",
            "data.labels.0.point_size_m is 0.0, expected 1e-06",
        ),
        ("labels: [{path: b, class_column: c, class_name: d}]", "class_name are both given"),
        ("labels: [{path: b, ignore: true}]", "data.labels is empty"),
        ("labels: b, multi: boxes", "data.multi is \"boxes\", expected 'explode' or 'box'"),
        ("labels: b, classes: 3", "data.classes is 3, expected a valid list"),
        ("labels: b, classes: {a: [x], b: [x]}", "data.classes has x in a and in b"),
        ("labels: b, ground_laier: x", "did you mean data.ground_layer?"),
    ],
)
def test_wrong_label_layers(write, data, said):
    with pytest.raises(OptionError, match=r"c\.yaml") as caught:
        load_train_options(write(f"data: {{scenes: [a.tif], {data}}}"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("split: {colum: x}", "did you mean split.column?"),
        ("split: {val: [a]}", "give split.column"),
        ("samples: {drop_visible: 0.6}", "samples.drop_visible 0.6 is above min_visible 0.5"),
        ("samples: {empty_share: 0.3}", "samples.object_share 0.8 and empty_share 0.3 are more"),
        ("samples: {hard_from_epochs: 2}", "did you mean samples.hard_from_epoch?"),
    ],
)
def test_wrong_split_and_samples(write, text, said):
    with pytest.raises(OptionError) as caught:
        load_train_options(write(MINIMAL + text))
    assert said in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path, encoding):
    path = tmp_path / "train.yaml"
    path.write_bytes("data: {scenes: [a.tif], labels: lä.gpkg}\r\n".encode(encoding))
    assert load_train_options(path).data.labels == str(tmp_path / "lä.gpkg")


def test_paths_of_windows(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "l.gpkg").write_bytes(b"")
    path = tmp_path / "train.yaml"
    path.write_text(r"data: {scenes: ['C:\maps\a.tif', 'in\a.tif'], labels: 'in\l.gpkg'}")
    data = load_train_options(path).data
    assert data.scenes == (r"C:\maps\a.tif", str(tmp_path / r"in\a.tif"))
    assert data.labels == str(tmp_path / "in" / "l.gpkg")
