"""Who computes at once on a device, and with how many cores."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from geo_retina.engine.compute_slots import ComputeSlots, slots_of


def turns_of(dtype: torch.dtype = torch.bfloat16) -> ComputeSlots:
    cpu = torch.device("cpu")
    return ComputeSlots(cpu, slots_of(cpu, dtype))


@pytest.fixture
def cores(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


three_cores = pytest.mark.parametrize("cores", [3], indirect=True)


def cores_seen(slots: ComputeSlots, together: threading.Barrier) -> int:
    with slots.taken():
        together.wait(timeout=60)  # all have their turn
        slots.share()
        seen = torch.get_num_threads()
        together.wait(timeout=60)  # nobody has left
    return seen


@three_cores
def test_one_that_computes_has_all_cores(cores):
    assert cores_seen(turns_of(), threading.Barrier(1)) == 3


@three_cores
@pytest.mark.parametrize("engines", [1, 2])
def test_those_that_compute_divide_the_cores(cores, engines):
    slots = [turns_of() for _ in range(engines)] * (2 // engines)
    together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(cores_seen, slots, [together] * 2)) == [1, 2]
    with ThreadPoolExecutor(1) as pool:  # a thread that comes later
        assert pool.submit(torch.get_num_threads).result() == 3


@three_cores
def test_more_engines_than_cores_have_one_each(cores):
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        slots = [turns_of(), turns_of()] * 2
        assert list(pool.map(cores_seen, slots, [together] * 4)) == [1, 1, 1, 1]


@three_cores
def test_no_more_than_two_compute_at_once(cores):
    slots = turns_of()
    waiting = threading.Event()

    def third() -> None:
        with slots.taken():
            waiting.set()

    with slots.taken(), ThreadPoolExecutor(1) as pool:
        with slots.taken():
            later = pool.submit(third)
            assert not waiting.wait(0.2)
        later.result(timeout=60)


@three_cores
def test_a_turn_given_up_stays_so(cores):
    slots = turns_of()
    with slots.taken():
        assert slots.withdraw()
        assert not slots.withdraw()
    assert slots.left == 1
    with slots.taken():
        assert slots._free.empty()


@pytest.mark.parametrize(("cores", "slots"), [(1, 1), (2, 2), (5, 2)], indirect=["cores"])
def test_a_process_of_one_core_computes_once_at_a_time(cores, slots):
    assert turns_of().left == slots
    together = threading.Barrier(slots)
    several = [turns_of()] * slots
    with ThreadPoolExecutor(slots) as pool:
        assert sum(pool.map(cores_seen, several, [together] * slots)) == torch.get_num_threads()


@three_cores
def test_arithmetic_that_depends_on_the_number_of_cores_has_one_turn(cores):
    assert turns_of(torch.float32).left == 1
    assert turns_of(torch.bfloat16).left == 2


@three_cores
def test_a_thread_that_began_with_a_share_has_all_cores_when_alone(cores):
    slots = turns_of()
    begun, go_on = threading.Event(), threading.Event()

    def late() -> tuple[int, int]:
        first = torch.get_num_threads()
        begun.set()
        assert go_on.wait(timeout=60)
        return first, cores_seen(slots, threading.Barrier(1))

    def share(together: threading.Barrier) -> None:
        with slots.taken():
            together.wait(timeout=60)
            slots.share()
            together.wait(timeout=60)
            if threading.current_thread().name.endswith("_0"):
                found.append(pool_of_one.submit(late))
                assert begun.wait(timeout=60)
            together.wait(timeout=60)

    found: list[Future[tuple[int, int]]] = []
    with ThreadPoolExecutor(1) as pool_of_one:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(share, [threading.Barrier(2)] * 2))
        go_on.set()
        first, alone = found[0].result(timeout=60)
    assert first < 3
    assert alone == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3
