"""Resuming: what an earlier try of a run left, and what this one leaves to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from geo_retina.errors import OptionError, RunError
from geo_retina.options import DetectOptions, DetectPrecision, RunOptions, Runtime
from geo_retina.run.ledger.folder import Ledger
from geo_retina.run.ledger.guard import PARTS
from geo_retina.run.ledger.manifest import read_manifest
from geo_retina.scene import absolute, fingerprint
from geo_retina.vector import Target, check_target


@dataclass(frozen=True)
class Outputs:
    """Where a run leaves what it does.

    Attributes:
        folder: of its ledger, until all is written.
        targets: the files to write; none where the result stays in memory.
        replaces: whether they take the place of a file that no earlier try of this run wrote.
        block_px: size of the blocks of an earlier try, which are gone on with; None without one.
        scenes: of an earlier try that others are added to; None where none may be added.
        arithmetic: runtime and precision of an earlier try, which auto stands for then; empty
            without one.
    """

    folder: Path
    targets: tuple[Target, ...] = ()
    replaces: bool = False
    block_px: int | None = None
    scenes: tuple[str, ...] | None = None
    arithmetic: Mapping[str, str] = field(default_factory=dict)

    def with_new(self, paths: Sequence[str]) -> list[str]:
        """Put scenes that an earlier try did not have after those that it had, in their order.

        Raises:
            RunError: one that it had is not among them.
        """
        if self.scenes is None:
            return list(paths)
        given = {absolute(path): path for path in paths}
        gone = [path for path in self.scenes if path not in given]
        if gone:
            some = f"{', '.join(gone[:3])}{' ...' if len(gone) > 3 else ''}"
            raise RunError(
                f"{len(gone)} scenes of the run in {self.folder} are not given any more: {some}; "
                "an update only adds scenes: give them too, or write another output"
            )
        before = [given.pop(path) for path in self.scenes]
        return [*before, *given.values()]

    def follow(self, options: DetectOptions) -> DetectOptions:
        """Take runtime and precision from an earlier try where options leave them open."""
        if options.runtime != "auto" or options.precision != "auto":
            return options
        return replace(options, **self.arithmetic)  # type: ignore[arg-type]


def find_earlier(outs: Sequence[Path], run: RunOptions, *, gathers: bool = False) -> Outputs:
    """Look for an earlier try beside the outputs, and refuse outputs that cannot be written.

    Args:
        outs: files to be written; the ledger's folder lies beside the first.
        run: whether to go on with an earlier try, and to replace files that it did not write.
        gathers: whether the folder may hold parts of the run, which are then gathered.

    Raises:
        OptionError: no output is named, or one twice.
        OutputError: one exists and is not to be replaced, or cannot hold what it should.
        RunError: the ledger's folder is no run's, damaged, or holds parts of a run, or there is
            none to update.
    """
    if not outs or len({o.resolve() for o in outs}) < len(outs):
        raise OptionError(f"{len(outs)} outputs were named, expected one or several different ones")
    folder = run_folder(outs[0])
    parts = sorted(folder.glob(PARTS))
    if parts and not gathers:
        raise RunError(
            f"{folder} holds parts of a run, such as {parts[0].name}; combine them with geo-retina "
            f"gather {outs[0]}, or move the folder away"
        )
    found = None if run.restart else read_manifest(folder)
    if run.update and found is None:
        raise RunError(
            f"{folder} does not exist, so no scenes can be added to {outs[0]}; a run that shall be "
            "updated later is made with RunOptions.keep=True"
        )
    # A run that was finished is not done again by mistake; one that goes on replaces its own.
    goes_on = found is not None and (run.update or not found.get("complete"))
    own = found.get("written", {}) if found is not None and goes_on else {}
    foreign = [o for o in outs if own.get(str(o.resolve())) != fingerprint(str(o))]
    targets = tuple(Target(o, run.overwrite or o not in foreign, run.discard_review) for o in outs)
    for target in targets:
        check_target(target, run.geometry)
    return Outputs(
        folder,
        targets,
        replaces=any(o.exists() for o in foreign),
        block_px=None if found is None else found["block_px"],
        scenes=tuple(found["fixed"]["scenes"]) if found is not None and run.update else None,
        arithmetic={} if found is None else _arithmetic(found),
    )


def _arithmetic(found: dict[str, Any]) -> dict[str, str]:
    """Read runtime and precision from a manifest, where they are known ones."""
    options = found["fixed"].get("options")
    given = options if isinstance(options, dict) else {}
    known = {"runtime": get_args(Runtime), "precision": get_args(DetectPrecision)}
    return {name: given[name] for name, values in known.items() if given.get(name) in values}


def leave_ledger(ledger: Ledger, outputs: Outputs, *, complete: bool, keep: bool) -> None:
    """Remove the ledger of a run whose outputs are written, unless it is of use.

    Args:
        ledger: of the run.
        outputs: that it wrote.
        complete: whether all ground was covered; else the same command retries what failed, and
            may replace what this one wrote.
        keep: keep it in any case.
    """
    if complete and not keep:
        ledger.remove()
        return
    paths = [target.path for target in outputs.targets]
    written = {str(p.resolve()): fingerprint(str(p)) for p in paths}
    ledger.update({"written": written, "complete": complete})


def run_folder(out: Path) -> Path:
    """Name the folder where the ledger of an output lies."""
    return out.with_name(f"{out.name}.run")
