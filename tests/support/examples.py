"""The small files that examples in docstrings work on, all made here."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import torch
import yaml
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import geo_retina
from geo_retina import ReviewOptions, RunOptions, SynthOptions

SIDE_PX = 512


def make_example_files(folder: Path) -> None:
    """Draw a scene with its labels, detect in it, prepare a review, a config and a checkpoint."""
    scene, labels = folder / "scene.tif", folder / "labels.gpkg"
    options = SynthOptions(height=SIDE_PX, width=SIDE_PX, seed=3)
    geo_retina.draw_scene(scene, options, truth=labels)
    run = RunOptions(device="cpu", workers=1)
    geo_retina.detect_to_file(scene, "demo", folder / "detections.gpkg", run=run)
    _complete_review(folder)
    (folder / "train.yaml").write_text(yaml.safe_dump(_TRAINING))
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    torch.save(RetinaNet(backbone, num_classes=2).state_dict(), folder / "torchvision.pth")


_TRAINING = {
    "name": "example",
    "data": {"scenes": ["scene.tif"], "labels": "labels.gpkg", "class_column": "class"},
    "network": {"backbone": "test_resnet", "channels": 16, "convs": 1},
    "pretrained": False,
    "split": {"block_m": 30.0, "val_fraction": 0.3},
    "samples": {"window_px": 128},
    "epochs": 1,
    "samples_per_epoch": 4,
    "batch": 2,
    "lr": 0.001,
    "nms_iou": 0.5,
    "workers": 0,
    "picture_every": 0,
    "device": "cpu",
}


def _complete_review(folder: Path) -> None:
    """Prepare a review of the detections, all cells of which a person has completed."""
    reviewed = folder / "reviewed.gpkg"
    geo_retina.filter_detections(folder / "detections.gpkg", reviewed)
    geo_retina.review_detections(reviewed, ReviewOptions(cell_size_m=20.0, cells=20))
    with sqlite3.connect(reviewed) as database:
        database.execute("UPDATE cells SET status = 'done'")
        database.execute("UPDATE review SET status = 'accepted' WHERE status = 'new'")
    database.close()
