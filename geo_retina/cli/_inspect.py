"""``geo-retina find``, ``models`` and ``info``: what there is to detect in, and with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from geo_retina.cli import _report, _voice
from geo_retina.cli._detect import Detection, Run
from geo_retina.errors import SceneError
from geo_retina.options import DetectOptions, FindOptions, Padding, RunOptions

if TYPE_CHECKING:
    from geo_retina.catalog import FoundItems
    from geo_retina.model import Card
    from geo_retina.run import ScenePlan

SEARCH = Parameter(name="*", group=Group("Search", sort_key=1))

MODEL_SUFFIX = ".safetensors"

_DETECTION = DetectOptions()
_RUN = RunOptions()
_MOST_SCENES = 10

_SCORES = {"f1": "F1", "precision": "precision", "recall": "recall", "ap50": "AP50", "ap": "AP"}
_PRINT = "data_fingerprint"
_PADDING: dict[Padding, str] = {
    "mirror": "where there is no ground it sees the ground beside it, mirrored",
    "constant": "where there is no ground it sees 0 after normalisation",
}


def find(
    api: Annotated[str, Parameter(name="STAC_API")],
    /,
    *,
    out: Path,
    options: Annotated[FindOptions, SEARCH],
    update: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """Search a STAC API for scenes, and write a collection of items that `detect` takes.

    It needs the extra stac. Requester-pays buckets: set AWS_REQUEST_PAYER=requester for `detect`.

    Args:
        api: Address of the API's landing page.
        out: Collection of items to write, ending .json or .geojson.
        options: Which items.
        update: Keep the items that the file holds, and add new ones after them.
        overwrite: Replace an existing output.
        reporting: How the command reports.
    """
    from geo_retina.catalog import find_items

    _voice.check_json(reporting, overwrite=overwrite)
    found = find_items(api, out, options, update=update, overwrite=overwrite)
    _voice.say(_report.columns(describe_found(found)))
    if found.gone:
        some = ", ".join(found.gone[:_MOST_SCENES])
        _report.warn(
            f"{_report.plural(len(found.gone), 'item')} of {out} no longer found in the catalogue; "
            f"kept: {some}{' ...' if len(found.gone) > _MOST_SCENES else ''}"
        )
    _voice.say(f"written to {out}")
    _voice.result(reporting, found.to_dict())


def describe_found(found: FoundItems) -> dict[str, str]:
    """Describe for people what a search found, as label and text; what is unknown is left out."""
    share = found.covered_km2 / found.searched_km2 if found.searched_km2 else 0.0
    older = f", {found.left_out:,} left out as newer ones show their ground"
    rows = {
        "items": f"{found.items:,}, {found.added:,} of them new"
        + (older if found.left_out else ""),
        "dates": f"{found.first_date} to {found.last_date}" if found.first_date else "",
        "pixel": "" if found.gsd_m is None else _between(*found.gsd_m),
        "ground": f"{found.covered_km2:,.1f} of {found.searched_km2:,.1f} km2 searched "
        f"({share:.1%})",
        "overlap": f"each place is shown {found.overlap:.2f} times on average",
        "size": ""
        if found.bytes is None
        else f"{found.bytes / 1e9:,.2f} GB in {found.items_with_bytes:,} of {found.items:,} items "
        "that say so",
    }
    return {label: text for label, text in rows.items() if text}


def _between(low: float, high: float) -> str:
    return f"{low:g} m" if low == high else f"{low:g} to {high:g} m"


def models(
    *,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    reporting: _voice.Reports = _voice.REPORTING,
) -> None:
    """List the bundled models.

    Args:
        overwrite: Replace the file of --json.
        reporting: How the command reports.
    """
    _voice.check_json(reporting, overwrite=overwrite)
    cards = bundled_cards()
    rows = {}
    for card in cards:
        about = card.description or ", ".join(card.classes)
        rows[card.name] = f"{about} ({len(card.bands)} bands, {card.gsd_m:g} m)"
    _voice.say(_report.columns(rows) if rows else "no model is bundled")
    _voice.result(reporting, {"models": [card_facts(card) for card in cards]})


def bundled_cards() -> list[Card]:
    """Load the cards of the bundled models, sorted by name."""
    from geo_retina.model import bundled_models, load_card

    return [load_card(name) for name in sorted(bundled_models())]


def card_facts(card: Card) -> dict[str, Any]:
    """Name what a program needs to offer a model to its users."""
    return {
        "name": card.name,
        "description": card.description,
        "classes": card.classes,
        "thresholds": card.thresholds,
        "bands": [band.name for band in card.bands],
        "data_type": card.radiometry.dtype,
        "gsd_m": card.gsd_m,
        "gsd_range_m": card.gsd_range_m,
        "boxes": card.network.boxes,
        "licence": card.licence,
        "attribution": card.attribution,
    }


def info(
    files: Annotated[list[str], Parameter(name="FILE...")],
    /,
    *,
    model: str | None = None,
    config: Path | None = None,
    options: Detection = _DETECTION,
    run: Run = _RUN,
    reporting: _voice.Reports = _voice.REPORTING,
) -> int:
    """Describe scenes or a model, and how a model would read the scenes.

    Args:
        files: Images, named in any way that `detect` takes, or one .safetensors file or bundled
            model's name.
        model: With it, what detecting would do with each scene: bands, values, resampling,
            tiles. A bundled model's name or a .safetensors file.
        config: YAML file with any of the options below; flags win.
        options: What changes the detections.
        run: How the run is carried out.
        reporting: How the command reports.
    """
    from geo_retina.model import bundled_models, load_card

    _voice.check_json(reporting, overwrite=run.overwrite)
    if len(files) == 1 and model is None:
        file = files[0]
        bundled = not Path(file).exists() and file in bundled_models()
        if bundled or file.lower().endswith(MODEL_SUFFIX):
            card = load_card(file)
            _voice.say(_report.columns(describe_card(card)))
            _voice.result(reporting, {"card": json.loads(card.to_json())})
            return 0
    if model is not None:
        rows, code = _describe_use(files, load_card(model), options, run)
    else:
        rows, code = _describe_files(files, options.asset)
    _voice.result(reporting, {"scenes": rows})
    return code


def _describe_files(files: Sequence[str], asset: str | None) -> tuple[list[dict[str, str]], int]:
    """Print what each scene is; what cannot be opened is reported, and the others follow."""
    from geo_retina.scene import describe_scene, find_scenes

    paths = find_scenes(files, asset=asset)
    described: list[dict[str, str]] = []
    for path in paths[:_MOST_SCENES]:
        try:
            rows = describe_scene(path)
        except SceneError as error:
            if len(paths) == 1:
                raise
            _report.warn(str(error))
            continue
        text = _report.columns(rows)
        _voice.say(f"\n{text}" if described else text)
        described.append(rows)
    if len(paths) > _MOST_SCENES:
        _voice.say(f"\n... and {_report.plural(len(paths) - _MOST_SCENES, 'further scene')}")
    return described, 0 if len(described) == len(paths[:_MOST_SCENES]) else 3


def _describe_use(
    files: Sequence[str], card: Card, options: DetectOptions, run: RunOptions
) -> tuple[list[dict[str, str]], int]:
    """Print what detecting would do with each scene."""
    from geo_retina.run import plan_scenes

    plans, failures = plan_scenes(files, card, options, run)
    rows = [describe_use(each, card) for each in plans[:_MOST_SCENES]]
    _voice.say("\n\n".join(map(_report.columns, rows)))
    if len(plans) > _MOST_SCENES:
        _voice.say(f"\n... and {_report.plural(len(plans) - _MOST_SCENES, 'further scene')}")
    _report.warn_of_failures(failures)
    return rows, 3 if failures else 0


def describe_use(plan: ScenePlan, card: Card) -> dict[str, str]:
    """Describe for people how detecting with a model would treat a scene, as label and text."""
    scene, tiles = plan.scene, plan.tiles
    grid = scene.grid
    bands = ", ".join(
        f"{band.name} from {number}" for band, number in zip(card.bands, scene.bands, strict=True)
    )
    values = ", ".join(
        f"(value - {offset:g}) / {scale:g}"
        for offset, scale in dict.fromkeys(
            zip(card.radiometry.offset, card.radiometry.scale, strict=True)
        )
    )
    looked = f"{plan.chosen_tiles:,} of {len(tiles):,}"
    return {
        "scene": scene.path,
        "model": card.name,
        "bands": bands,
        "values": f"{scene.dtype}{_mapped(plan)}, read as {values}",
        "CRS": grid.crs.name if grid.crs is not None else "none",
        "grid": f"{grid.width:,} x {grid.height:,} px"
        + (f" at {grid.gsd_m:.4g} m; " if grid.gsd_m else ", taken to be of the model's; ")
        + _resampling(plan),
        "tiles": f"{looked} of {tiles.tile_px} px, overlapping by {tiles.overlap_px} px",
        "blocks": f"{len(plan.blocks):,}, the largest of {_largest_block(plan)}",
        "area": f"{plan.area_share:.2%} of the grid is of interest",
    }


def _mapped(plan: ScenePlan) -> str:
    """Describe how tags or a stretch map a scene's numbers before the model's own scaling."""
    values = plan.scene.values
    if values is None:
        return ""
    pairs = dict.fromkeys(zip(values.scale, values.offset, strict=True))
    return " as " + ", ".join(f"{scale:.6g} x number + {offset:.6g}" for scale, offset in pairs)


def _resampling(plan: ScenePlan) -> str:
    from geo_retina.scene import Mosaic

    scene = plan.scene
    if isinstance(scene, Mosaic):
        own = sum(member.scene.grid_to_file is not None for member in scene.members)
        return f"of {own} scenes on it and {len(scene.members) - own} warped to it"
    if scene.grid_to_file is None:
        return "warped to it"
    factor = math.sqrt(abs(scene.grid_to_file.determinant))
    if abs(factor - 1) < 1e-9:
        return "the file's own pixels"
    return f"resampled, {factor:.3g} of the file's pixels to a side of one"


def _largest_block(plan: ScenePlan) -> str:
    if plan.is_outside:
        return "nothing"
    largest = max(plan.blocks, key=lambda block: block.window.height * block.window.width)
    return f"{largest.window.width:,} x {largest.window.height:,} px"


def describe_card(card: Card) -> dict[str, str]:
    """Describe a model's card for people, as label and text; what is empty is left out."""
    low_px, mid_px, high_px = card.object_px
    network = card.network
    pairs = zip(card.classes, card.thresholds, strict=True)
    rows = {
        "model": card.name,
        "finds": card.description,
        "classes": ", ".join(f"{name} (score from {score:.2f})" for name, score in pairs),
        "bands": ", ".join(f"{band.index} {band.name}".rstrip() for band in card.bands),
        "data type": card.radiometry.dtype,
        "pixel": f"{card.gsd_m:g} m, holds for {card.gsd_range_m[0]:g} to "
        f"{card.gsd_range_m[1]:g} m",
        "objects": f"{low_px:.0f} to {high_px:.0f} px wide, mostly {mid_px:.0f} px",
        "boxes": "rectangles at any angle" if network.boxes == "oriented" else "",
        "tiles": f"up to {card.tile_px} px",
        "padding": f"{card.padding}, {_PADDING[card.padding]}",
        "overlaps": f"of two detections of a class with an IoU above {card.nms_iou:g}, one is kept",
        "network": f"RetinaNet on {network.backbone}, levels "
        f"{', '.join(f'P{level}' for level in network.levels or ())}, "
        f"{network.channels} channels, {network.convs} convolutions a subnet",
        **_scores(card.metrics),
        "integers": _integers(card),
        "training": _scalars(card.training),
        "licence": card.licence,
        "attribution": card.attribution,
    }
    return {label: text for label, text in rows.items() if text}


