"""COCO's JSON, good and bad."""

import json

import numpy as np
import pytest

from geo_retina.errors import LabelError
from geo_retina.vector import is_coco, read_coco
from geo_retina.vector.readers.frames import check_readable

IMAGE = {"id": 1, "file_name": "a.png", "height": 50, "width": 60}
CAR = {"id": 4, "name": "car"}


def write(path, annotations, images=(IMAGE,), categories=(CAR,)):
    content = {
        "images": list(images),
        "annotations": list(annotations),
        "categories": [*categories],
    }
    path.write_text(json.dumps(content))
    return path


def note(**how):
    return {"id": 9, "image_id": 1, "category_id": 4, **how}


def test_boxes_and_polygons_in_pixels_at_their_edges(tmp_path):
    path = write(
        tmp_path / "c.json",
        [
            note(bbox=[1, 2, 3, 4]),
            note(segmentation=[[5, 5, 9, 5, 9, 12], [4, 6, 5, 6, 5, 7]]),
            note(bbox=[1, 1, 2, 2], iscrowd=1),
            note(segmentation={"counts": [1], "size": [50, 60]}),
            note(bbox=[1, 1, 0, 2]),
        ],
    )
    labels = read_coco(path)
    np.testing.assert_array_equal(labels.boxes_file, [[1, 2, 4, 6], [4, 5, 9, 12], [1, 1, 3, 3]])
    assert labels.class_names.tolist() == ["car"] * 3
    assert labels.ignored.tolist() == [False, False, True]
    assert (labels.dropped_null, labels.dropped_invalid) == (1, 1)
    assert labels.shapes.tolist() == [[50, 60]]
    assert len(labels.take(labels.ignored)) == 1


def test_no_annotation_is_no_label(tmp_path):
    assert len(read_coco(write(tmp_path / "c.json", []))) == 0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"annotations": [note(image_id=2, bbox=[1, 1, 1, 1])]}, "annotation 9 .* image 2"),
        ({"annotations": [note(category_id=2, bbox=[1, 1, 1, 1])]}, "annotation 9 .* category 2"),
        ({"annotations": [], "images": [IMAGE, IMAGE]}, "two images of id 1"),
        ({"annotations": [], "categories": [{"id": 1}]}, "categories .* no id or no name"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(tmp_path, how, said):
    with pytest.raises(LabelError, match=said):
        read_coco(write(tmp_path / "c.json", **how))


def test_other_json_is_told_from_coco(tmp_path):
    geojson = tmp_path / "g.json"
    geojson.write_text('{"type": "FeatureCollection", "features": []}')
    assert not is_coco(geojson)
    assert is_coco(write(tmp_path / "c.json", []))
    assert not is_coco(tmp_path / "nowhere.json")
    assert not is_coco(tmp_path / "c.gpkg")
    with pytest.raises(LabelError, match="no list images"):
        read_coco(geojson)
    geojson.write_text("{")
    with pytest.raises(LabelError, match="not a JSON file"):
        read_coco(geojson)
    with pytest.raises(LabelError, match="does not exist"):
        read_coco(tmp_path / "nowhere.json")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path, encoding):
    path = write(tmp_path / "l.JSON", [note(bbox=[1, 2, 3, 4])])
    path.write_bytes(path.read_text("utf-8").encode(encoding))
    assert is_coco(path)
    np.testing.assert_array_equal(read_coco(path).boxes_file, [[1, 2, 4, 6]])


def test_where_ground_is_needed_coco_is_named_in_the_refusal(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(LabelError, match=r"holds COCO's JSON.* lie in the pixels of images"):
        check_readable(path)
