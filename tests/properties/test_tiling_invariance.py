"""With a detector that finds what a tile sees whole, tiling must not change the result."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stubs import ROTATED, paint, stub_model, write_scene

from geo_retina.detector import detect
from geo_retina.options import DetectOptions, RunOptions

LARGEST_PX = 30


@st.composite
def scattered(draw) -> tuple[tuple[int, int], np.ndarray]:
    """A scene's shape, and whole-pixel boxes on it, at least a pixel apart and off the border."""
    height, width = draw(st.integers(40, 330)), draw(st.integers(40, 330))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    taken = np.zeros((height + 2, width + 2), bool)
    boxes = []
    for _ in range(draw(st.integers(0, 60))):
        w, h = rng.integers(3, LARGEST_PX + 1, 2)
        x, y = rng.integers(1, max(2, width - w)), rng.integers(1, max(2, height - h))
        if x + w < width and y + h < height and not taken[y : y + h + 2, x : x + w + 2].any():
            taken[y + 1 : y + h + 1, x + 1 : x + w + 1] = True
            boxes.append((x, y, x + w, y + h))
    return (height, width), np.array(boxes, float).reshape(-1, 4)


tilings = st.tuples(
    st.sampled_from([64, 96, 128, 192, 512]),
    st.integers(LARGEST_PX + 2, 32 + LARGEST_PX),
    st.sampled_from([64, 128, 200, 4096]),
    st.integers(1, 3),
    st.integers(1, 2),
)


@given(scene=scattered(), tiling=tilings)
@settings(max_examples=12, deadline=None)
def test_every_tiling_finds_every_object_once(scene, tiling):
    shape, boxes = scene
    tile_px, overlap_px, block_px, batch, workers = tiling
    if tile_px - overlap_px < 32:
        tile_px = 96
    with TemporaryDirectory() as folder:
        path = write_scene(Path(folder) / "a.tif", paint(shape, boxes), affine=ROTATED)
        found = detect(
            path,
            stub_model(),
            DetectOptions(tile_px=tile_px, overlap_px=overlap_px, precision="fp32"),
            RunOptions(device="cpu", block_px=block_px, batch=batch, workers=workers, threads=2),
        )
    columns = ["x_min_px", "y_min_px", "x_max_px", "y_max_px"]
    in_order = boxes[np.lexsort(boxes.T[::-1])]
    placed = found[columns].to_numpy()
    np.testing.assert_array_equal(placed[np.lexsort(placed.T[::-1])], in_order)
    assert not found["joined"].any()
    # Corners lie where the affine puts the pixel edges, on a rotated grid too.
    for (x_min, y_min, x_max, y_max), polygon in zip(placed, found.geometry, strict=True):
        wanted = {
            ROTATED @ xy for xy in [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]
        }
        corners = set(polygon.exterior.coords[:-1])
        assert len(corners) == 4
        for corner in corners:
            assert min(np.hypot(corner[0] - x, corner[1] - y) for x, y in wanted) < 1e-8
