"""Small real things to test with: scenes with known pixels, a tiny model, a stub network."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from geo_retina.options import NetworkOptions

UTM = "EPSG:32633"
ROTATED = (
    Affine.translation(400_000.25, 5_000_000.5) @ Affine.rotation(30) @ Affine.scale(0.4, -0.7)
)
NORTH_UP = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)


def write_scene(
    path: Path,
    pixels: np.ndarray,
    *,
    affine: Affine = NORTH_UP,
    crs: str | None = UTM,
    nodata: float | None = None,
    descriptions: Sequence[str] = (),
) -> Path:
    """Write (bands, height, width) pixels as a tiled GeoTIFF."""
    bands, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=bands,
        dtype=pixels.dtype,
        crs=crs,
        transform=affine,
        nodata=nodata,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress="deflate",
        photometric="MINISBLACK",
        alpha="UNSPECIFIED",
    ) as dataset:
        dataset.write(pixels)
        for i, text in enumerate(descriptions, 1):
            dataset.set_band_description(i, text)
    return path


def paint(shape: tuple[int, int], boxes_px: np.ndarray, bands: int = 3) -> np.ndarray:
    """(bands, height, width) uint8: whole-pixel boxes in white on grey."""
    pixels = np.full((bands, *shape), 60, np.uint8)
    for x_min, y_min, x_max, y_max in boxes_px.astype(int):
        pixels[:, y_min:y_max, x_min:x_max] = 255
    return pixels


TINY_NETWORK = NetworkOptions(
    backbone="test_resnet",
    levels=(2, 3),
    channels=16,
    convs=1,
    anchor_sides_px=((12.0,), (24.0,)),
)


def tiny_card(**changes: object):
    """A card for three uint8 bands at 0.5 m with two classes."""
    from geo_retina.model import Band, Card, Radiometry

    values = {
        "name": "tiny",
        "classes": ("car", "tree"),
        "bands": tuple(Band(name, i) for i, name in enumerate(("red", "green", "blue"), 1)),
        "radiometry": Radiometry("uint8", (127.5,) * 3, (127.5,) * 3),
        "gsd_m": 0.5,
        "gsd_range_m": (0.3, 1.0),
        "tile_px": 128,
        "object_px": (8.0, 10.0, 12.0),
        "network": TINY_NETWORK,
        "thresholds": (0.5, 0.5),
    }
    return Card(**{**values, **changes})


def tiny_model(seed: int = 0, **changes: object):
    """A model with random weights; it loads, runs and finds nothing much."""
    import torch

    from geo_retina.model import Model, build_network

    card = tiny_card(**changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(
            card.network, in_channels=len(card.bands), classes=len(card.classes)
        )
    return Model(network.eval(), card)


def white_rectangles(tiles_NCHW):
    """Find every white rectangle that lies wholly inside its tile.

    A rectangle that meets a tile's side is not found, so that it counts only where a tile sees
    all of it. Its class follows from its form: wide is 0, high is 1.
    """
    import torch
    from scipy import ndimage

    from geo_retina import Decoded

    boxes, labels, image = [], [], []
    for i, pixels in enumerate(tiles_NCHW[:, 0].float().cpu().numpy()):
        side_y, side_x = pixels.shape
        marked, _ = ndimage.label(pixels > 0.9)
        for rows, cols in ndimage.find_objects(marked):
            if rows.start and cols.start and rows.stop < side_y and cols.stop < side_x:
                boxes.append((cols.start, rows.start, cols.stop, rows.stop))
                labels.append(int(cols.stop - cols.start < rows.stop - rows.start))
                image.append(i)
    return Decoded(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.full((len(boxes),), 0.75),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(image, dtype=torch.int64),
        torch.zeros(len(tiles_NCHW), dtype=torch.bool),
    )


def white_parts(tiles_NCHW):
    """Find every white rectangle, also those that a tile's side cuts; all of class 0."""
    import torch
    from scipy import ndimage

    from geo_retina import Decoded

    boxes, image = [], []
    for i, pixels in enumerate(tiles_NCHW[:, 0].float().cpu().numpy()):
        marked, _ = ndimage.label(pixels > 0.9)
        for rows, cols in ndimage.find_objects(marked):
            boxes.append((cols.start, rows.start, cols.stop, rows.stop))
            image.append(i)
    return Decoded(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.full((len(boxes),), 0.75),
        torch.zeros(len(boxes), dtype=torch.int64),
        torch.tensor(image, dtype=torch.int64),
        torch.zeros(len(tiles_NCHW), dtype=torch.bool),
    )


class StubPredictor:
    """Finds boxes without a network, on the CPU."""

    def __init__(self, model, options, *, device="cpu", batch=None, find=white_rectangles):
        import torch

        self.device = torch.device("cpu")
        self.batches_at_once = 2
        self._batch = batch
        self._find = find

    def batch_size(self, tile_px):
        """Count the tiles of a batch."""
        return self._batch or max(1, (1 << 20) // tile_px**2)

    def predict(self, tiles_NCHW, *, all_boxes=False):
        """Find what the stub was told to find."""
        return self._find(tiles_NCHW)


def stub_model(find=None, *, boxes="upright", **changes):
    """A tiny model that finds boxes by a function of a batch of tiles: white rectangles."""
    predictor = functools.partial(StubPredictor, find=find) if find else StubPredictor
    model = tiny_model(**changes)
    network = dataclasses.replace(model.card.network, boxes=boxes)
    card = dataclasses.replace(model.card, network=network)
    return dataclasses.replace(model, card=card, predictor=predictor)


def load_stub_model(name_or_path):
    """Load a model file, and let it find white rectangles."""
    from geo_retina.model import load_model

    return dataclasses.replace(load_model(name_or_path), predictor=StubPredictor)


LOADED_BY_RUNS = "geo_retina.run.run_plan.load_model"
"""Where a run loads the model that it is given the name of; ``load_stub_model`` takes its place
in tests of the command line, which gives runs names only."""


def slow_command(seconds):
    """Write a program: the command line, whose network takes so much longer for every batch."""
    return f"""
import sys, time
from geo_retina.cli import main
from geo_retina.engine import TorchPredictor
plain = TorchPredictor.predict
def slow(self, tiles, **how):
    time.sleep({seconds})
    return plain(self, tiles, **how)
TorchPredictor.predict = slow
sys.exit(main())
"""
