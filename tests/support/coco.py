"""Annotations in COCO's form, and average precision by pycocotools, without its caps."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np

WHOLE = (0.0, 1e10)


def write_coco(
    path: Path, files, boxes_px, *, classes=("thing",), size=None, crowd=(), encoding="utf-8"
) -> Path:
    """Write annotations.

    Args:
        path: of the JSON to write.
        files: names of the images.
        boxes_px: (position of the image, box) each, of one class after the other.
        classes: their names.
        size: height and width of the images, where they are stated.
        crowd: positions of the boxes that are marked so.
        encoding: of the file; "utf-8-sig" gives it a byte-order mark.
    """
    sides = {} if size is None else {"height": size[0], "width": size[1]}
    content = {
        "images": [{"id": i, "file_name": str(name), **sides} for i, name in enumerate(files)],
        # Ids are no positions: they run down, and have gaps.
        "categories": [{"id": 7 - 4 * k, "name": name} for k, name in enumerate(classes)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 7 - 4 * (n % len(classes)),
             "bbox": [float(v) for v in (x0, y0, x1 - x0, y1 - y0)], "iscrowd": int(n in crowd)}
            for n, (i, (x0, y0, x1, y1)) in enumerate(boxes_px)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding=encoding)
    return path


def coco_precision(found, truth, *, images, classes, crowds=(), ranges=(WHOLE,)):
    """Precision (IoU, recall, class, range) by pycocotools; -1 where there is no label.

    Args:
        found: (box, image, class, score) each.
        truth: (box, image, class) each.
        images: number of images.
        classes: number of classes.
        crowds: (box, image) each: regions to ignore, of every class.
        ranges: ranges of area.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = [entry(b, image_id=i, category_id=k, iscrowd=0) for b, i, k in truth]
    labels += [
        entry(b, image_id=i, category_id=k, iscrowd=1) for b, i in crowds for k in range(classes)
    ]
    given = [entry(b, image_id=i, category_id=k, score=s) for b, i, k, s in found]
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in (labels, given):
            side = COCO()
            side.dataset = {
                "images": [{"id": i} for i in range(images)],
                "categories": [{"id": k} for k in range(classes)],
                "annotations": [{**a, "id": n + 1} for n, a in enumerate(annotations)],
            }
            side.createIndex()
            sides.append(side)
        run = COCOeval(*sides, "bbox")
        run.params.maxDets = [100_000]
        run.params.areaRng = [list(r) for r in ranges]
        run.params.areaRngLbl = [str(r) for r in ranges]
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][..., 0]


def entry(box, **more):
    x0, y0, x1, y1 = box
    return {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), **more}


def averages(precision):
    """AP50, AP75 and AP of (IoU, recall, class): the means of what is not -1; None without any."""
    valid = precision[:, :, (precision > -1).any(axis=(0, 1))]
    if not valid.size:
        return None, None, None
    return valid[0].mean(), valid[5].mean(), valid.mean()


def random_objects(rng, *, images, classes, objects, spread=120.0, sides=(4.0, 24.0)):
    """Labels, and detections near most of them and elsewhere; boxes in pixels, scores differ."""

    def box():
        low = rng.uniform(0, spread, 2)
        return np.concatenate([low, low + rng.uniform(*sides, 2)])

    truth = [(box(), int(rng.integers(images)), int(rng.integers(classes))) for _ in range(objects)]
    found = []
    for b, i, k in truth:
        for _ in range(int(rng.integers(0, 3))):
            moved = b + rng.normal(0, 1.5, 4)
            if (moved[2:] > moved[:2]).all():
                found.append((moved, i, k, rng.random() + 0.5))
    found += [
        (box(), int(rng.integers(images)), int(rng.integers(classes)), rng.random())
        for _ in range(objects)
    ]
    return found, truth
