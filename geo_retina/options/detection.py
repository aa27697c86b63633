"""Options of detecting: what changes the detections, and how a run is carried out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from geo_retina.errors import OptionError
from geo_retina.options.aliases import accept_old_names
from geo_retina.options.checks import INFINITY, check

Device = str
Precision = Literal["auto", "fp32", "bf16", "fp16"]
DetectPrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Runtime = Literal["auto", "torch", "openvino"]
TestTimeViews = Literal[1, 2, 4, 8]
Geometry = Literal["polygon", "point", "both"]
RankOrder = Literal["whole", "owner", "score"]


@accept_old_names
@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """How detections of neighbouring tiles become one set of objects."""

    iou: float = 0.4
    """A detection suppresses a lower-ranked one of another tile above this overlap, or above
    nms_iou where that is lower."""

    share: float = 0.5
    """It also suppresses a cut one of whose own area more than this share lies inside it."""

    edge_px: float = 4.0
    """A box this near to a tile side counts as cut by it."""

    join: bool = True
    """Join the fragments of an object that spans a whole overlap."""

    join_iou: float = 0.5
    """Fragments join when their extents along the seam overlap by this 1-D IoU."""

    class_aware: bool = True
    """Only detections of one class suppress each other across tiles."""

    rank: RankOrder = "whole"
    """Who is decided first: whole boxes, then cut ones; owner, of the whole ones, those in the
    part that their own tile owns; score looks at nothing else."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "iou": (0, 1),
                "share": (0, 1),
                "join_iou": (0, 1),
                "edge_px": (0, INFINITY),
            },
        )


