"""Figures to files, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from matplotlib.figure import Figure

from geo_retina.errors import OutputError


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure beside its target and rename it, so that no half picture is left.

    Returns:
        The picture's path.

    Raises:
        OutputError: the name does not end in .png, or the picture cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise OutputError(f"the picture {out} does not end in .png; give it that suffix")
    try:
        handle, name = tempfile.mkstemp(suffix=".png", prefix=f".{out.stem}.", dir=out.parent)
    except OSError as error:
        raise OutputError(f"the picture {out} cannot be written: {error.strerror}") from error
    os.close(handle)
    try:
        figure.savefig(name, facecolor="white")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, out)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
    return out
