"""A scene merged through the ledger, a row of blocks at a time, against all at once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st
from properties.strategies import merge_options, scenes

from geo_retina.detections import Detections
from geo_retina.merge import merge_block, merge_tiles
from geo_retina.options import DetectOptions
from geo_retina.run import BlockResult, Ledger, ScenePlan, manifest_for, merge_scene


def through_the_ledger(folder, detections, plan, blocks, options):
    """(objects, rows of blocks that they came in)."""
    manifest = manifest_for(["a.tif"], {}, "model", DetectOptions(merge=options), 4096)
    ledger = Ledger.open(Path(folder) / "run", manifest)
    for block in reversed(blocks):  # blocks finish in any order
        row, col = np.divmod(detections.tile, plan.cols)
        mine = np.isin(row, block.tile_rows) & np.isin(col, block.tile_cols)
        settled, left = merge_block(detections.take(mine), plan, block, options)
        result = BlockResult(0, block.index, block.window, settled, undecided=left)
        ledger.write(block.index, [result])
    [record] = ledger.scenes()
    ledger.close()
    return list(merge_scene(record, ScenePlan(0, None, plan, tuple(blocks)), options))


@settings(max_examples=25, deadline=None)
@given(st.data(), merge_options(), st.sampled_from([1, 60, 120, 10_000]))
def test_any_size_of_block_gives_the_merge_of_all_at_once(data, options, block_px):
    detections, plan = data.draw(scenes(options))
    blocks = plan.blocks(block_px)
    with TemporaryDirectory() as folder:
        rows = through_the_ledger(folder, detections, plan, blocks, options)
    event(f"rows of blocks: {len(rows)}")
    assert len(rows) == len({block.tile_rows.start for block in blocks})
    assert Detections.concat(rows) == merge_tiles(detections, plan, options)
