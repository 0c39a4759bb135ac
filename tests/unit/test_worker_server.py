"""What a worker's port says to Prometheus and to whoever restarts it."""

import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from moodline.services.runtime.worker_server import start_worker_server
from moodline.shared.errors import SettingsError
from moodline.shared.metrics import Metrics

Ask = Callable[[str], tuple[int, str]]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def ask(metrics: Metrics, port: int) -> Iterator[Ask]:
    stop = start_worker_server("127.0.0.1", port, metrics)

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


def test_metrics_are_prometheus_text(ask: Ask, metrics: Metrics) -> None:
    metrics.rewinds.inc(3)
    status, text = ask("/metrics")
    assert status == 200
    assert "moodline_rewinds_total 3.0" in text


def test_a_port_that_is_taken_is_named(ask: Ask, port: int) -> None:
    assert ask("/healthz")[0] == 200
    with pytest.raises(SettingsError, match=f"port {port}.*MOODLINE_WORKER_METRICS_PORT"):
        start_worker_server("127.0.0.1", port, Metrics())


def test_a_silent_client_holds_up_nobody(ask: Ask, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert ask("/healthz")[0] == 200
