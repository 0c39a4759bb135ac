"""What a worker's port says to Prometheus and to whoever restarts it."""

import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from moodline.services.runtime.liveness import Deadline
from moodline.services.runtime.worker_server import start_worker_server
from moodline.shared.errors import SettingsError
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.health import Health
from tests.support.clocks import SleepingClock

Ask = Callable[[str], tuple[int, str]]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def clock() -> SleepingClock:
    return SleepingClock()


@pytest.fixture
def health(metrics: Metrics, clock: SleepingClock) -> Health:
    return Health(metrics, clock)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def ask(metrics: Metrics, health: Health, port: int) -> Iterator[Ask]:
    stop = start_worker_server("127.0.0.1", port, metrics, health)

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    yield get
    stop()


def test_it_is_alive_from_the_start(ask: Ask) -> None:
    assert ask("/healthz") == (200, "ok\n")


def test_it_is_ready_while_its_loop_runs(ask: Ask, metrics: Metrics) -> None:
    assert ask("/readyz")[0] == 503
    metrics.worker_up.labels("detector").set(1)
    assert ask("/readyz") == (200, "ready\n")
    metrics.worker_up.labels("detector").set(0)
    assert ask("/readyz")[0] == 503


def test_a_loop_that_does_not_turn_is_not_alive(ask: Ask, health: Health, clock: SleepingClock) -> None:
    health.turned("detector")
    clock.time_s += 119
    assert ask("/healthz")[0] == 200
    clock.time_s += 2
    assert ask("/healthz") == (503, "the loop of detector has not turned for 121 s\n")


def test_waiting_for_a_bus_is_alive_but_not_ready(ask: Ask, metrics: Metrics, health: Health) -> None:
    metrics.worker_up.labels("detector").set(1)
    health.waits("detector", "bus: no answer")
    assert ask("/healthz")[0] == 200
    assert ask("/readyz") == (503, "detector waits: bus: no answer\n")
    health.turned("detector")
    assert ask("/readyz") == (200, "ready\n")


def test_a_partition_that_stands_still_is_named(ask: Ask, health: Health) -> None:
    place = ("moodline.frames.live.v1", 3)
    health.turned("detector")
    health.standing("detector", {place: 20.0})
    assert ask("/healthz")[0] == 200, "the consumer's own watch is at it"
    health.standing("detector", {place: 61.0})
    assert ask("/healthz") == (503, "detector has not read partition 3 of moodline.frames.live.v1 for 61 s\n")
    assert (
        'moodline_standstill_seconds{partition="3",topic="moodline.frames.live.v1",worker="detector"} 61.0' in ask("/metrics")[1]
    )
    deadline = Deadline(health, patience_s=60.0)
    assert deadline.overdue(0.0) is None
    assert deadline.overdue(59.0) is None
    assert deadline.overdue(60.0) is not None, "Compose restarts only what ends"
    health.standing("detector", {})
    assert ask("/healthz")[0] == 200
    told = [line for line in ask("/metrics")[1].splitlines() if line.startswith("moodline_standstill_seconds{")]
    assert told == ['moodline_standstill_seconds{partition="",topic="",worker="detector"} 0.0'], (
        "nothing stands still, and it says so"
    )
    assert deadline.overdue(61.0) is None


def test_metrics_are_prometheus_text(ask: Ask, metrics: Metrics) -> None:
    metrics.rewinds.inc(3)
    status, text = ask("/metrics")
    assert status == 200
    assert "moodline_rewinds_total 3.0" in text


def test_a_port_that_is_taken_is_named(ask: Ask, port: int) -> None:
    assert ask("/healthz")[0] == 200
    with pytest.raises(SettingsError, match=f"port {port}.*MOODLINE_WORKER_METRICS_PORT"):
        start_worker_server("127.0.0.1", port, Metrics(), Health(Metrics(), SleepingClock()))


def test_a_silent_client_holds_up_nobody(ask: Ask, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert ask("/healthz")[0] == 200