def _scores(metrics: Mapping[str, Any]) -> dict[str, str]:
    """List the overall scores of each evaluation on a card, and the notes that go with them."""
    rows = {}
    for name, value in metrics.items():
        if not isinstance(value, Mapping):
            rows[name.replace("_", " ")] = str(value)
        elif "overall" in value:
            numbers = {title: value["overall"].get(key) for key, title in _SCORES.items()}
            known = (f"{title} {x:.3f}" for title, x in numbers.items() if x is not None)
            rows[f"scores, {name}"] = ", ".join(known)
    return rows


def _integers(card: Card) -> str:
    """Say whether 8-bit integers are chosen of themselves, and what they cost."""
    from geo_retina.model.cards import ROUNDING

    about = card.metrics.get("quantization")
    if about is None:
        return ""
    if about.get("rounding") != ROUNDING:
        return "cost measured by an older geo-retina, so auto leaves them; run geo-retina quantize"
    pairs = ((name, about.get(name.lower(), {})) for name in ("F1", "AP"))
    cost = ", ".join(
        f"{name} {each['a']:.3f}, in integers {each['b']:.3f}"
        for name, each in pairs
        if each.get("a") is not None
    )
    if card.integers_cost_little:
        return f"{cost}; auto takes them on an x86 CPU with the extra cpu"
    return f"{cost or 'cost not measured'}; auto leaves them"


def _scalars(values: Mapping[str, Any]) -> str:
    """Show single numbers and texts on one line; options, versions and history are for machines."""
    single = {k: v for k, v in values.items() if isinstance(v, (str, int, float)) and k != _PRINT}
    return "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in single.items())
