"""Views: virtual datasets through which GDAL gives a scene on another grid than the file's.

They serve where the grid is turned, sheared or in another CRS, and where it gets much coarser and
pixels are averaged. Else the file's own pixels, or an overview's, are read and resampled by us.

A view takes the requested bands, in order, and adds an alpha band for what is valid, from nodata
values, masks and alpha bands alike. It is a text, so a scene that has one can still be pickled.
GDAL computes it in blocks of its own, so that a pixel does not depend on the window it is read in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from affine import Affine
from rasterio.dtypes import dtype_rev, typename_fwd

from geo_retina.geodesy import full_turn
from geo_retina.grid import Grid
from geo_retina.resampling import RESAMPLED
from geo_retina.scene.damage.overviews import check_overview
from geo_retina.scene.datasets import gdal_name, open_dataset
from geo_retina.scene.georeferencing import Placement
from geo_retina.scene.reading import VIEW_BLOCK_PX
from geo_retina.scene.scene_file import SceneFile

_TOLERANCE_PX = 0.125  # of the source, between exactly transformed positions
_AVERAGE_FROM = 1.5  # source pixels per pixel of the view


def view_of(file: SceneFile, bands: Sequence[int], grid: Grid, grid_to_file: Affine | None) -> str:
    """Describe a file on another grid, as GDAL's virtual format.

    The file's overviews are used as far as they are finer than the grid.

    Args:
        file: the file.
        bands: of the file (from 1), in the requested order.
        grid: the target grid.
        grid_to_file: maps its pixels to the file's; None where ``grid`` is on another map.
    """
    (level, shape, to_full, _), rest = _source(file, shrinkage(file, grid, grid_to_file))
    source, options = gdal_name(file.path), _open_options(level)
    own_masks = [band for band in bands if band in file.masked]
    if own_masks or file.declared_alphas - file.masks(bands):
        source, options = _in_between(file, own_masks, source, options, shape), ""
    transformer = (
        _shift(~to_full @ grid_to_file)
        if grid_to_file is not None
        else _approximate(_on_map(file.placement, grid, to_full))
    )
    typename = typename_fwd[dtype_rev[file.dtypes[bands[0] - 1]]]
    alpha = len(bands) + 1
    outputs = "".join(
        f'<VRTRasterBand dataType="{typename}" band="{i}" subClass="VRTWarpedRasterBand">'
        f"{'<ColorInterp>Alpha</ColorInterp>' if i == alpha else ''}</VRTRasterBand>"
        for i in range(1, alpha + 1)
    )
    mapping = "".join(_band(file, band, i) for i, band in enumerate(bands, 1))
    masks = "".join(f"<SrcAlphaBand>{band}</SrcAlphaBand>" for band in sorted(file.masks(bands)))
    return (
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}" '
        f'subClass="VRTWarpedDataset">{outputs}'
        f"<BlockXSize>{VIEW_BLOCK_PX}</BlockXSize><BlockYSize>{VIEW_BLOCK_PX}</BlockYSize>"
        "<GDALWarpOptions><WarpMemoryLimit>6.7e+07</WarpMemoryLimit>"
        f"<ResampleAlg>{_resampling(file, bands, rest)}</ResampleAlg>"
        f"<WorkingDataType>{typename}</WorkingDataType>"
        '<Option name="INIT_DEST">NO_DATA</Option>'
        f'<Option name="UNIFIED_SRC_NODATA">{"YES" if _is_unsigned(file, bands) else "NO"}</Option>'
        f'<SourceDataset relativeToVRT="0" shared="0">{escape(source)}</SourceDataset>{options}'
        f"<Transformer>{transformer}</Transformer>"
        f"<BandList>{mapping}</BandList>{masks}<DstAlphaBand>{alpha}</DstAlphaBand>"
        "</GDALWarpOptions></VRTDataset>"
    )


class OwnSource(NamedTuple):
    """Pixels that a file holds, from which those of a grid are computed.

    Attributes:
        level: of the overview, from 0; None for the file itself.
        shape: (height, width).
        to_file: maps its pixels to the file's.
        block_px: (height, width) of the blocks in which they are stored.
    """

    level: int | None
    shape: tuple[int, int]
    to_file: Affine
    block_px: tuple[int, int]


def own_source(
    file: SceneFile, bands: Sequence[int], grid: Grid, grid_to_file: Affine
) -> OwnSource | None:
    """Choose the pixels of a file from which a scaled grid is interpolated.

    Returns:
        None where the grid is so coarse that pixels are averaged, or they are no brightness: GDAL
        does both.
    """
    source, rest = _source(file, shrinkage(file, grid, grid_to_file))
    is_linear = _resampling(file, bands, rest) == "Bilinear"
    return source if is_linear and file.dtypes[bands[0] - 1] in RESAMPLED else None


def _source(file: SceneFile, factor: float) -> tuple[OwnSource, float]:
    """Choose the coarsest overview that is fine enough, and return the factor that it leaves."""
    own = file.placement.grid
    fit = [i for i, ratio in enumerate(file.overviews) if ratio <= factor * 1.02]
    if not fit:
        return OwnSource(None, own.shape, Affine.identity(), file.block_px), factor
    level = max(fit, key=lambda i: file.overviews[i])
    with open_dataset(file.path, overview_level=level) as dataset:
        shape, block_px = dataset.shape, dataset.block_shapes[0]
    check_overview(file, level, shape)
    # Overviews are a rounded share of the file; the ground they cover is the same.
    to_full = Affine.scale(own.width / shape[1], own.height / shape[0])
    return OwnSource(level, shape, to_full, block_px), factor / (to_full.a * to_full.e) ** 0.5


def shrinkage(file: SceneFile, grid: Grid, grid_to_file: Affine | None) -> float:
    """Count pixels of the file per pixel of a grid, along a side."""
    if grid_to_file is not None:
        return float(abs(grid_to_file.determinant) ** 0.5)
    own_m, grid_m = file.placement.grid.gsd_m, grid.gsd_m
    assert own_m is not None
    assert grid_m is not None
    return grid_m / own_m


def _resampling(file: SceneFile, bands: Sequence[int], factor: float) -> str:
    if file.palettes and file.palettes[bands[0] - 1] is not None:
        return "NearestNeighbour"  # between numbers of colours lies no colour
    return "Average" if factor > _AVERAGE_FROM else "Bilinear"


def _open_options(level: int | None) -> str:
    if level is None:
        return ""
    return f'<OpenOptions><OOI key="OVERVIEW_LEVEL">{level}</OOI></OpenOptions>'


def _is_unsigned(file: SceneFile, bands: Sequence[int]) -> bool:
    return bool(np.issubdtype(np.dtype(file.dtypes[bands[0] - 1]), np.unsignedinteger))


def _band(file: SceneFile, band: int, place: int) -> str:
    nodata = file.nodatas[band - 1]
    inner = "" if nodata is None else f"<SrcNoDataReal>{nodata!r}</SrcNoDataReal>"
    if nodata is not None and not _is_unsigned(file, [band]):
        # Kept, to tell a pixel that lacks one band; 0 in a band of unsigned numbers is honest.
        inner += f"<DstNoDataReal>{nodata!r}</DstNoDataReal>"
    elif np.issubdtype(np.dtype(file.dtypes[band - 1]), np.floating):
        inner += "<SrcNoDataReal>nan</SrcNoDataReal>"
    return f'<BandMapping src="{band}" dst="{place}">{inner}</BandMapping>'


def _in_between(
    file: SceneFile, own_masks: Sequence[int], source: str, options: str, shape: tuple[int, int]
) -> str:
    """Describe the same bands as a VRT, none of which calls itself alpha, under one mask.

    GDAL's warper weighs all bands by an alpha band, which spoils them where it is near infrared,
    and knows nothing of masks of single bands (``own_masks``), which are multiplied.
    """
    origin = f'<SourceFilename relativeToVRT="0" shared="0">{escape(source)}</SourceFilename>'
    bands = "".join(
        f'<VRTRasterBand dataType="{typename_fwd[dtype_rev[dtype]]}" band="{i}">'
        f"<ColorInterp>Undefined</ColorInterp><SimpleSource>{origin}{options}"
        f"<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, dtype in enumerate(file.dtypes, 1)
    )
    mask = "".join(
        f"<SimpleSource>{origin}{options}<SourceBand>mask,{band}</SourceBand></SimpleSource>"
        for band in own_masks or [1]
    )
    product = 'subClass="VRTDerivedRasterBand"><PixelFunctionType>mul</PixelFunctionType>'
    product += "<SourceTransferType>Float64</SourceTransferType>"
    kind = product if len(own_masks) > 1 else ">"
    mask = f'<MaskBand><VRTRasterBand dataType="Byte" {kind}{mask}</VRTRasterBand></MaskBand>'
    return (
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">{bands}'
        f"{mask if own_masks or 0 in file.masked else ''}</VRTDataset>"
    )


def _shift(to_source: Affine) -> str:
    """Map the view's pixels to the source's by an affine alone."""
    return (
        f"<GenImgProjTransformer>{_affine('Src', Affine.identity())}{_affine('Dst', to_source)}"
        "</GenImgProjTransformer>"
    )


def _approximate(transformer: str) -> str:
    return (
        f"<ApproxTransformer><MaxError>{_TOLERANCE_PX}</MaxError><BaseTransformer>{transformer}"
        "</BaseTransformer></ApproxTransformer>"
    )


def _on_map(placement: Placement, grid: Grid, to_full: Affine) -> str:
    """Map the view's pixels to its map, to the file's CRS, to the source's pixels."""
    own = placement.grid
    assert own.crs is not None
    assert grid.crs is not None
    source = {
        "gcps": _gcps(placement, to_full),
        "rpcs": _rpcs(placement, to_full),
    }.get(placement.kind) or _affine("Src", own.affine @ to_full)
    return (
        f"<GenImgProjTransformer>{source}"
        "<ReprojectTransformer><ReprojectionTransformer>"
        f"<SourceSRS>{escape(own.crs.to_wkt())}</SourceSRS>"
        f"<TargetSRS>{escape(grid.crs.to_wkt())}</TargetSRS>"
        f"{_longitudes(placement)}</ReprojectionTransformer></ReprojectTransformer>"
        f"{_affine('Dst', grid.affine)}</GenImgProjTransformer>"
    )


