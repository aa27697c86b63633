"""What a file says of itself, as a value that knows nothing of how it will be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from shlex import quote

import numpy as np

from geo_retina.errors import SceneError
from geo_retina.scene.bands import BandLabel, Palette, alphas
from geo_retina.scene.georeferencing import Placement


@dataclass(frozen=True, eq=False)
class SceneFile:
    """What a file says of itself, before it is decided how it is read.

    Attributes:
        path: file, or anything else that GDAL opens.
        labels: what it says of its bands, in order.
        dtypes: numpy names of the bands' data types.
        nodatas: nodata value per band; None where there is none.
        scales: per band, from the file's tags.
        offsets: per band, from the file's tags.
        placement: where its pixels lie.
        overviews: by how much its coarser copies are coarser.
        declared_alphas: bands (from 1) that GDAL takes for alpha, whatever they are called.
        masked: bands (from 1) with a mask of their own; band 0 where one mask is for all.
        block_px: (height, width) of the blocks in which it is stored.
        palettes: colour tables per band; None where numbers are brightness.
        rasters: GDAL's names of all rasters in the file, where it has several and this is the
            first, as of a TIFF with several pages.
        day: on which it was taken, where GDAL's metadata of imagery says so.
    """

    path: str
    labels: tuple[BandLabel, ...]
    dtypes: tuple[str, ...]
    nodatas: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    placement: Placement
    overviews: tuple[int, ...]
    declared_alphas: frozenset[int]
    masked: tuple[int, ...]
    block_px: tuple[int, int]
    palettes: tuple[Palette | None, ...] = ()
    rasters: tuple[str, ...] = ()
    day: date | None = None

    def masks(self, bands: Sequence[int]) -> frozenset[int]:
        """List alpha bands (from 1) that say what is valid, unless they are read as bands."""
        return frozenset(sorted(alphas(self.labels) - set(bands))[-1:])

    def palette(self, bands: Sequence[int]) -> Palette | None:
        """Return the first colour table of some bands."""
        tables = [self.palettes[band - 1] for band in bands if band <= len(self.palettes)]
        return next((table for table in tables if table is not None), None)

    def nodatas_of(self, bands: tuple[int, ...], *, is_own: bool) -> tuple[float | None, ...]:
        """Return the nodata values that pixels are compared with: an average may be 0 or 255."""
        is_unsigned = np.issubdtype(np.dtype(self.dtypes[bands[0] - 1]), np.unsignedinteger)
        if is_unsigned and not is_own:
            return (None,) * len(bands)
        return tuple(self.nodatas[band - 1] for band in bands)

    def refuse_palette(self, bands: Sequence[int] = (1,)) -> None:
        """Refuse numbers of colours, which are no brightness.

        Args:
            bands: those to be read, from 1; a file with a colour table has but one.

        Raises:
            SceneError: one of them is of a colour table.
        """
        if self.palette(bands) is not None:
            raise SceneError(
                f"{self.path} holds numbers of a colour table (a palette), expected the colours "
                "themselves; expand it with gdal_translate -expand rgb "
                f"{quote(self.path)} expanded.tif"
            )
