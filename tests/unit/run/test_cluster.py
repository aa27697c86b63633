"""What the workers of a scheduler are given while they and it come and go, and what is told."""

from __future__ import annotations

import pytest
from support.stubs import tiny_model

from geo_retina.errors import RunError
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.run import cluster

FAR = RunOptions(scheduler="tcp://127.0.0.1:9", patience_s=5.0)


class Client:
    """A client of a scheduler, for which a test says what its workers raise."""

    def __init__(self, outcome: Exception | str) -> None:
        self.outcome, self.is_open = outcome, False

    def __enter__(self) -> Client:
        self.is_open = True
        return self

    def __exit__(self, *_) -> None:
        self.is_open = False

    def tell(self) -> str:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def clients(monkeypatch):
    """Clients that are connected one after the other, by what their workers answer."""
    made: list[Client] = []

    def connect_to(*outcomes):
        rest = iter(outcomes)
        monkeypatch.setattr(
            cluster, "_connect", lambda *_: made.append(Client(next(rest))) or made[-1]
        )
        return made

    waits: list[float] = []
    monkeypatch.setattr(cluster.time, "sleep", waits.append)
    return connect_to


def lost() -> Exception:
    from distributed.comm.core import CommClosedError

    return CommClosedError("in <TCP (closed)>: Stream is closed")


def test_workers_are_told_again_when_one_is_lost_meanwhile(clients):
    made = clients(lost(), OSError("Timed out during handshake"), ConnectionResetError(), "bf16")
    with cluster._told(FAR, Client.tell, 0.0) as (client, answer):
        assert answer == "bf16"
        assert [each.is_open for each in made] == [False, False, False, True]
        assert client is made[-1]
    assert not client.is_open


def test_workers_that_are_lost_again_and_again_are_given_up(clients, monkeypatch):
    made = clients(*[lost() for _ in range(9)])
    now = iter(range(0, 90, 2))
    monkeypatch.setattr(cluster.time, "monotonic", lambda: float(next(now)))
    with (
        pytest.raises(RunError, match="lost again and again while they were given the model"),
        cluster._told(FAR, Client.tell, 0.0),
    ):
        pass
    assert len(made) == 3
    assert not any(each.is_open for each in made)


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'geo_retina'"), OSError(28, "No space left")]
)
def test_what_a_worker_raises_is_told_at_once(clients, error):
    made = clients(error)
    with (
        pytest.raises(RunError, match="install this version of geo-retina"),
        cluster._told(FAR, Client.tell, 0.0),
    ):
        pass
    assert len(made) == 1
    assert not made[0].is_open


def test_a_wait_that_a_run_left_behind_is_not_told_and_other_errors_are(caplog):
    loops = []
    with cluster.workers(tiny_model(), RunOptions(device="cpu"), DetectOptions()) as (client, *_):
        loops.append(client.loop.asyncio_loop)
    for error in (TimeoutError("Timeout"), ValueError("wrong")):
        left = loops[0].create_future()
        left.set_exception(error)
        del left
    told = [record.exc_info[1] for record in caplog.records if record.name == "asyncio"]
    assert [str(error) for error in told] == ["wrong"]
