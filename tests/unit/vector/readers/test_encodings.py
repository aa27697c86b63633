"""Names with commas, other forms of Unicode, misspelt ones, and texts of unnamed encodings."""

import logging
import unicodedata

import geopandas as gpd
import numpy as np
import pytest
import shapely
from support.coco import write_coco

from geo_retina import (
    DataOptions,
    EvaluateOptions,
    FilterOptions,
    LabelError,
    LabelOptions,
    OptionError,
    SplitOptions,
    evaluate,
    filter_detections,
)
from geo_retina.cli import app, main
from geo_retina.dataset.sources import number_classes, read_source_layers
from geo_retina.dataset.split import _named_or_dealt
from geo_retina.errors import TrainingError
from geo_retina.options import it_has, split_names
from geo_retina.postprocess import filtering
from geo_retina.vector import read_area, read_coco, read_labels
from geo_retina.vector.writers.outputs import Companions

NAMES = ("oak, red", "vehicle", "oak, red", "a b")
CHINESE = ("\u6811\u6728", "\u8f66\u8f86")
DECOMPOSED = unicodedata.normalize("NFD", "Bäume")


def layer(path, names, *, column="class", crs="EPSG:32632", **how):
    boxes = shapely.box(*(np.arange(len(names)) * 10.0 + start for start in (0, 0, 5, 5)))
    columns = {column: list(names), "score": np.linspace(0.9, 0.6, len(names))}
    gpd.GeoDataFrame(columns, geometry=boxes, crs=crs).to_file(path, **how)
    return path


def bare_shapefile(folder, names=CHINESE, encoding="GBK"):
    """A shapefile whose .cpg was lost on the way."""
    path = layer(folder / "l.shp", names, encoding=encoding)
    path.with_suffix(".cpg").unlink()
    return path


# Names


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a,b", ["a", "b"]),
        ("a, b", ["a", "b"]),
        ('"oak, red",vehicle', ["oak, red", "vehicle"]),
        ('vehicle, "oak, red"', ["vehicle", "oak, red"]),
        ("a b", ["a b"]),
        ("", []),
    ],
)
def test_a_list_of_names_keeps_commas_in_quotes(text, wanted):
    assert split_names(text) == wanted


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (["oak, red"], 2),
        (['"oak, red"'], 2),
        (['vehicle,"oak, red"'], 3),
        (["vehicle", "oak, red"], 3),
        (["vehicle, a b"], 2),
        (["a b"], 1),
    ],
)
def test_classes_with_commas_and_spaces_can_be_chosen(tmp_path, capsys, asked, kept):
    path = layer(tmp_path / "found, all.gpkg", NAMES)
    out = tmp_path / "kept, some.gpkg"
    assert main(["filter", str(path), "--classes", *asked, "--out", str(out)]) == 0
    assert len(gpd.read_file(out)) == kept
    assert f"{kept} of 4 objects kept" in capsys.readouterr().out


