"""What the bands of a file are called, and which of them a model means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import rasterio
from rasterio.enums import ColorInterp

ALPHA = "alpha"

Palette = tuple[tuple[int, ...], ...]
"""Red, green and blue (0 to 255) of each number of a colour table, from 0."""

_SPELLINGS = {
    "near infrared": r"\bnir\b|near ?infra ?red|\binfra ?red\b|\bir\b|\bb08\b|^n$",
    "red edge": r"red ?edge",
    "red": r"\bred\b(?! ?edge)|\bb04\b|^r$",
    "green": r"\bgreen\b|\bb03\b|^g$",
    "blue": r"\bblue\b|\bb02\b|^b$",
    "coastal": r"\bcoastal\b|\baerosol\b",
    "panchromatic": r"\bpan(chromatic)?\b|\bgr[ae]y(scale)?\b|\bluminance\b",
    ALPHA: r"\balpha\b|\bopacity\b",
}
"""How people write the bands that imagery usually has. ``B02`` to ``B08`` are the names of
Sentinel-2, which the harmonised Landsat products share; without the zero they mean different
bands from sensor to sensor, and name nothing here."""

_OTHER_INFRARED = re.compile(
    r"\b(swir|mwir|lwir|tir)|short ?wave|mid ?infra|thermal|narrow|\bb8a\b"
)
_NUMBER = re.compile(r"^(band|layer|channel|ch|b)? ?#?\d*$")
_COLOURS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
    ColorInterp.alpha: ALPHA,
    ColorInterp.nir: "near infrared",
    ColorInterp.rededge: "red edge",
    ColorInterp.coastal: "coastal",
    ColorInterp.pan: "panchromatic",
}
_NAMELESS = {ColorInterp.undefined, ColorInterp.gray}


@dataclass(frozen=True)
class BandLabel:
    """What a file says of one of its bands.

    Attributes:
        index: position in the file, from 1.
        description: as the file writes it; may be empty.
        colour: GDAL's colour interpretation.
        name: as ``common_name`` has it; None where the file gives no name.
    """

    index: int
    description: str
    colour: str
    name: str | None

    def __str__(self) -> str:
        """Show its place and name, for people."""
        return f"{self.index} {self.description or self.colour}"


def common_name(text: str) -> str | None:
    """Map the many spellings of a band's name to one; None where it is no name but a number.

    A name of no usual band comes back in lower case, with single spaces.
    """
    words = re.sub(r"[\s_\-:;,/()]+", " ", text.lower()).strip()
    if _NUMBER.match(words) and not re.match(r"^b0\d$", words):
        return None
    if _OTHER_INFRARED.search(words) or re.search(r"\bnir ?[2-9]\b", words):
        return words
    found = [name for name, spelling in _SPELLINGS.items() if re.search(spelling, words)]
    return found[0] if len(found) == 1 else words


def label_bands(dataset: rasterio.DatasetReader) -> tuple[BandLabel, ...]:
    """Label the bands of a file by its descriptions, else by the colours it gives them.

    A description of a usual band outweighs the colour, as GDAL declares the fourth band of many
    a file to be alpha unasked.
    """
    kinds = [
        ColorInterp.gray if kind is ColorInterp.palette and palette is None else kind
        for kind, palette in zip(dataset.colorinterp, read_palettes(dataset), strict=True)
    ]
    pairs = zip(dataset.descriptions, kinds, strict=True)
    return tuple(_label(i, text or "", kind) for i, (text, kind) in enumerate(pairs, 1))


def read_palettes(dataset: rasterio.DatasetReader) -> tuple[Palette | None, ...]:
    """Colour tables of a file's bands; None where a band's numbers are brightness themselves.

    They are in a table in which each number is the grey of that value, and in a file of 1 bit in
    black and white, to which GDAL gives a table unasked.
    """
    return tuple(
        _palette(dataset, band) if kind is ColorInterp.palette else None
        for band, kind in enumerate(dataset.colorinterp, 1)
    )


def _palette(dataset: rasterio.DatasetReader, band: int) -> Palette | None:
    try:
        table = dataset.colormap(band)
    except ValueError:  # it says that it has one, and has none
        return None
    colours = tuple(tuple(table.get(i, (0, 0, 0))[:3]) for i in range(max(table, default=0) + 1))
    if all(colour == (i, i, i) for i, colour in enumerate(colours)):
        return None
    is_bit = dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") == "1"
    black_and_white = {(0, 0, 0), (255, 255, 255)}
    return None if is_bit and set(colours) == black_and_white else colours


def _label(index: int, description: str, kind: ColorInterp) -> BandLabel:
    described = common_name(description) if description else None
    coloured = _COLOURS.get(kind) or (None if kind in _NAMELESS else kind.name.lower())
    name = described if described in _SPELLINGS else coloured or described
    return BandLabel(index, description, kind.name, name)


def alphas(labels: Sequence[BandLabel]) -> set[int]:
    """List bands (from 1) that are alpha, for all that the file says."""
    return {label.index for label in labels if label.name == ALPHA}


def match_bands(
    labels: Sequence[BandLabel], needed: Sequence[tuple[str, int]]
) -> tuple[int, ...] | None:
    """Find the bands that a model means, by their names.

    A band that is not found by name is taken from its default place only if nothing speaks
    against it: the file gives the band there no name, and those that were found are at their
    default places too.

    Args:
        labels: the file's bands in order.
        needed: name and default place (from 1) of each band that the model sees.

    Returns:
        The file's bands (from 1) in the requested order; None where they cannot be recognised.
    """
    names = [common_name(name) for name, _ in needed]
    chosen = [_by_name(labels, name) for name in names]
    in_place = all(band in (None, place) for band, (_, place) in zip(chosen, needed, strict=True))
    for i, (_, place) in enumerate(needed):
        if chosen[i] is not None:
            continue
        if not in_place or place > len(labels) or place in chosen:
            return None
        if names[i] is not None and labels[place - 1].name not in (None, names[i]):
            return None
        chosen[i] = place
    return tuple(band for band in chosen if band is not None)


def _by_name(labels: Sequence[BandLabel], name: str | None) -> int | None:
    found = [label.index for label in labels if name is not None and label.name == name]
    return found[0] if len(found) == 1 else None
