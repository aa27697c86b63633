"""Tell the cells that a model was fitted to, and refuse to count by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geo_retina.errors import LabelError
from geo_retina.files import parse_json
from geo_retina.review.values import Frame, Ints
from geo_retina.vector import read_metadata


def fitted_cells(path: str | Path, frame: Frame) -> Ints:
    """List the cells that the models behind a file's detections were trained or calibrated on.

    Args:
        path: of the file; its metadata hold the models' cards, which name such cells.
        frame: of a review of the same ground.

    Returns:
        Their numbers, rising; also of cells of which only some objects were learnt from.
    """
    cells: set[int] = set()
    for _, about in _fitted_to(path):
        if about.get("frame") == frame.fingerprint:
            cells.update(about.get("cells", ()))
    return np.array(sorted(cells), np.int64)


def refuse_trained_cells(path: str | Path, frame: Frame, cells: Ints) -> None:
    """Refuse cells whose objects the model that made a file's detections was fitted to.

    Args:
        path: of the file.
        frame: of the review.
        cells: numbers of the cells to count by.

    Raises:
        LabelError: some of them were trained or calibrated on.
    """
    for name, about in _fitted_to(path):
        if about.get("frame") != frame.fingerprint:
            continue
        both = sorted(set(about.get("cells", ())) & set(cells.tolist()))
        if both:
            raise LabelError(
                f"{path} has {len(both)} completed cells to count by, such as cell {both[0]}, to "
                f"whose ground the model {name} was fitted, so they are no sample of ground that "
                "it has not seen and counts would look better than they are; detect with a model "
                "that was not, or draw cells on other ground"
            )


def _fitted_to(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give what each model tells of a review that it was trained or calibrated on."""
    for card in _cards(read_metadata(path)):
        metrics = card.get("metrics") or {}
        for part in (card.get("training"), metrics.get("calibration")):
            for about in _reviews_behind(part):
                yield str(card.get("name")), about


def _reviews_behind(part: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """List the reviews that a training or calibration was fitted to, and those before it.

    Args:
        part: what a card tells of it; None where there was none.

    Returns:
        Of each, ``frame`` and ``cells``, the last first.
    """
    part = part or {}
    return [each for each in (part.get("review"), *part.get("earlier_reviews", ())) if each]


def name_reviews(
    reviewed: dict[str, Any] | None, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Tell a card what reviews a training or calibration was fitted to.

    Args:
        reviewed: ``frame`` and ``cells`` of its own; None where it had none.
        before: what a card told of the training or calibration that it went on from, of which
            weights or thresholds may be left; None where there was none.

    Returns:
        What ``refuse_trained_cells`` goes by, among others.
    """
    earlier = _reviews_behind(before)
    return {
        **({} if reviewed is None else {"review": reviewed}),
        **({"earlier_reviews": earlier} if earlier else {}),
    }


def _cards(metadata: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Give the cards of the models that made a file's detections, also before a merge."""
    if "model_card" in metadata:
        card = parse_json(metadata["model_card"])
        if isinstance(card, dict):
            yield card
    for earlier in parse_json(metadata.get("merged_from", "{}")).values():
        yield from _cards(earlier)
