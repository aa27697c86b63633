"""Refuse to count by ground on which the model was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geo_retina.errors import LabelError
from geo_retina.files import parse_json
from geo_retina.review.values import Frame, Ints
from geo_retina.vector import read_metadata


def refuse_trained_cells(path: str | Path, frame: Frame, cells: Ints) -> None:
    """Refuse cells whose objects the model that made a file's detections was trained on.

    Args:
        path: of the file; its metadata hold the model's card, which names such cells.
        frame: of the review in the file.
        cells: numbers of the cells to count by.

    Raises:
        LabelError: some of them were trained on.
    """
    for card in _cards(read_metadata(path)):
        training = card.get("training") or {}
        review = training.get("review") or {}
        if review.get("frame") != frame.fingerprint:
            continue
        both = sorted(set(review.get("cells", ())) & set(cells.tolist()))
        if both:
            raise LabelError(
                f"{path} has {len(both)} completed cells to count by, such as cell {both[0]}, on "
                f"whose ground the model {card.get('name')} was trained, so they are no sample of "
                "ground that it has not seen; train without the cases in them, or count with "
                "detections of the model that it was made from"
            )


def _cards(metadata: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Give the cards of the models that made a file's detections, also before a merge."""
    if "model_card" in metadata:
        card = parse_json(metadata["model_card"])
        if isinstance(card, dict):
            yield card
    for earlier in parse_json(metadata.get("merged_from", "{}")).values():
        yield from _cards(earlier)
