"""Dask workers in one process, whose network is a stub that takes a given time.

    python benchmarks/stub_workers.py tcp://127.0.0.1:8786 --count 16

``benchmarks/cluster.py`` starts these; a worker each is a thread here, as a stub only waits.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from functools import partial

import numpy as np
import torch

import geo_retina


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


def waiting(seconds: float, per_tile: int) -> partial[Waiting]:
    """Make what a model takes as its predictor."""
    from stub_workers import Waiting as Importable  # not of __main__, which workers lack

    return partial(Importable, seconds=seconds, per_tile=per_tile)


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
