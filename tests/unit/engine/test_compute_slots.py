"""Who computes at once on a device, and with how many cores."""

import threading
import time
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


def spread(slots, compute, items):
    with slots.taken() as turn:
        return slots.spread(compute, iter(items), turn)


@three_cores
def test_a_free_turn_computes_what_another_has_left(cores):
    together = threading.Barrier(2)

    def compute(item: int) -> tuple[int, int]:
        together.wait(timeout=60)  # nobody goes on alone
        return item, threading.get_ident()

    results = spread(turns_of(), compute, range(6))
    assert [item for item, _ in results] == list(range(6))
    assert len({thread for _, thread in results}) == 2


@three_cores
def test_where_there_is_one_turn_one_thread_computes(cores):
    slots = turns_of(torch.float32)
    assert set(spread(slots, lambda _: threading.get_ident(), range(9))) == {threading.get_ident()}


@three_cores
def test_a_turn_is_given_back_to_who_waits_for_it(cores):
    slots = turns_of()
    together = threading.Barrier(2)
    waited = threading.Event()

    def other() -> None:
        with slots.taken():
            waited.set()

    def compute(item: int) -> int:
        if item == 0:  # and 1: both turns are taken
            together.wait(timeout=60)
            later.append(pool.submit(other))
        elif item == 1:
            together.wait(timeout=60)
        return item

    def items():
        yield from (0, 1)
        for _ in range(6000):
            if waited.wait(0.01):
                return
            yield 2

    later: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:
        assert spread(slots, compute, items())[:2] == [0, 1]
        assert waited.is_set()
        later[0].result(timeout=60)


@three_cores
@pytest.mark.parametrize("bad", [0, 1])  # one of each thread
def test_what_fails_ends_the_rest(cores, bad):
    together = threading.Barrier(2)
    done = []

    def compute(item: int) -> None:
        if item < 2:
            together.wait(timeout=60)
        if item == bad:
            raise ValueError("bad")
        if item >= 2:
            time.sleep(0.001)
        done.append(item)

    with pytest.raises(ValueError, match="bad"):
        spread(turns_of(), compute, range(2000))
    assert len(done) < 1000


@three_cores
def test_one_that_helps_can_take_the_other_turn_when_memory_is_short(cores):
    slots = turns_of()
    together = threading.Barrier(2)

    def compute(item: int) -> int:
        together.wait(timeout=60)
        if threading.get_ident() != mine:
            assert slots.withdraw()  # waits until the thread that it helps has ended its turn
        return item

    mine = threading.get_ident()
    assert spread(slots, compute, range(2)) == [0, 1]
    assert slots.left == 1
    with slots.taken():
        assert slots._free.empty()