def test_a_misspelt_class_keeps_nothing_in_silence(tmp_path, capsys):
    path = layer(tmp_path / "f.gpkg", NAMES)
    out = tmp_path / "o.gpkg"
    assert main(["filter", str(path), "--classes", "vehicel", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert 'has no class vehicel; it has a b, "oak, red", vehicle; did you mean vehicle?' in said
    assert not out.exists()
    with pytest.raises(OptionError, match=r"has no class ships; it has a b, .*vehicle$"):
        filter_detections(path, out, FilterOptions(classes=("vehicle", "ships")))


def test_another_form_of_unicode_is_the_same_class(tmp_path):
    path = layer(tmp_path / "f.gpkg", [DECOMPOSED, "x"])
    report = filter_detections(path, tmp_path / "o.gpkg", FilterOptions(classes=("Bäume",)))
    assert report.counts == {DECOMPOSED: 1}  # as the file spells it
    truth = layer(tmp_path / "t.gpkg", ["Bäume", "x"])
    found = evaluate(path, truth, EvaluateOptions(class_column="class", resamples=0))
    assert found.overall.f1 == 1.0


def test_names_of_scenes_stay_as_their_files_are_called(tmp_path):
    path = layer(tmp_path / "l.gpkg", [DECOMPOSED], column="scene")
    assert read_labels(path, scene_column="scene").scenes.tolist() == [DECOMPOSED]
    options = EvaluateOptions(scene_column="scene", resamples=0)
    assert evaluate(path, path, options).overall.f1 == 1.0


def test_categories_of_coco_are_one_form_of_unicode(tmp_path):
    path = write_coco(tmp_path / "c.json", ["a.tif"], [(0, (0, 0, 5, 5))], classes=[DECOMPOSED])
    assert read_coco(path).class_names.tolist() == ["B\u00e4ume"]


def test_a_score_holds_for_classes_that_a_person_entered(tmp_path, monkeypatch):
    path = layer(tmp_path / "f.gpkg", ["a", "b", "b"])  # scores 0.9, 0.75, 0.6
    written = Companions(None, None, {"thresholds": '{"a": 0.1}'})  # b came later, in a GIS
    monkeypatch.setattr(filtering, "read_companions", lambda path: written)
    options = FilterOptions(classes=("b",), score=0.7)
    assert filter_detections(path, tmp_path / "o.gpkg", options).kept == 1


def test_the_classes_of_a_training_are_checked_with_a_suggestion(tmp_path, caplog):
    path = layer(tmp_path / "l.gpkg", ["oak, red", DECOMPOSED])

    def numbered(classes):
        options = DataOptions(
            scenes=("a.tif",), labels=str(path), class_column="class", classes=classes
        )
        sources, _ = read_source_layers(options, place_column=None)
        return number_classes(sources, options), sources[0].numbers.tolist()

    assert numbered(["Bäume", "oak, red"]) == (("Bäume", "oak, red"), [1, 0])
    with pytest.raises(LabelError, match=r"class = Bäum, .* it holds Bäume, \"oak, red\"; did you"):
        numbered(["Bäum", "oak, red"])
    with caplog.at_level(logging.WARNING):
        assert numbered({"tree": ["oak, red", "Bäumee"]})[1] == [0]
    assert "is called Bäumee, which data.classes takes for tree" in caplog.text


def test_columns_and_layers_are_suggested_too(tmp_path):
    path = layer(tmp_path / "l.gpkg", NAMES)
    with pytest.raises(LabelError, match=r"no class column klass; .*did you mean class\?"):
        read_labels(path, class_column="klass")
    with pytest.raises(LabelError, match=r"has no layer roofs; it has l$"):
        read_labels(path, layer="roofs")
    assert it_has("x", [str(i) for i in range(25)]).endswith("19 and 5 more")


def test_names_with_commas_can_be_given_to_an_import():
    line = [
        "import",
        "a.pt",
        "--gsd",
        "0.1m",
        "--out",
        "a.safetensors",
        "--classes",
        '"oak, red",car',
    ]
    _, bound, _ = app.parse_args(line, exit_on_error=False)
    assert bound.arguments["options"].classes == ("oak, red", "car")


def test_a_filter_of_labels_to_ignore_that_fits_none_is_said(tmp_path, caplog):
    path = layer(tmp_path / "f.gpkg", NAMES)
    options = EvaluateOptions(ignore_where="class = 'vehicel'", resamples=0)
    with caplog.at_level(logging.WARNING):
        assert evaluate(path, path, options).overall.f1 == 1.0
    assert "fits none of the 4 labels" in caplog.text


def test_a_place_of_a_split_is_suggested():
    options = SplitOptions(column="usage", val=("vaild",))
    with pytest.raises(
        TrainingError, match=r"usage = vaild .* it holds fit, valid; did you mean valid"
    ):
        _named_or_dealt({"fit": 1.0, "valid": 1.0}, options, 0, "a.gpkg")


# Encodings


def test_an_encoding_that_is_named_is_used_by_every_reader(tmp_path, caplog):
    path = bare_shapefile(tmp_path)
    assert tuple(read_labels(path, class_column="class", encoding="GBK").class_names) == CHINESE
    where = f"class = '{CHINESE[1]}'"
    assert len(read_labels(path, where=where, encoding="gb18030")) == 1
    options = DataOptions(
        scenes=("a.tif",),
        labels=(LabelOptions(path=str(path)),),
        class_column="class",
        classes=CHINESE,
        encoding="GBK",
    )
    sources, _ = read_source_layers(options, place_column=None)
    assert number_classes(sources, options) == CHINESE
    found = layer(tmp_path / "found.gpkg", CHINESE)
    score = EvaluateOptions(class_column="class", encoding="GBK", resamples=0)
    assert evaluate(found, path, score).overall.f1 == 1.0
    chosen = FilterOptions(classes=CHINESE[:1], encoding="GBK")
    report = filter_detections(path, tmp_path / "o.gpkg", chosen)
    assert report.counts == {CHINESE[0]: 1}
    assert gpd.read_file(tmp_path / "o.gpkg")["class"].tolist() == [CHINESE[0]]
    assert not caplog.records


def test_a_guessed_encoding_is_said(tmp_path, caplog):
    path = bare_shapefile(tmp_path)
    with caplog.at_level(logging.WARNING):
        garbled = read_labels(path, class_column="class").class_names[0]
    assert f"such as {garbled}, and they were read as ISO-8859-1; if they look" in caplog.text
    options = DataOptions(
        scenes=("a.tif",), labels=str(path), class_column="class", classes=CHINESE
    )
    sources, _ = read_source_layers(options, place_column=None)
    with pytest.raises(LabelError, match=r"does not say the encoding .* \.cpg file"):
        number_classes(sources, options)
    caplog.clear()
    (tmp_path / "u").mkdir()
    with caplog.at_level(logging.WARNING):
        read_labels(bare_shapefile(tmp_path / "u", encoding="UTF-8"))
    assert "they are likely UTF-8" in caplog.text


def test_plain_texts_and_named_encodings_are_not_doubted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read_labels(bare_shapefile(tmp_path, ("tree", "car")))
        read_labels(layer(tmp_path / "n.shp", CHINESE, encoding="GBK"))
    assert not caplog.records


def test_the_encoding_of_a_shapefile_does_not_garble_a_geopackage(tmp_path):
    path = layer(tmp_path / "l.gpkg", CHINESE)
    assert tuple(read_labels(path, class_column="class", encoding="GBK").class_names) == CHINESE


def test_a_wrong_encoding_is_one_sentence_and_hides_no_polygon(tmp_path):
    path = bare_shapefile(tmp_path)
    path.with_suffix(".cpg").write_text("UTF-8")
    with pytest.raises(LabelError, match=r"texts that are not UTF-8, .*; find out the encoding"):
        read_labels(path, class_column="class")
    assert len(read_area(path).polygons) == 2
    assert tuple(read_labels(path, class_column="class", encoding="GBK").class_names) == CHINESE


@pytest.mark.parametrize(
    "make",
    [
        lambda name: LabelOptions(path="a.shp", encoding=name),
        lambda name: DataOptions(scenes=("a.tif",), labels="a.shp", encoding=name),
        lambda name: EvaluateOptions(encoding=name),
        lambda name: FilterOptions(encoding=name),
        lambda name: SplitOptions(areas_encoding=name),
    ],
)
def test_an_unknown_encoding_is_refused_at_birth(make):
    make("GBK")
    with pytest.raises(
        OptionError, match=r"encoding is 'GBX', expected the name of a text encoding"
    ):
        make("GBX")
