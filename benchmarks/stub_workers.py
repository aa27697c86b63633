"""Dask workers in one process, whose network is a stub that takes a given time.

    python benchmarks/stub_workers.py tcp://127.0.0.1:8786 --count 16

``benchmarks/cluster.py`` starts these; a worker each is a thread here, as a stub only waits.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch

import geo_retina
from geo_retina import Model, load_model
from geo_retina.model import build_network


class Waiting:
    """In place of the network: waits, then finds some boxes, in the same places of a tile."""

    batches_at_once = 1 << 10

    def __init__(
        self,
        model: geo_retina.Model,
        options: geo_retina.DetectOptions,
        *,
        device: str,
        batch: int | None,
        seconds: float,
        per_tile: int,
    ) -> None:
        self.device = torch.device("cpu")
        self._seconds = seconds
        self._per_tile = per_tile

    def batch_size(self, tile_px: int) -> int:
        return 1 << 10

    def predict(self, tiles_NCHW: torch.Tensor, *, all_boxes: bool = False) -> geo_retina.Decoded:
        time.sleep(self._seconds)
        images, side = len(tiles_NCHW), tiles_NCHW.shape[-1]
        rng = np.random.default_rng(0)
        corner = rng.uniform(0, side - 20, (images * self._per_tile, 2))
        boxes = np.concatenate([corner, corner + 10], axis=1)
        image = torch.arange(images).repeat_interleave(self._per_tile)
        scores = torch.from_numpy(rng.uniform(0.3, 1.0, len(boxes)).astype(np.float32))
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        truncated = torch.zeros(images, dtype=torch.bool)
        return geo_retina.Decoded(torch.from_numpy(boxes).float(), scores, labels, image, truncated)


def waiting(seconds: float, per_tile: int) -> Model:
    """Make a model whose predictor only waits; its small network serves to be sent about."""
    from stub_workers import Waiting as Importable  # not of __main__, which workers lack

    network = geo_retina.NetworkOptions(
        backbone="test_resnet", levels=(2, 3), channels=16, convs=1, anchor_sides_px=((12.0,),) * 2
    )
    card = replace(load_model("demo").card, name="waiting", network=network)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same model for every client of a run
        built = build_network(network, in_channels=len(card.bands), classes=len(card.classes))
    predictor = partial(Importable, seconds=seconds, per_tile=per_tile)
    return Model(built.eval(), card, predictor=predictor)


async def serve(address: str, count: int) -> None:
    """Connect workers to a scheduler, until it is gone."""
    from distributed import Worker

    workers = await asyncio.gather(
        *(Worker(address, nthreads=1, memory_limit=0, dashboard=False) for _ in range(count))
    )
    await asyncio.gather(*(worker.finished() for worker in workers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=1)
    args = parser.parse_args()
    asyncio.run(serve(args.address, args.count))
