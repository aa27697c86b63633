"""Figures to files, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from geo_retina.errors import OutputError
from geo_retina.files import new_file


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure to a file, so that no half picture is left.

    Returns:
        The picture's path.

    Raises:
        OutputError: the name does not end in .png, or the picture cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise OutputError(f"the picture {out} does not end in .png; give it that suffix")
    with new_file(out) as draft:
        figure.savefig(draft, facecolor="white")
    return out
