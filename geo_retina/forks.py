"""What a forked child of this process can still do: threads are not there, nor is a GPU.

``multiprocessing`` forks by default on Linux before Python 3.14. The child has PyTorch's pool of
threads without its threads, and waits for ever for what it gives them.
"""

from __future__ import annotations

import os
import signal
import sys

from geo_retina.errors import RunError


class _Process:
    """What this process has done, and what it was forked with."""

    def __init__(self) -> None:
        self.has_run = False
        self.had_gpu = False
        self.has_torch_threads = True
        self.parent_has_run = False


_process = _Process()


def check_forked() -> None:
    """Make a forked child fit to compute, on one thread, and remember that this process does.

    Raises:
        RunError: its parent had a GPU, or has detected or trained before it was forked.
    """
    if _process.parent_has_run or _process.had_gpu:
        what = "has detected or trained before" if _process.parent_has_run else "uses a GPU"
        raise RunError(
            f"this process was forked from one that {what}, and lacks its threads and device; "
            'start it with multiprocessing.get_context("spawn")'
        )
    use_own_threads()
    _process.has_run = True


def use_own_threads() -> None:
    """Let PyTorch compute on this thread alone where the others were lost by a fork."""
    if _process.has_torch_threads:
        return
    import torch

    torch.set_num_threads(1)
    _process.has_torch_threads = True


def _before() -> None:
    torch = sys.modules.get("torch")
    _process.had_gpu = bool(torch and hasattr(torch, "cuda") and torch.cuda.is_initialized())


def _in_child() -> None:
    _process.parent_has_run = _process.parent_has_run or _process.has_run
    _process.has_run = False
    _process.has_torch_threads = "torch" not in sys.modules
    # A handler of Python's waits for code in C to return, so that terminate() would not end it.
    if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before, after_in_child=_in_child)
