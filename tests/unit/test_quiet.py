"""Silence is counted: it lasts as long as its last user, and leaves what was there."""

import logging
import threading
import warnings

from geo_retina.quiet import ignored_warnings, raised_levels


def overlapping(first, second):
    """Enter first, then second in another thread; leave them in the same order."""
    inside, left = threading.Event(), threading.Event()

    def other():
        with second:
            inside.set()
            assert left.wait(10)

    thread = threading.Thread(target=other)
    with first:
        thread.start()
        assert inside.wait(10)
    yield
    left.set()
    thread.join()
    yield


def test_level_lasts_until_the_last_thread_has_left():
    logger = logging.getLogger("test.quiet")
    logger.setLevel(logging.INFO)
    step = overlapping(*(raised_levels({"test.quiet": logging.ERROR}) for _ in range(2)))
    next(step)
    assert logger.level == logging.ERROR  # one thread still needs it
    next(step)
    assert logger.level == logging.INFO


def test_warnings_are_ignored_until_the_last_thread_has_left_and_as_before_then():
    before = list(warnings.filters)
    step = overlapping(ignored_warnings("first"), ignored_warnings("second"))
    next(step)
    warnings.warn("second", stacklevel=1)  # would be an error here
    next(step)
    assert list(warnings.filters) == before


def test_the_callers_filters_come_back_after_an_error():
    before = list(warnings.filters)
    try:
        with ignored_warnings("x"):
            raise KeyError
    except KeyError:
        pass
    assert list(warnings.filters) == before