def _longitudes(placement: Placement) -> str:
    """Have longitudes counted around the scene, as its file does, not from -180 to 180."""
    if full_turn(placement.grid.crs) != 360:  # GDAL's option is for degrees alone
        return ""
    return f'<Options><Option key="CENTER_LONG">{placement.middle_x!r}</Option></Options>'


def _affine(end: str, affine: Affine) -> str:
    forth, back = (", ".join(map(repr, each.to_gdal())) for each in (affine, ~affine))
    return (
        f"<{end}GeoTransform>{forth}</{end}GeoTransform>"
        f"<{end}InvGeoTransform>{back}</{end}InvGeoTransform>"
    )


def _gcps(placement: Placement, to_full: Affine) -> str:
    points = "".join(
        f'<GCP Id="{i}" Pixel="{p.col / to_full.a!r}" Line="{p.row / to_full.e!r}" '
        f'X="{p.x!r}" Y="{p.y!r}"/>'
        for i, p in enumerate(placement.gcps)
    )
    return (
        "<SrcGCPTransformer><GCPTransformer><Order>0</Order><Reversed>0</Reversed>"
        f"<GCPList>{points}</GCPList></GCPTransformer></SrcGCPTransformer>"
    )


def _rpcs(placement: Placement, to_full: Affine) -> str:
    if placement.rpcs is None:
        return ""
    entries = dict(placement.rpcs.to_gdal())
    for name, side in (("LINE", to_full.e), ("SAMP", to_full.a)):
        # Offsets count from the middle of the first pixel.
        entries[f"{name}_OFF"] = repr((float(entries[f"{name}_OFF"]) + 0.5) / side - 0.5)
        entries[f"{name}_SCALE"] = repr(float(entries[f"{name}_SCALE"]) / side)
    metadata = "".join(f'<MDI key="{key}">{value}</MDI>' for key, value in entries.items())
    return (
        "<SrcRPCTransformer><RPCTransformer><Reversed>0</Reversed>"
        f"<HeightOffset>{placement.height_m!r}</HeightOffset><HeightScale>1</HeightScale>"
        f"<PixErrThreshold>0.01</PixErrThreshold><Metadata>{metadata}</Metadata>"
        "</RPCTransformer></SrcRPCTransformer>"
    )
