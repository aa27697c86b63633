"""The command line: parse, call one library function, print.

Flags, their help and their defaults derive from the dataclasses in ``options``; nothing is
stated twice. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some ground not covered,
130 interrupted, 141 nobody reads what is printed any longer.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from geo_retina.cli import (
    _api,
    _demo,
    _detect,
    _export,
    _filter,
    _flags,
    _import,
    _inspect,
    _measure,
    _merge,
    _preview,
    _review,
    _streams,
    _train,
    _voice,
)
from geo_retina.cli._option_names import answering, flag_name, register
from geo_retina.errors import GeoRetinaError, OptionError

_PIPE_GONE = 141  # as of a program that SIGPIPE ends

_LONGEST_NAME = 1000

_UNPRINTED = "standard output cannot be written ({}); send what is printed elsewhere"

_EPILOGUE = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some ground not covered."


def _version() -> str:
    from geo_retina import __version__

    return __version__


app = App(
    name="geo-retina",
    help="Detect objects in satellite and aerial imagery.",
    help_epilogue=_EPILOGUE,
    help_format="markdown",
    version=_version,
    default_parameter=Parameter(
        name_transform=flag_name, negative_iterable="", consume_multiple=True
    ),
    config=[_flags.read_config_flag, _flags.tidy_values],
)
COMMANDS: tuple[Callable[..., Any], ...] = (
    _demo.demo,
    _detect.detect,
    _train.train,
    _train.check_labels,
    _import.import_,
    _import.calibrate,
    _import.quantize,
    _measure.evaluate,
    _measure.compare,
    _measure.estimate,
    _preview.preview,
    _preview.tiles,
    _inspect.find,
    _inspect.models,
    _inspect.info,
    _detect.plan,
    _detect.gather,
    _filter.filter_,
    _merge.merge,
    _review.review,
    _export.export_chips,
    _export.export_onnx,
    _export.export_stac,
)
for _place, _command in enumerate(COMMANDS):
    register(_command)
    app.command(_command, name=flag_name(_command.__name__), sort_key=_place)


@app.meta.default
def _run(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(negative="")] = False,
    api: Annotated[bool, Parameter(negative="")] = False,
    devices: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Detect objects in satellite and aerial imagery.

    Args:
        tokens: The command and what belongs to it.
        debug: Show the traceback of an error.
        api: Print as JSON what this version offers to programs.
        devices: With --api, also the devices it can use and versions of packages.
    """
    if api:
        return _guard(lambda: _api.print_api(app, devices=devices), debug=debug)
    commands = {flag_name(command.__name__): command for command in COMMANDS}
    with answering(commands.get(tokens[0]) if tokens else None):
        return _guard(lambda: _call(app, tokens), debug=debug)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: arguments after the program's name; left out, those of this process.

    Returns:
        The exit code.
    """
    tokens = _voice.bind_dashes(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _streams.open_streams()
        # A cluster's scheduler ends jobs so; Ctrl-C and it leave the same behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _voice.speaking(tokens), _flags.tell_old_names():
        code = _guard(lambda: _call(app.meta, _flags.with_new_flags(tokens)), debug=False)
        fault = _voice.finish(code)
        return code if fault is None else _unheard(fault, code)


def _call(parser: App, tokens: Sequence[str]) -> int:
    """Parse the tokens, strictly, and run the command they name."""
    command, bound, _ = parser.parse_args(tokens, exit_on_error=False, print_error=False)
    reporting = next((v for v in bound.arguments.values() if isinstance(v, _voice.Reporting)), None)
    if parser is app:
        name = flag_name(getattr(command, "__name__", ""))
        _voice.begin(name, reporting or _voice.REPORTING)
    result: Any = command(*bound.args, **bound.kwargs)
    return result if isinstance(result, int) else 0


def _guard(run: Callable[[], int], *, debug: bool) -> int:
    """Turn what went wrong into one sentence and an exit code."""
    try:
        code = run()
        sys.stdout.flush()  # now, not when the interpreter ends
        return code
    except BrokenPipeError:  # whoever read what is printed, such as head, has seen enough
        _streams.end_output()
        return _PIPE_GONE
    except _streams.OutputFault as error:
        _streams.end_output()
        return _fail(_UNPRINTED.format(error.strerror), 1, debug=debug)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, debug=debug)
    except (CycloptsError, OptionError) as error:
        return _fail(str(error), 2, debug=debug)
    except GeoRetinaError as error:
        return _fail(str(error), 1, debug=debug)
    except UnicodeEncodeError as error:
        text = ascii(error.object) if len(error.object) < _LONGEST_NAME else "of a file"
        return _fail(
            f"the name {text} is not UTF-8 as this program was started, expected UTF-8, as GDAL "
            f"and GeoPackages have it; rename the file, or start with LC_ALL=C.UTF-8",
            1,
            debug=debug,
        )
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error}"
        return _fail(f"{text}; --debug shows where", 1, debug=debug)


def _fail(sentence: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    _voice.fail(" ".join(sentence.split()))
    return code


def _unheard(fault: OSError, code: int) -> int:
    """Give the exit code of a command whose events nobody took."""
    if code or isinstance(fault, BrokenPipeError):
        return code or _PIPE_GONE
    return _fail(_UNPRINTED.format(fault.strerror), 1, debug=False)