@accept_old_names
@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """What changes the detections of a run; part of its fingerprint.

    Examples:
        >>> from geo_retina import DetectOptions, MergeOptions
        >>> DetectOptions(score=0.5, merge=MergeOptions(iou=0.3)).merge.iou
        0.3
    """

    score: float | None = None
    """Keep detections from this score on; left out, the model's own threshold per class."""

    min_score: float | None = None
    """Write detections from this lower score on, so that `geo-retina filter` can choose a
    threshold later."""

    bands: tuple[int, ...] | None = None
    """The file's bands (from 1) in the model's order; left out, matched by name."""

    gsd_m: float | None = None
    """Resample the scene to this many metres a pixel; left out, only where it is outside the
    model's range."""

    pixel_m: float | None = None
    """Metres a pixel of scenes without a CRS, which say no resolution; left out, taken to be the
    model's. Scenes with a CRS keep their own."""

    stretch: tuple[float, ...] | None = None
    """Stretch the scene's values to the model's range, between these two percentiles."""

    force: bool = False
    """Run although the scene's values or resolution are far from the model's."""

    tile_px: int | None = None
    """Side of the square that the network sees; left out, chosen for the fewest pixels."""

    overlap_px: int | None = None
    """Least overlap of neighbouring tiles; left out, from the object sizes on the card."""

    nms_iou: float | None = None
    """Within a tile, a box suppresses lower-scored ones of its class above this IoU; left out,
    the model's own, which did best on its validation ground."""

    tta: TestTimeViews = 1
    """Test-time augmentation, averaged over passes: 2 also mirrored, 4 also upside down, 8 also
    with rows and columns exchanged. Finds a little more for so many times the work."""

    candidates: int = 4000
    """Boxes decoded per pyramid level and tile at the most, and more in tiles larger than the
    model's own, by their area; reaching it is reported."""

    max_per_tile: int = 2000
    """Detections kept per tile at the most, and more in tiles larger than the model's own, by
    their area; reaching it is reported."""

    asset: str | None = None
    """Key of the asset that is taken of STAC items; left out, an item's only image."""

    mosaic: bool = False
    """Read all scenes as one, on the grid of the first; where they overlap, the first valid
    pixel counts, so that an object is found once."""

    across_scenes: bool = False
    """Make one object of what several scenes show where they overlap or abut, by the rule for
    tiles; left out, each scene has objects of its own."""

    aoi: str | None = None
    """Area of interest: a vector file with polygons, in any CRS; other tiles are not read."""

    aoi_layer: str | None = None
    """Layer of that file; needed where it holds several."""

    aoi_rule: Literal["intersects", "within"] = "intersects"
    """Keep the detections whose box meets the area, or only those that lie wholly inside."""

    prescreen: bool = False
    """Look at coarser pixels first, and no further at tiles where that shows nothing: faster where
    objects are few. The model's card must say how: see `geo-retina calibrate --prescreen`."""

    runtime: Runtime = "auto"
    """What computes the network. auto is openvino (extra cpu) on a CPU where it computes in int8,
    else torch."""

    precision: DetectPrecision = "auto"
    """Arithmetic of the network; auto is int8 on an x86 CPU (AVX2 or AVX-512) with OpenVINO where
    the model's card says that it costs little, else bf16 where the hardware has it, else fp32."""

    merge: MergeOptions = field(default_factory=MergeOptions)
    """Merging across tiles."""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "score": (0, 1),
                "min_score": (0, 1),
                "bands": (1, INFINITY),
                "gsd_m": (1e-6, INFINITY),
                "pixel_m": (1e-6, INFINITY),
                "stretch": (0, 100),
                "tile_px": (1, 1 << 16),
                "overlap_px": (0, 1 << 16),
                "nms_iou": (0, 1),
                "candidates": (1, INFINITY),
                "max_per_tile": (1, INFINITY),
            },
        )
        if self.stretch is not None and not (
            len(self.stretch) == 2 and self.stretch[0] < self.stretch[1]
        ):
            raise OptionError(
                f"DetectOptions.stretch is {self.stretch}, expected two percentiles, the lower "
                "first, such as 2,98"
            )
        if self.tta not in get_args(TestTimeViews):
            raise OptionError(f"DetectOptions.tta is {self.tta}, expected 1, 2, 4 or 8")
        score, floor = self.score, self.min_score
        if score is not None and floor is not None and score < floor:
            raise OptionError(
                f"DetectOptions.score is {score}, below DetectOptions.min_score of "
                f"{floor}, from which detections are written; lower the latter"
            )
        if self.across_scenes and self.mosaic:
            raise OptionError(
                "DetectOptions.across_scenes is given with DetectOptions.mosaic, which makes one "
                "scene of all; leave one of them out"
            )
        if self.across_scenes and self.merge.rank != "whole":
            raise OptionError(
                f"DetectOptions.across_scenes is given with MergeOptions.rank={self.merge.rank}, "
                "which is for tiles only; leave it out"
            )
        if self.prescreen and self.mosaic:
            raise OptionError(
                "DetectOptions.prescreen is given with DetectOptions.mosaic, whose scenes have no "
                "coarser pixels in common; leave one of them out"
            )
        if self.aoi is None and (self.aoi_layer is not None or self.aoi_rule != "intersects"):
            given = "aoi_rule" if self.aoi_layer is None else "aoi_layer"
            raise OptionError(
                f"DetectOptions.{given} is given without an area; name its file with "
                "DetectOptions.aoi"
            )

    @property
    def floor(self) -> float | None:
        """Score from which detections are kept at all; None means the model's thresholds."""
        return self.score if self.min_score is None else self.min_score


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out; none of it changes the detections."""

    device: Device = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best one present."""

    batch: int | None = None
    """Tiles through the network at once; left out, chosen by the device and tile size."""

    block_px: int = 4096
    """Side of the blocks that are read and detected as one task."""

    workers: int | None = None
    """Dask workers in this process, which use the GPUs in turn; left out, one a GPU, or one."""

    threads: int = 2
    """Blocks in flight per worker, so that reading hides behind computing."""

    scheduler: str | None = None
    """Address of a running Dask scheduler to use instead of this process."""

    retries: int = 1
    """Times a failed block is tried again before its ground is reported as not covered."""

    geometry: Geometry = "polygon"
    """Write polygons, their centre points, or both, as two layers of a GeoPackage."""

    patience_s: float = 600.0
    """Seconds to wait for a scheduler that was lost, or for any worker, before giving up."""

    overwrite: bool = False
    """Replace an existing output; what a person entered in its review is carried over."""

    discard_review: bool = False
    """When replacing an output, discard what a person entered in its review."""

    restart: bool = False
    """Discard what an earlier, unfinished run of this output left behind."""

    keep: bool = False
    """Keep the run's folder after it finished, so that scenes can be added to it."""

    update: bool = False
    """Add the scenes that are new to a run of this output whose folder was kept; the others are
    not detected again."""

    def __post_init__(self) -> None:
        if self.update and self.restart:
            raise OptionError(
                "RunOptions.update and RunOptions.restart are both given; one goes on with the "
                "earlier run, the other discards it"
            )
        check(
            self,
            {
                "batch": (1, INFINITY),
                "block_px": (64, INFINITY),
                "workers": (1, INFINITY),
                "threads": (1, INFINITY),
                "retries": (0, INFINITY),
                "patience_s": (0, INFINITY),
            },
        )
