"""From review to better model: corrected detections are labels, what was scanned is ground."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from support.detections import detections_of
from support.fields import field

from geo_retina.boxes import to_polygons
from geo_retina.dataset.labelled_scenes import load_training_set
from geo_retina.options import DataOptions, SampleOptions, SplitOptions, TrainOptions
from geo_retina.scene import open_scene
from geo_retina.training import check_labels, train
from geo_retina.vector import detections_table, write_vector


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    """Detections on the left three quarters of a scene, then corrected as a person would."""
    folder = tmp_path_factory.mktemp("review")
    scene, _, boxes_px = field(folder)
    grid = open_scene(scene).grid
    seen = boxes_px[boxes_px[:, 2] <= 300]
    found = detections_of(seen, np.linspace(0.9, 0.3, len(seen)))
    path = folder / "detections.gpkg"
    table = detections_table(found, grid, classes=("square",), scene="field", to_file=None)
    write_vector(path, [table], crs=grid.crs, overwrite=False)
    scanned = to_polygons(np.array([[0.0, 0, 300, 400]]), grid)
    gpd.GeoDataFrame({"scene": ["field"]}, geometry=list(scanned), crs=grid.crs).to_file(
        path, layer="scanned"
    )
    return scene, path, grid, correct(path, grid), seen


def correct(path, grid):
    """Delete one box, move one, draw one without any attribute but its class, and rename some."""
    frame = gpd.read_file(path, layer="detections")
    assert len(frame) > 100
    frame = frame.drop(index=[0])
    moved = frame.geometry.iloc[0]
    frame.loc[frame.index[0], "geometry"] = shapely.affinity.translate(moved, xoff=2.0)
    frame.loc[frame.index[1:31], "class"] = "tile"
    drawn = to_polygons(np.array([[280.0, 3, 294, 17]]), grid)
    new = gpd.GeoDataFrame({"class": ["square"]}, geometry=list(drawn), crs=frame.crs)
    frame = gpd.GeoDataFrame(pd.concat([frame, new], ignore_index=True), crs=frame.crs)
    frame.to_file(path, layer="detections")
    return frame


def options_for(scene, path, **how):
    data = DataOptions(
        scenes=(str(scene),),
        labels=str(path),
        layer="detections",
        class_column="class",
        scene_column="scene",
        ground=str(path),
        ground_layer="scanned",
        ground_scene_column="scene",
    )
    return TrainOptions(
        data=data,
        network={"backbone": "test_resnet", "channels": 16, "convs": 1},
        pretrained=False,
        split=SplitOptions(block_m=40.0, val_fraction=0.25),
        samples=SampleOptions(window_px=128),
        epochs=1,
        samples_per_epoch=8,
        batch=4,
        nms_iou=0.5,
        workers=0,
        picture_every=0,
        quantize=False,
        device="cpu",
        precision="fp32",
        **how,
    )


def test_labels_are_the_corrected_ones_on_the_ground_that_was_looked_at(reviewed):
    scene, path, grid, frame, seen = reviewed
    found = load_training_set(options_for(scene, path).data)
    assert found.classes == ("square", "tile")
    each = found.scenes[0]
    bounds = shapely.bounds(shapely.transform(np.asarray(frame.geometry), grid.crs_to_pixels))
    np.testing.assert_allclose(np.sort(each.boxes_px, axis=0), np.sort(bounds, axis=0), atol=1e-6)
    assert len(each.boxes_px) == len(seen)  # one deleted, one drawn
    assert found.counts.per_class == {"square": len(seen) - 30, "tile": 30}
    assert found.counts.by_place == 1
    mask = each.labelled(grid.window)
    assert mask[:, :300].all()
    assert not mask[:, 300:].any()  # the objects there are no background


def test_it_trains(reviewed, tmp_path):
    scene, path, *_ = reviewed
    options = options_for(scene, path)
    report = check_labels(options)
    assert report.parts["train"].labels > 50
    model = train(options)
    assert model.card.classes == ("square", "tile")
    assert model.card.training["options"]["data"]["ground_layer"] == "scanned"
    assert model.card.training["labels"]["by_place"] == 1
