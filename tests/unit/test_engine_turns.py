"""Who computes at once on a device, and with how many cores."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from geo_retina.engine.turns import Turns

CPU = torch.device("cpu")


@pytest.fixture
def three_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def cores_seen(turns: Turns, together: threading.Barrier) -> int:
    with turns.taken():
        together.wait(timeout=60)  # all have their turn
        turns.share()
        seen = torch.get_num_threads()
        together.wait(timeout=60)  # nobody has left
    return seen


def test_one_that_computes_has_all_cores(three_cores):
    assert cores_seen(Turns(CPU), threading.Barrier(1)) == 3


@pytest.mark.parametrize("engines", [1, 2])
def test_those_that_compute_divide_the_cores(three_cores, engines):
    turns = [Turns(CPU) for _ in range(engines)] * (2 // engines)
    together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(cores_seen, turns, [together] * 2)) == [1, 2]
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:  # a thread that comes later
        assert pool.submit(torch.get_num_threads).result() == 3


def test_more_engines_than_cores_have_one_each(three_cores):
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        turns = [Turns(CPU), Turns(CPU)] * 2
        assert list(pool.map(cores_seen, turns, [together] * 4)) == [1, 1, 1, 1]


def test_no_more_than_two_compute_at_once():
    turns = Turns(CPU)
    waiting = threading.Event()

    def third() -> None:
        with turns.taken():
            waiting.set()

    with turns.taken(), ThreadPoolExecutor(1) as pool:
        with turns.taken():
            later = pool.submit(third)
            assert not waiting.wait(0.2)
        later.result(timeout=60)


def test_a_turn_given_up_stays_so():
    turns = Turns(CPU)
    with turns.taken():
        assert turns.withdraw()
        assert not turns.withdraw()
    assert turns.left == 1
    with turns.taken():
        assert turns._free.empty()
